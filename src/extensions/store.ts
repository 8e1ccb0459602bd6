import { describe } from "../base/error.ts";
import { formatJson, JsonReader, toJson, type Json } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import { compareVersions, isVersion, versionMatches } from "../base/version.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import {
  baseOf,
  configOf,
  parseDirectoryName,
  sameName,
  type HandlerRef,
  type Layout,
} from "./layout.ts";

/** State files of handlers, in the places, formats and meanings of the Python agent (`extensions.md` §7). */
export type HandlerState = "NotInstalled" | "Installed" | "Enabled" | "FailedUpgrade";

export interface HandlerStatus {
  /** "Ready" or "NotReady"; a file of another agent may hold more. */
  readonly status: string;
  readonly code: number;
  /** null means that no message is reported (EXT-113). */
  readonly message: string | null;
  readonly supportsMultiConfig: boolean;
}

/** A handler directory on disk. */
export interface HandlerOnDisk extends HandlerRef {
  readonly state: HandlerState;
  /** Extensions of a multi-config handler that were recorded as enabled. */
  readonly enabledExtensions: readonly string[];
}

type FilesAndLog = Pick<System, "files" | "log">;

const STATES: readonly string[] = ["NotInstalled", "Installed", "Enabled", "FailedUpgrade"];
const STATE_MODE = 0o600;
const MAX_STATE_BYTES = 1024 * 1024;

/** "NotInstalled" when the file is missing or holds something unknown. */
export function readState(system: FilesAndLog, layout: Layout, handler: HandlerRef): HandlerState {
  const file = join(configOf(layout, handler), "HandlerState");
  const text = readSmall(system, file)?.trim();
  if (text === undefined) return "NotInstalled";
  if (STATES.includes(text)) return text as HandlerState;
  system.log.periodically(
    "WARNING",
    3600_000,
    `${file} holds no known state, it counts as NotInstalled`,
  );
  return "NotInstalled";
}

/** Errors: AgentError "io"; the old state then is still there. */
export function writeState(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
  state: HandlerState,
): void {
  const config = configOf(layout, handler);
  system.files.makeDirectory(config, { mode: 0o700, keepMode: true });
  system.log.info(`Set handler state to ${state}`);
  system.files.write(join(config, "HandlerState"), state, { mode: STATE_MODE });
}

/** undefined when there is none or it cannot be understood (EXT-57). */
export function readStatus(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
): HandlerStatus | undefined {
  const file = join(configOf(layout, handler), "HandlerStatus");
  const text = readSmall(system, file);
  if (text === undefined) return undefined;
  try {
    const reader = JsonReader.parse(text, file);
    reader.object();
    const status = reader.get("status").value;
    const code = reader.get("code").value;
    const message = reader.get("message").value;
    return {
      status: typeof status === "string" ? status : "NotReady",
      code: numberOf(code),
      message: typeof message === "string" ? message : null,
      supportsMultiConfig: reader.get("supports_multi_config").value === true,
    };
  } catch (error) {
    system.log.periodically("ERROR", 1800_000, `${file} is ignored: ${describe(error)}`);
    return undefined;
  }
}

/** Errors: AgentError "io"; the old status then is still there. */
export function writeStatus(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
  status: HandlerStatus,
): void {
  const config = configOf(layout, handler);
  system.files.makeDirectory(config, { mode: 0o700, keepMode: true });
  const document = toJson({
    name: handler.name,
    version: handler.version,
    status: status.status,
    code: status.code,
    message: status.message === null ? null : redact(status.message),
    supports_multi_config: status.supportsMultiConfig,
    extension_status: null,
  });
  system.files.write(join(config, "HandlerStatus"), formatJson(document), { mode: STATE_MODE });
}

/** What is recorded for an extension of a multi-config handler; missing means "disabled" (§7). */
export function readExtensionState(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
  extension: string,
): "enabled" | "disabled" {
  const file = join(configOf(layout, handler), `${extension}.HandlerState`);
  return readSmall(system, file)?.trim().toLowerCase() === "enabled" ? "enabled" : "disabled";
}

