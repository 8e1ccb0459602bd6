import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import { WARNING_TEXT } from "../../../src/machine/resource-disk.ts";
import { canSandbox } from "../sandbox.ts";
import {
  config,
  createDiskSandbox,
  filled,
  type Generation,
  ntfs,
  onePartition,
  platformDisk,
} from "./disks.ts";
import { createLoopDisk, host, type LoopDisk, loopProblem } from "./loop-disk.ts";
import { operate } from "./support.ts";

const able = canSandbox();
const problem = able.ok ? loopProblem() : able.reason;
const diskTest = testUnless(problem);

const MOUNT_POINT = "/mnt/resource";
const WARNING = `${MOUNT_POINT}/DATALOSS_WARNING_README.txt`;

const FORMATTED: readonly (readonly [string, Generation, (disk: LoopDisk) => void, string])[] = [
  [
    "NTFS in an MBR",
    1,
    (disk) => platformDisk(disk, "msdos", ["DATALOSS_WARNING_README.txt"]),
    "ext4",
  ],
  ["NTFS in a GPT", 2, (disk) => platformDisk(disk, "gpt"), "xfs"],
  ["a blank disk", 1, () => undefined, "btrfs"],
  ["a blank disk", 2, () => undefined, "ext4"],
  [
    "an empty table",
    2,
    (disk) => void host("parted", "--script", disk.device, "mklabel", "gpt"),
    "ext3",
  ],
  ["a blank partition", 1, onePartition, "btrfs"],
  [
    "a reserved partition and NTFS",
    2,
    (disk) => {
      const reserved = ["mkpart", "reserved", "1MiB", "17MiB", "set", "1", "msftres", "on"];
      host(
        "parted",
        "--script",
        disk.device,
        "mklabel",
        "gpt",
        ...reserved,
        "mkpart",
        "data",
        "ntfs",
        "17MiB",
        "100%",
      );
      ntfs(disk.partition(2), []);
    },
    "xfs",
  ],
];

for (const [name, generation, prepare, fileSystem] of FORMATTED) {
  diskTest(
    `system.md DISK-12 DISK-17 DISK-20 DISK-21 BET-02: generation ${generation}, ${name} becomes ${fileSystem}, is used again at the next start, and no other disk is written`,
    async () => {
      using disk = createLoopDisk();
      using other = createLoopDisk({ mib: 16 });
      host("mkfs.ext4", "-F", other.device);
      const otherHash = await other.hash();
      prepare(disk);
      await using sandbox = await createDiskSandbox(disk, generation);
      const first = await operate(sandbox, "resource-disk", config(fileSystem));
      const expected = {
        state: "mounted",
        device: disk.partition(1),
        mountPoint: MOUNT_POINT,
        fileSystem,
      };
      expect(first.result, first.log).toEqual(expected);
      expect(sandbox.read(WARNING)).toBe(WARNING_TEXT);
      expect(WARNING_TEXT).toHaveLength(333);
      const seen = await sandbox.run(["findmnt", "-n", "-o", "FSTYPE,SOURCE", MOUNT_POINT]);
      expect(seen.stdout.trim().split(/\s+/)).toEqual([fileSystem, disk.partition(1)]);
      expect((await sandbox.run(["stat", "-c", "%a", MOUNT_POINT])).stdout.trim()).toBe("755");

      // A file of the user survives: a restart of the agent, and a reboot.
      await sandbox.run(["touch", `${MOUNT_POINT}/precious`]);
      const again = await operate(sandbox, "resource-disk", config(fileSystem));
      expect(again.result, again.log).toEqual(expected);
      await sandbox.run(["umount", MOUNT_POINT]);
      const rebooted = await operate(sandbox, "resource-disk", config("ext4"));
      expect(rebooted.result, rebooted.log).toEqual(expected);
      expect(sandbox.exists(`${MOUNT_POINT}/precious`)).toBe(true);
      await sandbox.run(["umount", MOUNT_POINT]);
      expect(await other.hash()).toBe(otherHash);
      // No fstab entry, no unit, no marker, no label: the next start finds out anew.
      const changes = sandbox.changes().filter((change) => change.kind !== "directory");
      expect(changes).toEqual([]);
      expect(host("blkid", "-p", "-o", "export", disk.partition(1))).not.toMatch(/^LABEL=/m);
      const type = host("blkid", "-p", "-o", "value", "-s", "PART_ENTRY_TYPE", disk.partition(1));
      if (name === "NTFS in an MBR") expect(type.trim()).toBe("0x83");
    },
  );
}

