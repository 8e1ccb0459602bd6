import { AgentError, describe } from "../base/error.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { parseExport } from "./resource-disk-view.ts";

type Needs = Pick<System, "exec" | "files" | "log">;

/** Name, chunk and label that azure-vm-utils gives the same array, so that either knows the other's (`system.md` PEER-17). */
export const ARRAY_LABEL = "AzureEphmDsk";
const ARRAY_NAME = "azure-ephemeral-md";
const CHUNK = "512K";
const LEVEL = "raid0";
/** mdadm makes this link where udev does not; the node behind it is the next free one. */
const ARRAY_LINK = `/dev/md/${ARRAY_NAME}`;
const TIMEOUT_MS = 60_000;
/** States of an array that has not been started: parts of it are missing, or whoever made it was killed. */
const STOPPED = ["clear", "inactive", ""];

/** What the disks of an array know about it. */
export interface Superblock {
  /** Four groups of eight hex digits, with colons. */
  readonly uuid: string;
  readonly name: string;
  readonly level: string;
  readonly devices: number;
}

/** An array as the kernel has it: "md127". */
export interface RunningArray {
  readonly name: string;
  /** false: it only holds its disks and cannot be read. */
  readonly started: boolean;
}

/** Why this machine cannot join disks, for the log; undefined when it can. Loads the kernel's module. */
export async function raidProblem(system: Needs): Promise<string | undefined> {
  if (system.exec.find("mdadm") === undefined) return "mdadm is not installed";
  if (hasRaid0(system)) return undefined;
  try {
    await system.exec.run({ argv: ["modprobe", LEVEL], timeoutMs: TIMEOUT_MS });
  } catch (error) {
    return `the kernel has no ${LEVEL}: ${describe(error)}`;
  }
  return hasRaid0(system) ? undefined : `the kernel has no ${LEVEL}`;
}

function hasRaid0(system: Needs): boolean {
  return (system.files.readTextIfExists("/proc/mdstat") ?? "").includes(`[${LEVEL}]`);
}

/** undefined when the disk is part of no array. Reads the disk itself. */
export async function readSuperblock(
  system: Needs,
  device: string,
): Promise<Superblock | undefined> {
  const examined = await system.exec.run({
    argv: ["mdadm", "--examine", "--export", device],
    okCodes: [0, 1],
    timeoutMs: TIMEOUT_MS,
  });
  const values = parseExport(examined.stdout);
  const uuid = values.get("MD_UUID") ?? "";
  if (!/^[\da-f]{8}(?::[\da-f]{8}){3}$/.test(uuid)) return undefined;
  return {
    uuid,
    // "HOST:NAME"; the host is the one that made it, which had another name then.
    name: (values.get("MD_NAME") ?? "").replace(/^[^:]*:/, ""),
    level: values.get("MD_LEVEL") ?? "",
    devices: Number(values.get("MD_DEVICES")),
  };
}

export function isOurArray(superblock: Superblock): boolean {
  return superblock.name === ARRAY_NAME && superblock.level === LEVEL;
}

/** The array that holds a disk; undefined when none does. */
export function arrayHolding(
  system: Pick<System, "files">,
  disk: string,
): RunningArray | undefined {
  const [holder, ...others] = system.files.list(`/sys/block/${disk}/holders`);
  if (holder === undefined || others.length > 0) return undefined;
  const directory: SystemPath = `/sys/block/${holder}/md`;
  if (!system.files.exists(directory)) return undefined;
  const state = system.files.readTextIfExists(join(directory, "array_state"))?.trim() ?? "";
  return { name: holder, started: !STOPPED.includes(state) };
}

/**
 * Makes an array of blank disks and starts it. The recorded host is "any": the machine gets its name later. Returns the
 * kernel's name of it. Errors: AgentError "resource-disk"; then the disks are blank again.
 */
export async function createArray(system: Needs, disks: readonly string[]): Promise<string> {
  const devices = disks.map((disk) => `/dev/${disk}`);
  try {
    await system.exec.run({
      argv: [
        ...["mdadm", "--create", ARRAY_LINK, "--run", "--metadata=1.2"],
        ...[`--level=0`, `--chunk=${CHUNK}`, `--raid-devices=${disks.length}`],
        ...[`--name=${ARRAY_NAME}`, "--homehost=any", ...devices],
      ],
      timeoutMs: TIMEOUT_MS,
    });
    return nameOfArray(system, disks);
  } catch (error) {
    await undo(system, disks);
    throw new AgentError("resource-disk", `Could not join ${disks.join(", ")}`, { cause: error });
  }
}

/** Starts an array from its disks. Returns the kernel's name of it. */
export async function assembleArray(
  system: Needs,
  disks: readonly string[],
  uuid: string,
): Promise<string> {
  await system.exec.run({
    argv: [
      ...["mdadm", "--assemble", ARRAY_LINK, "--homehost=any", `--uuid=${uuid}`],
      ...disks.map((disk) => `/dev/${disk}`),
    ],
    timeoutMs: TIMEOUT_MS,
  });
  return nameOfArray(system, disks);
}

export async function stopArray(system: Needs, name: string): Promise<void> {
  await system.exec.run({ argv: ["mdadm", "--stop", `/dev/${name}`], timeoutMs: TIMEOUT_MS });
}

function nameOfArray(system: Needs, disks: readonly string[]): string {
  const names = disks.map((disk) => {
    const array = arrayHolding(system, disk);
    return array?.started === true ? array.name : undefined;
  });
  const [name] = names;
  if (name === undefined || names.some((other) => other !== name))
    throw new AgentError("resource-disk", `${disks.join(", ")} are not in one running array`);
  return nameOf(name);
}

/** Takes back what a failed creation left on disks that were blank before. */
async function undo(system: Needs, disks: readonly string[]): Promise<void> {
  try {
    const holders = new Set(disks.flatMap((disk) => arrayHolding(system, disk)?.name ?? []));
    for (const holder of holders) await stopArray(system, holder);
    for (const disk of disks) {
      await system.exec.run({
        argv: ["mdadm", "--zero-superblock", `/dev/${disk}`],
        okCodes: "any",
        timeoutMs: TIMEOUT_MS,
      });
    }
  } catch (error) {
    system.log.warning(`Could not clean up after a failed array: ${describe(error)}`);
  }
}
