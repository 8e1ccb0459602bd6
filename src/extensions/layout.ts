import { AgentError } from "../base/error.ts";
import { isVersion } from "../base/version.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";

/** Where everything of handlers lies (`extensions.md` §1). */
export interface Layout {
  /** `Lib.Dir`. */
  readonly lib: SystemPath;
  /** `Extension.LogDir`. */
  readonly logs: SystemPath;
}

/** One version of one handler, installed or to be. */
export interface HandlerRef {
  readonly name: string;
  readonly version: string;
}

export function layoutOf(config: Config): Layout {
  return {
    lib: config["Lib.Dir"] as SystemPath,
    logs: config["Extension.LogDir"] as SystemPath,
  };
}

/** `<lib>/<Name>-<Version>`: working directory of every command of the handler. */
export function baseOf(layout: Layout, handler: HandlerRef): SystemPath {
  return join(layout.lib, `${handler.name}-${handler.version}`);
}

export function configOf(layout: Layout, handler: HandlerRef): SystemPath {
  return join(baseOf(layout, handler), "config");
}

export function statusOf(layout: Layout, handler: HandlerRef): SystemPath {
  return join(baseOf(layout, handler), "status");
}

/** `<lib>/<Name>__<Version>.zip`, with two underscores. */
export function packageOf(layout: Layout, handler: HandlerRef): SystemPath {
  return join(layout.lib, `${handler.name}__${handler.version}.zip`);
}

export function logFolderOf(layout: Layout, name: string): SystemPath {
  return join(layout.logs, name);
}

export function eventsOf(layout: Layout, name: string): SystemPath {
  return join(layout.logs, name, "events");
}

/** Our own state beside the handlers; the Python agent knows nothing of it and leaves it alone. */
export function ownStateOf(layout: Layout): SystemPath {
  return join(layout.lib, "extensions");
}

/** `<Name>-<Version>`, with an extension `<Name>.<Ext>-<Version>` (`extensions.md` §0). */
export function fullName(handler: HandlerRef, extension?: string): string {
  return `${displayName(handler.name, extension)}-${handler.version}`;
}

/** `<Name>` or `<Name>.<Ext>` (MC-02). */
export function displayName(name: string, extension?: string): string {
  return extension === undefined ? name : `${name}.${extension}`;
}

const DIRECTORY = /^(?<name>.+?)-(?<version>\d+(?:\.\d+)*(?:[.-]?(?:alpha|beta|rc)\d*)?)$/;

/** Name and version in a directory's name; undefined for anything else and for packages of the agent itself. */
export function parseDirectoryName(directory: string): HandlerRef | undefined {
  const groups = DIRECTORY.exec(directory)?.groups;
  const name = groups?.["name"];
  const version = groups?.["version"];
  if (name === undefined || version === undefined || isAgentName(name)) return undefined;
  return nameProblem(name) === undefined ? { name, version } : undefined;
}

/** `WALinuxAgent-*` belongs to the agent of the platform and is never touched (UPD-31). */
export function isAgentName(name: string): boolean {
  return name.toLowerCase() === "walinuxagent";
}

/** Handler names are compared without case (DB-08). */
export function sameName(left: string, right: string): boolean {
  return left.toLowerCase() === right.toLowerCase();
}

/** Why a handler name cannot be used for files and commands; undefined when it can. */
export function nameProblem(name: string): string | undefined {
  if (name === "") return "the handler has no name";
  if (Buffer.byteLength(name) > 200) return "the handler's name is longer than 200 bytes";
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name))
    return `the handler name ${JSON.stringify(name)} has characters other than letters, digits, ".", "_" and "-"`;
  if (isAgentName(name)) return `${name} is the name of the agent itself`;
  return undefined;
}

export function versionProblem(version: string): string | undefined {
  if (version.length > 100 || !isVersion(version))
    return `the version ${JSON.stringify(version.slice(0, 100))} is not dotted numbers`;
  return undefined;
}

/** Extension names may hold what is special elsewhere (MC-11), but they are part of file names. */
export function extensionNameProblem(name: string): string | undefined {
  if (name === "") return "an extension has no name";
  if (Buffer.byteLength(name) > 150) return "an extension's name is longer than 150 bytes";
  // deno-lint-ignore no-control-regex
  if (/[/\u0000-\u001f\u007f]/.test(name) || name.startsWith("."))
    return `the extension name ${JSON.stringify(name)} cannot be part of a file name`;
  return undefined;
}

/** `<seq>.settings`, for multi-config `<ext>.<seq>.settings`; likewise for `.status`. */
export function sequenceFile(
  sequence: number,
  kind: "settings" | "status",
  extension?: string,
): string {
  if (!Number.isSafeInteger(sequence))
    throw new AgentError("bad-input", `${sequence} is not a sequence number`);
  return extension === undefined ? `${sequence}.${kind}` : `${extension}.${sequence}.${kind}`;
}
