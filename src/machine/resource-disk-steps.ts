import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readMounts } from "./mounts.ts";
import { writeNote, removeNote } from "./resource-disk-note.ts";

/** The steps that change a disk or a mount, for one disk and for several that are joined. */
export type DiskNeeds = Pick<System, "exec" | "files" | "log" | "clock" | "emit">;
export type DiskKeys = Pick<
  Config,
  | "Lib.Dir"
  | "ResourceDisk.Format"
  | "ResourceDisk.Filesystem"
  | "ResourceDisk.MountPoint"
  | "ResourceDisk.MountOptions"
  | "ResourceDisk.EnableSwap"
  | "ResourceDisk.CombineLocalDisks"
>;

export interface Mounted {
  readonly state: "mounted";
  readonly device: string;
  readonly mountPoint: SystemPath;
  readonly fileSystem: string;
}

const SUPPORTED = ["ext2", "ext3", "ext4", "xfs", "btrfs"];
const MKFS_TIMEOUT_MS = 15 * 60_000;
const TIMEOUT_MS = 60_000;
const NODE_WAITS = 5;
const NODE_WAIT_MS = 5000;
const ALREADY_MOUNTED = 32;

/** The configured file system. Errors: AgentError "config" or "program-missing"; asked before a disk is changed. */
export function fileSystemToMake(system: Pick<System, "exec">, config: DiskKeys): string {
  const fileSystem = config["ResourceDisk.Filesystem"];
  if (!SUPPORTED.includes(fileSystem))
    throw new AgentError(
      "config",
      `ResourceDisk.Filesystem=${fileSystem} is not supported; use one of ${SUPPORTED.join(", ")}`,
    );
  if (system.exec.find(`mkfs.${fileSystem}`) === undefined)
    throw new AgentError("program-missing", `The program mkfs.${fileSystem} is not installed`);
  return fileSystem;
}

/**
 * Makes the kernel look at the partition table again. `partx` reads the table itself and changes only what differs;
 * `blockdev` and, in old versions, `sfdisk` ask the kernel to (`system.md` DISK-16).
 */
async function rereadTable(system: DiskNeeds, device: string): Promise<void> {
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
export async function waitForNode(
  system: DiskNeeds,
  device: string,
  node: SystemPath,
): Promise<void> {
  for (let wait = 0; wait < NODE_WAITS; wait += 1) {
    if (system.files.exists(node)) return;
    await rereadTable(system, device);
    if (system.files.exists(node)) return;
    await system.clock.sleep(NODE_WAIT_MS);
  }
  if (!system.files.exists(node))
    throw new AgentError("resource-disk", `Partition was not created: ${node} did not appear`);
}

/** `system.md` DISK-17. What is begun is noted first, under an id that is the device's own. */
export async function makeFileSystem(
  system: DiskNeeds,
  config: DiskKeys,
  target: {
    readonly device: string;
    readonly fileSystem: string;
    readonly id: string;
    readonly label?: string;
  },
): Promise<void> {
  const { device, fileSystem, id, label } = target;
  const force = fileSystem === "xfs" || fileSystem === "btrfs" ? "-f" : "-F";
  writeNote(system, config, { formatting: id });
  await system.exec.run({
    argv: [`mkfs.${fileSystem}`, force, ...(label === undefined ? [] : ["-L", label]), device],
    timeoutMs: MKFS_TIMEOUT_MS,
  });
  removeNote(system, config);
}

/** `system.md` DISK-12; and nothing is ever mounted over another mount. */
export function prepareMountPoint(system: DiskNeeds, config: DiskKeys): SystemPath {
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
  /** The whole disk, whose table is read again when the device cannot be mounted. */
  readonly disk: string;
  readonly device: string;
  readonly mountPoint: SystemPath;
  readonly fileSystem: string;
}

/** One retry after the table was read again; a mount that fails never leads to a format (`system.md` BET-01). */
export async function mount(
  system: DiskNeeds,
  config: DiskKeys,
  request: MountRequest,
): Promise<void> {
  const { device, mountPoint, fileSystem } = request;
  const options = config["ResourceDisk.MountOptions"];
  const optionWords =
    options === undefined || options === "" || options === "None" ? [] : ["-o", options];
  const argv = [
    "mount",
    "-t",
    fileSystem,
    ...optionWords,
    device,
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
      system.log.warning(`${device} is already mounted: ${text}`);
      return true;
    }
    throw new AgentError("exec", `${argv.join(" ")} failed with exit code ${result.code}: ${text}`);
  };
  try {
    await attempt();
  } catch (first) {
    system.log.warning(`Mounting again after reading the partition table: ${describe(first)}`);
    await rereadTable(system, request.disk);
    await waitForNode(system, request.disk, device as SystemPath);
    try {
      await attempt();
    } catch (error) {
      throw new AgentError(
        "resource-disk",
        `Could not mount ${device} at ${mountPoint} after syncing partition table; it was not formatted`,
        { cause: error },
      );
    }
  }
}

export function mounted(device: string, mountPoint: string, fileSystem: string): Mounted {
  return { state: "mounted", device, mountPoint: mountPoint as SystemPath, fileSystem };
}
