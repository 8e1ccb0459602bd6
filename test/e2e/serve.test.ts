import { expect } from "bun:test";
import { VERSION } from "../../src/base/identity.ts";
import type { RecordedRequest } from "../fabric/request.ts";
import { DEMO_PACKAGE, firstBoot } from "../fabric/scenarios.ts";
import { concurrentUnless, missing } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox } from "./sandbox.ts";

/** The part of the agent that handles goal states: how it starts, how often it looks, how it ends. */
const able = canSandbox();
const serveTest = concurrentUnless(
  able.ok ? missing({ programs: ["useradd", "openssl", "pgrep"] }) : able.reason,
);

const LIB = "/var/lib/waagent";

async function until(condition: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt += 1) {
    if (await condition()) return;
    await Bun.sleep(50);
  }
  throw new Error(`There was not ${what} within 30 s`);
}

const now = (guest: Guest): number => Date.now() - guest.fabric.startedAt;
const since = (guest: Guest, at: number): readonly RecordedRequest[] =>
  guest.fabric.requests.filter((one) => one.at >= at);
const mode = async (guest: Guest, file: string): Promise<string> =>
  (await guest.sandbox.run(["stat", "-c", "%a", file])).stdout.trim();
const isSleeping = async (guest: Guest, seconds: number): Promise<boolean> =>
  (await guest.sandbox.run(["pgrep", "-xf", `sleep ${seconds}`], { allowFailure: true })).code ===
  0;

serveTest(
  "extensions.md RUN-11; system.md DAEMON-19 DAEMON-20: a start waits for the first goal state, puts the state directory in order, and tells how the last run ended",
  async () => {
    await using guest = await startGuest(firstBoot());
    const { sandbox, fabric } = guest;
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    guest.agent.signal("SIGTERM");
    expect(await guest.agent.exited).toBe(0);
    expect(sandbox.exists(`${LIB}/current_version`)).toBe(false);

    const environment = `${LIB}/Fabric.Demo-1.0.0/HandlerEnvironment.json`;
    const before = sandbox.read(environment);
    await sandbox.run(["rm", environment]);
    sandbox.write(`${LIB}/current_version`, "[WALinuxAgent-2.9.9.9] [it broke on a Sunday]");
    sandbox.write(`${LIB}/old.pem`, "left by an older agent", 0o644);
    sandbox.write(`${LIB}/Prod.1.manifest.xml`, "left by an older agent");
    await sandbox.run(["rm", "-f", `${LIB}/microsoft_root_certificate.pem`]);
    await fabric.addFault({
      request: { kind: "goal-state" },
      fault: { kind: "status", status: 500 },
      times: 3,
    });
    const restarted = now(guest);
    guest.restart();
    await guest.until("status:Fabric.Demo=success", { after: restarted, timeoutMs: 60_000 });

    const output = guest.agent.output();
    expect(output).toContain(
      `INFO ExtHandler ExtHandler Azure Linux Agent (Goal State Agent version ${VERSION})`,
    );
    const asked = since(guest, restarted);
    const first = asked.findIndex((one) => one.kind === "goal-state" && one.status === 200);
    expect(asked.filter((one) => one.kind === "goal-state" && one.status === 500)).toHaveLength(3);
    const early = new Set(asked.slice(0, first).map((one) => one.kind));
    for (const kind of ["telemetry", "plugin-status", "status-blob", "extensions-config"] as const)
      expect(early).not.toContain(kind);

    expect(await mode(guest, `${LIB}/old.pem`)).toBe("400");
    expect(sandbox.exists(`${LIB}/Prod.1.manifest.xml`)).toBe(false);
    expect(sandbox.exists(`${LIB}/current_version`)).toBe(false);
    expect(sandbox.read(environment)).toBe(before);

    expect(sandbox.exists(`${LIB}/microsoft_root_certificate.pem`)).toBe(true);
    // Nothing ran twice because of it.
    expect(journal(sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
    await until(
      () =>
        fabric.telemetryEvents.some(
          ({ parameters }) =>
            parameters["Operation"] === "Restart" &&
            String(parameters["Message"]).includes("it broke on a Sunday"),
        ),
      "the event about the last run",
    );
    expect(fabric.violations).toEqual([]);
  },
  120_000,
);

serveTest(
  "extensions.md RUN-13 RUN-17; system.md DAEMON-17: it looks often until the first goal state has converged, then at its period, and says that it lives",
  async () => {
    const enable =
      'report transitioning "later"; (sleep 5; report success "at last") >/dev/null 2>&1 & exit 0';
    await using guest = await startGuest(
      { ...firstBoot(), packages: [{ ...DEMO_PACKAGE, scripts: { enable } }] },
      {
        configuration: AGENT_CONF.replace("GoalStatePeriod=1", "GoalStatePeriod=4"),
      },
    );
    await guest.until("status:Fabric.Demo=transitioning", { timeoutMs: 40_000 });
    const began = now(guest);
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    const converged = now(guest);
    await until(() => guest.sandbox.exists(`${LIB}/initial_goal_state`), "the mark of convergence");
    await Bun.sleep(14_000);
    const polls = guest.fabric.requests
      .filter((one) => one.kind === "goal-state")
      .map((one) => one.at);
    const gaps = (from: number, to: number): readonly number[] => {
      const times = polls.filter((at) => at >= from && at < to);
      return times.slice(1).map((at, index) => at - (times[index] ?? 0));
    };
    const early = gaps(began, converged - 500);
    const late = gaps(converged + 1500, Number.POSITIVE_INFINITY);
    expect(early.length).toBeGreaterThanOrEqual(2);
    expect(Math.min(...early)).toBeLessThan(2500);
    expect(late.length).toBeGreaterThanOrEqual(1);
    expect(Math.min(...late)).toBeGreaterThan(3500);
    expect(Math.max(...late)).toBeLessThan(7000);
    expect(guest.agent.output()).toContain(
      `[HEARTBEAT] Agent WALinuxAgent-${VERSION} is running as the goal state agent`,
    );
    expect(guest.fabric.violations).toEqual([]);
  },
  120_000,
);

serveTest(
  "extensions.md RUN-13 EXT-20; system.md DAEMON-17: with Extensions.Enabled=n it looks every 300 s, whatever the period says",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      configuration: `${AGENT_CONF}Extensions.Enabled=n\n`,
    });
    await guest.until("status:Fabric.Demo=error", { timeoutMs: 40_000 });
    await Bun.sleep(2000);
    const settled = now(guest);
    await Bun.sleep(5000);
    const later = since(guest, settled).map((one) => one.kind);
    expect(later.filter((kind) => kind === "goal-state" || kind === "vm-settings")).toEqual([]);
    expect(journal(guest.sandbox)).toEqual([]);
  },
  90_000,
);

