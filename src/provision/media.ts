import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { readLenient } from "../machine/lenient.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { decodeOvf, parseOvf, redactOvf, type OvfEnvironment } from "./ovf.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

export const OVF_FILE = "ovf-env.xml";
/** The redacted copy is as private as what it was made from (DB-03). */
const COPY_MODE = 0o600;
const MOUNT_TYPES = "udf,iso9660,vfat";
const ROUNDS = 5;
const ROUND_MS = 5000;
/** DVD-01 with DB-04: two-digit names and the plain `cdrom` link count too; `vd[b-z]` are virtio disks. */
const DEVICE = /^(?:sr\d+|hd[c-z]|cdrom\d*|cd\d+c?|vd[b-z])$/;
const MAX_BYTES = 8 * 1024 * 1024;

/** The document, and the device it came from when there is something to eject. */
export interface Medium {
  readonly document: OvfEnvironment;
  readonly device: SystemPath | undefined;
}

/**
 * Reads `ovf-env.xml` from the provisioning DVD and saves its redacted copy (DVD-01..07). Every candidate is tried,
 * five rounds of them 5 s apart; what we mounted is unmounted again in any case (DB-04).
 * Errors: AgentError "protocol" whose text has the `[CopyOvfEnv]` mark (ERR-01), its cause the reason.
 */
export async function readMedium(
  system: Machine,
  config: Pick<Config, "DVD.MountPoint" | "Lib.Dir">,
): Promise<Medium> {
  let last: unknown;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const candidates = findDevices(system);
    if (candidates.length === 0) last = noDevice(system);
    let unreadable: unknown;
    for (const device of candidates) {
      let found: Found | undefined;
      try {
        found = await readFrom(system, device, config["DVD.MountPoint"] as SystemPath);
      } catch (error) {
        last = error;
        system.log.warning(`${device} gave no provisioning document: ${describe(error)}`);
        continue;
      }
      if (found === undefined) {
        last ??= new AgentError("bad-input", `${device} holds no ${OVF_FILE}`);
        continue;
      }
      try {
        const text = decodeOvf(found.bytes);
        const document = parseOvf(text);
        saveCopy(system, config, text);
        return { document, device: found.mayEject ? device : undefined };
      } catch (error) {
        unreadable = error;
      }
    }
    // A document that is there and wrong does not get better by waiting.
    if (unreadable !== undefined) throw copyFailed(unreadable);
    if (round === 1) await loadDriver(system);
    if (round < ROUNDS) await system.clock.sleep(ROUND_MS);
  }
  throw copyFailed(last);
}

/** The copy an earlier, interrupted run saved, or the one of cloud-init. undefined when there is none. */
export function readCopy(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
): OvfEnvironment | undefined {
  const file = copyPath(config);
  if (!system.files.exists(file)) return undefined;
  return parseOvf(decodeOvf(system.files.read(file, { maxBytes: MAX_BYTES }), file), file);
}

export function copyPath(config: Pick<Config, "Lib.Dir">): SystemPath {
  return join(config["Lib.Dir"] as SystemPath, OVF_FILE);
}

/** Saves the document without its password, whole and private from its first instant (DVD-06, DVD-07, DB-03). */
export function saveCopy(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
  text: string,
): void {
  const file = copyPath(config);
  const redacted = redactOvf(text.startsWith("\uFEFF") ? text.slice(1) : text);
  const info = system.files.stat(file);
  if (info?.mode === COPY_MODE && system.files.readTextIfExists(file) === redacted) return;
  system.files.write(file, redacted, { mode: COPY_MODE });
}

/** Hands the DVD back (DVD-08). Data disks and machines without `eject` are left alone; failure is a WARNING. */
export async function ejectMedium(
  system: Pick<System, "exec" | "log">,
  device: SystemPath | undefined,
): Promise<void> {
  if (device === undefined || /^vd[b-z]/.test(nameOf(device))) return;
  const argv = [
    ["eject", device],
    ["cdcontrol", "-f", device, "eject"],
    ["cdio", "eject", device],
  ].find(([program]) => system.exec.find(program ?? "") !== undefined);
  if (argv === undefined) {
    system.log.warning(`${device} was not ejected: there is no program for it`);
    return;
  }
  try {
    await system.exec.run({ argv, timeoutMs: 30_000 });
  } catch (error) {
    system.log.warning(`Failed to eject dvd: ${describe(error)}`);
  }
}