export function writeExtensionState(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
  extension: string,
  state: "enabled" | "disabled",
): void {
  const config = configOf(layout, handler);
  system.files.makeDirectory(config, { mode: 0o700, keepMode: true });
  system.files.write(join(config, `${extension}.HandlerState`), state, { mode: STATE_MODE });
}

/** MC-06: an extension that was deleted leaves no settings, status or state. */
export function removeExtensionFiles(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
  extension: string,
): void {
  const base = baseOf(layout, handler);
  for (const [folder, kind] of [
    ["config", "settings"],
    ["status", "status"],
  ] as const) {
    for (const name of system.files.list(join(base, folder))) {
      if (!name.startsWith(`${extension}.`) || !name.endsWith(`.${kind}`)) continue;
      const sequence = name.slice(extension.length + 1, -kind.length - 1);
      if (/^\d+$/.test(sequence)) system.files.remove(join(base, folder, name));
    }
  }
  system.files.remove(join(base, "config", `${extension}.HandlerState`));
}

/**
 * Every directory that is a handler's: named like one and with a state, a status or a manifest of one, so that
 * other directories of a similar name are never taken for handlers (`extensions.md` EXT-19, DB-08).
 */
export function listHandlers(system: FilesAndLog, layout: Layout): HandlerOnDisk[] {
  const found: HandlerOnDisk[] = [];
  for (const name of system.files.list(layout.lib)) {
    const handler = parseDirectoryName(name);
    if (handler === undefined) continue;
    const base = join(layout.lib, name);
    if (system.files.lstat(base)?.kind !== "directory") continue;
    const isHandler =
      system.files.exists(join(base, "config", "HandlerState")) ||
      system.files.exists(join(base, "config", "HandlerStatus")) ||
      (system.files.exists(join(base, "HandlerManifest.json")) &&
        system.files.exists(join(base, "config")));
    if (!isHandler) continue;
    found.push({
      ...handler,
      state: readState(system, layout, handler),
      enabledExtensions: enabledExtensions(system, layout, handler),
    });
  }
  return found;
}

/** EXT-22: the highest version that is neither NotInstalled nor FailedUpgrade; names compare without case. */
export function findInstalled(
  handlers: readonly HandlerOnDisk[],
  name: string,
): HandlerOnDisk | undefined {
  return handlers
    .filter(
      (handler) =>
        sameName(handler.name, name) &&
        handler.state !== "NotInstalled" &&
        handler.state !== "FailedUpgrade",
    )
    .sort((a, b) => compareVersions(b.version, a.version))[0];
}

/**
 * The directory that a handler of the goal is reported from when no version was chosen in this process: the
 * requested version, else an installed one that the request matches, else the request as it is.
 */
export function resolveHandler(handlers: readonly HandlerOnDisk[], goal: HandlerRef): HandlerRef {
  const named = handlers.filter((handler) => sameName(handler.name, goal.name));
  const exact = named.find((handler) => handler.version === goal.version);
  if (exact !== undefined) return { name: exact.name, version: exact.version };
  const installed = findInstalled(named, goal.name);
  if (
    installed !== undefined &&
    isVersion(goal.version) &&
    versionMatches(goal.version, installed.version)
  )
    return { name: installed.name, version: installed.version };
  return { name: goal.name, version: goal.version };
}

export function enabledExtensions(
  system: FilesAndLog,
  layout: Layout,
  handler: HandlerRef,
): string[] {
  const suffix = ".HandlerState";
  return system.files
    .list(configOf(layout, handler))
    .filter((name) => name.endsWith(suffix) && name.length > suffix.length)
    .map((name) => name.slice(0, -suffix.length))
    .filter((name) => readExtensionState(system, layout, handler, name) === "enabled");
}

function readSmall(system: FilesAndLog, file: SystemPath): string | undefined {
  try {
    return system.files.readTextIfExists(file, { maxBytes: MAX_STATE_BYTES });
  } catch (error) {
    system.log.periodically("ERROR", 1800_000, `${file} is ignored: ${describe(error)}`);
    return undefined;
  }
}

function numberOf(value: Json | undefined): number {
  const text = value === undefined ? "" : typeof value === "string" ? value : formatJson(value);
  return /^-?\d{1,15}$/.test(text) ? Number(text) : 0;
}
