import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readLenient } from "./lenient.ts";
import { readMounts, readSwaps } from "./mounts.ts";

export type SwapOutcome =
  | { readonly state: "off" }
  | {
      readonly state: "active";
      readonly path: string;
      readonly bytes: number;
      readonly changed: boolean;
    }
  | { readonly state: "failed"; readonly reason: string };

type Needs = Pick<System, "exec" | "files" | "log">;
type Keys = Pick<
  Config,
  "ResourceDisk.EnableSwap" | "ResourceDisk.EnableSwapEncryption" | "ResourceDisk.SwapSizeMB"
>;

const MIB = 1024 * 1024;
const FILE_NAME = "swapfile";
const MAPPING = "waagent-swap";
const MODE = 0o600;
const TIMEOUT_MS = 60_000;
/** Real blocks of a big file on a slow disk. */
const WRITE_TIMEOUT_MS = 60 * 60_000;
/** Left free for whoever else uses the temporary disk. */
const RESERVE_BYTES = 16 * MIB;

/**
 * Makes and enables the swap file on the temporary disk, wherever that is mounted (`system.md` §3, BET-05). Changes
 * nothing when it is in use already. Never throws: a failure is an ERROR in the log, and nothing half-made is left.
 */
export async function activateSwap(
  system: Needs,
  config: Keys,
  mountPoint: SystemPath,
): Promise<SwapOutcome> {
  if (!config["ResourceDisk.EnableSwap"]) return { state: "off" };
  try {
    return await activate(system, config, mountPoint);
  } catch (error) {
    const reason = describe(error);
    system.log.error(`Failed to enable swap: ${reason}`);
    return { state: "failed", reason };
  }
}

async function activate(system: Needs, config: Keys, mountPoint: SystemPath): Promise<SwapOutcome> {
  const megabytes = config["ResourceDisk.SwapSizeMB"];
  if (megabytes <= 0) throw new AgentError("config", `Invalid swap size [${megabytes}]`);
  const bytes = megabytes * MIB;
  const file = join(mountPoint, FILE_NAME);
  const encrypted = config["ResourceDisk.EnableSwapEncryption"];
  const existing = system.files.lstat(file);
  if (existing !== undefined && existing.kind !== "file")
    throw new AgentError("refused", `${file} is not a regular file; it is left alone`);

  // Found out before anything is changed.
  if (encrypted && system.exec.find("cryptsetup") === undefined)
    throw new AgentError(
      "program-missing",
      "ResourceDisk.EnableSwapEncryption=y, but cryptsetup is not installed; no swap rather than one that is not encrypted",
    );
  const wanted: SwapForm = encrypted ? "encrypted" : "plain";
  const active = existing === undefined ? undefined : activeForm(system, file);
  if (existing !== undefined) {
    if (active === wanted && existing.size === bytes) {
      if ((existing.mode & 0o077) !== 0) system.files.chmod(file, MODE);
      return { state: "active", path: file, bytes, changed: false };
    }
    if (active !== undefined) await deactivate(system, file, active);
  }
  if (active === undefined) await closeLeftovers(system, file);
  if (existing !== undefined && existing.size !== bytes) system.files.remove(file);

  // After a reboot the file is still there, and only has to be enabled again.
  const reusable = system.files.exists(file);
  if (reusable) {
    system.files.chmod(file, MODE);
    try {
      await enable(system, file, encrypted);
      return done(system, file, bytes);
    } catch (error) {
      system.log.info(`${file} cannot be used as it is and is made anew: ${describe(error)}`);
      system.files.remove(file);
    }
  }
  try {
    await create(system, file, bytes, mountPoint);
    await enable(system, file, encrypted);
  } catch (error) {
    system.files.remove(file);
    throw error;
  }
  return done(system, file, bytes);
}

function done(system: Needs, file: SystemPath, bytes: number): SwapOutcome {
  system.log.info(`Enabled ${bytes / 1024}KB of swap at ${file}`);
  return { state: "active", path: file, bytes, changed: true };
}

/** A file of the exact size, without holes, closed to everybody from the first instant (`system.md` SWAP-08). */
export async function create(
  system: Needs,
  file: SystemPath,
  bytes: number,
  mountPoint: SystemPath,
): Promise<void> {
  const space = system.files.freeSpace(mountPoint);
  if (space !== undefined && space.bytes < bytes + RESERVE_BYTES)
    throw new AgentError(
      "resource-disk",
      `${mountPoint} has ${Math.floor(space.bytes / MIB)} MiB free, too little for a swap file of ${bytes / MIB} MiB`,
    );
  const fileSystem = fileSystemOf(system, mountPoint);
  const path = system.files.realPath(file);
  // Copy-on-write has to be off before the first byte is there.
  system.files.write(file, "", { mode: MODE, exclusive: true });
  if (fileSystem === "btrfs")
    await system.exec.run({ argv: ["chattr", "+C", path], timeoutMs: TIMEOUT_MS });
  if (fileSystem === "xfs") await writeZeros(system, path, bytes);
  else {
    try {
      await system.exec.run({
        argv: ["fallocate", "-l", `${bytes}`, path],
        timeoutMs: WRITE_TIMEOUT_MS,
      });
    } catch (error) {
      // ext3 cannot reserve blocks, and small systems have no such program.
      system.log.verbose(`Writing the swap file block by block: ${describe(error)}`);
      await writeZeros(system, path, bytes);
    }
  }
  const size = system.files.stat(file)?.size;
  if (size !== bytes)
    throw new AgentError("resource-disk", `${file} has ${size} bytes instead of ${bytes}`);
}

