import { AgentError, describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { Config } from "../config/table.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readFstab, readMounts } from "./mounts.ts";
import { discoverResourceDisk } from "./resource-disk-discovery.ts";
import {
  type DiskPlan,
  type DiskView,
  planResourceDisk,
  WARNING_FILE,
} from "./resource-disk-plan.ts";
import { inspectDisk, partitionDevice } from "./resource-disk-view.ts";

export type ResourceDiskOutcome =
  | { readonly state: "off" }
  | { readonly state: "absent"; readonly reason: string }
  /** Somebody else sets the disk up; what is mounted already is told. */
  | { readonly state: "left-to-others"; readonly reason: string }
  | {
      readonly state: "mounted";
      readonly device: string;
      readonly mountPoint: SystemPath;
      readonly fileSystem: string;
    }
  | { readonly state: "failed"; readonly reason: string };

type Needs = Pick<System, "exec" | "files" | "log" | "clock" | "emit">;
type Keys = Pick<
  Config,
  | "Lib.Dir"
  | "ResourceDisk.Format"
  | "ResourceDisk.Filesystem"
  | "ResourceDisk.MountPoint"
  | "ResourceDisk.MountOptions"
  | "ResourceDisk.EnableSwap"
>;

const SUPPORTED = ["ext2", "ext3", "ext4", "xfs", "btrfs"];
const STATE_FILE = "waagent-resource-disk.json";
const MKFS_TIMEOUT_MS = 15 * 60_000;
const TIMEOUT_MS = 60_000;
const NODE_WAITS = 5;
const NODE_WAIT_MS = 5000;
const ALREADY_MOUNTED = 32;

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
  system: Needs,
  config: Keys,
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

async function activate(system: Needs, config: Keys): Promise<ResourceDiskOutcome> {
  const discovery = discoverResourceDisk(system);
  if (discovery.state === "absent") {
    system.log.info(`Resource disk: ${discovery.reason}`);
    return discovery;
  }
  if (discovery.state === "contradiction") throw new AgentError("resource-disk", discovery.reason);
  const { disk } = discovery;
  if (discovery.note !== undefined) system.log.info(discovery.note);

  const view = await inspectDisk(system, disk.name, readUnfinished(system, config));
  const plan = planResourceDisk(view);
  if (!config["ResourceDisk.Format"]) {
    // Swap may go where others mounted the disk (`system.md` BET-05), but nothing else is done.
    if (plan.do !== "adopt") return { state: "off" };
    return mounted(plan.device, plan.mountPoint, plan.fileSystem);
  }
  if (plan.do !== "adopt") {
    const other = otherManager(system, disk.name);
    if (other !== undefined) {
      system.log.info(`Leaving the resource disk ${view.device} alone: ${other}`);
      return { state: "left-to-others", reason: other };
    }
  }
  if (plan.do === "refuse") throw new AgentError("resource-disk", plan.reason);
  if (plan.do !== "adopt")
    system.log.info(`Resource disk ${view.device} (${disk.evidence}): ${planText(plan)}`);
  const outcome = await carryOut(system, config, { view, plan, name: disk.name });
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

/** The disk itself or one of its partitions; sdba1 is neither of sdb. */
function isOnDisk(device: string | undefined, disk: string): boolean {
  return (
    device !== undefined &&
    device.startsWith(disk) &&
    /^(?:p?\d+)?$/.test(device.slice(disk.length))
  );
}

interface Work {
  readonly view: DiskView;
  readonly plan: Exclude<DiskPlan, { readonly do: "refuse" }>;
  readonly name: string;
}

type Mounted = Extract<ResourceDiskOutcome, { readonly state: "mounted" }>;

async function carryOut(system: Needs, config: Keys, work: Work): Promise<Mounted> {
  const { plan, view } = work;
  if (plan.do === "adopt") return mounted(plan.device, plan.mountPoint, plan.fileSystem);
  const fileSystem = config["ResourceDisk.Filesystem"];
  if (plan.do !== "mount" && !SUPPORTED.includes(fileSystem))
    throw new AgentError(
      "config",
      `ResourceDisk.Filesystem=${fileSystem} is not supported; use one of ${SUPPORTED.join(", ")}`,
    );
  const mountPoint = prepareMountPoint(system, config);
  if (plan.do === "mount") {
    await mount(system, config, {
      device: view.device,
      partition: plan.partition,
      mountPoint,
      fileSystem: plan.fileSystem,
    });
    return mounted(plan.partition, mountPoint, plan.fileSystem);
  }

  // A program that is missing is found out before the disk is changed.
  if (system.exec.find(`mkfs.${fileSystem}`) === undefined)
    throw new AgentError("program-missing", `The program mkfs.${fileSystem} is not installed`);
  const partition = plan.do === "format" ? plan.partition : partitionDevice(view.device, 1);
  if (plan.do === "partition") await makeTable(system, view.device);
  else if (plan.setLinuxType) await setLinuxType(system, view.device);
  await waitForNode(system, view.device, partition as SystemPath);
  await makeFileSystem(system, config, { partition, fileSystem });
  await mount(system, config, { device: view.device, partition, mountPoint, fileSystem });
  return mounted(partition, mountPoint, fileSystem);
}

/** GPT with one partition over all of the disk. */
async function makeTable(system: Needs, device: string): Promise<void> {
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
async function setLinuxType(system: Needs, device: string): Promise<void> {
  try {
    await system.exec.run({
      argv: ["sfdisk", "--part-type", device, "1", "83"],
      timeoutMs: TIMEOUT_MS,
    });
  } catch {
    await system.exec.run({ argv: ["sfdisk", "-c", device, "1", "83"], timeoutMs: TIMEOUT_MS });
  }
}

/**
 * Makes the kernel look at the partition table again. `partx` reads the table itself and changes only what differs;
 * `blockdev` and, in old versions, `sfdisk` ask the kernel to (`system.md` DISK-16).
 */
async function rereadTable(system: Needs, device: string): Promise<void> {
  for (const argv of [
    ["partx", "--update", device],
    ["blockdev", "--rereadpt", device],
    ["sfdisk", "-R", device],
  ]) {
    try {
      await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
      return;
    } catch {
      // Whether any of them helped is seen by the partition's node.
    }
  }
}

/**
 * Waits for a partition's node, 5 times 5 s (`system.md` DISK-18). Most tools tell the kernel about a new table
 * themselves, and udev makes the node a moment later; where they did not, the table is read again.
 */
async function waitForNode(system: Needs, device: string, node: SystemPath): Promise<void> {
  for (let wait = 0; wait < NODE_WAITS; wait += 1) {
    if (system.files.exists(node)) return;
    await rereadTable(system, device);
    if (system.files.exists(node)) return;
    await system.clock.sleep(NODE_WAIT_MS);
  }
  if (!system.files.exists(node))
    throw new AgentError("resource-disk", `Partition was not created: ${node} did not appear`);
}

/** `system.md` DISK-17. What is begun is noted first, so that a format cut short by a reset can be done again. */
async function makeFileSystem(
  system: Needs,
  config: Keys,
  target: { readonly partition: string; readonly fileSystem: string },
): Promise<void> {
  const { partition, fileSystem } = target;
  const probe = await system.exec.run({
    argv: ["blkid", "-p", "-s", "PART_ENTRY_UUID", "-o", "value", partition],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
  const force = fileSystem === "xfs" || fileSystem === "btrfs" ? "-f" : "-F";
  const state = stateFile(config);
  system.files.makeDirectory(config["Lib.Dir"], { mode: 0o700, keepMode: true });
  system.files.write(state, `${JSON.stringify({ version: 1, formatting: probe.stdout.trim() })}\n`);
  await system.exec.run({
    argv: [`mkfs.${fileSystem}`, force, partition],
    timeoutMs: MKFS_TIMEOUT_MS,
  });
  system.files.remove(state);
}

function stateFile(config: Keys): SystemPath {
  return join(config["Lib.Dir"], STATE_FILE);
}

/** PARTUUID of a format that was begun and not finished. A file that cannot be understood says nothing. */
function readUnfinished(system: Needs, config: Keys): string | undefined {
  try {
    const text = system.files.readTextIfExists(stateFile(config));
    if (text === undefined) return undefined;
    const id = JsonReader.parse(text, stateFile(config)).get("formatting").string();
    return id === "" ? undefined : id;
  } catch (error) {
    system.log.warning(`Ignoring ${stateFile(config)}: ${describe(error)}`);
    return undefined;
  }
}

/** `system.md` DISK-12; and nothing is ever mounted over another mount. */
function prepareMountPoint(system: Needs, config: Keys): SystemPath {
  const path = join(config["ResourceDisk.MountPoint"]);
  const taken = readMounts(system).find((mount) => mount.mountPoint === path);
  if (taken !== undefined)
    throw new AgentError("resource-disk", `${path} is taken: ${taken.source} is mounted there`);
  try {
    system.files.makeDirectory(path, { mode: 0o755 });
  } catch (error) {
    throw new AgentError("resource-disk", `Failed to create mount point directory ${path}`, {
      cause: error,
    });
  }
  return path;
}

interface MountRequest {
  readonly device: string;
  readonly partition: string;
  readonly mountPoint: SystemPath;
  readonly fileSystem: string;
}

/** One retry after the table was read again; a mount that fails never leads to a format (`system.md` BET-01). */
async function mount(system: Needs, config: Keys, request: MountRequest): Promise<void> {
  const { partition, mountPoint, fileSystem } = request;
  const options = config["ResourceDisk.MountOptions"];
  const optionWords =
    options === undefined || options === "" || options === "None" ? [] : ["-o", options];
  const argv = [
    "mount",
    "-t",
    fileSystem,
    ...optionWords,
    partition,
    system.files.realPath(mountPoint),
  ];
  const attempt = async (): Promise<boolean> => {
    const result = await system.exec.run({
      argv,
      okCodes: [0, ALREADY_MOUNTED],
      timeoutMs: TIMEOUT_MS,
    });
    if (result.code === 0) return true;
    const text = `${result.stdout}${result.stderr}`.trim();
    if (/is already mounted/i.test(text)) {
      system.log.warning(`${partition} is already mounted: ${text}`);
      return true;
    }
    throw new AgentError("exec", `${argv.join(" ")} failed with exit code ${result.code}: ${text}`);
  };
  try {
    await attempt();
  } catch (first) {
    system.log.warning(`Mounting again after reading the partition table: ${describe(first)}`);
    await rereadTable(system, request.device);
    await waitForNode(system, request.device, partition as SystemPath);
    try {
      await attempt();
    } catch (error) {
      throw new AgentError(
        "resource-disk",
        `Could not mount ${partition} at ${mountPoint} after syncing partition table; it was not formatted`,
        { cause: error },
      );
    }
  }
}

/** A service may have made the file immutable (`system.md` DISK-21, PKG-12): then it is there, which is the point. */
function writeWarning(system: Needs, mountPoint: SystemPath): void {
  const file = join(mountPoint, WARNING_FILE);
  try {
    if (system.files.readTextIfExists(file) === WARNING_TEXT) return;
    system.files.write(file, WARNING_TEXT, { mode: 0o644 });
  } catch (error) {
    system.log.warning(`Failed to write ${WARNING_FILE}: ${describe(error)}`);
  }
}

function mounted(device: string, mountPoint: string, fileSystem: string): Mounted {
  return { state: "mounted", device, mountPoint: mountPoint as SystemPath, fileSystem };
}

function planText(plan: Exclude<Work["plan"], { readonly do: "adopt" }>): string {
  if (plan.do === "mount") return `mounting ${plan.partition} with ${plan.fileSystem}`;
  return plan.do === "format"
    ? `formatting ${plan.partition}`
    : "making a partition and formatting it";
}
