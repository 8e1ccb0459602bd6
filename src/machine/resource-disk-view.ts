import { AgentError, describe, isAgentError } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readMounts, readSwaps } from "./mounts.ts";
import type { Content, DiskView, Files, PartitionView } from "./resource-disk-plan.ts";

type Needs = Pick<System, "exec" | "files">;

/** Where a file system is mounted read-only while it is looked at. */
const PEEK = "/run/waagent/resource-disk";
const TIMEOUT_MS = 60_000;
const MIB = 1024 * 1024;
const NOT_FOUND = 2;
const AMBIGUOUS = 8;

/**
 * Driver and options, in order of trial, with which looking at a file system writes nothing, not even a journal
 * replay. btrfs renamed its option in 5.9; NTFS has a kernel driver, one in FUSE, and an old one in the kernel.
 */
const PEEKS: Readonly<Record<string, readonly (readonly [driver: string, options: string])[]>> = {
  ext2: [["ext2", "ro"]],
  ext3: [["ext3", "ro,noload"]],
  ext4: [["ext4", "ro,noload"]],
  xfs: [["xfs", "ro,norecovery"]],
  btrfs: [
    ["btrfs", "ro,rescue=nologreplay"],
    ["btrfs", "ro,nologreplay"],
  ],
  ntfs: [
    ["ntfs3", "ro"],
    ["ntfs-3g", "ro"],
    ["ntfs", "ro"],
  ],
};

/** "/dev/sdb1", "/dev/nvme0n1p1": a name that ends in a digit gets a p. */
export function partitionDevice(disk: string, number: number): string {
  return /\d$/.test(disk) ? `${disk}p${number}` : `${disk}${number}`;
}

/** An agent that was killed while it looked at a file system left it mounted; that is nobody's use of the disk. */
export async function forgetPeeks(system: Needs): Promise<void> {
  for (let left = 0; left < 8; left += 1) {
    if (!readMounts(system).some(({ mountPoint }) => mountPoint === PEEK)) return;
    await system.exec.run({ argv: ["umount", system.files.realPath(PEEK)], timeoutMs: TIMEOUT_MS });
  }
}

/**
 * Looks at a disk without writing to it: kernel tables, signatures, and the root directories of file systems that
 * are not mounted. Errors: AgentError "resource-disk" when it cannot be looked at, e.g. without blkid.
 */
export async function inspectDisk(
  system: Needs,
  name: string,
  unfinished: string | undefined,
): Promise<DiskView> {
  const directory: SystemPath = `/sys/block/${name}`;
  if (!system.files.exists(directory))
    throw new AgentError("resource-disk", `The kernel does not know a disk ${name}`);
  const device = `/dev/${name}`;
  const names = partitionNames(system, directory, name);
  const all = [
    { name, directory },
    ...names.map((partition) => ({ name: partition, directory: join(directory, partition) })),
  ];
  const numbers = all.map((one) => readTrimmed(system, join(one.directory, "dev")));
  const devices = all.map((one) => `/dev/${one.name}`);
  const mounts = readMounts(system).filter(
    (mount) => numbers.includes(mount.device) || devices.includes(mount.source),
  );
  const swaps = readSwaps(system).filter((swap) => devices.includes(swap.path));
  const holders = [
    ...all.flatMap((one) => system.files.list(join(one.directory, "holders"))),
    ...swaps.map((swap) => `swap on ${swap.path}`),
  ];
  const base = {
    device,
    readOnly: readTrimmed(system, join(directory, "ro")) === "1",
    mounts,
    holders,
    unfinished,
  };
  // Somebody uses it: then its content is nobody else's business.
  if (mounts.length > 0 || holders.length > 0)
    return { ...base, table: "none", content: foreign("what is in use"), partitions: [] };

  const probe = await probeDevice(system, device);
  const scheme = probe.values.get("PTTYPE");
  const table =
    scheme === undefined ? "none" : scheme === "gpt" ? "gpt" : scheme === "dos" ? "mbr" : "other";
  const hidden =
    scheme !== undefined && names.length === 0 ? await hasPartitions(system, device) : false;
  if (hidden) await showPartitions(system, device);
  const shown = hidden ? partitionNames(system, directory, name) : names;
  const partitions: PartitionView[] = [];
  for (const partition of shown)
    partitions.push(await inspectPartition(system, `/dev/${partition}`));
  const content =
    hidden && shown.length === 0
      ? foreign("partitions that the kernel does not show")
      : await diskContent(system, device, probe, shown);
  return { ...base, table, content, partitions };
}

/** By the table itself: the kernel may not have read it, e.g. when whoever wrote it was killed. */
async function hasPartitions(system: Needs, device: string): Promise<boolean> {
  const listing = await system.exec.run({
    argv: ["partx", "--show", "--noheadings", "--output", "NR", device],
    okCodes: [0, 1],
    timeoutMs: TIMEOUT_MS,
  });
  return listing.stdout.trim() !== "";
}

