import { AgentError, describe } from "../base/error.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readFstab, readMounts } from "./mounts.ts";
import { activateArray, mountedArray } from "./resource-disk-array.ts";
import { discoverResourceDisk, type ResourceDiskCandidate } from "./resource-disk-discovery.ts";
import { raidProblem } from "./resource-disk-mdadm.ts";
import { readNote } from "./resource-disk-note.ts";
import {
  type DiskPlan,
  type DiskView,
  hasOurTraces,
  planResourceDisk,
  SYSTEM_MOUNTS,
  WARNING_FILE,
} from "./resource-disk-plan.ts";
import {
  type DiskKeys,
  type DiskNeeds,
  fileSystemToMake,
  makeFileSystem,
  mount,
  type Mounted,
  mounted,
  prepareMountPoint,
  waitForNode,
} from "./resource-disk-steps.ts";
import { forgetPeeks, inspectDisk, partitionDevice } from "./resource-disk-view.ts";

export type ResourceDiskOutcome =
  | { readonly state: "off" }
  | { readonly state: "absent"; readonly reason: string }
  /** Somebody else sets the disk up; what is mounted already is told. */
  | { readonly state: "left-to-others"; readonly reason: string }
  | Mounted
  | { readonly state: "failed"; readonly reason: string };

const TIMEOUT_MS = 60_000;

/** `system.md` DISK-21: other software relies on name and size; 333 bytes. */
export const WARNING_TEXT = `WARNING: THIS IS A TEMPORARY DISK (RESOURCE DISK).

Whatever is stored here CAN BE LOST at any time, and there is no way to
get it back. Do not keep personal data or application data on this disk.

Before you use it, read what Microsoft wrote about temporary disks:
http://msdn.microsoft.com/en-us/library/windowsazure/jj672979.aspx
`;

/**
 * Sets up the temporary disk (`system.md` §2). Runs at every start of the daemon and changes nothing when all is in
 * place. Never throws: a failure is an ERROR and a failed event `ActivateResourceDisk`, and the start goes on
 * (DISK-22).
 */
export async function activateResourceDisk(
  system: DiskNeeds,
  config: DiskKeys,
): Promise<ResourceDiskOutcome> {
  if (!config["ResourceDisk.Format"] && !config["ResourceDisk.EnableSwap"]) return { state: "off" };
  try {
    return await activate(system, config);
  } catch (error) {
    const reason = `[ResourceDiskError] ${describe(error)}`;
    const message = `Failed to mount resource disk ${reason}`;
    system.log.error(message);
    system.emit({ operation: "ActivateResourceDisk", success: false, message, log: false });
    return { state: "failed", reason: describe(error) };
  }
}

async function activate(system: DiskNeeds, config: DiskKeys): Promise<ResourceDiskOutcome> {
  const discovery = discoverResourceDisk(system);
  if (discovery.state === "absent") {
    system.log.info(`Resource disk: ${discovery.reason}`);
    return discovery;
  }
  if (discovery.state === "contradiction") throw new AgentError("resource-disk", discovery.reason);
  await forgetPeeks(system);
  const { disk, others } = discovery;
  if (disk.kind === "scsi" || others.length === 0) {
    if (others.length > 0) tellOthers(system, disk, others, "named by the platform");
    return activateDisk(system, config, disk);
  }
  return activateLocalDisks(system, config, withoutSystem(system, [disk, ...others]));
}

/**
 * Several local NVMe disks are joined into one (`system.md` PEER-17, OFFER-04), where that can be done. A disk that is
 * in use alone, because it was set up so once, goes on alone; its number may have changed since.
 */
async function activateLocalDisks(
  system: DiskNeeds,
  config: DiskKeys,
  disks: readonly ResourceDiskCandidate[],
): Promise<ResourceDiskOutcome> {
  const [first, second] = disks;
  if (first === undefined)
    return { state: "absent", reason: "the machine itself lives on its local NVMe disks" };
  if (second === undefined) return activateDisk(system, config, first);
  const names = disks.map(({ name }) => name);
  const alone = await diskInUse(system, config, disks);
  const array = alone === undefined ? await mountedArray(system, names) : undefined;
  if (!config["ResourceDisk.Format"]) return array ?? activateDisk(system, config, alone ?? first);
  if (array?.mountPoint === config["ResourceDisk.MountPoint"]) return settle(system, array);

  const against =
    alone === undefined ? await reasonAgainstJoining(system, config) : "in use already";
  if (against !== undefined) {
    const chosen = alone ?? first;
    const others = disks.filter((disk) => disk !== chosen);
    tellOthers(
      system,
      chosen,
      others,
      alone === undefined ? `the first local NVMe disk (${against})` : against,
    );
    return activateDisk(system, config, chosen);
  }
  for (const name of names) {
    const other = otherManager(system, name);
    if (other !== undefined) return leave(system, `/dev/${name}`, other);
  }
  const outcome = await activateArray(system, config, names, (name) => otherManager(system, name));
  return outcome.state === "mounted"
    ? settle(system, outcome)
    : leave(system, `/dev/${outcome.array}`, outcome.reason);
}

