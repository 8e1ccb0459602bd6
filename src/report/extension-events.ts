import { describe, isAgentError } from "../base/error.ts";
import { JsonNumber, parseJson, type Json, type JsonObject } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import {
  commonParameters,
  logEvent,
  logParameters,
  type EventFacts,
  type EventIdentity,
} from "./event-parameters.ts";
import type { EventDocument } from "./event-document.ts";

/** Telemetry that extensions leave in `EXTLOG/<handler>/events` (`wire-protocol.md` §16.7, `extensions.md` §8.7). */
export interface ExtensionEvent {
  readonly version: string;
  readonly timestamp: string;
  readonly task: string;
  readonly level: string;
  readonly message: string;
  readonly processId: string;
  readonly threadId: string;
  readonly operationId: string;
}

/** One handler's folder after a look at it. */
export interface HandlerEvents {
  readonly handler: string;
  readonly directory: SystemPath;
  /** Files with valid events, newest first. */
  readonly files: readonly {
    readonly path: SystemPath;
    readonly modifiedMs: number;
    readonly events: readonly ExtensionEvent[];
  }[];
  /** Everything else that was there: invalid, oversized, or beyond the limit (ETP-09). */
  readonly rest: readonly SystemPath[];
  /** Reason and count of what was thrown away (ETP-08). */
  readonly dropped: ReadonlyMap<string, number>;
}

export const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_EVENTS = 360;
const MAX_EVENT_CHARACTERS = 6144;
const MAX_MESSAGE_CHARACTERS = 3072;
const TRIES = 3;
const RETRY_MS = 1000;
/** Waits for half-written files in one folder and run, so that a folder full of garbage does not take hours. */
const MAX_WAITS = 20;
const EVENT_FILE = /^\d+\.json$/i;

const FIELDS = [
  "eventlevel",
  "eventpid",
  "eventtid",
  "message",
  "operationid",
  "taskname",
  "timestamp",
  "version",
] as const;

/** What is wrong with one event; the first three are reported to the platform by these names (ETP-06). */
export type Rejection =
  "MissingKeyError" | "EmptyMessageError" | "OversizeEventError" | "wrong type";

/** Keys without case, unknown ones ignored, texts trimmed and redacted (ETP-05, ETP-06). */
export function readExtensionEvent(value: Json): ExtensionEvent | Rejection {
  if (!(value instanceof Map)) return "wrong type";
  const fields = new Map<string, string>();
  for (const [key, member] of value as JsonObject) {
    const name = key.trim().toLowerCase();
    if (!(FIELDS as readonly string[]).includes(name)) continue;
    const isId = name === "eventpid" || name === "eventtid";
    if (typeof member === "string") fields.set(name, redact(member.trim()));
    else if (isId && member instanceof JsonNumber && /^-?\d+$/.test(member.text))
      fields.set(name, member.text);
    else return "wrong type";
  }
  const field = (name: (typeof FIELDS)[number]): string => fields.get(name) ?? "";
  if (!fields.has("message")) return "MissingKeyError";
  fields.set("message", field("message").slice(0, MAX_MESSAGE_CHARACTERS));
  if (field("message") === "") return "EmptyMessageError";
  if (FIELDS.some((name) => !fields.has(name))) return "MissingKeyError";
  if (FIELDS.reduce((sum, name) => sum + field(name).length, 0) > MAX_EVENT_CHARACTERS)
    return "OversizeEventError";
  return {
    version: field("version"),
    timestamp: field("timestamp"),
    task: field("taskname"),
    level: field("eventlevel"),
    message: field("message"),
    processId: field("eventpid"),
    threadId: field("eventtid"),
    operationId: field("operationid"),
  };
}

/** An extension's event as a line of the log table (ETP-07, EXT-90). */
export function extensionEventDocument(
  handler: string,
  event: ExtensionEvent,
  modifiedMs: number,
  context: { readonly facts: EventFacts; readonly identity: EventIdentity },
): EventDocument {
  const own = logParameters({
    name: `${handler}-${event.version}`,
    level: event.level,
    message: event.message,
    context2: event.timestamp,
    context3: event.operationId,
  });
  const origin = { at: modifiedMs, task: event.task };
  const common = commonParameters(context.facts, context.identity, origin, undefined);
  // The extension's ids stay text, as it wrote them; ours are numbers.
  const ids: Readonly<Record<string, string>> = {
    EventPid: event.processId,
    EventTid: event.threadId,
  };
  return logEvent(
    own,
    common.map(({ name, value }) => ({ name, value: ids[name] ?? value })),
  );
}