/** Tells the kernel of the partitions; the disk itself is not written. Errors: never, what it shows then counts. */
async function showPartitions(system: Needs, device: string): Promise<void> {
  await system.exec.run({
    argv: ["partx", "--update", device],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
}

async function diskContent(
  system: Needs,
  device: string,
  probe: Probe,
  partitions: readonly string[],
): Promise<Content> {
  const type = probe.values.get("TYPE");
  if (probe.ambiguous) return foreign("signatures of more than one kind");
  if (probe.values.get("PTTYPE") === undefined) {
    if (type !== undefined) return describeSignature(probe);
    return (await isZero(system, device, 0)) ? { kind: "blank" } : foreign("unknown data");
  }
  if (type !== undefined) return foreign(`a partition table and ${type}`);
  if (partitions.length > 0) return foreign("a partition table");
  return (await isZero(system, device, 1)) ? { kind: "blank" } : foreign("unknown data");
}

async function inspectPartition(system: Needs, device: string): Promise<PartitionView> {
  const probe = await probeDevice(system, device);
  return {
    device,
    type: (probe.values.get("PART_ENTRY_TYPE") ?? "").toLowerCase(),
    id: probe.values.get("PART_ENTRY_UUID") ?? "",
    content: await volumeContent(system, device, probe),
  };
}

/** What a device holds that has no partitions and is not in use, files of its root directory included. */
export async function inspectVolume(system: Needs, device: string): Promise<Content> {
  return volumeContent(system, device, await probeDevice(system, device));
}

async function volumeContent(system: Needs, device: string, probe: Probe): Promise<Content> {
  if (probe.ambiguous) return foreign("signatures of more than one kind");
  const type = probe.values.get("TYPE");
  if (type === undefined) {
    if (probe.values.has("PTTYPE")) return foreign("a partition table of its own");
    return (await isZero(system, device, 0)) ? { kind: "blank" } : foreign("unknown data");
  }
  const signature = describeSignature(probe);
  if (signature.kind !== "filesystem" || PEEKS[type] === undefined) return signature;
  return { ...signature, files: await peek(system, device, type) };
}

function describeSignature(probe: Probe): Content {
  const type = probe.values.get("TYPE") ?? "unknown";
  const usage = probe.values.get("USAGE");
  if (usage !== undefined && usage !== "filesystem") return foreign(`${type} (${usage})`);
  return {
    kind: "filesystem",
    type,
    label: probe.values.get("LABEL") ?? "",
    files: { known: false, reason: "it was not looked at" },
  };
}

/** Root directory of an unmounted file system, by a read-only mount that replays no journal. */
async function peek(system: Needs, device: string, type: string): Promise<Files> {
  const reasons: string[] = [];
  system.files.makeDirectory(PEEK, { mode: 0o700 });
  for (const [driver, options] of PEEKS[type] ?? []) {
    try {
      await system.exec.run({
        argv: [
          "mount",
          ...["-t", driver, "-o", `${options},nosuid,nodev,noexec`],
          device,
          system.files.realPath(PEEK),
        ],
        timeoutMs: TIMEOUT_MS,
      });
    } catch (error) {
      if (!/unknown filesystem type|No such device/i.test(describe(error)))
        reasons.push(describe(error));
      continue;
    }
    try {
      return { known: true, names: system.files.list(PEEK) };
    } finally {
      await system.exec.run({
        argv: ["umount", system.files.realPath(PEEK)],
        timeoutMs: TIMEOUT_MS,
      });
    }
  }
  return { known: false, reason: reasons.length === 0 ? "no-driver" : reasons.join("; ") };
}

interface Probe {
  readonly values: ReadonlyMap<string, string>;
  readonly ambiguous: boolean;
}

/** Signatures found by reading the device itself, not blkid's cache. */
async function probeDevice(system: Needs, device: string): Promise<Probe> {
  try {
    const result = await system.exec.run({
      argv: ["blkid", "-p", "-o", "export", device],
      okCodes: [0, NOT_FOUND, AMBIGUOUS],
      timeoutMs: TIMEOUT_MS,
    });
    return { values: parseExport(result.stdout), ambiguous: result.code === AMBIGUOUS };
  } catch (error) {
    throw new AgentError("resource-disk", `Could not find out what ${device} holds`, {
      cause: error,
    });
  }
}

/** `KEY=value` lines of `blkid -o export`, which escapes with backslashes. */
export function parseExport(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    if (equals > 0)
      values.set(line.slice(0, equals), line.slice(equals + 1).replace(/\\(.)/g, "$1"));
  }
  return values;
}

/** Whether one MiB of a device, counted from a MiB offset, is zero. Signatures of everything we know lie in the first. */
async function isZero(system: Needs, device: string, offsetMib: number): Promise<boolean> {
  try {
    const result = await system.exec.run({
      argv: ["dd", `if=${device}`, `bs=${MIB}`, "count=1", `skip=${offsetMib}`],
      timeoutMs: TIMEOUT_MS,
    });
    return result.stdoutBytes.length > 0 && result.stdoutBytes.every((byte) => byte === 0);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    throw new AgentError("resource-disk", `Could not read ${device}`, { cause: error });
  }
}

function partitionNames(
  system: Pick<System, "files">,
  directory: SystemPath,
  disk: string,
): string[] {
  const number = (name: string): number =>
    Number(readTrimmed(system, join(directory, name, "partition")));
  return system.files
    .list(directory)
    .filter(
      (name) => name.startsWith(disk) && system.files.exists(join(directory, name, "partition")),
    )
    .toSorted((a, b) => number(a) - number(b));
}

function readTrimmed(system: Pick<System, "files">, file: SystemPath): string {
  return system.files.readTextIfExists(file)?.trim() ?? "";
}

function foreign(what: string): Content {
  return { kind: "foreign", what };
}
