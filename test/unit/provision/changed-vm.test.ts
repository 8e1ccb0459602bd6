import { describe, expect, test } from "bun:test";
import { provision } from "../../../src/provision/provision.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  configOf,
  createMachine,
  createPlatform,
  distroOf,
  FIRMWARE_UUID,
  optionsOf,
  snapshot,
  VM_ID,
} from "./machine.ts";

const LIB = "/var/lib/waagent";
const MARKER = `${LIB}/provisioned` as const;

const REMOVED: readonly SystemPath[] = [
  `${LIB}/HostingEnvironmentConfig.xml`,
  `${LIB}/Incarnation`,
  `${LIB}/partition`,
  `${LIB}/Protocol`,
  `${LIB}/SharedConfig.xml`,
  `${LIB}/WireServerEndpoint`,
  `${LIB}/published_hostname`,
  `${LIB}/fast_track.json`,
  `${LIB}/initial_goal_state`,
  `${LIB}/waagent_rsm_update`,
  `${LIB}/waagent_initial_update`,
  `${LIB}/Extensions.1.xml`,
  `${LIB}/ExtensionsConfig.2.xml`,
  `${LIB}/GoalState.3.xml`,
  `${LIB}/Microsoft.A.Ext-1.2.3/status/0.status`,
  `${LIB}/Microsoft.A.Ext-1.2.3/config/0.settings`,
  `${LIB}/Microsoft.A.Ext-1.2.3/config/HandlerStatus`,
  `${LIB}/Microsoft.A.Ext-1.2.3/mrseq`,
  `${LIB}/waagent-network-setup.py`,
  "/var/lib/dhcp/dhclient.eth0.leases",
  "/var/lib/dhclient/sub/x",
  "/var/lib/NetworkManager/dhclient-eth0.lease",
  "/run/systemd/netif/leases/2",
  "/lib/systemd/system/waagent-network-setup.service",
  "/lib/systemd/system/waagent.service.d/10-Slice.conf",
  "/lib/systemd/system/waagent.service.d/12-CPUQuota.conf",
  "/lib/systemd/system/azure-walinuxagent-logcollector.slice",
];
const KEPT: readonly SystemPath[] = [
  `${LIB}/ovf-env.xml`,
  `${LIB}/AAAA.crt`,
  `${LIB}/Microsoft.A.Ext-1.2.3/config/HandlerState`,
  `${LIB}/Microsoft.A.Ext-1.2.3/status/0.notstatus`,
  `${LIB}/Microsoft.A.Ext-1.2.3/bin/run.sh`,
  `${LIB}/WALinuxAgent-2.9.0.4/config/0.settings`,
  `${LIB}/not-a-handler/mrseq`,
  "/lib/systemd/system/waagent.service.d/50-mine.conf",
  "/lib/systemd/system/waagent.service",
  "/etc/ssh/ssh_host_rsa_key",
  "/home/alice/file",
];

function provisioned(stored: string): FakeSystem {
  const system = createMachine();
  for (const file of [...REMOVED, ...KEPT]) {
    system.files.makeDirectory(file.slice(0, file.lastIndexOf("/")) as SystemPath);
    system.files.write(file, "x", { durable: false });
  }
  system.files.write(MARKER, stored);
  return system;
}

const start = async (system: FakeSystem) => {
  const platform = createPlatform();
  const outcome = await provision(
    system,
    configOf(),
    optionsOf(platform, { distro: distroOf("Default") }),
  );
  return { outcome, told: platform.told };
};

describe("a provisioned disk", () => {
  test.each([
    ["the same", VM_ID],
    ["in lower case", VM_ID.toLowerCase()],
    ["in firmware's byte order", FIRMWARE_UUID],
    ["with a newline", `${VM_ID}\n`],
  ])("provisioning.md ID-04: with the same VM id, %s, nothing happens", async (_, stored) => {
    using system = provisioned(stored);
    const before = snapshot(system);
    const { outcome, told } = await start(system);
    expect(outcome.status).toBe("already-provisioned");
    expect(told).toEqual([]);
    expect(snapshot(system)).toEqual(before);
    expect(system.events).toEqual([]);
  });

  test("provisioning.md ID-04 DEPROV-40 DEPROV-31 DEPROV-32: on another VM its old state goes, exactly, and Ready is told", async () => {
    using system = provisioned("11111111-2222-3333-4444-555555555555");
    const before = snapshot(system);
    const { outcome, told } = await start(system);
    expect(outcome.status).toBe("already-provisioned");
    expect(told).toEqual(["detect", "Ready"]);
    const after = snapshot(system);
    const gone = Object.keys(before).filter((file) => !(file in after));
    expect(gone.toSorted()).toEqual([...REMOVED].toSorted());
    expect(system.files.readText(MARKER)).toBe(VM_ID);
    expect(system.lines.filter((line) => line.includes("WARNING!"))).toHaveLength(1);
    expect(system.events).toMatchObject([
      { operation: "Provision", message: expect.stringContaining("has changed") },
    ]);
    expect((await start(system)).told).toEqual([]);
  });

  test("provisioning.md ID-04: an empty marker is filled in, with nothing removed", async () => {
    using system = provisioned("");
    const before = snapshot(system);
    expect((await start(system)).told).toEqual(["detect", "Ready"]);
    expect(snapshot(system)).toEqual({ ...before, [MARKER]: `644 ${VM_ID}` });
  });

  test("an id that cannot be found out is no change", async () => {
    using system = provisioned(VM_ID);
    system.files.remove("/sys/class/dmi/id/product_uuid");
    const before = snapshot(system);
    expect((await start(system)).told).toEqual([]);
    expect(snapshot(system)).toEqual(before);
  });
});
