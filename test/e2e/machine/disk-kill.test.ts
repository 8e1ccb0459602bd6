import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import { canSandbox } from "../sandbox.ts";
import { config, createDiskSandbox, filled, onePartition, platformDisk } from "./disks.ts";
import { cutShort, killAt } from "./kill.ts";
import { createLoopDisk, host, type LoopDisk, loopProblem } from "./loop-disk.ts";
import { createMachineSandbox, operate } from "./support.ts";

const able = canSandbox();
const diskTest = testUnless(able.ok ? loopProblem() : able.reason);
const MOUNT_POINT = "/mnt/resource";
const NOTE = "/var/lib/waagent/waagent-resource-disk.json";
const CHECKS: Readonly<Record<string, readonly string[]>> = {
  ext4: ["e2fsck", "-fn"],
  xfs: ["xfs_repair", "-n"],
  btrfs: ["btrfs", "check", "--readonly"],
};

const POINTS = (fileSystem: string) =>
  [
    ["after the label, before the partition", "parted", '$real "$1" "$2" "$3" "$4"', "blank"],
    ["after the partition", "parted", '$real "$@"', "blank"],
    ["after the partition's type was changed", "sfdisk", '$real "$@"', "ntfs"],
    ["before mkfs", `mkfs.${fileSystem}`, "", "ntfs"],
    ...[1, 4, 8, 15, 30].map(
      (ms) => [`mkfs ran for ${ms} ms`, `mkfs.${fileSystem}`, cutShort(ms), "ntfs"] as const,
    ),
    ["after mkfs", `mkfs.${fileSystem}`, '$real "$@"', "blank"],
    ["while it looks at a file system", "mount", '$real "$@"', "ntfs"],
    ["when it has mounted it", "mount", '$real "$@"', "blank"],
  ] as const;

for (const fileSystem of ["ext4", "xfs", "btrfs"])
  diskTest(
    `system.md BET-01 DISK-17 DISK-19 DISK-21: killed anywhere while it sets up the disk with ${fileSystem}, the agent brings it to the right end at its next start, and no other disk is written`,
    async () => {
      using other = createLoopDisk({ mib: 32 });
      onePartition(other);
      filled(other.partition(1), "ext4", ["pgdata"]);
      const before = await other.hash();
      for (const [point, program, script, content] of POINTS(fileSystem)) {
        using disk = createLoopDisk();
        if (content === "ntfs") platformDisk(disk, "msdos");
        await using sandbox = await createDiskSandbox(disk, 1);
        const wanted = config(fileSystem);
        await killAt(sandbox, ["resource-disk", wanted], { program, script });

        const next = await operate(sandbox, "resource-disk", wanted);
        expect(next.result, `${point}: ${next.log}`).toEqual({
          state: "mounted",
          device: disk.partition(1),
          mountPoint: MOUNT_POINT,
          fileSystem,
        });
        expect(sandbox.exists(`${MOUNT_POINT}/DATALOSS_WARNING_README.txt`), point).toBe(true);
        expect(sandbox.exists(NOTE), point).toBe(false);
        const { stdout } = await sandbox.run([
          "findmnt",
          "-n",
          "-o",
          "TARGET",
          "--source",
          disk.partition(1),
        ]);
        expect(stdout.trim(), point).toBe(MOUNT_POINT);
        await sandbox.run(["umount", MOUNT_POINT]);
        const [checker = "", ...words] = CHECKS[fileSystem] ?? [];
        host(checker, ...words, disk.partition(1));
      }
      expect(await other.hash()).toBe(before);
    },
  );

