import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { listZip } from "../../src/system/archive.ts";
import { Root } from "../../src/system/root.ts";
import { demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const guestTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "userdel", "chpasswd", "openssl"] }) : able.reason,
);

/** Waits until the guest's machine looks as expected. */
async function eventually(
  what: string,
  condition: () => boolean,
  timeoutMs = 20_000,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`Not within ${timeoutMs / 1000} s: ${what}`);
    await Bun.sleep(50);
  }
}
const count = (guest: Guest, kind: string): number =>
  guest.fabric.requests.filter((one) => one.kind === kind).length;
const hasUser = (guest: Guest, name: string): boolean =>
  guest.sandbox.read("/etc/passwd").includes(`\n${name}:`);

guestTest(
  "wire-protocol.md JIT-01 JIT-02 JIT-06 JIT-07 JIT-11 MAP-07: the agent makes and removes the users that the goal state lists",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    const expiration = new Date(Date.now() + 3600_000).toUTCString().replace("GMT", "UTC");
    const listed = (name: string) => ({ name, password: "S3cret-of-the-hour", expiration });
    await guest.fabric.setGoalState({
      incarnation: "2",
      extensions: [demoExtension()],
      remoteUsers: [listed("jit1"), listed("azureuser")],
    });
    await eventually("jit1 exists", () => hasUser(guest, "jit1"));
    await eventually("jit1 may use sudo", () =>
      guest.sandbox.read("/etc/sudoers.d/waagent").includes("jit1 ALL=(ALL) ALL"),
    );
    const shadow = (name: string) =>
      guest.sandbox
        .read("/etc/shadow")
        .split("\n")
        .find((line) => line.startsWith(`${name}:`));
    expect(shadow("jit1")).toMatch(/^jit1:\$6\$/);
    const provisioned = shadow("azureuser");

    await guest.fabric.setGoalState({ incarnation: "3", extensions: [demoExtension()] });
    await eventually("jit1 is gone", () => !hasUser(guest, "jit1"));
    expect(hasUser(guest, "azureuser")).toBe(true);
    expect(shadow("azureuser")).toBe(provisioned!);
    expect(guest.agent.output()).not.toContain("S3cret-of-the-hour");
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md MAP-10 ETP-01 ETP-02 ETP-07 ETP-09 TEL-19 TEL-21 DB-18: events of extensions and of an older agent are delivered, then gone",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      configuration: `${AGENT_CONF}Debug.EtpCollectionPeriod=1\n`,
    });
    await guest.until("ready");
    guest.sandbox.write(
      "/var/lib/waagent/events/1700000000000000.tld",
      '{"eventId": 1, "providerId": "69B669B9-4AF8-4C50-BDC4-6006FA76E975", "parameters": [{"name": "Name", "value": "Fabric.Old"}, {"name": "Version", "value": "1"}, {"name": "Operation", "value": "Enable"}, {"name": "OperationSuccess", "value": true}, {"name": "Message", "value": "legacy"}, {"name": "Duration", "value": 5}]}',
    );
    await guest.until("status:Fabric.Demo=success");
    const folder = "/var/log/azure/Fabric.Demo/events";
    expect((await guest.sandbox.run(["stat", "-c", "%a", folder])).stdout).toBe("700\n");
    const [{ handlerEnvironment }] = JSON.parse(
      guest.sandbox.read("/var/lib/waagent/Fabric.Demo-1.0.0/HandlerEnvironment.json"),
    );
    expect(handlerEnvironment).toMatchObject({
      eventsFolder: folder,
      eventsFolder_preview: folder,
    });
    const event = (message: string) =>
      JSON.stringify({
        Version: "1.0",
        Timestamp: "2030-01-01T00:00:00Z",
        TaskName: "t",
        EventLevel: "Info",
        Message: message,
        EventPid: 1,
        EventTid: "2",
        OperationId: "o",
      });
    guest.sandbox.write(`${folder}/200.json`, event("hello from the extension"));
    guest.sandbox.write(`${folder}/readme.txt`, "not an event");
    const parameters = () => guest.fabric.telemetryEvents.map((one) => one.parameters);
    await eventually("the extension's event arrives", () =>
      parameters().some((one) => one["Context1"] === "hello from the extension"),
    );
    await eventually(
      "the folder is empty",
      () =>
        !guest.sandbox.exists(`${folder}/200.json`) &&
        !guest.sandbox.exists(`${folder}/readme.txt`),
    );
    await eventually("the legacy event arrives", () =>
      parameters().some((one) => one["Name"] === "Fabric.Old" && one["ExtensionType"] === "json"),
    );
    await eventually(
      "the legacy event is gone, after its delivery",
      () => !guest.sandbox.exists("/var/lib/waagent/events/1700000000000000.tld"),
    );
    expect(parameters().find((one) => one["Operation"] === "HeartBeat")?.["Message"]).toMatch(
      /^HeartbeatCounter: 0;HeartbeatId: [0-9A-F-]{36};UpdateGSErrors: 0;AutoUpdate: 0;UpdateMode: SelfUpdate;$/,
    );
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md TEL-19 STAT-01 HSVC-01: Telemetry.Enabled=n stops every telemetry request and nothing else",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      configuration: `${AGENT_CONF}Telemetry.Enabled=n\nDebug.EtpCollectionPeriod=1\n`,
    });
    await guest.until("status:Fabric.Demo=success");
    await eventually("health is reported", () => count(guest, "health-service") > 0);
    const before = count(guest, "plugin-status");
    await Bun.sleep(7000);
    expect(count(guest, "plugin-status")).toBeGreaterThan(before + 3);
    expect(count(guest, "telemetry")).toBe(0);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "system.md LOGC-03 LOGC-07 LOGC-08 LOGC-12 LOGC-13 wire-protocol.md MAP-17 HGAP-07: logs are collected and go to the host plugin",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      configuration: `${AGENT_CONF}Debug.LogCollectorInitialDelay=1\n`,
    });
    await eventually("the archive is uploaded", () => count(guest, "plugin-log") > 0, 40_000);
    const request = guest.fabric.requests.find((one) => one.kind === "plugin-log");
    expect(request).toMatchObject({ method: "PUT", status: 200 });
    await eventually("it is told", () =>
      guest.agent.output().includes("Successfully uploaded logs."),
    );
    const root = new Root(guest.sandbox.root);
    const archive = "/var/lib/waagent/logcollector/logs.zip";
    const names = listZip({ root }, archive).map((entry) => entry.name);
    expect(names[0]).toBe("var/log/waagent.log");
    expect(names).toContain("etc/waagent.conf");
    expect(names.at(-1)).toBe("results.txt");
    expect(request?.bodyBytes).toBe(readFileSync(root.real(archive)).length);

    const byHand = await guest.sandbox.run(["/usr/sbin/waagent", "-collect-logs", "-full"]);
    expect(byHand.code).toBe(0);
    expect(byHand.stdout + byHand.stderr).toContain(`Archive: ${archive}`);
    expect(guest.fabric.violations).toEqual([]);
  },
  90_000,
);
