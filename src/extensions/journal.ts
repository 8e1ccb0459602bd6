import { describe } from "../base/error.ts";
import { formatJson, JsonReader, toJson } from "../base/json.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { Operation } from "./handler-manifest.ts";
import { displayName, ownStateOf, type HandlerRef, type Layout } from "./layout.ts";

/**
 * What was done so far for one work item, on disk before and after every command. An agent that was killed in the
 * middle goes through the same sequence again, and every command that is in the journal answers from it instead
 * of running a second time. It is removed when the item is finished, well or not.
 */
export interface Journal {
  readonly data: JournalData;
  /** The last run of that command, finished or not. */
  find(key: CommandKey): CommandRun | undefined;
  /** Adds or replaces a run. Errors: AgentError "io", and then the command must not be started. */
  record(run: CommandRun): void;
  update(change: Partial<Pick<JournalData, "prepared" | "from">>): void;
  remove(): void;
}

export interface JournalData {
  readonly handler: string;
  /** Version the item works towards. */
  readonly target: string;
  readonly extension: string | undefined;
  readonly goal: string;
  readonly sequence: number;
  /** Installed version when the item began. */
  readonly from: string | undefined;
  /** The package of the target version is unpacked and initialised. */
  readonly prepared: boolean;
  readonly runs: readonly CommandRun[];
}

export interface CommandKey extends HandlerRef {
  readonly operation: Operation;
  readonly extension: string | undefined;
}

export interface CommandRun extends CommandKey {
  /** Unique; part of the names of its files, and the value of the marker variable. */
  readonly id: string;
  readonly bootId: string;
  /** ms since the epoch. */
  readonly startedAt: number;
  readonly timeoutMs: number;
  readonly stdout: SystemPath;
  readonly stderr: SystemPath;
  readonly cgroup: SystemPath | undefined;
  readonly outcome: RunOutcome | undefined;
}

export interface RunOutcome {
  /** Exit code, 128 + n for signal n; undefined after a time-out. */
  readonly code: number | undefined;
  readonly timedOut: boolean;
  readonly durationMs: number;
}

type FilesAndLog = Pick<System, "files" | "log">;

const VERSION = 1;
const OPERATIONS: readonly string[] = ["install", "enable", "update", "disable", "uninstall"];

function journalFolder(layout: Layout): SystemPath {
  return join(ownStateOf(layout), "journal");
}

function journalFile(layout: Layout, handler: string, extension: string | undefined): SystemPath {
  const name = encodeURIComponent(displayName(handler.toLowerCase(), extension));
  return join(journalFolder(layout), `${name.slice(0, 230)}.json`);
}

/** Where a run tells what became of it. */
export function runFileOf(layout: Layout, id: string): SystemPath {
  return join(ownStateOf(layout), "runs", id);
}

/**
 * Opens the journal of a work item. One that was left by an earlier process is continued when it worked towards
 * the same version; `isContinued` then is true.
 */
export function openJournal(
  system: FilesAndLog,
  layout: Layout,
  start: Omit<JournalData, "runs" | "prepared">,
): { readonly journal: Journal; readonly isContinued: boolean } {
  const left = readJournal(system, journalFile(layout, start.handler, start.extension));
  const isContinued = left !== undefined && left.target === start.target;
  // A finished enable answers only for the same goal: a new goal state runs enable again (EXT-12).
  const data: JournalData = isContinued
    ? {
        ...start,
        from: left.from,
        prepared: left.prepared,
        runs:
          left.goal === start.goal && left.sequence === start.sequence
            ? left.runs
            : left.runs.filter((run) => run.operation !== "enable"),
      }
    : { ...start, prepared: false, runs: [] };
  return { journal: journalOver(system, layout, data), isContinued };
}

/** All journals that an earlier process left. */
export function leftJournals(system: FilesAndLog, layout: Layout): Journal[] {
  const folder = journalFolder(layout);
  return system.files
    .list(folder)
    .filter((name) => name.endsWith(".json") && !name.startsWith("."))
    .flatMap((name) => {
      const data = readJournal(system, join(folder, name));
      return data === undefined ? [] : [journalOver(system, layout, data)];
    });
}

function journalOver(system: FilesAndLog, layout: Layout, start: JournalData): Journal {
  let data = start;
  const file = journalFile(layout, data.handler, data.extension);
  const save = (next: JournalData): void => {
    system.files.makeDirectory(journalFolder(layout), { mode: 0o700 });
    const document = formatJson(toJson({ version: VERSION, ...next }));
    system.files.write(file, document, { mode: 0o600 });
    data = next;
  };
  return {
    get data() {
      return data;
    },
    find: (key) => data.runs.findLast((run) => isSame(run, key)),
    record: (run) =>
      save({ ...data, runs: [...data.runs.filter((other) => !isSame(other, run)), run] }),
    update: (change) => save({ ...data, ...change }),
    remove: () => {
      system.files.remove(file);
      for (const run of data.runs) system.files.remove(runFileOf(layout, run.id));
    },
  };
}

function isSame(left: CommandKey, right: CommandKey): boolean {
  return (
    left.operation === right.operation &&
    left.name === right.name &&
    left.version === right.version &&
    left.extension === right.extension
  );
}

function readJournal(system: FilesAndLog, file: SystemPath): JournalData | undefined {
  try {
    const text = system.files.readTextIfExists(file, { maxBytes: 4 * 1024 * 1024 });
    if (text === undefined) return undefined;
    const reader = JsonReader.parse(text, file);
    if (reader.get("version").integer() !== VERSION) return undefined;
    return {
      handler: reader.get("handler").string(),
      target: reader.get("target").string(),
      extension: reader.get("extension").optionalString(),
      goal: reader.get("goal").string(),
      sequence: reader.get("sequence").integer(),
      from: reader.get("from").optionalString(),
      prepared: reader.get("prepared").boolean(),
      runs: reader.get("runs").items().map(readRun),
    };
  } catch (error) {
    system.log.warning(`A journal is ignored: ${describe(error)}`);
    return undefined;
  }
}

function readRun(reader: JsonReader): CommandRun {
  const operation = reader.get("operation").string();
  if (!OPERATIONS.includes(operation)) throw reader.get("operation").expected("an operation");
  const outcome = reader.get("outcome");
  return {
    name: reader.get("name").string(),
    version: reader.get("version").string(),
    operation: operation as Operation,
    extension: reader.get("extension").optionalString(),
    id: reader.get("id").string(),
    bootId: reader.get("bootId").string(),
    startedAt: reader.get("startedAt").number(),
    timeoutMs: reader.get("timeoutMs").number(),
    stdout: reader.get("stdout").string() as SystemPath,
    stderr: reader.get("stderr").string() as SystemPath,
    cgroup: reader.get("cgroup").optionalString() as SystemPath | undefined,
    outcome: outcome.isAbsent
      ? undefined
      : {
          code: outcome.get("code").optionalNumber(),
          timedOut: outcome.get("timedOut").boolean(),
          durationMs: outcome.get("durationMs").number(),
        },
  };
}