async function reasonAgainstJoining(
  system: DiskNeeds,
  config: DiskKeys,
): Promise<string | undefined> {
  if (!config["ResourceDisk.CombineLocalDisks"]) return "ResourceDisk.CombineLocalDisks=n";
  return raidProblem(system);
}

/** The disk that was set up alone at an earlier start, or was begun to be; undefined when there is none. */
async function diskInUse(
  system: DiskNeeds,
  config: DiskKeys,
  disks: readonly ResourceDiskCandidate[],
): Promise<ResourceDiskCandidate | undefined> {
  const { formatting } = readNote(system, config);
  for (const [index, disk] of disks.entries()) {
    const view = await inspectDisk(system, disk.name, formatting);
    const plan = planResourceDisk(view);
    if (plan.do === "adopt") {
      // Mounted elsewhere it is somebody's own; the first one is used where it is, as a single disk would be (DISK-11).
      if (index === 0 || plan.mountPoint === config["ResourceDisk.MountPoint"]) return disk;
    } else if (plan.do === "mount" || plan.do === "format") {
      // The first one is judged as a single disk would be; another one has to be ours for certain.
      if (index === 0 || hasOurTraces(view)) return disk;
    }
  }
  return undefined;
}

/** An operating system may live on a local disk; that one is nobody's scratch space. */
function withoutSystem(
  system: DiskNeeds,
  disks: readonly ResourceDiskCandidate[],
): readonly ResourceDiskCandidate[] {
  const used = readMounts(system)
    .filter(({ mountPoint }) => SYSTEM_MOUNTS.includes(mountPoint))
    .map(({ source }) => nameOf(source));
  return disks.filter(({ name }) => !used.some((device) => isOnDisk(device, name)));
}

function tellOthers(
  system: DiskNeeds,
  disk: ResourceDiskCandidate,
  others: readonly ResourceDiskCandidate[],
  why: string,
): void {
  const names = others.map(({ name }) => name).join(", ");
  system.log.info(`The resource disk is ${disk.name}, ${why}; left alone: ${names}`);
}

async function activateDisk(
  system: DiskNeeds,
  config: DiskKeys,
  disk: ResourceDiskCandidate,
): Promise<ResourceDiskOutcome> {
  const { formatting } = readNote(system, config);
  const view = await inspectDisk(system, disk.name, formatting);
  const plan = planResourceDisk(view);
  if (!config["ResourceDisk.Format"]) {
    // Swap may go where others mounted the disk (`system.md` BET-05), but nothing else is done.
    if (plan.do !== "adopt") return { state: "off" };
    return mounted(plan.device, plan.mountPoint, plan.fileSystem);
  }
  if (plan.do !== "adopt") {
    const other = otherManager(system, disk.name);
    if (other !== undefined) return leave(system, view.device, other);
  }
  if (plan.do === "refuse") throw new AgentError("resource-disk", plan.reason);
  if (plan.do !== "adopt")
    system.log.info(`Resource disk ${view.device} (${disk.evidence}): ${planText(plan)}`);
  return settle(system, await carryOut(system, config, { view, plan }));
}

function leave(system: DiskNeeds, device: string, reason: string): ResourceDiskOutcome {
  system.log.info(`Leaving the resource disk ${device} alone: ${reason}`);
  return { state: "left-to-others", reason };
}

function settle(system: DiskNeeds, outcome: Mounted): Mounted {
  writeWarning(system, outcome.mountPoint);
  system.log.info(
    `Resource disk ${outcome.device} is mounted at ${outcome.mountPoint} with ${outcome.fileSystem}`,
  );
  return outcome;
}

/** Who else has been told to set up this disk (`system.md` PKG-15, BET-33); undefined when nobody. */
export function otherManager(system: Pick<System, "files">, name: string): string | undefined {
  for (const entry of readFstab(system)) {
    if (entry.options.includes("comment=azure-ephemeral-disk-setup"))
      return "azure-vm-utils manages it (/etc/fstab)";
    const named =
      /^\/dev\/disk\/(?:cloud\/azure_resource|azure\/resource)(?:-part\d+)?$/.test(entry.source) ||
      entry.source === "LABEL=AzureEphmDsk" ||
      isOnDisk(sourceDevice(system, entry.source), name);
    if (!named) continue;
    return entry.options.includes("comment=cloudconfig")
      ? `cloud-init mounts it at ${entry.mountPoint} (/etc/fstab)`
      : `/etc/fstab mounts it at ${entry.mountPoint}`;
  }
  return undefined;
}

