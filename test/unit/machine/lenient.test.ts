import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { readLenient } from "../../../src/machine/lenient.ts";
import { readFstab, readMounts, readSwaps } from "../../../src/machine/mounts.ts";
import { processes } from "../../../src/machine/process-list.ts";
import { discoverResourceDisk } from "../../../src/machine/resource-disk-discovery.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

/** "\xe9" and the like are single bytes. */
function plantBytes(system: FakeSystem, file: string, latin1: string): void {
  const real = path.join(system.root.directory, file);
  mkdirSync(path.dirname(real), { recursive: true });
  writeFileSync(real, Buffer.from(latin1, "latin1"));
}

test("a mount point, a swap file or a comment in Latin-1 does not hide the others", () => {
  using system = createFakeSystem();
  plantBytes(
    system,
    "/proc/self/mountinfo",
    "30 1 8:17 / /srv/caf\xe9 rw - ext4 /dev/sdb1 rw\n31 1 8:33 / /mnt rw - xfs /dev/sdc1 rw\n",
  );
  expect(readMounts(system).map(({ mountPoint }) => mountPoint)).toEqual([
    "/srv/caf\ufffd",
    "/mnt",
  ]);
  plantBytes(system, "/etc/fstab", "# f\xfcr Daten\n/dev/sdc1 /mnt xfs defaults 0 2\n");
  expect(readFstab(system)).toMatchObject([{ source: "/dev/sdc1", mountPoint: "/mnt" }]);
  plantBytes(
    system,
    "/proc/swaps",
    "Filename Type\n/srv/\xe9 file 1 0 -2\n/mnt/swapfile file 8 0 -2\n",
  );
  expect(readSwaps(system)).toContainEqual({ path: "/mnt/swapfile", kib: 8 });
  expect(readLenient(system, "/nothing")).toBe("");
});

test("a process that calls itself something that is no UTF-8 is still seen", () => {
  using system = createFakeSystem();
  plantBytes(system, "/proc/77/comm", "evil\xff\n");
  plantBytes(system, "/proc/77/stat", "77 (evil\xff) S 1 77 77\n");
  plantBytes(system, "/proc/77/cmdline", "/bin/\xff\0-x\0");
  expect(processes(system)).toEqual([
    { pid: 77, parent: 1, name: "evil\ufffd", argv: ["/bin/\ufffd", "-x"] },
  ]);
});

test("a device that says garbage of itself is not the temporary disk, and does not hide it", () => {
  using system = createFakeSystem();
  plantBytes(system, "/sys/class/nvme/nvme0/model", "\xff\xfe\x00garbage");
  plantBytes(system, "/sys/class/nvme/nvme0/nvme0n1/size", "1");
  plantBytes(system, "/sys/class/nvme/nvme1/model", "Microsoft NVMe Direct Disk v2  \n");
  plantBytes(system, "/sys/class/nvme/nvme1/nvme1n1/size", "1");
  plantBytes(system, "/sys/bus/vmbus/devices/a/device_id", "{f8b3781a-\xff\xff}\n");
  expect(discoverResourceDisk(system)).toMatchObject({ state: "found", disk: { name: "nvme1n1" } });
});
