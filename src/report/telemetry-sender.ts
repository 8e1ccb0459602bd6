import { describe, isAgentError } from "../base/error.ts";
import type { WireClient } from "../azure/wire-client.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { parseEventDocument, textParameter, type EventDocument } from "./event-document.ts";
import { completeLegacyEvent, redacted } from "./event-parameters.ts";
import type { SpoolFile } from "./event-spool.ts";
import type { EventSpool } from "./events.ts";
import {
  collectExtensionEvents,
  droppedSummary,
  extensionEventDocument,
} from "./extension-events.ts";
import { encodeEvent, MAX_REQUEST_BYTES, telemetryBody } from "./telemetry-encoding.ts";

/** One POST of telemetry with its retries (`wire-protocol.md` MAP-10, TEL-31). Resolves when the platform took it. */
export type PostTelemetry = (
  body: string,
  options: { readonly flush: boolean; readonly signal?: AbortSignal | undefined },
) => Promise<unknown>;

/** Hands the spool and the extensions' events to the platform; what lies on disk goes away only after delivery (DB-18). */
export interface TelemetrySender {
  /** The agent's events; due every 60 s (TEL-19). */
  sendEvents(signal?: AbortSignal): Promise<void>;
  /** The extensions' events; due every `Debug.EtpCollectionPeriod` (ETP-02). */
  sendExtensionEvents(signal?: AbortSignal): Promise<void>;
  /** Before the process ends: one more try, with short delays (TEL-28). */
  drain(signal?: AbortSignal): Promise<void>;
}

export interface TelemetrySenderOptions {
  readonly post: PostTelemetry;
  /** `Telemetry.Enabled`. With false files are thrown away instead of sent, so that nothing grows. */
  readonly enabled: boolean;
  /** `EXTLOG`. */
  readonly extensionLogDirectory: SystemPath;
}

export const COLLECT_PERIOD_MS = 60_000;
const MAX_BACKOFF_MS = 600_000;
const QUOTA_CALLS = 15;
const QUOTA_MS = 15_000;
const TRIES = 3;
const RETRY_MS = 1000;
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_REFUSALS = 3;
const MAX_REASONS = 5;
const MAX_REMEMBERED = 2000;

/** An encoded event and what to do once its fate is known. */
interface Outgoing {
  readonly providerId: string;
  readonly text: string;
  readonly bytes: number;
  /** The event that tells about lost events is itself never counted as one. */
  readonly counted: boolean;
  readonly delivered: () => void;
  /** The platform answered that it does not want it. */
  readonly refused: (reason: string) => void;
}