/**
 * Reads all handlers' folders; nothing is deleted but files that can never be sent (ETP-02..06). A folder in which
 * nothing happened since it was seen empty is not listed again: `seen` maps folders to their time stamps then.
 */
export async function collectExtensionEvents(
  system: Pick<System, "files" | "clock" | "log">,
  logDirectory: SystemPath,
  seen: Map<SystemPath, number>,
  signal?: AbortSignal,
): Promise<readonly HandlerEvents[]> {
  const { files } = system;
  const collected: HandlerEvents[] = [];
  for (const handler of files.list(logDirectory)) {
    const directory = `${logDirectory}/${handler}/events` as SystemPath;
    const info = files.lstat(directory);
    // A link could make us empty any folder of the machine.
    if (info?.kind !== "directory") continue;
    if (seen.get(directory) === info.modifiedMs) continue;
    const found = await collectHandler(system, handler, directory, signal);
    if (found.files.length > 0 || found.rest.length > 0) collected.push(found);
    else seen.set(directory, info.modifiedMs);
  }
  return collected;
}

async function collectHandler(
  system: Pick<System, "files" | "clock" | "log">,
  handler: string,
  directory: SystemPath,
  signal: AbortSignal | undefined,
): Promise<HandlerEvents> {
  const { files, log } = system;
  const dropped = new Map<string, number>();
  const drop = (reason: string, count = 1): void => {
    if (count > 0) dropped.set(reason, (dropped.get(reason) ?? 0) + count);
  };
  const names = files.list(directory);
  const parsed: { path: SystemPath; modifiedMs: number; events: ExtensionEvent[] }[] = [];
  const waits = { left: MAX_WAITS };
  let room = MAX_EVENTS;
  for (const name of names.filter((one) => EVENT_FILE.test(one)).toReversed()) {
    const path = `${directory}/${name}` as SystemPath;
    const info = files.lstat(path);
    if (info?.kind !== "file") continue;
    if (info.size > MAX_FILE_BYTES) {
      drop(`the file ${name} has ${info.size} bytes, more than ${MAX_FILE_BYTES}`);
      continue;
    }
    if (room === 0) {
      drop(`older files, after ${MAX_EVENTS} events`);
      continue;
    }
    const values = await readFile(system, path, waits, signal);
    if (values === undefined) continue;
    const events: ExtensionEvent[] = [];
    for (const value of values) {
      const event = readExtensionEvent(value);
      if (event === "wrong type")
        log.warning(`Dropped an event of ${path}: a field has the wrong type`);
      else if (typeof event === "string") drop(event);
      else events.push(event);
    }
    const taken = events.slice(0, room);
    room -= taken.length;
    drop(`more than ${MAX_EVENTS} events`, events.length - taken.length);
    if (taken.length > 0) parsed.push({ path, modifiedMs: info.modifiedMs, events: taken });
  }
  const count = MAX_EVENTS - room;
  if (count > 0) log.info(`Collected ${count} events for extension: ${handler}`);
  const rest = names
    .map((name) => `${directory}/${name}` as SystemPath)
    .filter((path) => !parsed.some((file) => file.path === path));
  return { handler, directory, files: parsed, rest, dropped };
}

/** The values in a file, undefined when it cannot be read; an extension may be writing it right now (ETP-03). */
async function readFile(
  system: Pick<System, "files" | "clock" | "log">,
  file: SystemPath,
  waits: { left: number },
  signal: AbortSignal | undefined,
): Promise<readonly Json[] | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const value = parseJson(system.files.readText(file, { maxBytes: MAX_FILE_BYTES }), file);
      return Array.isArray(value) ? (value as readonly Json[]) : [value];
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      if (attempt >= TRIES || waits.left <= 0) {
        system.log.warning(`Dropped a file of events: ${describe(error)}`);
        return undefined;
      }
      waits.left -= 1;
      await system.clock.sleep(RETRY_MS, signal);
    }
  }
}

/** The warning of one handler for one run (ETP-08, EXT-89); undefined when nothing was dropped. */
export function droppedSummary(events: HandlerEvents): string | undefined {
  if (events.dropped.size === 0) return undefined;
  const reasons = [...events.dropped].map(
    ([reason, count]) => `Reason: ${reason}; Dropped Count: ${count}`,
  );
  return `Dropped events for Extension: ${events.handler}; Details:\n\t${reasons.join("\n\t")}`;
}
