import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { displayName, type HandlerRef } from "./layout.ts";

/** How processes can be put into groups on this machine, found out from what is there (`extensions.md` DB-17). */
export interface CgroupTree {
  readonly version: 1 | 2;
  /** Starts scopes; undefined without systemd, then groups are plain directories. */
  readonly systemdRun: string | undefined;
}

const MOUNT = "/sys/fs/cgroup";
/** Parent of everything the platform runs, and of all extensions (`extensions.md` §16.2). */
export const AZURE_SLICE = "azure.slice";
export const EXTENSIONS_SLICE = "azure-vmextensions.slice";

/** undefined when processes cannot be put into groups of their own here (CG-04, DB-17). */
export function findCgroupTree(
  system: Pick<System, "files" | "exec">,
  options: { readonly systemd: boolean },
): CgroupTree | undefined {
  const { files } = system;
  const version = files.exists(`${MOUNT}/cgroup.controllers`)
    ? 2
    : controllerOf1(system, "cpu") === undefined
      ? undefined
      : 1;
  if (version === undefined) return undefined;
  if (!options.systemd) return { version, systemdRun: undefined };
  const systemdRun = system.exec.find("systemd-run");
  return systemdRun === undefined ? undefined : { version, systemdRun };
}

/** Directory of a controller's hierarchy, version 1. */
function controllerOf1(
  system: Pick<System, "files">,
  controller: "cpu" | "memory",
): SystemPath | undefined {
  const names = controller === "cpu" ? ["cpu,cpuacct", "cpu", "cpuacct"] : ["memory"];
  return names
    .map((name): SystemPath => `${MOUNT}/${name}`)
    .find((directory) => system.files.exists(join(directory, "tasks")));
}

/**
 * Slice of a handler, or of an extension of a multi-config handler; without the version, so that what an operator
 * sets for it survives upgrades (CG-10).
 */
export function sliceOf(handler: HandlerRef, extension?: string): string {
  const name = displayName(handler.name, extension).replaceAll("-", "_");
  const escaped = Array.from(Buffer.from(name), (byte) => {
    const character = String.fromCharCode(byte);
    return /[A-Za-z0-9:_.]/.test(character)
      ? character
      : `\\x${byte.toString(16).padStart(2, "0")}`;
  }).join("");
  return `azure-vmextensions-${escaped}.slice`;
}

/** Directory of a slice of extensions, below the controller's hierarchy on version 1. */
export function directoryOf(
  system: Pick<System, "files">,
  tree: CgroupTree,
  slice: string,
  controller: "cpu" | "memory" = "cpu",
): SystemPath | undefined {
  const root = tree.version === 2 ? MOUNT : controllerOf1(system, controller);
  return root === undefined ? undefined : join(root, AZURE_SLICE, EXTENSIONS_SLICE, slice);
}

/** Where systemd puts a service; undefined when it is not running. */
export function serviceDirectory(
  system: Pick<System, "files">,
  tree: CgroupTree,
  controlGroup: string,
  controller: "cpu" | "memory",
): SystemPath | undefined {
  if (!controlGroup.startsWith("/") || controlGroup === "/" || controlGroup.includes(".."))
    return undefined;
  const root = tree.version === 2 ? MOUNT : controllerOf1(system, controller);
  return root === undefined ? undefined : join(root, controlGroup);
}