/** Kernel name behind a source of fstab: "sdb1" for itself, its UUID, its label, or a link below /dev/disk. */
function sourceDevice(system: Pick<System, "files">, source: string): string | undefined {
  const [, tag, value] = /^(UUID|LABEL|PARTUUID|PARTLABEL)="?([^"]+)"?$/.exec(source) ?? [];
  const path = tag === undefined ? source : `/dev/disk/by-${tag.toLowerCase()}/${value ?? ""}`;
  if (!path.startsWith("/dev/")) return undefined;
  return nameOf(system.files.readLink(path as SystemPath) ?? path);
}

/** The disk itself or one of its partitions; sdba1 is neither of sdb, nor nvme0n12 of nvme0n1. */
function isOnDisk(device: string | undefined, disk: string): boolean {
  if (device === undefined || !device.startsWith(disk)) return false;
  const rest = device.slice(disk.length);
  return /\d$/.test(disk) ? /^(?:p\d+)?$/.test(rest) : /^\d*$/.test(rest);
}

interface Work {
  readonly view: DiskView;
  readonly plan: Exclude<DiskPlan, { readonly do: "refuse" }>;
}

async function carryOut(system: DiskNeeds, config: DiskKeys, work: Work): Promise<Mounted> {
  const { plan, view } = work;
  if (plan.do === "adopt") return mounted(plan.device, plan.mountPoint, plan.fileSystem);
  // A program that is missing is found out before the disk is changed.
  const fileSystem = plan.do === "mount" ? plan.fileSystem : fileSystemToMake(system, config);
  const mountPoint = prepareMountPoint(system, config);
  const partition = plan.do === "partition" ? partitionDevice(view.device, 1) : plan.partition;
  if (plan.do !== "mount") {
    if (plan.do === "partition") await makeTable(system, view.device);
    else if (plan.setLinuxType) await setLinuxType(system, view.device);
    await waitForNode(system, view.device, partition as SystemPath);
    const id = await partitionId(system, partition);
    await makeFileSystem(system, config, { device: partition, fileSystem, id });
  }
  await mount(system, config, { disk: view.device, device: partition, mountPoint, fileSystem });
  return mounted(partition, mountPoint, fileSystem);
}

/** PARTUUID; empty when there is none to be had. */
async function partitionId(system: DiskNeeds, partition: string): Promise<string> {
  const probe = await system.exec.run({
    argv: ["blkid", "-p", "-s", "PART_ENTRY_UUID", "-o", "value", partition],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
  return probe.stdout.trim();
}

/** GPT with one partition over all of the disk. */
async function makeTable(system: DiskNeeds, device: string): Promise<void> {
  if (system.exec.find("parted") !== undefined) {
    const words = ["mklabel", "gpt", "mkpart", "primary", "1MiB", "100%"];
    await system.exec.run({
      argv: ["parted", "--script", device, ...words],
      timeoutMs: TIMEOUT_MS,
    });
  } else {
    await system.exec.run({
      argv: ["sfdisk", device],
      stdin: "label: gpt\ntype=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n",
      timeoutMs: TIMEOUT_MS,
    });
  }
}

/** MBR type 7 (NTFS) becomes 83 (Linux); sfdisk changed the option's name over time (`system.md` DISK-15). */
async function setLinuxType(system: DiskNeeds, device: string): Promise<void> {
  try {
    await system.exec.run({
      argv: ["sfdisk", "--part-type", device, "1", "83"],
      timeoutMs: TIMEOUT_MS,
    });
  } catch {
    await system.exec.run({ argv: ["sfdisk", "-c", device, "1", "83"], timeoutMs: TIMEOUT_MS });
  }
}

/** A service may have made the file immutable (`system.md` DISK-21, PKG-12): then it is there, which is the point. */
function writeWarning(system: DiskNeeds, mountPoint: SystemPath): void {
  const file = join(mountPoint, WARNING_FILE);
  try {
    if (system.files.readTextIfExists(file) === WARNING_TEXT) return;
    system.files.write(file, WARNING_TEXT, { mode: 0o644 });
  } catch (error) {
    system.log.warning(`Failed to write ${WARNING_FILE}: ${describe(error)}`);
  }
}

function planText(plan: Exclude<Work["plan"], { readonly do: "adopt" }>): string {
  if (plan.do === "mount") return `mounting ${plan.partition} with ${plan.fileSystem}`;
  return plan.do === "format"
    ? `formatting ${plan.partition}`
    : "making a partition and formatting it";
}
