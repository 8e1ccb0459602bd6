import { expect } from "bun:test";
import { canSandbox, type Sandbox } from "../sandbox.ts";
import { testUnless } from "../../support/skip.ts";
import {
  config,
  createDiskSandbox,
  createNvmeSandbox,
  filled,
  onePartition,
  platformDisk,
} from "./disks.ts";
import { createLoopDisk, host, type LoopDisk, loopProblem } from "./loop-disk.ts";
import { operate } from "./support.ts";

const able = canSandbox();
const diskTest = testUnless(able.ok ? loopProblem() : able.reason);
const MOUNT_POINT = "/mnt/resource";
/** With the smallest disk, in MiB, on which mkfs is content. */
const FILE_SYSTEMS = { ext4: 48, xfs: 304, btrfs: 128 } as const;

/** A machine in which a disk is in the temporary disk's slot; `others` must not be written, whatever happens. */
interface Machine extends AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly disk: LoopDisk;
  /** How the machine calls partition 1 of it. */
  readonly partition: string;
  readonly others: readonly LoopDisk[];
}

/** A data disk with files, which every machine has besides. */
function dataDisk(): LoopDisk {
  const disk = createLoopDisk({ mib: 32 });
  onePartition(disk);
  filled(disk.partition(1), "ext4", ["pgdata"]);
  return disk;
}

async function machine(
  disks: readonly [LoopDisk, ...LoopDisk[]],
  others: readonly LoopDisk[],
  make: () => Promise<{ sandbox: Sandbox; partition: string }>,
): Promise<Machine> {
  const dispose = (): void => {
    for (const disk of [...disks, ...others]) disk[Symbol.dispose]();
  };
  try {
    const { sandbox, partition } = await make();
    return {
      sandbox,
      disk: disks[0],
      partition,
      others: [...disks.slice(1), ...others],
      [Symbol.asyncDispose]: async () => {
        await sandbox[Symbol.asyncDispose]();
        dispose();
      },
    };
  } catch (error) {
    dispose();
    throw error;
  }
}

const SLOTS: Readonly<
  Record<string, (mib: number, prepare: (disk: LoopDisk) => void) => Promise<Machine>>
> = {
  "generation 1": scsi(1),
  "generation 2": scsi(2),
  "one local NVMe disk": nvme(1),
  "three local NVMe disks without mdadm": nvme(3),
};

function scsi(generation: 1 | 2) {
  return async (mib: number, prepare: (disk: LoopDisk) => void): Promise<Machine> => {
    const disk = createLoopDisk({ mib });
    const data = dataDisk();
    prepare(disk);
    return machine([disk], [data], async () => ({
      sandbox: await createDiskSandbox(disk, generation),
      partition: disk.partition(1),
    }));
  };
}

function nvme(count: number) {
  return async (mib: number, prepare: (disk: LoopDisk) => void): Promise<Machine> => {
    const disk = createLoopDisk({ mib });
    const more = Array.from({ length: count - 1 }, () => createLoopDisk({ mib: 16 }));
    const data = dataDisk();
    prepare(disk);
    return machine([disk, ...more], [data], async () => {
      const sandbox = await createNvmeSandbox(data, [disk, ...more]);
      await sandbox.run(["rm", "-f", "/usr/sbin/mdadm", "/sbin/mdadm"]);
      return { sandbox, partition: "/dev/nvme1n1p1" };
    });
  };
}

/** What is in the slot; the file system that is configured is given for what was set up with it. */
const CONTENTS: Readonly<
  Record<string, { prepare: (disk: LoopDisk, type: string) => void; reason?: RegExp }>
> = {
  "the platform's NTFS in an MBR": {
    prepare: (disk) => platformDisk(disk, "msdos", ["DATALOSS_WARNING_README.txt"]),
  },
  "the platform's NTFS in a GPT": { prepare: (disk) => platformDisk(disk, "gpt") },
  "a blank disk": { prepare: () => undefined },
  "a disk of our own": {
    prepare: (disk, type) => {
      onePartition(disk);
      filled(disk.partition(1), type, ["DATALOSS_WARNING_README.txt", "precious"]);
    },
  },
  "NTFS with files": {
    prepare: (disk) => platformDisk(disk, "gpt", ["report.doc"]),
    reason: /NTFS file system with files on it \(report\.doc\)/,
  },
  "something foreign": {
    prepare: (disk) => {
      onePartition(disk);
      host("mkswap", disk.partition(1));
    },
    reason: /holds swap/,
  },
  "a data disk": {
    prepare: (disk, type) => {
      onePartition(disk);
      filled(disk.partition(1), type, ["pgdata"]);
    },
    reason: /neither empty nor ours \(.*pgdata\)/,
  },
};

for (const [slot, make] of Object.entries(SLOTS))
  for (const [content, { prepare, reason }] of Object.entries(CONTENTS))
    for (const [fileSystem, mib] of Object.entries(FILE_SYSTEMS)) {
      const outcome = reason === undefined ? `is used with ${fileSystem}` : "is left alone";
      const ids = slot.includes("NVMe") ? "PEER-15" : "DISK-04 DISK-05";
      diskTest(
        `system.md ${ids} BET-01: ${slot}, ${fileSystem} wanted: ${content} ${outcome}, and no other disk is written`,
        async () => {
          await using place = await make(mib, (disk) => prepare(disk, fileSystem));
          const { sandbox, disk, others, partition } = place;
          const hashes = (): Promise<string[]> => Promise.all(others.map((other) => other.hash()));
          const before = await hashes();
          const slotBefore = reason === undefined ? undefined : await disk.hash();
          const { result, log } = await operate(sandbox, "resource-disk", config(fileSystem));
          if (reason === undefined) {
            expect(result, log).toEqual({
              state: "mounted",
              device: partition,
              mountPoint: MOUNT_POINT,
              fileSystem,
            });
            const isKept = content === "a disk of our own";
            expect(sandbox.exists(`${MOUNT_POINT}/precious`)).toBe(isKept);
            expect(sandbox.exists(`${MOUNT_POINT}/DATALOSS_WARNING_README.txt`)).toBe(true);
            await sandbox.run(["umount", MOUNT_POINT]);
          } else {
            expect(result, log).toMatchObject({
              state: "failed",
              reason: expect.stringMatching(reason),
            });
            expect(await disk.hash()).toBe(slotBefore!);
          }
          expect(await hashes()).toEqual(before);
        },
      );
    }
