import { describe } from "../base/error.ts";
import { JsonReader, formatJson, toJson } from "../base/json.ts";
import { formatTimestamp6 } from "../base/time.ts";
import type { TelemetryEvent } from "../system/event.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { formatEventDocument, type EventDocument } from "./event-document.ts";
import {
  AGENT_NAME,
  commonParameters,
  logEvent,
  logParameters,
  metricEvent,
  metricParameters,
  operationEvent,
  operationParameters,
  type EventFacts,
  type EventIdentity,
  type EventOrigin,
  type Metric,
} from "./event-parameters.ts";
import { createFileSpool, SPOOL_LIMITS, type FileSpool, type SpoolLimits } from "./event-spool.ts";

/** Where the agent's events go until they are delivered. One for the whole process; nothing of it throws or waits. */
export interface EventSpool {
  emit(event: TelemetryEvent): void;
  emitMetric(metric: Metric): void;
  /** A line for the platform's log table; only for what an operator of the platform must see (TEL-09). */
  emitWarning(message: string): void;
  /** Adds what a goal state and IMDS have told; missing members keep what was known (TEL-07). */
  identify(identity: EventIdentity): void;
  /** Facts and identity as they are now, for events that others wrote. */
  context(): { readonly facts: EventFacts; readonly identity: EventIdentity };
  readonly files: FileSpool;
}

export interface EventSpoolOptions {
  readonly facts: EventFacts;
  /** `LIB/events` (FILE-14). */
  readonly directory: SystemPath;
  /** `LIB/event_status.json` (FILE-15). */
  readonly statusFile: SystemPath;
  /** Task named in events that do not name theirs (TEL-04). Default "ExtHandler". */
  readonly task?: string;
  /** `Telemetry.Enabled`; with false nothing is kept for sending. Default true. */
  readonly enabled?: boolean;
  readonly limits?: SpoolLimits;
}

/** Sent only when the outcome changes (TEL-25). */
const ON_CHANGE: ReadonlySet<string> = new Set(["ReportStatus"]);
const MAX_REMEMBERED = 1000;

export function createEventSpool(
  system: Pick<System, "files" | "clock" | "log">,
  options: EventSpoolOptions,
): EventSpool {
  const { facts } = options;
  const task = options.task ?? "ExtHandler";
  const enabled = options.enabled ?? true;
  const files = createFileSpool(system, options.directory, options.limits ?? SPOOL_LIMITS);
  const outcomes = createOutcomes(system, options.statusFile);
  const sent = new Map<string, number>();
  let identity: EventIdentity = {};

  const keep = (event: EventDocument): void => {
    if (enabled) files.add(formatEventDocument(event));
  };

  const isRepeated = (event: TelemetryEvent): boolean => {
    if (event.periodMs === undefined) return false;
    const key = JSON.stringify([event.name, event.operation, event.success, event.message]);
    const now = system.clock.monotonic();
    const last = sent.get(key);
    if (last !== undefined && now - last < event.periodMs) return true;
    if (sent.size >= MAX_REMEMBERED) sent.clear();
    sent.set(key, now);
    return false;
  };

  const common = (at: number, name: string, fileType: string | undefined) =>
    commonParameters(facts, identity, { at, task: name } satisfies EventOrigin, fileType);

  return {
    files,
    emit: (event) => {
      if (isRepeated(event)) return;
      if (ON_CHANGE.has(event.operation)) {
        const version = event.version ?? facts.agentVersion;
        const key = `${event.name ?? AGENT_NAME}-${version}-${event.operation}`;
        if (!outcomes.changed(key, event.success)) return;
      }
      if (!event.success && event.log !== false) {
        // system.md LOG-10: support tools look for this line.
        system.log.error(
          `Event: name=${event.name ?? AGENT_NAME}, op=${event.operation}, message=${event.message}, duration=${Math.trunc(event.durationMs ?? 0)}`,
        );
      }
      const own = operationParameters(event, facts.agentVersion);
      keep(operationEvent(own, common(system.clock.now(), event.task ?? task, "")));
    },
    emitMetric: (metric) =>
      keep(metricEvent(metricParameters(metric), common(system.clock.now(), task, undefined))),
    emitWarning: (message) => {
      system.log.warning(message);
      const at = system.clock.now();
      const record = {
        name: "Log",
        level: "WARNING",
        message,
        context2: formatTimestamp6(at),
        context3: "",
      };
      keep(logEvent(logParameters(record), common(at, task, undefined)));
    },
    identify: (more) => {
      const known = Object.entries(more).filter(([, value]) => value !== undefined);
      identity = { ...identity, ...(Object.fromEntries(known) as EventIdentity) };
    },
    context: () => ({ facts, identity }),
  };
}

/** Last outcome for each name-version-operation, kept over restarts (TEL-25, FILE-15). */
function createOutcomes(system: Pick<System, "files" | "log">, file: SystemPath) {
  let known: Map<string, boolean> | undefined;

  const load = (): Map<string, boolean> => {
    const result = new Map<string, boolean>();
    try {
      const text = system.files.readTextIfExists(file, { maxBytes: 1024 * 1024 });
      if (text === undefined) return result;
      for (const [key, value] of JsonReader.parse(text, file).object()) {
        if (typeof value === "boolean") result.set(key, value);
      }
    } catch (error) {
      system.log.warning(`Starts without the last event outcomes: ${describe(error)}`);
    }
    return result;
  };

  return {
    /** Remembers the outcome; true when it is the first one or another than the last. */
    changed: (key: string, success: boolean): boolean => {
      known ??= load();
      if (known.get(key) === success) return false;
      if (known.size >= MAX_REMEMBERED) known.clear();
      known.set(key, success);
      try {
        system.files.write(file, formatJson(toJson(known)), { durable: false });
      } catch (error) {
        system.log.periodically(
          "WARNING",
          3600_000,
          `Could not remember an event outcome: ${describe(error)}`,
        );
      }
      return true;
    },
  };
}
