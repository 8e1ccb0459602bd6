import { AgentError, describe, errnoOf, isAgentError } from "../base/error.ts";
import { extractZip, listZip, type ExtractResult } from "../system/archive.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import { writeHandlerEnvironment } from "./handler-environment.ts";
import { readHandlerManifest, type HandlerManifest } from "./handler-manifest.ts";
import { baseOf, fullName, ownStateOf, packageOf, type HandlerRef, type Layout } from "./layout.ts";
import type { PackageSource } from "./package-source.ts";
import type { ChosenPackage } from "./version-choice.ts";

/** Kept free on the disk beyond what a package needs, so that state files can still be written (DB-10). */
const RESERVE_BYTES = 16 * 1024 * 1024;
const RESERVE_INODES = 256;
/** What must be free before a download is begun at all. */
const MINIMUM_BYTES = 32 * 1024 * 1024;
const MAX_PACKAGE_BYTES = 4 * 1024 ** 3;
/** What lives in a handler's directory but does not come from its package. */
const KEPT = ["config", "status", "mrseq"];
/** Execution right for all of them, whatever the archive says (`extensions.md` EXT-45, EXT-46). */
const FILE_MODE = 0o744;

export interface PackageOptions {
  readonly manifestUri: string | undefined;
  readonly signal: AbortSignal | undefined;
  /**
   * Looks at a package after it was unpacked into `staging` and before it is taken. Throws AgentError "refused" to
   * stop everything. Resolves to whether signature and signing information were both good (SIG-08).
   */
  readonly verify: (archive: SystemPath, staging: SystemPath) => Promise<boolean>;
}

/**
 * Fetches a package and puts it in the handler's directory in one step, so that the directory holds all of one
 * package or nothing of it (DB-11). A package file that is there already is used first (EXT-41).
 * Errors: HandlerError with what EXT-29 wants; AgentError "cancelled".
 */
export async function obtainPackage(
  system: System,
  layout: Layout,
  handler: HandlerRef,
  chosen: ChosenPackage,
  source: PackageSource,
  options: PackageOptions,
): Promise<void> {
  const archive = packageOf(layout, handler);
  const began = system.clock.monotonic();
  try {
    const staging = join(ownStateOf(layout), "staging", `${handler.name}-${handler.version}`);
    const accept = async (file: SystemPath): Promise<void> => {
      const validated = await unpack(system, file, staging, options);
      if (validated) system.files.write(join(staging, "package_validated"), "", { mode: 0o644 });
    };
    if (!(await fromExistingFile(system, archive, accept))) {
      requireSpace(system, layout, MINIMUM_BYTES, 0, `download ${fullName(handler)}`);
      await source.download({
        what: `the package ${fullName(handler)}`,
        uris: chosen.uris,
        manifestUri: options.manifestUri,
        file: archive,
        accept,
        signal: options.signal,
      });
    }
    swap(system, staging, baseOf(layout, handler), layout);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    removeRemains(system, layout, handler, error);
    throw downloadFailure(error, handler);
  }
  const message = `Downloaded ${fullName(handler)}`;
  system.log.info(message);
  system.emit({
    operation: "Download",
    success: true,
    message,
    durationMs: system.clock.monotonic() - began,
    name: handler.name,
    version: handler.version,
  });
}

/** Folders, environment file and manifest of a handler whose package is in place (EXT-48, EXT-50). */
export function initialise(system: System, layout: Layout, handler: HandlerRef): HandlerManifest {
  try {
    writeHandlerEnvironment(system, layout, handler);
  } catch (error) {
    throw downloadFailure(error, handler);
  }
  const manifest = readHandlerManifest(system, layout, handler);
  for (const key of manifest.oddBooleans) {
    system.emit({
      operation: "ExtensionHandlerManifest",
      success: false,
      message: `In the handler manifest "${key}" should be true or false`,
      name: handler.name,
      version: handler.version,
    });
  }
  return manifest;
}

async function fromExistingFile(
  system: System,
  archive: SystemPath,
  accept: (file: SystemPath) => Promise<void>,
): Promise<boolean> {
  if (!system.files.exists(archive)) return false;
  try {
    system.log.info(`Using the package ${archive} that is there already`);
    await accept(archive);
    return true;
  } catch (error) {
    if (isAgentError(error, "cancelled", "refused")) throw error;
    system.log.warning(`The package ${archive} is removed: ${describe(error)}`);
    system.files.remove(archive);
    return false;
  }
}

async function unpack(
  system: System,
  archive: SystemPath,
  staging: SystemPath,
  options: PackageOptions,
): Promise<boolean> {
  const { files } = system;
  files.remove(staging);
  const entries = listZip(system, archive, { maxTotalBytes: MAX_PACKAGE_BYTES });
  const bytes = entries.reduce((sum, entry) => sum + entry.size, 0);
  requireSpace(system, staging, bytes, entries.length, `unpack ${archive}`);
  files.makeDirectory(join(staging, ".."), { mode: 0o700 });
  const result = await extractZip(system, archive, staging, {
    fileMode: FILE_MODE,
    maxTotalBytes: MAX_PACKAGE_BYTES,
    signal: options.signal,
  });
  warnOfOddities(system, archive, result);
  try {
    placeManifest(system, staging, archive);
    return await options.verify(archive, staging);
  } catch (error) {
    files.remove(staging);
    throw error;
  }
}