for (const fileSystem of ["ext4", "xfs", "btrfs"])
  diskTest(
    `system.md BET-01: a mkfs.${fileSystem} that outlives its agent does not format what the next agent mounted`,
    async () => {
      using disk = createLoopDisk();
      platformDisk(disk, "msdos");
      await using sandbox = await createDiskSandbox(disk, 1);
      const wanted = config(fileSystem);
      const program = `mkfs.${fileSystem}`;
      // It is slow: the agent is gone, and the next one done, before it begins.
      const slow = `echo $$ >/run/reached; while [ ! -e /run/go ]; do sleep 0.05; done; $real "$@" >/run/late 2>&1; echo $? >/run/ended`;
      await killAt(sandbox, ["resource-disk", wanted], { program, script: slow, outlives: true });
      const next = await operate(sandbox, "resource-disk", wanted);
      expect(next.result, next.log).toMatchObject({ state: "mounted", fileSystem });
      sandbox.write(`${MOUNT_POINT}/precious`, "data\n");
      sandbox.write("/run/go", "");
      for (let waited = 0; !sandbox.exists("/run/ended"); waited += 20) {
        if (waited > 20_000) throw new Error("The late mkfs did not end");
        await Bun.sleep(20);
      }
      expect(sandbox.read("/run/ended").trim()).not.toBe("0");
      await sandbox.run(["umount", MOUNT_POINT]);
      const again = await operate(sandbox, "resource-disk", wanted);
      expect(again.result, again.log).toMatchObject({ state: "mounted", fileSystem });
      expect(sandbox.read(`${MOUNT_POINT}/precious`)).toBe("data\n");
      await sandbox.run(["umount", MOUNT_POINT]);
    },
  );

diskTest(
  "system.md BET-01: a format that failed and that somebody finished by hand is not done again over his files",
  async () => {
    using disk = createLoopDisk({ mib: 64 });
    platformDisk(disk, "msdos");
    await using sandbox = await createDiskSandbox(disk, 1);
    await killAt(sandbox, ["resource-disk", config("ext4")], { program: "mkfs.ext4", script: "" });
    expect(sandbox.exists(NOTE)).toBe(true);
    filled(disk.partition(1), "ext4", ["thesis"]);
    const before = await disk.hash();
    const next = await operate(sandbox, "resource-disk", config("ext4"));
    expect(next.result).toMatchObject({
      state: "failed",
      reason: expect.stringContaining("neither empty nor ours"),
    });
    expect(await disk.hash()).toBe(before);
  },
);

/** swapon acts on the whole machine, so this one only tells what the real one would have seen. */
const SWAPON = `#!/bin/sh
[ "$(stat -c '%s %a' "$1")" = "104857600 600" ] || exit 1
[ "$(blkid -p -o value -s TYPE "$1")" = swap ] || exit 1
[ "$(($(stat -c %b "$1") * 512))" -ge 104857600 ] || exit 1
echo "$1" >/run/swapped
`;
const SWAP_POINTS: Readonly<
  Record<string, readonly (readonly [program: string, script: string])[]>
> = {
  ext4: [
    ["fallocate", ""],
    ["fallocate", '$real -l 31457280 "$3"'],
    ["fallocate", '$real "$@"'],
    ["mkswap", '$real "$@"'],
  ],
  xfs: [
    ["dd", '$real "$1" "$2" "$3" count=30 "$5"'],
    ["mkswap", ""],
  ],
  btrfs: [
    ["chattr", ""],
    ["chattr", '$real "$@"'],
    ["fallocate", '$real -l 31457280 "$3"'],
  ],
};

for (const [fileSystem, points] of Object.entries(SWAP_POINTS))
  diskTest(
    `system.md SWAP-02 SWAP-08: killed anywhere while it makes the swap file on ${fileSystem}, the agent makes it right at its next start`,
    async () => {
      using disk: LoopDisk = createLoopDisk({ mib: 448 });
      host(`mkfs.${fileSystem}`, fileSystem === "ext4" ? "-F" : "-f", disk.device);
      await using sandbox = await createMachineSandbox();
      await sandbox.run(["mount", "-t", "devtmpfs", "devtmpfs", "/dev"]);
      await sandbox.run(["mount", "-t", fileSystem, disk.device, "/mnt"]);
      sandbox.write("/usr/local/sbin/swapon", SWAPON, 0o755);
      const input = {
        mountPoint: "/mnt",
        "ResourceDisk.EnableSwap": true,
        "ResourceDisk.SwapSizeMB": 100,
      };
      for (const [program, script] of points) {
        await killAt(sandbox, ["swap", input], { program, script });
        // Closed to everybody at every instant.
        const mode = await sandbox.run(["stat", "-c", "%a", "/mnt/swapfile"]);
        expect(mode.stdout.trim()).toBe("600");
        const next = await operate(sandbox, "swap", input);
        expect(next.result, `${program}: ${next.log}`).toMatchObject({
          state: "active",
          bytes: 104_857_600,
        });
        expect(sandbox.read("/run/swapped")).toBe("/mnt/swapfile\n");
        await sandbox.run(["rm", "/mnt/swapfile", "/run/swapped"]);
      }
      await sandbox.run(["umount", "/mnt"]);
    },
  );
