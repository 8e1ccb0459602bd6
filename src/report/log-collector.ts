import { AgentError, describe, errnoOf, isAgentError } from "../base/error.ts";
import { formatJson, toJson } from "../base/json.ts";
import { formatTimestamp0 } from "../base/time.ts";
import { createZip, type ZipWriter } from "../system/archive-writer.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import {
  COLLECT_EXIT,
  CollectorStop,
  exceededLimit,
  findOwnGroup,
  maximum,
  SAMPLE_PERIOD_MS,
  type OwnGroup,
  type ResourceUse,
} from "./log-collector-limits.ts";
import {
  builtInManifest,
  byPriority,
  OWN_MANIFEST_FILE,
  parseManifest,
  type ManifestCommand,
  type ManifestPaths,
} from "./log-manifest.ts";
import { redactChunks, redactLogText } from "./log-redaction.ts";

export interface CollectOptions extends ManifestPaths {
  readonly full: boolean;
  /** Set by the periodic driver: hold the limits of LOGC-10. */
  readonly monitored: boolean;
  /** Gets one line for each step, for people who watch. */
  readonly progress?: ((line: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Default SIZE_LIMITS. */
  readonly limits?: Readonly<typeof SIZE_LIMITS> | undefined;
}

/** What was collected; the archive is there under its name only when the run succeeded (BET-18). */
export interface Collection {
  readonly archive: SystemPath;
  readonly results: SystemPath;
  readonly files: number;
  /** Uncompressed. */
  readonly bytes: number;
}

/** Of one file, longer texts keep their end; of all files together, uncompressed (LOGC-16). */
export const SIZE_LIMITS = { fileBytes: 30 * 1024 * 1024, totalBytes: 150 * 1024 * 1024 };
const MAX_ERRORS = 8;
const COMPRESSED = /\.(gz|zip|xz)$/i;
const JOURNAL_LINES = 5000;
/** From here on reading a file is worth a program that keeps it out of the page cache. */
const UNCACHE_FROM_BYTES = 1024 * 1024;

type Machine = Pick<System, "root" | "files" | "exec" | "clock" | "log" | "emit">;

export function archivePath(libDirectory: SystemPath): SystemPath {
  return join(libDirectory, "logcollector", "logs.zip");
}

/** `-collect-logs [-full]`: the exit code. Collects first and tells afterwards (LOGC-06). Never throws. */
export async function collectLogsCommand(
  system: Machine,
  options: CollectOptions,
): Promise<number> {
  const { log } = system;
  let outcome: { code: number; message: string };
  try {
    log.info(`Running log collector in ${options.full ? "full" : "normal"} mode`);
    const { archive, results, files, bytes, peak } = await guarded(system, options);
    const message = `Collected ${files} files, ${bytes} bytes uncompressed`;
    log.info(
      `Log collection successfully completed. ${message}. Archive: ${archive}, results: ${results}`,
    );
    options.progress?.(`${message}\nArchive: ${archive}\nResults: ${results}`);
    if (peak !== undefined)
      log.info(
        `Log collector resource use: ${formatJson(toJson({ ...peak, totalUncompressedBytes: bytes }))}`,
      );
    outcome = {
      code: COLLECT_EXIT.ok,
      message: formatJson(toJson({ files, totalUncompressedBytes: bytes, ...peak })),
    };
  } catch (error) {
    outcome = {
      code: error instanceof CollectorStop ? error.exitCode : COLLECT_EXIT.failed,
      message: describe(error),
    };
    log.error(`Log collection failed: ${outcome.message}`);
    options.progress?.(`Failed: ${outcome.message}`);
  }
  system.emit({
    operation: "LogCollection",
    success: outcome.code === 0,
    message: outcome.message,
    log: false,
  });
  return outcome.code;
}

async function guarded(
  system: Machine,
  options: CollectOptions,
): Promise<Collection & { readonly peak: ResourceUse | undefined }> {
  if (!options.monitored) return { ...(await collectLogs(system, options)), peak: undefined };
  const group = await findOwnGroup(system, options.signal);
  const done = new AbortController();
  const limit = new AbortController();
  const signals = [limit.signal, ...(options.signal === undefined ? [] : [options.signal])];
  const watching = watch(system, group, done.signal);
  watching.catch(() => limit.abort());
  const collecting = collectLogs(system, { ...options, signal: AbortSignal.any(signals) });
  try {
    // A limit ends the wait at once; the command line then ends the process.
    const collection = await Promise.race([collecting, watching.then(() => collecting)]);
    done.abort();
    return { ...collection, peak: await watching };
  } finally {
    done.abort();
    collecting.catch(() => undefined); // after a limit its own failure says nothing new
  }
}

/** Greatest use until `done`. Errors: CollectorStop as soon as a limit is exceeded. */
async function watch(
  system: Pick<System, "clock">,
  group: OwnGroup,
  done: AbortSignal,
): Promise<ResourceUse> {
  let peak = group.use();
  for (;;) {
    const exceeded = exceededLimit(peak);
    if (exceeded !== undefined)
      throw new CollectorStop(
        COLLECT_EXIT.memoryLimit,
        `The log collector ends itself, it uses too much (${exceeded})`,
      );
    try {
      await system.clock.sleep(SAMPLE_PERIOD_MS, done);
    } catch {
      return maximum(peak, group.use()); // collecting ended
    }
    peak = maximum(peak, group.use());
  }
}

/**
 * Makes `LIB/logcollector/logs.zip` (`system.md` §10.2). Files that vanish or cannot be read are noted and left out.
 * Errors: AgentError "io" when the archive cannot be written or the eighth file fails, "cancelled".
 */
export async function collectLogs(system: Machine, options: CollectOptions): Promise<Collection> {
  const { files } = system;
  const directory = join(options.libDirectory, "logcollector");
  const archive = archivePath(options.libDirectory);
  const results = join(directory, "results.txt");
  if (!files.exists(directory)) files.makeDirectory(directory, { mode: 0o700 });
  // Copies of long files that the Python agent left; ours go into the archive without one.
  files.remove(join(directory, "truncated"));
  files.write(results, "", { durable: false });
  const note = (level: "INFO" | "WARNING" | "ERROR", message: string): void => {
    const line = `${formatTimestamp0(system.clock.now())} ${level} ${redactLogText(message)}\n`;
    files.append(results, line);
  };

  note("INFO", `Running log collector in ${options.full ? "full" : "normal"} mode`);
  const candidates: SystemPath[] = [];
  for (const command of readManifests(system, options, note)) {
    checkCancelled(options.signal);
    if (command.do === "echo") note("INFO", command.text);
    else if (command.do === "list") await listDirectory(system, command.directory, note);
    else candidates.push(...matches(system, command.pattern));
  }
  const zip = createZip(system, archive, { mode: 0o600 });
  try {
    const added = await addFiles(system, zip, byPriority(candidates, options), {
      ...options,
      note,
    });
    await addJournal(system, zip, options, note);
    note("INFO", `Collected ${added.files} files, ${added.bytes} bytes uncompressed`);
    await zip.addBytes("results.txt", files.read(results), { modifiedMs: system.clock.now() });
    zip.close();
    return { archive, results, ...added };
  } catch (error) {
    zip.abort();
    throw error;
  }
}

type Note = (level: "INFO" | "WARNING" | "ERROR", message: string) => void;

function readManifests(
  system: Pick<System, "files">,
  options: CollectOptions,
  note: Note,
): readonly ManifestCommand[] {
  let own = "";
  try {
    own = system.files.readTextIfExists(OWN_MANIFEST_FILE, { maxBytes: 1024 * 1024 }) ?? "";
  } catch (error) {
    note("ERROR", describe(error));
  }
  const text = `${builtInManifest(options.full ? "full" : "normal")}\n${own}`;
  const { commands, errors } = parseManifest(text, options);
  for (const error of errors) note("ERROR", `The manifest has an error: ${error}`);
  return commands;
}

async function listDirectory(
  system: Pick<System, "files" | "exec">,
  directory: SystemPath,
  note: Note,
): Promise<void> {
  try {
    const { stdout } = await system.exec.run({
      argv: ["ls", "-alF", system.files.realPath(directory)],
      timeoutMs: 30_000,
    });
    note("INFO", `Output of: ls -alF ${directory}\n${stdout}`);
  } catch (error) {
    note("WARNING", `Could not list ${directory}: ${describe(error)}`);
  }
}

/**
 * Ordinary files that match. Links are followed in /etc and /run only, where systems have them: a link among logs
 * could name any file of the machine, and the archive leaves it.
 */
function matches(system: Pick<System, "files">, pattern: SystemPath): readonly SystemPath[] {
  const followed = pattern.startsWith("/etc/") || pattern.startsWith("/run/");
  return system.files.glob(pattern).filter((file) => {
    const info = followed ? system.files.stat(file) : system.files.lstat(file);
    return info?.kind === "file";
  });
}

async function addFiles(
  system: Machine,
  zip: ZipWriter,
  candidates: readonly SystemPath[],
  options: CollectOptions & { readonly note: Note },
): Promise<{ readonly files: number; readonly bytes: number }> {
  const { note } = options;
  const { fileBytes, totalBytes } = options.limits ?? SIZE_LIMITS;
  let count = 0;
  let bytes = 0;
  let errors = 0;
  for (const file of candidates) {
    checkCancelled(options.signal);
    const size = system.files.stat(file)?.size;
    if (size === undefined) {
      note("WARNING", `${file} is gone`);
      continue;
    }
    const isLong = size > fileBytes;
    if (isLong && COMPRESSED.test(file)) {
      note("WARNING", `${file} has ${size} bytes, more than ${fileBytes}, and is left out`);
      continue;
    }
    const wanted = Math.min(size, fileBytes);
    if (bytes + wanted > totalBytes) {
      note(
        "WARNING",
        `The limit of ${totalBytes} bytes is reached, ${file} and what follows is left out`,
      );
      break;
    }
    options.progress?.(`${file} (${Math.ceil(wanted / 1024)} KiB)`);
    try {
      bytes += await zip.addFile(isLong ? truncatedName(file) : file, file, {
        ...(isLong ? { tailBytes: fileBytes } : {}),
        ...(COMPRESSED.test(file) ? {} : { transform: redactChunks }),
      });
      count += 1;
      note("INFO", `Collected ${file}${isLong ? `, its last ${fileBytes} bytes` : ""}`);
      if (options.monitored && size >= UNCACHE_FROM_BYTES) await uncache(system, file);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") {
        note("WARNING", `${file} is gone`);
        continue;
      }
      errors += 1;
      note("ERROR", describe(error));
      if (errnoOf(error) === "ENOSPC" || errors >= MAX_ERRORS) {
        throw new AgentError("io", `Log collection gave up after ${errors} errors`, {
          cause: error,
        });
      }
    }
  }
  return { files: count, bytes };
}

/** `truncated_` and the path with every slash replaced, the leading one too: two underscores (LOGC-14). */
export function truncatedName(file: SystemPath): string {
  return `truncated_${file.replaceAll("/", "_")}`;
}

/** The machine's page cache belongs to its workload, and what is cached here counts against the limits of LOGC-10. */
async function uncache(system: Pick<System, "files" | "exec">, file: SystemPath): Promise<void> {
  try {
    await system.exec.run({
      argv: ["dd", `if=${system.files.realPath(file)}`, "iflag=nocache", "count=0", "status=none"],
      timeoutMs: 10_000,
    });
  } catch {
    // busybox's dd does not know the flag; the kernel then drops the pages when it needs them
  }
}

/** The last lines of this boot's journal (BET-19); many machines have no syslog files any more. */
async function addJournal(
  system: Pick<System, "exec" | "clock">,
  zip: ZipWriter,
  options: Pick<CollectOptions, "progress" | "signal">,
  note: Note,
): Promise<void> {
  if (system.exec.find("journalctl") === undefined) return;
  options.progress?.("journal of this boot");
  try {
    const { stdout } = await system.exec.run({
      argv: [
        "journalctl",
        "--boot",
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        `--lines=${JOURNAL_LINES}`,
      ],
      timeoutMs: 60_000,
      signal: options.signal,
    });
    if (stdout === "") return;
    await zip.addBytes("journal.txt", redactLogText(stdout), { modifiedMs: system.clock.now() });
    note("INFO", `Collected the last lines of the journal, at most ${JOURNAL_LINES}`);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    note("WARNING", `The journal could not be collected: ${describe(error)}`);
  }
}

function checkCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AgentError("cancelled", "Log collection was cancelled");
}
