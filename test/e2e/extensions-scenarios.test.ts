import path from "node:path";
import { expect } from "bun:test";
import { VERSION } from "../../src/base/identity.ts";
import { parseJson, type JsonObject } from "../../src/base/json.ts";
import { isEvent } from "../fabric/fabric.ts";
import type { ExtensionDescription, Scenario } from "../fabric/scenario.ts";
import { DEMO_PACKAGE, DEMO_SECRET, demoExtension } from "../fabric/scenarios.ts";
import { concurrentUnless, missing } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox, type Sandbox } from "./sandbox.ts";

/** Scenarios that the reference is accepted by (`extensions.md` §19), as far as they need no Azure. */
const able = canSandbox();
const guestTest = concurrentUnless(
  able.ok ? missing({ programs: ["openssl", "iptables", "setpriv"] }) : able.reason,
);

const CONFIGURATION = AGENT_CONF.replace(
  "Provisioning.Agent=waagent",
  "Provisioning.Agent=disabled",
);
const LIB = "/var/lib/waagent";
const LOG = "/var/log/waagent.log";

const running: Scenario = {
  dhcp: {},
  packages: [DEMO_PACKAGE],
  goalStates: [{ incarnation: "1", extensions: [demoExtension()] }],
};
const now = (guest: Guest): number => Date.now() - guest.fabric.startedAt;
const commands = (guest: Guest): readonly string[] =>
  journal(guest.sandbox).map((one) => `${one.command} ${one.sequence} ${one.version}`);

async function eventually(what: string, condition: () => boolean | Promise<boolean>) {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`Not within 30 s: ${what}`);
    await Bun.sleep(50);
  }
}

/** A status with success for these settings of the demo handler. */
async function enabled(guest: Guest, sequence: number, timeoutMs = 30_000): Promise<void> {
  await guest.fabric
    .waitFor(
      (event) =>
        event.type === "status" &&
        isEvent(event, "status:Fabric.Demo=success") &&
        event.status.document.aggregateStatus.handlerAggregateStatus[0]?.runtimeSettingsStatus
          ?.sequenceNumber === sequence,
      timeoutMs,
      `success with settings ${sequence}`,
    )
    .catch((error: Error) => {
      throw new Error(`${error.message}\n${guest.agent.output().slice(-3000)}`);
    });
}

/** Lines of the agent's log with their time, ms since 1970. */
function logLines(sandbox: Sandbox): { readonly at: number; readonly text: string }[] {
  const text = sandbox.exists(LOG) ? sandbox.read(LOG) : "";
  return text
    .split("\n")
    .map((line) => ({ at: Date.parse(line.slice(0, line.indexOf(" "))), text: line }))
    .filter(({ at }) => !Number.isNaN(at));
}

guestTest(
  "extensions.md E2E-08 E2E-15: after each start the pass is over without delay, and the status goes on being fresh with no goal state to process",
  async () => {
    await using guest = await startGuest(running, { configuration: CONFIGURATION });
    await enabled(guest, 0);
    guest.agent.signal("SIGTERM");
    await guest.agent.exited;
    const restarted = now(guest);
    guest.restart();
    const again = await guest.until("status:Fabric.Demo=success", { after: restarted });
    const passesOver = () =>
      logLines(guest.sandbox).filter(({ text }) => text.includes("GoalState completed [")).length;
    await eventually("the second pass is over", () => passesOver() === 2);
    const lines = logLines(guest.sandbox);
    const banners = lines.filter(({ text }) =>
      text.includes(`(Goal State Agent version ${VERSION})`),
    );
    expect(banners).toHaveLength(2);
    for (const banner of banners) {
      const over = lines.find(
        ({ at, text }) =>
          at >= banner.at && text.includes("ProcessExtensionsGoalState completed ["),
      );
      const duration = Number(/ (\d+) ms\]/.exec(over?.text ?? "")?.[1]);
      expect(over!.at - banner.at - duration).toBeLessThanOrEqual(15_000);
    }

    const passes = (): number =>
      logLines(guest.sandbox).filter(({ text }) => text.includes("GoalState started [")).length;
    const before = passes();
    const fresh = new Set<string>();
    await guest.fabric.waitFor(
      (event) => {
        if (event.type !== "status" || event.at <= again.at) return false;
        const { guestAgentStatus } = event.status.document.aggregateStatus;
        expect(guestAgentStatus).toMatchObject({
          version: VERSION,
          status: "Ready",
          formattedMessage: { message: "Guest Agent is running" },
        });
        fresh.add(event.status.document.timestampUTC);
        return fresh.size >= 3;
      },
      30_000,
      "two more times of the status",
    );
    expect(passes()).toBe(before);
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);