export function createTelemetrySender(
  system: Pick<System, "files" | "clock" | "log">,
  spool: EventSpool,
  options: TelemetrySenderOptions,
): TelemetrySender {
  const { clock, log, files } = system;
  const calls: number[] = [];
  const refusals = new Map<string, number>();
  const seenFolders = new Map<SystemPath, number>();
  const unreadable = createTally();
  const notUnicode = createTally();
  const lost = createTally();
  let failures = 0;
  let notBefore = 0;

  const pace = async (signal: AbortSignal | undefined): Promise<void> => {
    while (calls[0] !== undefined && clock.monotonic() - calls[0] >= QUOTA_MS) calls.shift();
    if (calls.length >= QUOTA_CALLS && calls[0] !== undefined)
      await clock.sleep(QUOTA_MS - (clock.monotonic() - calls[0]), signal);
    calls.push(clock.monotonic());
  };

  /** Errors: the first failure that is not a refusal ends the round; what was not delivered stays for the next. */
  const send = async (
    batch: readonly Outgoing[],
    flush: boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    const [first] = batch;
    if (first === undefined) return;
    await pace(signal);
    const body = telemetryBody(
      first.providerId,
      batch.map((event) => event.text),
    );
    try {
      await options.post(body, { flush, signal });
      for (const event of batch) event.delivered();
    } catch (error) {
      if (!isRefusal(error)) throw error;
      log.periodically("WARNING", 1800_000, `The platform refused telemetry: ${describe(error)}`);
      for (const event of batch) event.refused(describe(error));
    }
  };

  /** Requests are filled up to their limit; an event that would reach it goes into the next one (TEL-32). */
  const deliver = async (
    events: AsyncIterable<Outgoing>,
    flush: boolean,
    signal: AbortSignal | undefined,
  ): Promise<void> => {
    const waiting = new Map<string, { events: Outgoing[]; bytes: number }>();
    for await (const event of events) {
      if (event.bytes >= MAX_REQUEST_BYTES) {
        log.periodically(
          "WARNING",
          1800_000,
          `Dropped an event of ${event.bytes} bytes: a request must stay below ${MAX_REQUEST_BYTES}`,
          "event too large",
        );
        if (event.counted) lost.add(`an event has ${event.bytes} bytes`);
        event.delivered();
        continue;
      }
      let batch = waiting.get(event.providerId);
      if (batch !== undefined && batch.bytes + event.bytes >= MAX_REQUEST_BYTES) {
        waiting.delete(event.providerId);
        await send(batch.events, flush, signal);
        batch = undefined;
      }
      batch ??= { events: [], bytes: 0 };
      batch.events.push(event);
      batch.bytes += event.bytes;
      waiting.set(event.providerId, batch);
    }
    for (const batch of waiting.values()) await send(batch.events, flush, signal);
  };

  const outgoing = (
    document: EventDocument,
    fate: Pick<Outgoing, "delivered" | "refused">,
  ): Outgoing => {
    const text = encodeEvent(document);
    return {
      providerId: document.providerId,
      text,
      bytes: Buffer.byteLength(text),
      counted: !(textParameter(document, "Operation") ?? "").startsWith("ReportEvent"),
      ...fate,
    };
  };

  /** A file that was refused several times is given up, or one bad event would block the others for days. */
  const refuse = (key: string, counted: boolean, reason: string, giveUp: () => void): void => {
    const count = (refusals.get(key) ?? 0) + 1;
    if (refusals.size >= MAX_REMEMBERED) refusals.clear();
    refusals.set(key, count);
    if (count < MAX_REFUSALS) return;
    refusals.delete(key);
    if (counted) lost.add(reason);
    giveUp();
  };

  async function* spooled(signal: AbortSignal | undefined): AsyncGenerator<Outgoing> {
    let pending = spool.files.list();
    for (let attempt = 1; pending.length > 0; attempt += 1) {
      const again: SpoolFile[] = [];
      for (const file of pending) {
        let document: EventDocument;
        try {
          document = readSpoolFile(system, file, spool);
        } catch (error) {
          if (attempt < TRIES) again.push(file);
          else {
            const text = describe(error);
            (text.includes("is not UTF-8") ? notUnicode : unreadable).add(text);
            spool.files.remove(file);
          }
          continue;
        }
        const counted = textParameter(document, "Operation") !== "ReportEventErrors";
        yield outgoing(document, {
          delivered: () => spool.files.remove(file),
          refused: (reason) => refuse(file.path, counted, reason, () => spool.files.remove(file)),
        });
      }
      // A file may be written at this very moment; the second and third look follow a second apart (TEL-24).
      pending = again;
      if (pending.length > 0) await clock.sleep(RETRY_MS, signal);
    }
  }

  async function* fromExtensions(
    collected: Awaited<ReturnType<typeof collectExtensionEvents>>,
  ): AsyncGenerator<Outgoing> {
    const context = spool.context();
    for (const { handler, files: eventFiles } of collected) {
      for (const file of eventFiles) {
        let open = file.events.length;
        const settle = (): void => {
          open -= 1;
          if (open === 0) files.remove(file.path);
        };
        for (const [index, event] of file.events.entries()) {
          yield outgoing(extensionEventDocument(handler, event, file.modifiedMs, context), {
            delivered: settle,
            refused: (reason) => refuse(`${file.path}#${index}`, true, reason, settle),
          });
        }
      }
    }
  }

  const reportLosses = (): void => {
    const overflow = spool.files.takeDropped();
    if (overflow > 0) lost.add("the event folder was full or could not be written", overflow);
    report("CollectEventErrors", unreadable);
    report("CollectEventUnicodeErrors", notUnicode);
    report("ReportEventErrors", lost);
  };

  const report = (operation: string, tally: ReturnType<typeof createTally>): void => {
    const message = tally.take();
    if (message !== undefined) spool.emit({ operation, success: false, message });
  };

  const round = async (
    events: AsyncIterable<Outgoing>,
    flush: boolean,
    signal: AbortSignal | undefined,
  ): Promise<boolean> => {
    try {
      await deliver(events, flush, signal);
      failures = 0;
      notBefore = 0;
      return true;
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      failures += 1;
      notBefore =
        clock.monotonic() + Math.min(COLLECT_PERIOD_MS * 2 ** (failures - 1), MAX_BACKOFF_MS);
      log.periodically(
        "WARNING",
        1800_000,
        `Telemetry could not be delivered, events are kept and sent later: ${describe(error)}`,
        "telemetry not delivered",
      );
      return false;
    }
  };

  const throwAway = (): void => {
    for (const file of spool.files.list()) spool.files.remove(file);
    spool.files.takeDropped();
  };

  return {
    sendEvents: async (signal) => {
      if (!options.enabled) return throwAway();
      if (clock.monotonic() < notBefore) return;
      await round(spooled(signal), false, signal);
      reportLosses();
    },
    sendExtensionEvents: async (signal) => {
      const collected = await collectExtensionEvents(
        system,
        options.extensionLogDirectory,
        seenFolders,
        signal,
      );
      for (const events of collected) {
        for (const path of events.rest) files.remove(path);
        const summary = droppedSummary(events);
        if (summary !== undefined) spool.emitWarning(summary);
        if (!options.enabled) for (const file of events.files) files.remove(file.path);
      }
      if (options.enabled && clock.monotonic() >= notBefore)
        await round(fromExtensions(collected), false, signal);
    },
    drain: async (signal) => {
      if (options.enabled) await round(spooled(signal), true, signal);
    },
  };
}

