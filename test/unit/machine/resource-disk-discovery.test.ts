import { expect, test } from "bun:test";
import {
  discoverResourceDisk,
  idePortPrefix,
} from "../../../src/machine/resource-disk-discovery.ts";
import { partitionDevice } from "../../../src/machine/resource-disk-view.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant, plantLink } from "./support.ts";

const GEN2 = "{f8b3781a-1e82-4818-a1c3-63d806ec15bb}";

/** A VMBus storage device as sysfs shows it. */
function vmbus(system: FakeSystem, guid: string, id: string, address: string, disk: string): void {
  const device = `/sys/bus/vmbus/devices/${guid}`;
  const host = address.split(":")[0];
  plant(system, {
    [`${device}/device_id`]: `${id}\n`,
    [`${device}/class_id`]: "{32412632-86cb-44a2-9b5c-50d1417354f5}\n",
    [`${device}/host${host}/target${address.slice(0, 5)}/${address}/block/${disk}/size`]: "1\n",
  });
  plantLink(system, `${device}/subsystem`, "../../../../bus/vmbus");
}

function found(system: FakeSystem): string {
  const discovery = discoverResourceDisk(system);
  return discovery.state === "found"
    ? discovery.disk.name
    : `${discovery.state}: ${discovery.reason}`;
}

function others(system: FakeSystem): string[] {
  const discovery = discoverResourceDisk(system);
  return discovery.state === "found" ? discovery.others.map(({ name }) => name) : [];
}

test("system.md DISK-04 DISK-05: generation 1 is emulated IDE port 1", () => {
  using system = createFakeSystem();
  vmbus(system, "aaa", "{00000000-0000-8899-0000-000000000000}", "0:0:0:0", "sda");
  vmbus(system, "bbb", "{00000000-0001-8899-0000-000000000000}", "1:0:1:0", "sdb");
  vmbus(system, "ccc", "{f8b3781b-1e82-4818-a1c3-63d806ec15bb}", "2:0:0:0", "sdc");
  expect(found(system)).toBe("sdb");
});

test("system.md DISK-04 DISK-05: generation 2 is LUN 1 of controller 0, never LUN 0 or another controller", () => {
  using system = createFakeSystem();
  vmbus(system, "aaa", "{f8b3781b-1e82-4818-a1c3-63d806ec15bb}", "1:0:0:1", "sdd");
  vmbus(system, "bbb", GEN2, "0:0:0:0", "sda");
  expect(found(system)).toStartWith("absent");
  plant(system, {
    "/sys/bus/vmbus/devices/bbb/host0/target0:0:0/0:0:0:1/block/sdb/size": "1",
    "/sys/bus/vmbus/devices/bbb/host0/target0:0:0/0:0:0:2/block/sr0/size": "1",
  });
  expect(found(system)).toBe("sdb");
});

test("system.md DISK-06: the old sysfs layout is believed on generation 1 only", () => {
  using system = createFakeSystem();
  plant(system, {
    "/sys/bus/vmbus/devices/a/device_id": `${GEN2}\n`,
    "/sys/bus/vmbus/devices/a/host0/block:sda/dev": "",
  });
  expect(found(system)).toStartWith("absent");
  plant(system, {
    "/sys/bus/vmbus/devices/b/device_id": "{00000000-0001-8899-0000-000000000000}\n",
    "/sys/bus/vmbus/devices/b/host1/block:sdb/dev": "",
  });
  expect(found(system)).toBe("sdb");
});

test("system.md DISK-07: IDE ports map to prefixes, ports above 3 to none", () => {
  expect([0, 1, 2, 3, 4, -1].map(idePortPrefix)).toEqual([
    "00000000-0000",
    "00000000-0001",
    "00000001-0000",
    "00000001-0001",
    undefined,
    undefined,
  ]);
});

test("system.md DISK-08 BET-04: no temporary disk is a normal outcome", () => {
  using system = createFakeSystem();
  expect(found(system)).toBe("absent: this VM has no temporary disk (resource disk)");
});

test("system.md SCSI-05: udev's link is believed, but not against VMBus and not when it is the OS disk", () => {
  using system = createFakeSystem();
  plantLink(system, "/dev/disk/azure/resource", "../../sdb");
  expect(found(system)).toStartWith("absent");
  plant(system, { "/sys/block/sdb/size": "1" });
  expect(found(system)).toBe("sdb");
  plantLink(system, "/dev/disk/azure/root", "../../sdb");
  expect(found(system)).toStartWith("contradiction: sdb is said to be the temporary disk, but");
  vmbus(system, "bbb", "{00000000-0001-8899-0000-000000000000}", "1:0:1:0", "sdc");
  expect(found(system)).toBe(
    "contradiction: VMBus says that the temporary disk is sdc, /dev/disk/azure/resource says sdb",
  );
});

test("system.md PEER-15 BET-04 DISK-09: local NVMe disks are known by their controller's model, data disks are not touched", () => {
  using system = createFakeSystem();
  const controller = (name: string, model: string, ...namespaces: string[]): void =>
    plant(system, {
      [`/sys/class/nvme/${name}/model`]: `${model.padEnd(40)}\n`,
      ...Object.fromEntries(
        namespaces.map((namespace) => [`/sys/class/nvme/${name}/${namespace}/size`, "1"]),
      ),
    });
  controller("nvme0", "MSFT NVMe Accelerator v1.0", "nvme0n1", "nvme0n2");
  expect(found(system)).toStartWith("absent");
  controller("nvme10", "Microsoft NVMe Direct Disk v2", "nvme10n1");
  controller("nvme2", "Microsoft NVMe Direct Disk", "nvme2n1", "nvme2c2n1");
  expect(found(system)).toBe("nvme2n1");
  expect(others(system)).toEqual(["nvme10n1"]);
  // A SCSI resource disk comes first.
  vmbus(system, "bbb", "{00000000-0001-8899-0000-000000000000}", "1:0:1:0", "sdb");
  expect(found(system)).toBe("sdb");
  expect(others(system)).toEqual(["nvme2n1", "nvme10n1"]);
});

test("system.md DISK-10: the partition is number 1, with a p after a name that ends in a digit", () => {
  expect(partitionDevice("/dev/sdb", 1)).toBe("/dev/sdb1");
  expect(partitionDevice("/dev/nvme0n1", 1)).toBe("/dev/nvme0n1p1");
});