/** The size is whole MiB, so one pass is exact. */
async function writeZeros(system: Needs, path: string, bytes: number): Promise<void> {
  await system.exec.run({
    argv: ["dd", "if=/dev/zero", `of=${path}`, "bs=1M", `count=${bytes / MIB}`, "conv=notrunc"],
    timeoutMs: WRITE_TIMEOUT_MS,
  });
}

async function enable(system: Needs, file: SystemPath, encrypted: boolean): Promise<void> {
  const path = system.files.realPath(file);
  if (encrypted) return enableEncrypted(system, path);
  await system.exec.run({ argv: ["mkswap", path], timeoutMs: TIMEOUT_MS });
  await system.exec.run({ argv: ["swapon", path], timeoutMs: TIMEOUT_MS });
}

/** dm-crypt over the file with a key that nobody ever sees and that is gone with the mapping. */
async function enableEncrypted(system: Needs, path: string): Promise<void> {
  const attached = await system.exec.run({
    argv: ["losetup", "--find", "--show", path],
    timeoutMs: TIMEOUT_MS,
  });
  const loop = attached.stdout.trim();
  try {
    await system.exec.run({
      argv: [
        "cryptsetup",
        "open",
        ...["--type", "plain", "--cipher", "aes-xts-plain64", "--key-size", "512"],
        ...["--key-file", "/dev/urandom", loop, MAPPING],
      ],
      timeoutMs: TIMEOUT_MS,
    });
    try {
      await system.exec.run({ argv: ["mkswap", `/dev/mapper/${MAPPING}`], timeoutMs: TIMEOUT_MS });
      await system.exec.run({ argv: ["swapon", `/dev/mapper/${MAPPING}`], timeoutMs: TIMEOUT_MS });
    } catch (error) {
      await quietly(system, ["cryptsetup", "close", MAPPING]);
      throw error;
    }
  } catch (error) {
    await quietly(system, ["losetup", "--detach", loop]);
    throw error;
  }
}

async function deactivate(system: Needs, file: SystemPath, form: SwapForm): Promise<void> {
  const target = form === "plain" ? system.files.realPath(file) : `/dev/mapper/${MAPPING}`;
  await system.exec.run({ argv: ["swapoff", target], timeoutMs: WRITE_TIMEOUT_MS });
  if (form === "plain") return;
  await system.exec.run({ argv: ["cryptsetup", "close", MAPPING], timeoutMs: TIMEOUT_MS });
  await detachLoops(system, file);
}

/** A mapping and loop devices of an agent that was killed before it enabled them; they would stand in the way. */
async function closeLeftovers(system: Needs, file: SystemPath): Promise<void> {
  if (system.files.lstat(`/dev/mapper/${MAPPING}`) !== undefined)
    await quietly(system, ["cryptsetup", "close", MAPPING]);
  await detachLoops(system, file);
}

async function detachLoops(system: Needs, file: SystemPath): Promise<void> {
  for (const name of loopsOf(system, file))
    await quietly(system, ["losetup", "--detach", `/dev/${name}`]);
}

type SwapForm = "plain" | "encrypted";

/** How the kernel uses the file now: itself, or through our mapping, which /proc/swaps shows as /dev/dm-N. */
function activeForm(system: Needs, file: SystemPath): SwapForm | undefined {
  const active = new Set(readSwaps(system).map((swap) => swap.path));
  if (active.has(file)) return "plain";
  const mapping = system.files.readLink(`/dev/mapper/${MAPPING}`);
  const mapped =
    active.has(`/dev/mapper/${MAPPING}`) ||
    (mapping !== undefined && active.has(`/dev/${nameOf(mapping)}`));
  return mapped ? "encrypted" : undefined;
}

function loopsOf(system: Needs, file: SystemPath): string[] {
  return system.files
    .glob("/sys/block/loop*/loop/backing_file")
    .filter((entry) => {
      const backing = readLenient(system, entry).trim();
      return backing === file || backing === `${file} (deleted)`;
    })
    .map((entry) => entry.split("/")[3] ?? "");
}

/** What is really mounted there; the configured type may differ. */
function fileSystemOf(system: Needs, mountPoint: SystemPath): string {
  return readMounts(system).findLast((mount) => mount.mountPoint === mountPoint)?.fileSystem ?? "";
}

async function quietly(system: Needs, argv: readonly string[]): Promise<void> {
  try {
    await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
  } catch (error) {
    system.log.warning(`Clean-up failed: ${describe(error)}`);
  }
}
