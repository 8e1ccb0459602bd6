import { AgentError } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readLenient } from "./lenient.ts";
import {
  ARRAY_LABEL,
  arrayHolding,
  assembleArray,
  createArray,
  isOurArray,
  readSuperblock,
  type RunningArray,
  stopArray,
  type Superblock,
} from "./resource-disk-mdadm.ts";
import { readNote, writeNote } from "./resource-disk-note.ts";
import { type DiskView, holds, planResourceDisk, planVolume } from "./resource-disk-plan.ts";
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
import { inspectDisk, inspectVolume } from "./resource-disk-view.ts";

/** One of several local disks, as far as joining them goes. */
export interface Member {
  /** "nvme1n1" */
  readonly name: string;
  /** Stays the same when the kernel numbers the disks differently. */
  readonly identity: string;
  readonly content:
    | { readonly kind: "blank" }
    /** Of an array with our name, which may hold it now. */
    | {
        readonly kind: "member";
        readonly superblock: Superblock;
        readonly array: RunningArray | undefined;
      }
    | { readonly kind: "foreign"; readonly what: string };
}

export type ArrayPlan =
  /** `stop`: arrays that hold the disks without having been started. */
  | { readonly do: "create"; readonly stop: readonly string[] }
  | { readonly do: "assemble"; readonly uuid: string; readonly stop: readonly string[] }
  | { readonly do: "use"; readonly uuid: string; readonly array: string }
  | { readonly do: "refuse"; readonly reasons: readonly string[] };

/**
 * Decides what may be done with several local disks (`system.md` PEER-17): all blank ones are joined, our own array is
 * used, and anything else on any of them means that nothing is written at all. `begun`: identities of disks whose
 * joining was cut short; those may be blank or have become members already.
 */
export function planArray(
  members: readonly Member[],
  begun: readonly string[] | undefined,
): ArrayPlan {
  const foreign = members.flatMap(({ name, content }) =>
    content.kind === "foreign" ? [`/dev/${name} ${content.what}`] : [],
  );
  if (foreign.length > 0) return { do: "refuse", reasons: foreign };

  const joined = members.flatMap(({ content }) => (content.kind === "member" ? [content] : []));
  const stop = [
    ...new Set(joined.flatMap(({ array }) => (array?.started === false ? [array.name] : []))),
  ];
  const started = new Set(joined.map(({ array }) => (array?.started === true ? array.name : "")));
  const [first] = joined;
  if (first === undefined) return { do: "create", stop };

  const { uuid, devices } = first.superblock;
  const whole =
    joined.length === members.length &&
    devices === members.length &&
    joined.every(({ superblock }) => superblock.uuid === uuid);
  const [array = ""] = started;
  if (whole && started.size === 1) {
    if (array !== "") return { do: "use", uuid, array };
    return { do: "assemble", uuid, stop };
  }
  const isBegun =
    begun !== undefined &&
    begun.length === members.length &&
    members.every(({ identity }) => begun.includes(identity));
  if (isBegun && started.size === 1 && array === "") return { do: "create", stop };
  return {
    do: "refuse",
    reasons: members.map(({ name, content }) =>
      content.kind === "member"
        ? `/dev/${name} is one of ${content.superblock.devices} disks of the array ${content.superblock.uuid}`
        : `/dev/${name} is blank`,
    ),
  };
}

export type ArrayOutcome =
  Mounted | { readonly state: "left-to-others"; readonly array: string; readonly reason: string };

/**
 * Joins local disks into one, or starts their array again, and mounts it. `manager` says who else has been told to
 * mount an array. Errors: AgentError "resource-disk" with what stands against it, before anything is written; "exec" of a
 * program that failed.
 */
export async function activateArray(
  system: DiskNeeds,
  config: DiskKeys,
  disks: readonly string[],
  manager: (array: string) => string | undefined,
): Promise<ArrayOutcome> {
  const note = readNote(system, config);
  const members: Member[] = [];
  for (const disk of disks) members.push(await inspectMember(system, disk));
  const plan = planArray(members, note.joining);
  if (plan.do === "refuse") {
    for (const reason of plan.reasons)
      system.log.warning(`The local NVMe disks are not joined: ${reason}`);
    throw new AgentError(
      "resource-disk",
      `${disks.join(", ")} cannot be joined and are left alone: ${plan.reasons.join("; ")}`,
    );
  }
  const { array, uuid } = await startArray(system, config, { plan, members });
  const device = `/dev/${array}`;
  await waitForNode(system, device, device as SystemPath);

  const view = await inspectArray(system, array, note.formatting);
  const volume = planVolume(view, uuid);
  if (volume.do === "adopt") return mounted(volume.device, volume.mountPoint, volume.fileSystem);
  const other = manager(array);
  if (other !== undefined) return { state: "left-to-others", array, reason: other };
  if (volume.do === "refuse") throw new AgentError("resource-disk", volume.reason);
  const fileSystem = volume.do === "mount" ? volume.fileSystem : fileSystemToMake(system, config);
  const mountPoint = prepareMountPoint(system, config);
  if (volume.do === "format") {
    system.log.info(`Resource disk ${device} (${disks.join(", ")}): formatting it`);
    await makeFileSystem(system, config, { device, fileSystem, id: uuid, label: ARRAY_LABEL });
  }
  await mount(system, config, { disk: device, device, mountPoint, fileSystem });
  return mounted(device, mountPoint, fileSystem);
}

