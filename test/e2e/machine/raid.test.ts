import { expect } from "bun:test";
import { existsSync } from "node:fs";
import { missing, testUnless } from "../../support/skip.ts";
import { canSandbox, type Sandbox } from "../sandbox.ts";
import { config, createNvmeSandbox, filled, onePartition } from "./disks.ts";
import { cutShort, killAt } from "./kill.ts";
import { createLoopDisk, host, loopProblem } from "./loop-disk.ts";
import { operate } from "./support.ts";

/** Arrays are the whole machine's, so this only runs where the kernel can make them and has none. */
function raidProblem(): string | undefined {
  const able = canSandbox();
  if (!able.ok) return able.reason;
  const problem = loopProblem() ?? missing({ programs: ["mdadm", "modprobe"] });
  if (problem !== undefined) return problem;
  Bun.spawnSync(["modprobe", "-q", "raid0"]);
  if (!existsSync("/proc/mdstat")) return "the kernel has no md, so disks cannot be joined";
  return /^md/m.test(host("cat", "/proc/mdstat")) ? "there are arrays on this machine" : undefined;
}

const raidTest = testUnless(raidProblem());
const MOUNT_POINT = "/mnt/resource";

async function stopArrays(sandbox: Sandbox): Promise<void> {
  await sandbox.run(["umount", MOUNT_POINT], { allowFailure: true });
  for (const [name] of host("cat", "/proc/mdstat").matchAll(/^md\w+/gm))
    await sandbox.run(["mdadm", "--stop", `/dev/${name}`]);
}

for (const fileSystem of ["ext4", "xfs", "btrfs"])
  raidTest(
    `system.md PEER-15 PEER-17 OFFER-04: three local NVMe disks become one with ${fileSystem}, are started again at the next boot, and no other disk is written`,
    async () => {
      using data = createLoopDisk({ mib: 32 });
      onePartition(data);
      filled(data.partition(1), "ext4", ["pgdata"]);
      using first = createLoopDisk({ mib: 160 });
      using second = createLoopDisk({ mib: 160 });
      using third = createLoopDisk({ mib: 160 });
      const before = await data.hash();
      await using sandbox = await createNvmeSandbox(data, [first, second, third]);
      try {
        const { result, log } = await operate(sandbox, "resource-disk", config(fileSystem));
        expect(result, log).toEqual({
          state: "mounted",
          device: expect.stringMatching(/^\/dev\/md\d+$/),
          mountPoint: MOUNT_POINT,
          fileSystem,
        });
        const { device } = result as { device: string };
        const detail = (await sandbox.run(["mdadm", "--detail", device])).stdout;
        expect(detail).toMatch(/Raid Level : raid0/);
        expect(detail).toMatch(/Raid Devices : 3/);
        expect(detail).toMatch(/Chunk Size : 512K/);
        expect(detail).toMatch(/Name : any:azure-ephemeral-md/);
        const label = await sandbox.run(["blkid", "-p", "-o", "value", "-s", "LABEL", device]);
        expect(label.stdout.trim()).toBe("AzureEphmDsk");
        sandbox.write(`${MOUNT_POINT}/precious`, "data\n");

        expect((await operate(sandbox, "resource-disk", config("ext4"))).result).toEqual(result);
        await stopArrays(sandbox);
        const again = await operate(sandbox, "resource-disk", config("ext4"));
        expect(again.result, again.log).toMatchObject({ state: "mounted", fileSystem });
        expect(sandbox.read(`${MOUNT_POINT}/precious`)).toBe("data\n");
        await stopArrays(sandbox);
        expect(await data.hash()).toBe(before);
      } finally {
        await stopArrays(sandbox);
      }
    },
  );

/** What a creation that was cut short leaves: some of the disks know of the array, and nothing runs. */
const HALF = `[ "$1" = --create ] || { $real "$@"; exit $?; }
$real "$@"
for array in /dev/md127 /dev/md126; do [ -e $array ] && $real --stop $array; done
$real --zero-superblock /dev/nvme2n1`;
const WHOLE = `[ "$1" = --create ] || { $real "$@"; exit $?; }
$real "$@"`;

raidTest(
  "system.md PEER-17: killed anywhere while it joins the disks, the agent brings them to the right end at its next start, and no other disk is written",
  async () => {
    using data = createLoopDisk({ mib: 32 });
    onePartition(data);
    filled(data.partition(1), "ext4", ["pgdata"]);
    const before = await data.hash();
    for (const [point, program, script] of [
      ["half of the disks are members", "mdadm", HALF],
      ["the array is made", "mdadm", WHOLE],
      ["mkfs is at work", "mkfs.ext4", cutShort(20)],
      ["mkfs is done", "mkfs.ext4", '$real "$@"'],
    ] as const) {
      using first = createLoopDisk({ mib: 64 });
      using second = createLoopDisk({ mib: 64 });
      await using sandbox = await createNvmeSandbox(data, [first, second]);
      try {
        await killAt(sandbox, ["resource-disk", config("ext4")], { program, script });
        const { result, log } = await operate(sandbox, "resource-disk", config("ext4"));
        expect(result, `${point}: ${log}`).toMatchObject({ state: "mounted", fileSystem: "ext4" });
        expect(sandbox.exists("/var/lib/waagent/waagent-resource-disk.json"), point).toBe(false);
        const { device } = result as { device: string };
        await sandbox.run(["umount", MOUNT_POINT]);
        await sandbox.run(["e2fsck", "-fn", device]);
      } finally {
        await stopArrays(sandbox);
      }
    }
    expect(await data.hash()).toBe(before);
  },
);

raidTest(
  "system.md PEER-17 BET-01: a file system on one of the local disks means that none of them is written",
  async () => {
    using data = createLoopDisk({ mib: 32 });
    using first = createLoopDisk({ mib: 64 });
    using second = createLoopDisk({ mib: 64 });
    filled(second.device, "ext4", ["pgdata"]);
    const hashes = async () => [await data.hash(), await first.hash(), await second.hash()];
    const before = await hashes();
    await using sandbox = await createNvmeSandbox(data, [first, second]);
    const { result, log } = await operate(sandbox, "resource-disk", config("ext4"));
    expect(result).toMatchObject({ state: "failed" });
    expect(log).toContain(
      "WARNING MainThread The local NVMe disks are not joined: /dev/nvme2n1 holds a ext4 file system",
    );
    expect(await hashes()).toEqual(before);
  },
);