guestTest(
  "extensions.md E2E-18: the first pass waits for cloud-init, and says so",
  async () => {
    await using guest = await startGuest(running, {
      configuration: `${CONFIGURATION}Extensions.WaitForCloudInit=y\n`,
      prepare: (sandbox) => {
        // Stands for the one of an image whose user data takes its time.
        sandbox.write(
          "/usr/bin/cloud-init",
          '#!/bin/sh\n[ "$*" = "status --wait" ] || exit 9\nwhile [ ! -e /run/script-over ]; do sleep 0.1; done\necho "status: done"\n',
          0o755,
        );
        sandbox.write("/run/script-begun", "");
      },
    });
    const { sandbox } = guest;
    const said = (words: string) => logLines(sandbox).find(({ text }) => text.includes(words));
    await eventually(
      "the agent waits",
      () => said("Waiting for cloud-init to complete") !== undefined,
    );
    await Bun.sleep(1500);
    expect(said("ProcessExtensionsGoalState started")).toBeUndefined();
    expect(commands(guest)).toEqual([]);
    const over = Date.now();
    sandbox.write("/run/script-over", "");
    await enabled(guest, 0);
    expect(said("Waiting for cloud-init to complete")!.at).toBeLessThan(over);
    const completed = said("cloud-init completed")!.at;
    expect(completed).toBeGreaterThanOrEqual(over);
    expect(said("ProcessExtensionsGoalState started")!.at).toBeGreaterThanOrEqual(completed);
  },
  60_000,
);

guestTest(
  "extensions.md E2E-28: events of an extension are counted, bad ones are dropped with their reasons, and the folder outlives an enable",
  async () => {
    await using guest = await startGuest(running, {
      configuration: `${CONFIGURATION}Debug.EtpCollectionPeriod=1\n`,
    });
    const { sandbox, fabric } = guest;
    await enabled(guest, 0);
    const folder = "/var/log/azure/Fabric.Demo/events";
    const inode = async () => (await sandbox.run(["stat", "-c", "%i", folder])).stdout;
    const first = await inode();
    const event = (message: string) => ({
      ...{ Version: "1.0", Timestamp: "2030-01-01T00:00:00Z", TaskName: "t", EventLevel: "Info" },
      ...{ Message: message, EventPid: "1", EventTid: "2", OperationId: "o" },
    });
    const { TaskName: _, ...incomplete } = event("no task");
    const deliver = async (name: string, events: readonly unknown[]): Promise<void> => {
      sandbox.write(`/tmp/${name}`, JSON.stringify(events));
      // Whole at once, as extensions do it: a collection may come at any moment.
      await sandbox.run(["mv", `/tmp/${name}`, `${folder}/${name}`]);
    };
    await deliver(
      "100.json",
      [1, 2, 3, 4, 5].map((number) => event(`good ${number}`)),
    );
    await eventually("the good ones arrive", () => {
      const arrived = fabric.telemetryEvents.map(({ parameters }) => parameters["Context1"]);
      return [1, 2, 3, 4, 5].every((number) => arrived.includes(`good ${number}`));
    });
    await deliver("101.json", [
      incomplete,
      event(""),
      { ...event("x"), TaskName: "t".repeat(7000) },
    ]);
    await fabric.setGoalState({ incarnation: "2", extensions: [demoExtension(1)] });
    await enabled(guest, 1);
    await eventually(
      "the folder is empty",
      async () => (await sandbox.run(["ls", folder])).stdout === "",
    );
    expect(await inode()).toBe(first);
    const log = sandbox.read(LOG);
    expect(log).toContain("Extension Telemetry pipeline enabled: True");
    expect(log).toContain("Collected 5 events for extension: Fabric.Demo\n");
    await eventually("what was dropped is said", () =>
      sandbox.read(LOG).includes("Dropped events"),
    );
    const dropped = sandbox.read(LOG).split("Dropped events for Extension: Fabric.Demo")[1]!;
    for (const reason of ["MissingKeyError", "EmptyMessageError", "OversizeEventError"])
      expect(dropped).toContain(reason);
    expect(log).not.toMatch(/ERROR TelemetryEventsCollector/);
    expect(fabric.violations).toEqual([]);
  },
  90_000,
);