/** An array over all of these disks that somebody made and mounted; for swap on what is there already. */
export async function mountedArray(
  system: DiskNeeds,
  disks: readonly string[],
): Promise<Mounted | undefined> {
  const arrays = new Set(disks.map((disk) => arrayHolding(system, disk)?.name ?? ""));
  const [array = ""] = arrays;
  if (array === "" || arrays.size > 1) return undefined;
  const plan = planResourceDisk(await inspectDisk(system, array, undefined));
  return plan.do === "adopt" ? mounted(plan.device, plan.mountPoint, plan.fileSystem) : undefined;
}

interface Work {
  readonly plan: Exclude<ArrayPlan, { readonly do: "refuse" }>;
  readonly members: readonly Member[];
}

async function startArray(
  system: DiskNeeds,
  config: DiskKeys,
  { plan, members }: Work,
): Promise<{ readonly array: string; readonly uuid: string }> {
  if (plan.do === "use") return plan;
  const disks = members.map(({ name }) => name);
  // What cannot be finished is not begun.
  if (plan.do === "create") {
    fileSystemToMake(system, config);
    prepareMountPoint(system, config);
  }
  for (const array of plan.stop) await stopArray(system, array);
  if (plan.do === "assemble") {
    system.log.info(`Starting the array of the local NVMe disks ${disks.join(", ")}`);
    return { array: await assembleArray(system, disks, plan.uuid), uuid: plan.uuid };
  }
  system.log.info(`Joining the local NVMe disks ${disks.join(", ")} into one (raid0)`);
  writeNote(system, config, { joining: members.map(({ identity }) => identity) });
  const array = await createArray(system, disks);
  const made = await readSuperblock(system, `/dev/${disks[0] ?? ""}`);
  if (made === undefined)
    throw new AgentError("resource-disk", `${disks.join(", ")} do not know of their array`);
  return { array, uuid: made.uuid };
}

async function inspectMember(system: DiskNeeds, name: string): Promise<Member> {
  const device = `/dev/${name}`;
  const foreign = (what: string): Member => ({
    name,
    identity: identityOf(system, name),
    content: { kind: "foreign", what },
  });
  const view = await inspectDisk(system, name, undefined);
  if (view.mounts.length > 0) return foreign(`is mounted at ${view.mounts[0]?.mountPoint ?? ""}`);
  const array = arrayHolding(system, name);
  if (view.holders.length > 0 && array === undefined)
    return foreign(`is in use by ${view.holders.join(", ")}`);
  if (view.readOnly) return foreign("is write-protected");
  const { content } = view;
  if (array === undefined) {
    if (view.table !== "none") return foreign("has a partition table");
    if (content.kind === "blank")
      return { name, identity: identityOf(system, name), content: { kind: "blank" } };
    // Two signatures on one disk are none.
    if (content.kind !== "foreign" || !content.what.startsWith(RAID_MEMBER))
      return foreign(holds(content));
  }
  const superblock = await readSuperblock(system, device);
  if (superblock === undefined)
    return foreign(array === undefined ? holds(content) : `is in use by ${array.name}`);
  if (!isOurArray(superblock))
    return foreign(`is part of the array ${JSON.stringify(superblock.name)}`);
  return {
    name,
    identity: identityOf(system, name),
    content: { kind: "member", superblock, array },
  };
}

/** As blkid calls it. */
const RAID_MEMBER = "linux_raid_member";

/** Serial number and the like; the name where the kernel shows none, which is no worse than a guess. */
function identityOf(system: Pick<System, "files">, name: string): string {
  for (const file of ["wwid", "device/serial"]) {
    const text = readLenient(system, join(`/sys/block/${name}`, file)).trim();
    if (text !== "") return text;
  }
  return name;
}

async function inspectArray(
  system: DiskNeeds,
  array: string,
  unfinished: string | undefined,
): Promise<DiskView> {
  const view = await inspectDisk(system, array, unfinished);
  const free = view.mounts.length === 0 && view.holders.length === 0 && view.table === "none";
  if (!free || view.content.kind !== "filesystem") return view;
  return { ...view, content: await inspectVolume(system, view.device) };
}
