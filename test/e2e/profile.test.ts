import { expect } from "bun:test";
import { firstBoot } from "../fabric/scenarios.ts";
import { concurrentUnless, missing } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox, isAlive } from "./sandbox.ts";

/** `Agent.Profile` and `-run-exthandlers`: what each does, and what each leaves alone. */
const able = canSandbox();
const profileTest = concurrentUnless(
  able.ok ? missing({ programs: ["useradd", "openssl", "iptables"] }) : able.reason,
);

/** With the firewall on, so that it shows whether the machine is kept. */
const CONF = AGENT_CONF.replace("OS.EnableFirewall=n", "OS.EnableFirewall=y");
const profile = (name: string): string => `${CONF}Agent.Profile=${name}\n`;

async function firewall(guest: Guest): Promise<boolean> {
  const { stdout } = await guest.sandbox.run(["iptables", "-w", "-t", "security", "-S", "OUTPUT"], {
    allowFailure: true,
  });
  return stdout.includes("168.63.129.16");
}

const isProvisioned = (guest: Guest): boolean =>
  guest.sandbox.read("/etc/passwd").includes("azureuser:");
const kinds = (guest: Guest): ReadonlySet<string> =>
  new Set(guest.fabric.requests.map((one) => one.kind));

async function until(condition: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt += 1) {
    if (await condition()) return;
    await Bun.sleep(50);
  }
  throw new Error(`There was not ${what} within 20 s`);
}

/** Two polls more, so that what is not done would have been. */
const aWhile = (): Promise<void> => Bun.sleep(3000);

profileTest(
  "full: provisions, keeps the machine, runs extensions, reports",
  async () => {
    await using guest = await startGuest(firstBoot(), { configuration: profile("full") });
    await guest.until("ready");
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    await until(() => firewall(guest), "a firewall");
    const status = () => guest.sandbox.run(["/usr/sbin/waagent", "status"], { allowFailure: true });
    await until(
      async () => /^firewall: ok since .*: iptables$/m.test((await status()).stdout),
      "its mention",
    );
    expect(isProvisioned(guest)).toBe(true);
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

profileTest(
  "extensions-only: runs extensions and reports, beside something else that provisions and keeps the machine",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      configuration: profile("extensions-only"),
    });
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    await aWhile();
    expect(journal(guest.sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
    expect(isProvisioned(guest)).toBe(false);
    expect(guest.sandbox.exists("/var/lib/waagent/provisioned")).toBe(false);
    expect(await firewall(guest)).toBe(false);
    await guest.until("telemetry");
    // Ready is what the one that provisions says.
    expect(guest.fabric.healthReports).toEqual([]);
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

profileTest(
  "provision-only: provisions, says Ready, and is silent from then on",
  async () => {
    await using guest = await startGuest(firstBoot(), { configuration: profile("provision-only") });
    await guest.until("ready", { timeoutMs: 40_000 });
    await until(
      () => guest.agent.output().includes("Agent.Profile is provision-only: nothing else is done"),
      "the end of its work",
    );
    const asked = guest.fabric.requests.length;
    await aWhile();
    expect(guest.fabric.requests.length).toBe(asked);
    expect(isProvisioned(guest)).toBe(true);
    expect(journal(guest.sandbox)).toEqual([]);
    expect(await firewall(guest)).toBe(false);
    for (const kind of ["plugin-status", "status-blob", "telemetry", "package"])
      expect(kinds(guest)).not.toContain(kind);
    expect(guest.fabric.healthReports.at(-1)?.state).toBe("Ready");
    guest.agent.signal("SIGTERM");
    expect(await guest.agent.exited).toBe(0);
  },
  90_000,
);

profileTest(
  "extensions.md EXT-20: report-only: extensions are told to be off and nothing of the machine is touched",
  async () => {
    await using guest = await startGuest(firstBoot(), { configuration: profile("report-only") });
    await guest.until("status:Fabric.Demo=error", { timeoutMs: 40_000 });
    const handler =
      guest.fabric.statusDocuments.at(-1)!.document.aggregateStatus.handlerAggregateStatus[0]!;
    expect(handler).toMatchObject({ handlerName: "Fabric.Demo", status: "NotReady" });
    expect(JSON.stringify(handler)).toContain(
      "Extension 'Fabric.Demo' will not be processed since extension processing is disabled.",
    );
    await aWhile();
    expect(journal(guest.sandbox)).toEqual([]);
    expect(isProvisioned(guest)).toBe(false);
    expect(await firewall(guest)).toBe(false);
    expect(kinds(guest)).not.toContain("package");
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

profileTest(
  "provisioning.md CLI-25; system.md DAEMON-16 THR-03; extensions.md RUN-14: -run-exthandlers handles goal states below its daemon without provisioning, and ends when that is gone",
  async () => {
    // Another daemon, as far as anybody can see: its pid file names it, and it started us.
    const daemon = `#!/bin/bash
echo -n $$ >/var/run/waagent.pid
/usr/sbin/waagent -run-exthandlers & echo -n $! >/run/handler.pid; exec -a waagent-daemon sleep 1000
`;
    await using guest = await startGuest(firstBoot(), {
      configuration: CONF,
      program: "/usr/local/sbin/other-daemon",
      prepare: (sandbox) => sandbox.write("/usr/local/sbin/other-daemon", daemon, 0o755),
    });
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
    await until(() => firewall(guest), "a firewall");
    expect(isProvisioned(guest)).toBe(false);
    expect(guest.fabric.healthReports).toEqual([]);
    const inside = guest.sandbox.read("/run/handler.pid");
    expect(guest.sandbox.read("/run/0_waagent.pid")).toBe(inside);
    // Its daemon's pid file is not its own to write.
    expect(guest.sandbox.read("/run/waagent.pid")).not.toBe(inside);
    const lines = guest.agent.output().split("\n");
    expect(lines.filter((line) => / (INFO|WARNING|ERROR) Daemon /.test(line))).toEqual([]);
    guest.agent.signal("SIGKILL");
    await until(
      async () =>
        (await guest.sandbox.run(["test", "-d", `/proc/${inside}`], { allowFailure: true }))
          .code !== 0 || !(await isRunning(guest, inside)),
      "the end of the orphan",
    );
    expect(guest.agent.output()).toContain("The daemon that started this process is gone, ending");
    expect(isAlive(guest.sandbox.pid)).toBe(true);
  },
  90_000,
);

async function isRunning(guest: Guest, pid: string): Promise<boolean> {
  const { stdout } = await guest.sandbox.run(["cat", `/proc/${pid}/stat`], { allowFailure: true });
  return stdout !== "" && !/\) [ZX] /.test(stdout);
}
