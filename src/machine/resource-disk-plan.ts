import type { Mount } from "./mounts.ts";

/** What a disk or partition holds, as far as it can be known without writing. */
export type Content =
  /** No signature of anything, and nothing but zeros where one would be. */
  | { readonly kind: "blank" }
  | {
      readonly kind: "filesystem";
      /** As blkid names it: "ntfs", "ext4", "xfs", ... */
      readonly type: string;
      readonly label: string;
      readonly files: Files;
    }
  /** LVM, RAID, LUKS, several signatures, bytes without a signature. */
  | { readonly kind: "foreign"; readonly what: string };

/** Names in the root directory of a file system that was looked at read-only. */
export type Files =
  | { readonly known: true; readonly names: readonly string[] }
  /** The kernel cannot mount this type at all. */
  | { readonly known: false; readonly reason: "no-driver" }
  | { readonly known: false; readonly reason: string };

export interface PartitionView {
  /** "/dev/sdb1" */
  readonly device: string;
  /** MBR type "0x7", or GPT type in lower case. */
  readonly type: string;
  /** PARTUUID; empty when unknown. */
  readonly id: string;
  readonly content: Content;
}

/** Everything the decision needs. */
export interface DiskView {
  /** "/dev/sdb" */
  readonly device: string;
  readonly readOnly: boolean;
  readonly table: "gpt" | "mbr" | "none" | "other";
  /** Content of the whole disk; with a table, of the space after it. */
  readonly content: Content;
  readonly partitions: readonly PartitionView[];
  /** Mounts of the disk or of any of its partitions. */
  readonly mounts: readonly Mount[];
  /** Who else holds it: device mapper, RAID, swap. */
  readonly holders: readonly string[];
  /** A format of this partition id was begun by us and not finished. */
  readonly unfinished: string | undefined;
}

export type DiskPlan =
  /** It is mounted: use it where it is (`system.md` DISK-11). */
  | {
      readonly do: "adopt";
      readonly device: string;
      readonly mountPoint: string;
      readonly fileSystem: string;
    }
  | { readonly do: "mount"; readonly partition: string; readonly fileSystem: string }
  /** `setLinuxType`: the MBR type 7 becomes 83 (DISK-15). */
  | { readonly do: "format"; readonly partition: string; readonly setLinuxType: boolean }
  /** A new GPT with one partition, then a file system. */
  | { readonly do: "partition" }
  /** Nothing is written. */
  | { readonly do: "refuse"; readonly reason: string };

export const WARNING_FILE = "DATALOSS_WARNING_README.txt";
const PLATFORM_LABEL = "Temporary Storage";
const MICROSOFT_RESERVED = "e3c9e316-0b5c-4db8-817d-f92df00215ae";
const OUR_FILE_SYSTEMS = ["ext2", "ext3", "ext4", "xfs", "btrfs"];
/** The machine itself lives on these. */
export const SYSTEM_MOUNTS = [
  "/",
  "/boot",
  "/boot/efi",
  "/etc",
  "/home",
  "/opt",
  "/root",
  "/usr",
  "/var",
];
/** Names that do not make a platform disk used (`system.md` DISK-21, PEER-18); compared without case. */
const PLATFORM_NAMES = [WARNING_FILE.toLowerCase(), "system volume information"];

/**
 * Decides what may be done with a disk that is proven to be the temporary one. Written is only what is blank, or the
 * platform's own NTFS without files; a Linux file system is mounted when it is ours or empty; everything else is
 * refused, and the refusal says why (`system.md` BET-01, BET-02, BET-03).
 */
export function planResourceDisk(view: DiskView): DiskPlan {
  const use = planUse(view);
  if (use !== undefined) return use;
  if (view.table === "other") return refuse(`${view.device} has an unknown partition table`);
  if (view.table === "none" || view.partitions.length === 0) {
    if (view.content.kind === "blank") return { do: "partition" };
    return refuse(`${view.device} ${holds(view.content)} and is left alone`);
  }
  const [first, second] = view.partitions;
  if (first === undefined) return refuse(`${view.device} has no partition`);
  if (view.partitions.length === 1) return planPartition(view, first);
  if (second !== undefined && view.partitions.length === 2 && first.type === MICROSOFT_RESERVED) {
    // More than 2 TiB: the platform adds a reserved partition (DISK-14).
    const why = reasonAgainst(second.content);
    return isFreeNtfs(second.content) ? { do: "partition" } : refuse(`${second.device} ${why}`);
  }
  return refuse(
    `${view.device} has ${view.partitions.length} partitions, which the platform never makes`,
  );
}

export type VolumePlan =
  | Extract<DiskPlan, { readonly do: "adopt" | "refuse" }>
  | {
      readonly do: "mount";
      readonly fileSystem: string;
    }
  | { readonly do: "format" };