/** Optical drives first: a label that names the DVD, then `sr*`, then the rest, and disks last (DB-04). */
export function findDevices(system: Pick<System, "files">): SystemPath[] {
  const labelled = system.files
    .list("/dev/disk/by-label")
    .filter((label) => /^rd_rdfe/i.test(label))
    .flatMap((label) => {
      const target = system.files.readLink(`/dev/disk/by-label/${label}`);
      return target === undefined ? [] : [`/dev/${nameOf(target)}` as SystemPath];
    });
  const names = system.files
    .list("/dev")
    .filter((name) => DEVICE.test(name))
    .toSorted((a, b) => rank(a) - rank(b));
  const seen = new Set<string>();
  return [...labelled, ...names.map((name): SystemPath => `/dev/${name}`)].filter((device) => {
    const target = system.files.readLink(device);
    const identity = target === undefined ? device : `/dev/${nameOf(target)}`;
    return seen.has(identity) ? false : (seen.add(identity), true);
  });
}

function rank(name: string): number {
  return name.startsWith("sr") ? 0 : name.startsWith("vd") ? 2 : 1;
}

interface Found {
  readonly bytes: Uint8Array;
  /** False while somebody else has it mounted, or when it could not be unmounted (DVD-08). */
  readonly mayEject: boolean;
}

/** The document on the device, mounted by us or already mounted anywhere (DVD-03); undefined when it has none. */
async function readFrom(
  system: Machine,
  device: SystemPath,
  mountPoint: SystemPath,
): Promise<Found | undefined> {
  const mounted = mountPointOf(system, device);
  if (mounted !== undefined) {
    system.log.info(`${device} is already mounted at ${mounted}`);
    if (mounted !== mountPoint) {
      const bytes = readDocument(system, mounted);
      return bytes === undefined ? undefined : { bytes, mayEject: false };
    }
  } else {
    if (!system.files.exists(mountPoint)) system.files.makeDirectory(mountPoint, { mode: 0o700 });
    await system.exec.run({
      argv: ["mount", "-o", "ro", "-t", MOUNT_TYPES, device, system.files.realPath(mountPoint)],
      timeoutMs: 60_000,
    });
  }
  let bytes: Uint8Array | undefined;
  let unmounted = false;
  try {
    bytes = readDocument(system, mountPoint);
  } finally {
    unmounted = await unmount(system, mountPoint);
  }
  return bytes === undefined ? undefined : { bytes, mayEject: unmounted };
}

async function unmount(system: Machine, mountPoint: SystemPath): Promise<boolean> {
  try {
    await system.exec.run({ argv: ["umount", system.files.realPath(mountPoint)] });
    return true;
  } catch (error) {
    system.log.warning(`Failed to unmount ${mountPoint}: ${describe(error)}`);
    return false;
  }
}

function readDocument(system: Machine, directory: SystemPath): Uint8Array | undefined {
  const file = join(directory, OVF_FILE);
  if (!system.files.exists(file)) return undefined;
  return system.files.read(file, { maxBytes: MAX_BYTES });
}

/** Where the kernel has the device mounted, from its own table; blanks there are octal. */
function mountPointOf(system: Pick<System, "files">, device: SystemPath): SystemPath | undefined {
  const target = system.files.readLink(device);
  const names = [device, ...(target === undefined ? [] : [`/dev/${nameOf(target)}`])];
  const table = readLenient(system, "/proc/self/mounts");
  for (const line of table.split("\n")) {
    const [source = "", point = ""] = line.split(" ");
    if (names.includes(source) && point.startsWith("/"))
      return point.replace(/\\([0-7]{3})/g, (_, digits: string) =>
        String.fromCharCode(Number.parseInt(digits, 8)),
      ) as SystemPath;
  }
  return undefined;
}

/** Minimal kernels have the file system as a module, and some do not load it by themselves. */
async function loadDriver(system: Machine): Promise<void> {
  for (const name of ["udf", "isofs"]) {
    try {
      await system.exec.run({ argv: ["modprobe", name], timeoutMs: 30_000 });
    } catch (error) {
      system.log.verbose(`modprobe ${name}: ${describe(error)}`);
    }
  }
}

function noDevice(system: Pick<System, "files">): AgentError {
  const seen = system.files.list("/dev").slice(0, 60).join(" ");
  return new AgentError("os-utility", `There is no DVD device; /dev has: ${seen}`);
}

function copyFailed(reason: unknown): AgentError {
  return new AgentError(
    "protocol",
    "[CopyOvfEnv] Could not read the provisioning document from the DVD",
    { cause: reason },
  );
}