function readSpoolFile(
  system: Pick<System, "files">,
  file: SpoolFile,
  spool: EventSpool,
): EventDocument {
  const text = system.files.readText(file.path, { maxBytes: MAX_FILE_BYTES });
  const document = parseEventDocument(text, file.path);
  if (file.byAgent) return { ...document, parameters: redacted(document.parameters) };
  const { facts, identity } = spool.context();
  // mtime is an instant, so the time in the event is right in every time zone (DB-28).
  return completeLegacyEvent(document, facts, identity, {
    at: file.modifiedMs,
    task: "ExtHandler",
  });
}

/** The server understood the request and does not want it; trying again changes nothing. */
function isRefusal(error: unknown): boolean {
  if (!isAgentError(error) || error.status === undefined) return false;
  return error.status >= 400 && error.status < 500 && ![403, 408, 410, 429].includes(error.status);
}

/** Count and first reasons of what was lost (TEL-24, TEL-33). */
function createTally() {
  let count = 0;
  let reasons: string[] = [];
  return {
    add: (reason: string, times = 1): void => {
      count += times;
      if (reasons.length < MAX_REASONS && !reasons.includes(reason)) reasons.push(reason);
    },
    take: (): string | undefined => {
      if (count === 0) return undefined;
      const text = `DroppedEventsCount: ${count}\nReasons (first ${MAX_REASONS} errors): ${reasons.join(", ")}`;
      count = 0;
      reasons = [];
      return text;
    },
  };
}

const ATTEMPTS = 3;
const THROTTLE_DELAY_MS = 8000;
const FLUSH_THROTTLE_DELAY_MS = 2000;

/** Posts through the WireServer (MAP-10, TEL-31); throttling never adds attempts to telemetry (HTTP-09). */
export function postThrough(wire: Pick<WireClient, "post">): PostTelemetry {
  return (body, { flush, signal }) =>
    wire.post("/machine?comp=telemetrydata", body, {
      what: "telemetry",
      attempts: ATTEMPTS,
      throttledAttempts: ATTEMPTS,
      throttleDelayMs: flush ? FLUSH_THROTTLE_DELAY_MS : THROTTLE_DELAY_MS,
      totalMs: flush ? 10_000 : 60_000,
      signal,
    });
}