serveTest(
  "extensions.md RUN-06 RUN-19; system.md DAEMON-14: SIGTERM ends the agent with 0 and no sentinel; a command of an extension is not signalled, and the next agent waits for it",
  async () => {
    await using guest = await startGuest({
      ...firstBoot(),
      packages: [{ ...DEMO_PACKAGE, scripts: { enable: "sleep 6" } }],
    });
    await guest.until("ready");
    await until(() => isSleeping(guest, 6), "the command");
    guest.agent.signal("SIGTERM");
    expect(await guest.agent.exited).toBe(0);
    expect(await isSleeping(guest, 6)).toBe(true);
    expect(guest.sandbox.exists(`${LIB}/current_version`)).toBe(false);
    const users = guest.sandbox.read("/etc/passwd");
    guest.restart();
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    expect(journal(guest.sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
    // Neither provisioning nor its reports are done again.
    expect(guest.fabric.healthReports.map((one) => one.state)).toEqual(["NotReady", "Ready"]);
    expect(guest.sandbox.read("/etc/passwd")).toBe(users);
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

serveTest(
  "system.md THR-03 THR-06: one process is daemon and goal state agent: both pid files name it, its command line says what it is, and it lives on as a child of process 1",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      program: "/usr/local/sbin/leave-it-alone",
      prepare: (sandbox) =>
        sandbox.write(
          "/usr/local/sbin/leave-it-alone",
          "#!/bin/sh\n(/usr/sbin/waagent -daemon &)\nexec sleep 1000\n",
          0o755,
        ),
    });
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    const pid = guest.sandbox.read("/run/waagent.pid");
    expect(guest.sandbox.read("/run/0_waagent.pid")).toBe(pid);
    const proc = async (file: string): Promise<string> =>
      (await guest.sandbox.run(["cat", `/proc/${pid}/${file}`])).stdout;
    expect(await proc("cmdline")).toBe("/usr/sbin/waagent\0-daemon\0");
    expect(await proc("status")).toMatch(/^PPid:\t1$/m);
    const { stdout } = await guest.sandbox.run(["pgrep", "-x", "waagent"]);
    expect(stdout.trim()).toBe(pid);
    const polled = now(guest);
    await guest.fabric.waitFor(
      (event) =>
        event.at > polled && event.type === "request" && event.request.kind === "goal-state",
      10_000,
      "another look at the goal state",
    );
  },
  90_000,
);
