import { describe } from "../base/error.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readLenient } from "./lenient.ts";

/** A disk that the platform itself declares to be the temporary one. */
export interface ResourceDiskCandidate {
  /** Kernel name: "sdb", "nvme0n1". */
  readonly name: string;
  readonly kind: "scsi" | "nvme";
  /** What proves it, for the log. */
  readonly evidence: string;
}

export type Discovery =
  | {
      readonly state: "found";
      readonly disk: ResourceDiskCandidate;
      /** Further local NVMe disks, in the order of their numbers. */
      readonly others: readonly ResourceDiskCandidate[];
    }
  /** Many VM sizes have none (`system.md` BET-04). */
  | { readonly state: "absent"; readonly reason: string }
  /** Two proofs contradict each other; then none of them counts. */
  | { readonly state: "contradiction"; readonly reason: string };

const VMBUS = "/sys/bus/vmbus/devices";
const LINKS = "/dev/disk/azure";
const GEN1_PREFIX = "00000000-0001";
const GEN2_CONTROLLER_0 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb";
/** Controller 0 of generation 2: LUN 0 is the OS disk, 1 the resource disk, 2 the provisioning CD-ROM. */
const GEN2_RESOURCE_LUN = ":1";
/** Controllers that only serve local temporary disks; the remote ones have another model (`system.md` PEER-15). */
const LOCAL_NVME_MODELS = ["Microsoft NVMe Direct Disk", "Microsoft NVMe Direct Disk v2"];
const MAX_DEPTH = 8;

/** Prefix of the VMBus device id of an emulated IDE port (`system.md` DISK-07); undefined above port 3. */
export function idePortPrefix(port: number): string | undefined {
  if (!Number.isInteger(port) || port < 0 || port > 3) return undefined;
  return port < 2 ? `00000000-000${port}` : `00000001-000${port - 2}`;
}

/**
 * Finds the temporary disk by what the platform says about it, never by its name, size or content: the VMBus
 * identity (`system.md` DISK-04, DISK-05), else the link that udev made from it, else a local NVMe controller
 * (PEER-15). A SCSI resource disk comes before local NVMe disks: sizes with both have it for swap and scratch.
 */
export function discoverResourceDisk(system: Pick<System, "files" | "log">): Discovery {
  const vmbus = vmbusDisk(system);
  const linked = linkedDisk(system, "resource");
  const osDisk = linkedDisk(system, "root") ?? linkedDisk(system, "os");
  const name = vmbus?.name ?? linked;
  if (vmbus !== undefined && linked !== undefined && vmbus.name !== linked)
    return {
      state: "contradiction",
      reason: `VMBus says that the temporary disk is ${vmbus.name}, ${LINKS}/resource says ${linked}`,
    };
  if (name !== undefined && name === osDisk)
    return {
      state: "contradiction",
      reason: `${name} is said to be the temporary disk, but ${LINKS} says that it is the OS disk`,
    };
  const scsi: ResourceDiskCandidate | undefined =
    vmbus ??
    (linked !== undefined && system.files.exists(`/sys/block/${linked}`)
      ? { name: linked, kind: "scsi", evidence: `${LINKS}/resource` }
      : undefined);
  const local = localNvmeDisks(system).filter(({ name: other }) => other !== osDisk);
  const disk = scsi ?? local[0];
  if (disk === undefined)
    return { state: "absent", reason: "this VM has no temporary disk (resource disk)" };
  return { state: "found", disk, others: local.filter(({ name: other }) => other !== disk.name) };
}

function vmbusDisk(system: Pick<System, "files" | "log">): ResourceDiskCandidate | undefined {
  try {
    for (const entry of system.files.list(VMBUS)) {
      const device = join(VMBUS, entry);
      const id = readLenient(system, join(device, "device_id"))
        .replace(/[{}\n]/g, "")
        .toLowerCase();
      const generation1 = id.startsWith(GEN1_PREFIX);
      if (!generation1 && id !== GEN2_CONTROLLER_0) continue;
      const name = blockDevice(
        system,
        device,
        (address) => (generation1 ? true : address.endsWith(GEN2_RESOURCE_LUN)),
        generation1,
      );
      if (name !== undefined) return { name, kind: "scsi", evidence: `VMBus device ${id}` };
    }
  } catch (error) {
    system.log.warning(`Could not look for the temporary disk on VMBus: ${describe(error)}`);
  }
  return undefined;
}

/** First disk below a VMBus device whose SCSI address is accepted. Links are not followed: they leave the device. */
function blockDevice(
  system: Pick<System, "files">,
  directory: SystemPath,
  accept: (address: string) => boolean,
  acceptOldLayout: boolean,
  depth = 0,
): string | undefined {
  if (depth > MAX_DEPTH) return undefined;
  for (const name of system.files.list(directory)) {
    const child = join(directory, name);
    // Kernels before 2.6.26 have `block:sdX`. It does not tell the LUN, so only generation 1 may use it (DISK-06).
    if (name.startsWith("block:") && acceptOldLayout) return name.slice("block:".length);
    if (system.files.lstat(child)?.kind !== "directory") continue;
    if (name === "block") {
      const disk = system.files.list(child)[0];
      if (disk !== undefined && accept(nameOf(directory))) return disk;
      continue;
    }
    const found = blockDevice(system, child, accept, acceptOldLayout, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

function linkedDisk(system: Pick<System, "files">, name: string): string | undefined {
  const target = system.files.readLink(join(LINKS, name));
  return target === undefined ? undefined : nameOf(target);
}

function localNvmeDisks(system: Pick<System, "files">): ResourceDiskCandidate[] {
  const byNumber = (a: string, b: string): number => a.localeCompare(b, "en", { numeric: true });
  return system.files
    .list("/sys/class/nvme")
    .toSorted(byNumber)
    .flatMap((controller) => {
      const directory = join("/sys/class/nvme", controller);
      const model = readLenient(system, join(directory, "model")).trim();
      if (!LOCAL_NVME_MODELS.includes(model)) return [];
      return system.files
        .list(directory)
        .filter((entry) => /^nvme\d+n\d+$/.test(entry))
        .toSorted(byNumber)
        .map((name) => ({ name, kind: "nvme" as const, evidence: `NVMe controller "${model}"` }));
    });
}
