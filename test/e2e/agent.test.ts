import { expect } from "bun:test";
import { isEvent } from "../fabric/fabric.ts";
import { DEMO_SECRET, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { startGuest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox, type Sandbox } from "./sandbox.ts";
import { createKey, ssh, startSshd } from "./ssh.ts";

const able = canSandbox();
const guestTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "chpasswd", "openssl", "ssh-keygen"] }) : able.reason,
);
const sshTest = testUnless(
  able.ok ? missing({ programs: ["sshd", "ssh", "ssh-keygen", "useradd"] }) : able.reason,
);

guestTest(
  "provisioning.md HLTH-01 HLTH-02 HLTH-04 extensions.md EXT-55 wire-protocol.md MAP-01 MAP-02 MAP-03 MAP-04 MAP-05 MAP-06 MAP-08 MAP-12 MAP-16 WIRE-02 WIRE-03 WIRE-04 WIRE-05 WIRE-20 WIRE-21 WIRE-22 CERT-02 CERT-04 HGAP-02 HGAP-03 STAT-40 STAT-45 STAT-46 DHCP-20: first boot, from the endpoint to the extension's success, breaks no rule of the protocol",
  async () => {
    await using guest = await startGuest(firstBoot());
    const { sandbox, fabric } = guest;
    await guest.until("ready");
    await guest.until("status:Fabric.Demo=success");
    expect(fabric.healthReports.map((one) => one.subStatus ?? one.state)).toEqual([
      "Provisioning",
      "Ready",
    ]);
    expect(sandbox.read("/etc/passwd")).toContain("azureuser:");
    expect(sandbox.read("/etc/hostname").trim()).toBe("fabricvm");
    expect(JSON.parse(sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    expect(journal(sandbox).map((one) => `${one.command} ${one.sequence}`)).toEqual([
      "install 0",
      "enable 0",
    ]);
    const handler =
      fabric.statusDocuments.at(-1)!.document.aggregateStatus.handlerAggregateStatus[0]!;
    expect(handler).toMatchObject({
      handlerName: "Fabric.Demo",
      handlerVersion: "1.0.0",
      status: "Ready",
    });
    expect(handler.runtimeSettingsStatus?.settingsStatus.status.formattedMessage.message).toBe(
      "enabled",
    );
    const kinds = new Set(fabric.requests.map((one) => `${one.kind} ${one.status}`));
    for (const kind of [
      "versions",
      "goal-state",
      "hosting-environment",
      "shared-config",
      "extensions-config",
    ])
      expect(kinds).toContain(`${kind} 200`);
    for (const kind of [
      "certificates",
      "health",
      "plugin-versions",
      "vm-settings",
      "plugin-status",
    ])
      expect(kinds).toContain(`${kind} 200`);
    expect(sandbox.exists(`/var/lib/waagent/${thumbprintIn(sandbox)}.prv`)).toBe(true);
    // Wait for what comes late: the first telemetry request.
    await guest.until("telemetry");
    expect(fabric.violations).toEqual([]);
  },
  60_000,
);

sshTest(
  "provisioning.md SSH-20: the provisioned key logs in to the real sshd as the provisioned user, who may use sudo",
  async () => {
    using key = createKey();
    await using guest = await startGuest(firstBoot(key.publicLine));
    await guest.until("ready");
    await startSshd(guest.sandbox);
    const login = await ssh(guest.sandbox, "azureuser", key, "id -un; hostname; sudo -n id -u");
    expect(login).toMatchObject({ code: 0, stdout: "azureuser\nfabricvm\n0\n" });
    using stranger = createKey();
    expect((await ssh(guest.sandbox, "azureuser", stranger, "true")).code).toBe(255);
  },
  60_000,
);

guestTest(
  "wire-protocol.md GS-31 extensions.md EXT-56: a new incarnation with new settings enables the extension again, and only enables it",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    await guest.fabric.setGoalState({ incarnation: "2", extensions: [demoExtension(1)] });
    await guest.fabric.waitFor(
      (event) =>
        event.type === "status" &&
        isEvent(event, "status:Fabric.Demo=success") &&
        event.status.document.aggregateStatus.handlerAggregateStatus[0]?.runtimeSettingsStatus
          ?.sequenceNumber === 1,
      10_000,
      "the status of the new settings",
    );
    expect(journal(guest.sandbox).map((one) => `${one.command} ${one.sequence}`)).toEqual([
      "install 0",
      "enable 0",
      "enable 1",
    ]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md VMS-01 VMS-04 ARB-04: settings that come by the host plugin are enabled; later polls are answered 304",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    await guest.fabric.setGoalState({
      incarnation: "1",
      source: "FastTrack",
      extensions: [demoExtension(1)],
    });
    const changed = await guest.until("goal-state");
    await guest.fabric.waitFor(
      (event) =>
        event.at > changed.at &&
        event.type === "request" &&
        event.request.kind === "vm-settings" &&
        event.request.status === 304,
      10_000,
      "a poll answered 304",
    );
    await guest.fabric.waitFor(
      () => journal(guest.sandbox).length === 3,
      10_000,
      "the second enable",
    );
    expect(journal(guest.sandbox).at(-1)).toMatchObject({ command: "enable", sequence: 1 });
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "system.md DAEMON-14 provisioning.md PROV-06: SIGTERM ends the agent in good order, and the next one goes on without provisioning again",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    guest.agent.signal("SIGTERM");
    expect(await guest.agent.exited).toBe(0);
    expect(guest.sandbox.exists("/var/lib/waagent/current_version")).toBe(false);
    const ended = guest.fabric.events.at(-1)!.at;
    guest.restart();
    await guest.until("status:Fabric.Demo=success", { after: ended + 1 });
    expect(guest.fabric.healthReports).toHaveLength(2);
    expect(journal(guest.sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md DL-03 DL-04 HGAP-05: storage with a certificate nobody trusts is reached through the host plugin",
  async () => {
    await using guest = await startGuest(firstBoot(), { trusted: false });
    // An untrusted certificate is an I/O error and tried six times (HTTP-08, HTTP-10): 31 s.
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 50_000 });
    const kinds = guest.fabric.requests.map((one) => one.kind);
    expect(kinds).not.toContain("package");
    expect(kinds.filter((kind) => kind === "plugin-artifact").length).toBeGreaterThanOrEqual(2);
    await guest.fabric.waitFor(
      (event) =>
        event.type === "telemetry" &&
        event.records.some(({ parameters }) => parameters["Operation"] === "DefaultChannelChange"),
      70_000,
      "an event about the channel",
    );
    expect(guest.fabric.violations).toEqual([]);
  },
  140_000,
);

/** The certificate that the handler's settings name. */
function thumbprintIn(sandbox: Sandbox): string {
  const settings = sandbox.read("/var/lib/waagent/Fabric.Demo-1.0.0/config/0.settings");
  return (
    /"protectedSettingsCertThumbprint": "([0-9A-F]{40})"/.exec(settings)?.[1] ?? "no thumbprint"
  );
}