guestTest(
  "extensions.md E2E-32: after hibernation a Fast Track goal with settings for a new tenant certificate makes the agent fetch it, with no Fabric goal in between",
  async () => {
    await using guest = await startGuest(
      { ...running, certificates: ["tenant"] },
      { configuration: CONFIGURATION },
    );
    await enabled(guest, 0);
    await guest.sandbox.run(["rm", "/var/lib/fabric-secret"]);
    const resumed = now(guest);
    await guest.fabric.setGoalState({
      incarnation: "1",
      source: "FastTrack",
      certificates: ["after-resume"],
      extensions: [demoExtension(1)],
    });
    await enabled(guest, 1);
    expect(JSON.parse(guest.sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    const asked = guest.fabric.requests.filter((one) => one.at >= resumed);
    expect(asked.some((one) => one.kind === "certificates")).toBe(true);
    const passes = logLines(guest.sandbox)
      .filter(({ text }) => text.includes("ProcessExtensionsGoalState started ["))
      .map(({ text }) => /source: (\w+)/.exec(text)?.[1]);
    expect(passes).toEqual(["Fabric", "FastTrack"]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md E2E-35: certificates of a vault, RSA and elliptic, are there with their keys, also without any extension",
  async () => {
    const vault = (incarnation: string, name: string) => ({ incarnation, certificates: [name] });
    await using guest = await startGuest(
      { dhcp: {}, goalStates: [vault("1", "vault"), vault("2", "ec-vault")] },
      { configuration: CONFIGURATION },
    );
    const { sandbox } = guest;
    const kept = async (): Promise<Map<string, string>> => {
      const { stdout } = await sandbox.run(["sh", "-c", `ls ${LIB}/*.prv 2>/dev/null || true`]);
      const found = new Map<string, string>();
      for (const key of stdout.trim().split("\n").filter(Boolean)) {
        const certificate = key.replace(/prv$/, "crt");
        const openssl = async (...words: string[]) =>
          (await sandbox.run(["openssl", ...words])).stdout;
        const print = await openssl("x509", "-in", certificate, "-noout", "-fingerprint", "-sha1");
        const thumbprint = print.trim().split("=")[1]!.replaceAll(":", "");
        expect(key).toBe(`${LIB}/${thumbprint}.prv`);
        const ofKey = await openssl("pkey", "-in", key, "-pubout");
        expect(ofKey).toBe(await openssl("x509", "-in", certificate, "-noout", "-pubkey"));
        const kind = await openssl("pkey", "-in", key, "-noout", "-text");
        found.set(thumbprint, /ASN1 OID: prime256v1/.test(kind) ? "EC" : "RSA");
      }
      return found;
    };
    await eventually("an RSA key", async () => [...(await kept()).values()].join() === "RSA");
    await guest.fabric.setGoalState(1);
    await eventually("both", async () => [...(await kept()).values()].sort().join() === "EC,RSA");
    expect(commands(guest)).toEqual([]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md E2E-38: without a way to the Internet packages come through the host plugin, for install, update and removal",
  async () => {
    const at = (version: string, more: Partial<ExtensionDescription> = {}) => [
      { ...demoExtension(), version, ...more },
    ];
    await using guest = await startGuest(
      {
        ...running,
        packages: ["1.0.0", "1.1.0"].map((version) => ({ ...DEMO_PACKAGE, version })),
        goalStates: [
          { incarnation: "1", extensions: at("1.0.0") },
          { incarnation: "2", extensions: at("1.1.0") },
          { incarnation: "3", extensions: at("1.1.0", { state: "uninstall" }) },
        ],
      },
      {
        configuration: CONFIGURATION,
        prepare: async (sandbox) =>
          void (await sandbox.run(["ip", "route", "add", "unreachable", "10.90.0.0/24"])),
      },
    );
    const { fabric, sandbox } = guest;
    // Six tries of the direct way come first (HTTP-08, HTTP-10): 31 s.
    await enabled(guest, 0, 60_000);
    expect(JSON.parse(sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    const relevant = logLines(sandbox).filter(({ text }) =>
      /Default channel changed|Target handler state/.test(text),
    );
    expect(relevant[0]?.text).toContain("Default channel changed to HostGAPlugin channel.");
    await fabric.setGoalState(1);
    const isNew = (version: string | undefined) => (event: Parameters<typeof isEvent>[0]) =>
      event.type === "status" &&
      event.status.document.aggregateStatus.vmArtifactsAggregateStatus?.goalStateAggregateStatus
        .inSvdSeqNo === (version === undefined ? "3" : "2") &&
      event.status.document.aggregateStatus.handlerAggregateStatus[0]?.handlerVersion === version;
    await fabric.waitFor(isNew("1.1.0"), 30_000, "the new version");
    await fabric.setGoalState(2);
    await fabric.waitFor(isNew(undefined), 30_000, "a status without the handler");
    expect(commands(guest).map((one) => one.replace(" 0 ", " "))).toEqual([
      ...["install 1.0.0", "enable 1.0.0"],
      ...["disable 1.0.0", "update 1.1.0", "uninstall 1.0.0", "install 1.1.0", "enable 1.1.0"],
      ...["disable 1.1.0", "uninstall 1.1.0"],
    ]);
    const kinds = new Set(fabric.requests.map((one) => one.kind));
    expect(kinds).toContain("plugin-artifact");
    expect(kinds).not.toContain("package");
    expect(fabric.violations).toEqual([]);
  },
  150_000,
);

guestTest(
  "extensions.md E2E-55: numbers beyond a double, 1.0 and the order of keys reach the extension as the platform wrote them, by both ways",
  async () => {
    const publicText =
      '{"zebra": 9223372036854775808, "10": 1.0, "2": -0.0, "big": 1e400, "a": {"b": null, "1": 18446744073709551617}}';
    const odd = (sequence: number): ExtensionDescription => ({
      ...demoExtension(),
      settings: { sequence, publicText },
    });
    await using guest = await startGuest(
      {
        ...running,
        packages: [{ name: DEMO_PACKAGE.name, version: DEMO_PACKAGE.version }],
        goalStates: [
          { incarnation: "1", extensions: [odd(0)] },
          { incarnation: "1", source: "FastTrack", extensions: [odd(1)] },
        ],
      },
      { configuration: CONFIGURATION },
    );
    await enabled(guest, 0);
    await guest.fabric.setGoalState(1);
    await enabled(guest, 1);
    for (const sequence of [0, 1]) {
      const file = `${LIB}/Fabric.Demo-1.0.0/config/${sequence}.settings`;
      const text = guest.sandbox.read(file);
      expect(text).toContain(`"publicSettings": ${publicText}`);
      expect(parseJson(text, file) as JsonObject).toBeInstanceOf(Map);
    }
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md E2E-56: an agent package of the platform with a higher version is neither run nor touched",
  async () => {
    const folder = `${LIB}/WALinuxAgent-9.9.9.9`;
    const traces = async (sandbox: Sandbox): Promise<string> =>
      (
        await sandbox.run([
          "find",
          `${LIB}/WALinuxAgent-9.9.9.9`,
          `${LIB}/WALinuxAgent-9.9.9.9.zip`,
          "-printf",
          "%p %m %s %T@\n",
        ])
      ).stdout;
    let before = "";
    await using guest = await startGuest(running, {
      configuration: CONFIGURATION.replace("AutoUpdate.Enabled=n", "AutoUpdate.Enabled=y"),
      prepare: async (sandbox) => {
        const manifest = [
          { handlerManifest: { enableCommand: "python3 -u bin/agent.egg -run-exthandlers" } },
        ];
        sandbox.write(`${folder}/HandlerManifest.json`, JSON.stringify(manifest));
        sandbox.write(`${folder}/bin/agent.egg`, "import os; os.mkdir('/run/it-was-run')");
        sandbox.write(`${folder}.zip`, "a package");
        before = await traces(sandbox);
      },
    });
    const { sandbox } = guest;
    await enabled(guest, 0);
    guest.agent.signal("SIGTERM");
    await guest.agent.exited;
    const restarted = now(guest);
    guest.restart();
    await guest.until("status:Fabric.Demo=success", { after: restarted });
    const { guestAgentStatus } = guest.fabric.statusDocuments.at(-1)!.document.aggregateStatus;
    expect(guestAgentStatus.version).toBe(VERSION);
    expect((await sandbox.run(["/usr/sbin/waagent", "-version"])).stdout).toContain(
      `Goal state agent: ${VERSION}\n`,
    );
    expect(await traces(sandbox)).toBe(before);
    expect(sandbox.exists("/run/it-was-run")).toBe(false);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md E2E-09: rules that are deleted under the agent or while it is stopped come back, and each of them matters",
  async () => {
    await using guest = await startGuest(
      { dhcp: {}, goalStates: [{ incarnation: "1" }] },
      {
        configuration: `${CONFIGURATION.replace("OS.EnableFirewall=n", "OS.EnableFirewall=y")}OS.EnableFirewallPeriod=1\n`,
      },
    );
    const { sandbox } = guest;
    const address = "168.63.129.16";
    const listener = path.join(import.meta.dir, "machine/listen.ts");
    sandbox.platform.spawn([process.execPath, listener, `${address}:53`]);
    /** "user dns", "user http" and "root http", as far as they get a connection. */
    const reachable = async (): Promise<string> => {
      const probe = (user: number, port: number, name: string): string =>
        `(setpriv --reuid=${user} --clear-groups timeout 0.7 bash -c 'exec 3<>/dev/tcp/${address}/${port}' 2>/dev/null && echo '${name}') &`;
      const script = [
        probe(1000, 53, "user dns"),
        probe(1000, 80, "user http"),
        probe(0, 80, "root http"),
        "wait",
      ].join("\n");
      const { stdout } = await sandbox.run(["bash", "-c", script]);
      return stdout.trim().split("\n").sort().join(", ");
    };
    const rules = {
      dns: ["-p", "tcp", "--destination-port", "53", "-j", "ACCEPT"],
      root: ["-p", "tcp", "-m", "owner", "--uid-owner", "0", "-j", "ACCEPT"],
      drop: ["-p", "tcp", "-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "DROP"],
    };
    const iptables = (action: "-C" | "-D", rule: readonly string[], allowFailure = false) =>
      sandbox.run(["iptables", "-w", "-t", "security", action, "OUTPUT", "-d", address, ...rule], {
        allowFailure,
      });
    const isComplete = async (): Promise<boolean> => {
      for (const rule of Object.values(rules))
        if ((await iptables("-C", rule, true)).code !== 0) return false;
      return true;
    };
    const protectedState = "root http, user dns";
    const effects = {
      dns: "root http",
      root: "user dns",
      drop: "root http, user dns, user http",
    } as const;
    await eventually("the rules are there", isComplete);
    expect(await reachable()).toBe(protectedState);

    for (const name of ["dns", "root", "drop"] as const) {
      guest.agent.signal("SIGTERM");
      await guest.agent.exited;
      await iptables("-D", rules[name]);
      expect(await reachable()).toBe(effects[name]);
      guest.restart();
      await eventually(`${name} is back after a start`, isComplete);
      expect(await reachable()).toBe(protectedState);

      await iptables("-D", rules[name]);
      await eventually(`${name} is back`, isComplete);
      expect(await reachable()).toBe(protectedState);
    }
    expect(guest.fabric.violations).toEqual([]);
  },
  180_000,
);