/** The same for a device that has a file system on all of it: an array of our own. `id` is its UUID. */
export function planVolume(view: DiskView, id: string): VolumePlan {
  const use = planUse(view);
  if (use !== undefined) return use;
  if (view.table !== "none") return refuse(`${view.device} has a partition table`);
  const { content } = view;
  if (content.kind === "blank" || isUnfinished(view, id, content)) return { do: "format" };
  return planFileSystem(view.device, content);
}

/** What follows from who uses the device now; undefined when nobody does. */
function planUse(
  view: DiskView,
): Extract<DiskPlan, { readonly do: "adopt" | "refuse" }> | undefined {
  const used = view.mounts.find((mount) => SYSTEM_MOUNTS.includes(mount.mountPoint));
  if (used !== undefined)
    return refuse(
      `${view.device} is not the temporary disk: ${used.mountPoint} is mounted from it`,
    );
  const mount = view.mounts.find((candidate) => candidate.root === "/") ?? view.mounts[0];
  if (mount !== undefined)
    return {
      do: "adopt",
      device: mount.source,
      mountPoint: mount.mountPoint,
      fileSystem: mount.fileSystem,
    };
  if (view.holders.length > 0)
    return refuse(`${view.device} is in use by ${view.holders.join(", ")}`);
  if (view.readOnly) return refuse(`${view.device} is write-protected`);
  return undefined;
}

function planPartition(view: DiskView, partition: PartitionView): DiskPlan {
  const { content } = partition;
  const format: DiskPlan = {
    do: "format",
    partition: partition.device,
    setLinuxType: view.table === "mbr" && partition.type === "0x7",
  };
  if (isUnfinished(view, partition.id, content)) return format;
  if (content.kind === "blank" || isFreeNtfs(content)) return format;
  const plan = planFileSystem(partition.device, content);
  return plan.do === "mount" ? { ...plan, partition: partition.device } : plan;
}

/** A format that was cut short. Files prove that somebody finished it in another way and uses it since. */
function isUnfinished(view: DiskView, id: string, content: Content): boolean {
  if (view.unfinished === undefined || view.unfinished !== id) return false;
  return (
    content.kind !== "filesystem" ||
    !content.files.known ||
    content.files.names.every((name) => name === "lost+found")
  );
}

function planFileSystem(
  device: string,
  content: Content,
): Extract<VolumePlan, { readonly do: "mount" | "refuse" }> {
  if (content.kind === "filesystem" && OUR_FILE_SYSTEMS.includes(content.type)) {
    if (isOurs(content.files)) return { do: "mount", fileSystem: content.type };
    return refuse(
      content.files.known
        ? `${device} holds a ${content.type} file system that is neither empty nor ours (${shown(content.files.names)}); create ${WARNING_FILE} in it if it may be used as temporary disk`
        : `${device} holds a ${content.type} file system that cannot be read: ${content.files.reason}`,
    );
  }
  return refuse(`${device} ${reasonAgainst(content)}`);
}

/** NTFS without files; where it cannot be read for lack of a driver, only with the platform's label (PEER-17, PEER-18). */
function isFreeNtfs(content: Content): boolean {
  if (content.kind !== "filesystem" || content.type !== "ntfs") return false;
  if (content.files.known)
    return content.files.names.every((name) => PLATFORM_NAMES.includes(name.toLowerCase()));
  return content.files.reason === "no-driver" && content.label === PLATFORM_LABEL;
}

/** Our warning file is on it, or a format that we began. */
export function hasOurTraces(view: DiskView): boolean {
  return view.partitions.some(
    ({ id, content }) =>
      (view.unfinished !== undefined && view.unfinished === id) ||
      (content.kind === "filesystem" &&
        content.files.known &&
        content.files.names.includes(WARNING_FILE)),
  );
}

/** We leave the warning file on everything that we set up. */
function isOurs(files: Files): boolean {
  if (!files.known) return false;
  return files.names.includes(WARNING_FILE) || files.names.every((name) => name === "lost+found");
}

function reasonAgainst(content: Content): string {
  if (content.kind === "filesystem" && content.type === "ntfs") {
    const { files } = content;
    if (files.known) return `holds an NTFS file system with files on it (${shown(files.names)})`;
    return files.reason === "no-driver"
      ? `holds an NTFS file system labelled ${JSON.stringify(content.label)}, not "${PLATFORM_LABEL}", and there is no driver to look into it`
      : `holds an NTFS file system that cannot be read: ${files.reason}`;
  }
  return `${holds(content)} and is left alone`;
}

/** "is blank", "holds an ext4 file system", ... */
export function holds(content: Content): string {
  if (content.kind === "blank") return "is blank";
  if (content.kind === "foreign") return `holds ${content.what}`;
  return `holds a ${content.type} file system`;
}

function shown(names: readonly string[]): string {
  const some = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${some}, and ${names.length - 3} more` : some;
}

function refuse(reason: string): Extract<DiskPlan, { readonly do: "refuse" }> {
  return { do: "refuse", reason };
}