const REFUSED: readonly (readonly [string, (disk: LoopDisk) => void, RegExp])[] = [
  [
    "NTFS with files",
    (disk) => platformDisk(disk, "msdos", ["report.doc"]),
    /NTFS file system with files on it \(report\.doc\)/,
  ],
  [
    "a data disk with ext4",
    (disk) => (onePartition(disk), filled(disk.partition(1), "ext4", ["pgdata"])),
    /neither empty nor ours/,
  ],
  [
    "a data disk with xfs",
    (disk) => (onePartition(disk), filled(disk.partition(1), "xfs", ["a", "b"])),
    /neither empty nor ours/,
  ],
  [
    "a data disk with btrfs",
    (disk) => (onePartition(disk), filled(disk.partition(1), "btrfs", ["a"])),
    /neither empty nor ours/,
  ],
  [
    "a file system without table",
    (disk) => void host("mkfs.ext4", "-F", disk.device),
    /holds a ext4 file system/,
  ],
  [
    "data without signature",
    (disk) => void host("dd", "if=/dev/urandom", `of=${disk.device}`, "bs=1M", "count=2"),
    /holds unknown data/,
  ],
  [
    "data in a partition",
    (disk) => (
      onePartition(disk),
      void host(
        "dd",
        "if=/dev/urandom",
        `of=${disk.partition(1)}`,
        "bs=64K",
        "count=1",
        "conv=notrunc",
      )
    ),
    /holds unknown data/,
  ],
  [
    "swap in a partition",
    (disk) => (onePartition(disk), void host("mkswap", disk.partition(1))),
    /swap/,
  ],
  [
    "three partitions",
    (disk) =>
      void host(
        "parted",
        "--script",
        disk.device,
        "mklabel",
        "gpt",
        "mkpart",
        "a",
        "1MiB",
        "10MiB",
        "mkpart",
        "b",
        "10MiB",
        "20MiB",
        "mkpart",
        "c",
        "20MiB",
        "30MiB",
      ),
    /3 partitions/,
  ],
  [
    "LUKS",
    (disk) => (
      onePartition(disk),
      void host(
        "sh",
        "-c",
        `echo secret | cryptsetup luksFormat --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ${disk.partition(1)} -`,
      )
    ),
    /crypto_LUKS/,
  ],
];

for (const [name, prepare, reason] of REFUSED) {
  diskTest(
    `system.md BET-01 DISK-22: ${name} in the temporary disk's slot is not written, and the reason is reported`,
    async () => {
      using disk = createLoopDisk({ mib: 320 });
      prepare(disk);
      const before = await disk.hash();
      await using sandbox = await createDiskSandbox(disk, 2);
      const outcome = await operate(sandbox, "resource-disk", config("ext4"));
      expect(outcome.result).toMatchObject({
        state: "failed",
        reason: expect.stringMatching(reason),
      });
      expect(outcome.log).toContain(
        "ERROR MainThread Failed to mount resource disk [ResourceDiskError] ",
      );
      expect(outcome.log).toMatch(/EVENT .*"operation":"ActivateResourceDisk","success":false/);
      expect(sandbox.exists(WARNING)).toBe(false);
      expect(await disk.hash()).toBe(before);
    },
  );
}