function warnOfOddities(
  system: Pick<System, "log">,
  archive: SystemPath,
  result: ExtractResult,
): void {
  const some = (names: readonly string[]): string =>
    names
      .slice(0, 5)
      .map((name) => JSON.stringify(name))
      .join(", ");
  if (result.links.length > 0)
    system.log.warning(
      `${archive}: ${result.links.length} symbolic link(s) became text files: ${some(result.links)}`,
    );
  if (result.neutralised.length > 0)
    system.log.warning(
      `${archive}: ${result.neutralised.length} name(s) pointing outside were moved inside: ${some(result.neutralised)}`,
    );
}

/** EXT-47: the manifest may lie anywhere; it is copied to the top without its byte order mark. */
function placeManifest(system: System, staging: SystemPath, archive: SystemPath): void {
  const { files } = system;
  const found = findManifest(system, staging);
  if (found === undefined)
    throw new AgentError("bad-input", `The package ${archive} has no HandlerManifest.json`);
  const data = files.read(found);
  const hasMark = data[0] === 0xef && data[1] === 0xbb && data[2] === 0xbf;
  const isTop = found === join(staging, "HandlerManifest.json");
  if (isTop && !hasMark) return;
  files.write(join(staging, "HandlerManifest.json"), hasMark ? data.subarray(3) : data, {
    mode: isTop ? FILE_MODE : 0o644,
  });
}

/** Files of a folder before its folders, from the top down. */
function findManifest(system: Pick<System, "files">, folder: SystemPath): SystemPath | undefined {
  const names = system.files.list(folder);
  if (
    names.includes("HandlerManifest.json") &&
    system.files.lstat(join(folder, "HandlerManifest.json"))?.kind === "file"
  )
    return join(folder, "HandlerManifest.json");
  for (const name of names) {
    const inner = join(folder, name);
    if (system.files.lstat(inner)?.kind !== "directory") continue;
    const found = findManifest(system, inner);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Takes over what is not part of the package from a directory of the same version, then changes places. */
function swap(system: System, staging: SystemPath, base: SystemPath, layout: Layout): void {
  const { files } = system;
  if (files.lstat(base) === undefined) {
    files.rename(staging, base);
    return;
  }
  for (const name of KEPT) {
    const old = join(base, name);
    if (files.lstat(old) === undefined) continue;
    copyTree(system, old, join(staging, name));
  }
  const aside = join(ownStateOf(layout), "staging", ".old");
  files.remove(aside);
  files.rename(base, aside);
  files.rename(staging, base);
  files.remove(aside);
}

function copyTree(system: Pick<System, "files">, from: SystemPath, to: SystemPath): void {
  const { files } = system;
  const stat = files.lstat(from);
  if (stat?.kind === "file") {
    files.remove(to);
    files.copy(from, to);
  } else if (stat?.kind === "directory") {
    files.makeDirectory(to, { mode: stat.mode });
    for (const name of files.list(from)) copyTree(system, join(from, name), join(to, name));
  }
}

/** Errors: AgentError "io" with errno ENOSPC that says how much is missing (DB-10). */
function requireSpace(
  system: Pick<System, "files">,
  place: Layout | SystemPath,
  bytes: number,
  inodes: number,
  what: string,
): void {
  const directory = typeof place === "string" ? nearest(system, place) : nearest(system, place.lib);
  const space = system.files.freeSpace(directory);
  if (space === undefined) return;
  const needed = bytes + RESERVE_BYTES;
  if (space.bytes < needed)
    throw new AgentError(
      "io",
      `There is not enough space in ${directory} to ${what}: ${mebibytes(needed)} MiB are needed, ${mebibytes(space.bytes)} MiB are free`,
      { errno: "ENOSPC" },
    );
  // File systems that make inodes as they need them report none.
  if (space.inodes > 0 && space.inodes < inodes + RESERVE_INODES)
    throw new AgentError(
      "io",
      `There are not enough inodes in ${directory} to ${what}: ${inodes + RESERVE_INODES} are needed, ${space.inodes} are free`,
      { errno: "ENOSPC" },
    );
}

function nearest(system: Pick<System, "files">, place: SystemPath): SystemPath {
  let directory = place;
  while (directory !== "/" && !system.files.exists(directory)) directory = join(directory, "..");
  return directory;
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / (1024 * 1024));
}

/** `extensions.md` EXT-49: after these nothing of the package is left behind. */
const CLEAN_UP = new Set([
  "EIO",
  "ENOMEM",
  "ENFILE",
  "EMFILE",
  "ENOSPC",
  "ENAMETOOLONG",
  "ELOOP",
  "EREMOTEIO",
]);

function removeRemains(system: System, layout: Layout, handler: HandlerRef, error: unknown): void {
  const remains = [join(ownStateOf(layout), "staging", `${handler.name}-${handler.version}`)];
  if (CLEAN_UP.has(errnoOf(error) ?? "")) remains.push(packageOf(layout, handler));
  for (const place of remains) {
    try {
      system.files.remove(place);
    } catch (failure) {
      system.log.warning(`${place} was left behind: ${describe(failure)}`);
    }
  }
}

/** EXT-29: 1001 when no source had it, -1 for everything else, one prefix for both. */
function downloadFailure(error: unknown, handler: HandlerRef): HandlerError {
  const code = isAgentError(error, "protocol") ? CODE.download : CODE.unknown;
  return new HandlerError(code, `Failed to download the package of ${fullName(handler)}`, {
    cause: error,
    operation: "Download",
    isTransient: code === CODE.download,
  });
}