diskTest(
  `system.md PEER-18: NTFS without a driver is formatted with the platform's label only`,
  async () => {
    for (const [label, state] of [
      ["Temporary Storage", "mounted"],
      ["Data", "failed"],
    ] as const) {
      using disk = createLoopDisk({ mib: 64 });
      onePartition(disk);
      ntfs(disk.partition(1), [], label);
      const before = await disk.hash();
      await using sandbox = await createDiskSandbox(disk, 1);
      await sandbox.run([
        "sh",
        "-c",
        "rm -f /sbin/mount.ntfs* /usr/sbin/mount.ntfs* /usr/bin/ntfs-3g /bin/ntfs-3g",
      ]);
      const outcome = await operate(sandbox, "resource-disk", config("ext4"));
      expect(outcome.result, outcome.log).toMatchObject({ state });
      if (state === "failed") expect(await disk.hash()).toBe(before);
    }
  },
);

diskTest(
  `system.md DISK-19 BET-01: a mount that fails is tried again and never leads to a format`,
  async () => {
    using disk = createLoopDisk({ mib: 64 });
    onePartition(disk);
    filled(disk.partition(1), "ext4", ["DATALOSS_WARNING_README.txt", "precious"]);
    const before = await disk.hash();
    await using sandbox = await createDiskSandbox(disk, 1);
    const outcome = await operate(
      sandbox,
      "resource-disk",
      config("ext4", { "ResourceDisk.MountOptions": "no-such-option" }),
    );
    expect(outcome.result).toMatchObject({
      state: "failed",
      reason: expect.stringContaining("it was not formatted"),
    });
    expect(outcome.log).toContain("Mounting again after reading the partition table");
    expect(await disk.hash()).toBe(before);
    const fixed = config("ext4", { "ResourceDisk.MountOptions": "noatime,nodev" });
    expect((await operate(sandbox, "resource-disk", fixed)).result).toMatchObject({
      state: "mounted",
    });
    const seen = await sandbox.run(["findmnt", "-n", "-o", "OPTIONS", MOUNT_POINT]);
    expect(seen.stdout).toContain("noatime");
  },
);

diskTest(
  `system.md DISK-11 DISK-21 PKG-12: a disk that is mounted elsewhere is used there; an immutable warning file is only a warning`,
  async () => {
    using disk = createLoopDisk({ mib: 64 });
    onePartition(disk);
    filled(disk.partition(1), "ext4", ["data"]);
    await using sandbox = await createDiskSandbox(disk, 1);
    const place = "/mnt/some where";
    await sandbox.run(["mkdir", place]);
    await sandbox.run(["mount", disk.partition(1), place]);
    const outcome = await operate(sandbox, "resource-disk", config("xfs"));
    expect(outcome.result).toEqual({
      state: "mounted",
      device: disk.partition(1),
      mountPoint: place,
      fileSystem: "ext4",
    });
    const warning = `${place}/DATALOSS_WARNING_README.txt`;
    expect(sandbox.read(warning)).toBe(WARNING_TEXT);
    sandbox.write(warning, "somebody else's words\n");
    await sandbox.run(["chattr", "+i", warning]);
    const again = await operate(sandbox, "resource-disk", config("xfs"));
    expect(again.result).toEqual(outcome.result);
    expect(again.log).toContain("WARNING MainThread Failed to write DATALOSS_WARNING_README.txt");
    expect(sandbox.read(warning)).toBe("somebody else's words\n");
    await sandbox.run(["chattr", "-i", warning]);
  },
);

diskTest(
  `system.md PKG-15 BET-33: a disk that fstab gives to cloud-init or azure-vm-utils is left to them`,
  async () => {
    using disk = createLoopDisk({ mib: 64 });
    platformDisk(disk, "msdos");
    const before = await disk.hash();
    await using sandbox = await createDiskSandbox(disk, 1);
    for (const line of [
      "/dev/disk/cloud/azure_resource-part1 /mnt auto defaults,nofail,comment=cloudconfig 0 2",
      "LABEL=AzureEphmDsk /mnt ext4 nofail,comment=azure-ephemeral-disk-setup 0 0",
    ]) {
      sandbox.write("/etc/fstab", `${line}\n`);
      const outcome = await operate(sandbox, "resource-disk", config("ext4"));
      expect(outcome.result).toMatchObject({ state: "left-to-others" });
      expect(await disk.hash()).toBe(before);
    }
  },
);
