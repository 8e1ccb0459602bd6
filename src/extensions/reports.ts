import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import type { ExtensionReport, ExtensionStatus, HandlerReport } from "../azure/vm-status.ts";
import { describe, type Failure } from "../base/error.ts";
import { redact } from "../base/redact.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE } from "./failure.ts";
import { readHandlerManifest } from "./handler-manifest.ts";
import { readHeartbeat } from "./heartbeat.ts";
import { configOf, displayName, type HandlerRef, type Layout } from "./layout.ts";
import { readStatusFile, substitute, type StatusSource } from "./status-file.ts";
import {
  listHandlers,
  readExtensionState,
  readState,
  readStatus,
  resolveHandler,
  writeStatus,
  type HandlerOnDisk,
  type HandlerStatus,
} from "./store.ts";

/** What the runner knows beyond what is on disk. */
export interface ReportContext {
  readonly layout: Layout;
  readonly readStatusFile: (source: StatusSource) => ExtensionStatus;
  /** Version chosen in the current or last pass. */
  readonly chosen: (handler: HandlerGoal) => HandlerRef | undefined;
  /** The item has not ended in the pass under way, so what is on disk may be left from an earlier goal. */
  readonly isUnderWay: (handler: HandlerGoal, settings: SettingsGoal | undefined) => boolean;
  /** What to say while a failed download waits for its next try (DB-36). */
  readonly retry: (handler: HandlerGoal, settings: SettingsGoal | undefined) => string | undefined;
  /** A failure that could not be written to disk. */
  readonly unwritten: (
    handler: HandlerGoal,
    settings: SettingsGoal | undefined,
  ) => Failure | undefined;
  /** Refused by policy or because extensions are disabled (EXT-111, EXT-124). */
  readonly isRefused: (handler: HandlerGoal) => boolean;
}

/** All handlers of a goal (`extensions.md` EXT-110). One that cannot be read does not hide the others (DB-05). */
export function reportGoal(
  system: Pick<System, "files" | "log" | "clock">,
  goal: ExtensionsGoalState,
  context: ReportContext,
): HandlerReport[] {
  // Looked at only for a handler for which no version was chosen yet.
  let onDisk: readonly HandlerOnDisk[] | undefined;
  const resolve = (handler: HandlerGoal): HandlerRef =>
    resolveHandler((onDisk ??= listHandlers(system, context.layout)), handler);
  return goal.handlers.flatMap((handler) => {
    const place = context.chosen(handler) ?? resolve(handler);
    try {
      return reportHandler(system, context, handler, place);
    } catch (error) {
      return [
        {
          name: handler.name,
          version: place.version,
          status: "NotReady",
          code: CODE.unknown,
          message: `The agent could not find out the status of this handler: ${describe(error)}`,
          extensions: [],
        },
      ];
    }
  });
}

function reportHandler(
  system: Pick<System, "files" | "log" | "clock">,
  context: ReportContext,
  goal: HandlerGoal,
  place: HandlerRef,
): HandlerReport[] {
  const entries = goal.settings.length === 0 ? [undefined] : goal.settings;
  const unwritten = entries
    .map((entry) => context.unwritten(goal, entry))
    .find((failure) => failure !== undefined);
  if (unwritten !== undefined) return [failedInMemory(goal, place, unwritten)];

  const { layout } = context;
  const underWay = entries.some((entry) => context.isUnderWay(goal, entry));
  const written = readStatus(system, layout, place);
  const isStale = underWay && written?.status !== "Ready";
  if (isStale && goal.state !== "enabled" && written === undefined) return [];
  const retry = entries
    .map((entry) => context.retry(goal, entry))
    .find((text) => text !== undefined);
  const inWork = retry === undefined ? IN_WORK : { ...IN_WORK, message: retry };
  const status: HandlerStatus | undefined = isStale ? inWork : written;
  if (status === undefined) {
    if (goal.state !== "uninstall")
      system.log.periodically(
        "WARNING",
        1800_000,
        `There is no status of ${goal.name} ${place.version}, it is not reported`,
      );
    return [];
  }

  const state = readState(system, layout, place);
  const current = isStale ? status : withHeartbeat(system, context, goal, place, { status, state });
  const withExtensions =
    state !== "NotInstalled" || goal.multiConfig || context.isRefused(goal) || isStale;
  const extensions = withExtensions
    ? goal.settings.flatMap((entry) =>
        reportExtension(system, context, goal, { place, entry, isStale }),
      )
    : [];
  return [
    {
      name: goal.name,
      version: place.version,
      status: current.status,
      code: current.code,
      message: current.message === null ? undefined : redact(current.message),
      extensions,
    },
  ];
}

const IN_WORK: HandlerStatus = {
  status: "Installing",
  code: CODE.success,
  message: "The handler is being processed",
  supportsMultiConfig: false,
};

function reportExtension(
  system: Pick<System, "files" | "log">,
  context: ReportContext,
  goal: HandlerGoal,
  about: {
    readonly place: HandlerRef;
    readonly entry: SettingsGoal;
    readonly isStale: boolean;
  },
): ExtensionReport[] {
  const { place, entry, isStale } = about;
  const extension = goal.multiConfig ? entry.name : undefined;
  // MC-08: deleted and gone.
  if (
    extension !== undefined &&
    entry.state === "disabled" &&
    readExtensionState(system, context.layout, place, extension) === "disabled"
  )
    return [];
  const name = displayName(goal.name, extension);
  const source = { handler: place, name, extension, sequence: entry.sequence };
  const found = context.readStatusFile(source);
  const status =
    isStale && context.isUnderWay(goal, entry)
      ? substitute(
          source,
          "transitioning",
          CODE.success,
          context.retry(goal, entry) ?? "The agent is processing this extension",
        )
      : found;
  return [{ extensionName: extension, sequence: entry.sequence, status }];
}

/** §10: a heartbeat replaces status and message; one that is broken is written down and shows from the next report on. */
function withHeartbeat(
  system: Pick<System, "files" | "log" | "clock">,
  context: ReportContext,
  goal: HandlerGoal,
  place: HandlerRef,
  known: { readonly status: HandlerStatus; readonly state: string },
): HandlerStatus {
  const { status, state } = known;
  if (state === "NotInstalled" || !declaresHeartbeat(system, context.layout, place)) return status;
  const heartbeat = readHeartbeat(system, context.layout, place);
  if (context.isRefused(goal)) {
    // EXT-124: the refusal stays; what the service says is added.
    const said = heartbeat.state === "fresh" ? heartbeat.message : undefined;
    return said === undefined
      ? status
      : {
          ...status,
          message: `${status.message ?? ""} Extension was previously enabled with heartbeat message: ${said}`,
        };
  }
  switch (heartbeat.state) {
    case "stale":
      return { ...status, status: "Unresponsive" };
    case "broken": {
      const reported = {
        ...status,
        status: "NotReady",
        code: CODE.unknown,
        message: heartbeat.reason,
      };
      if (status.message !== reported.message || status.status !== reported.status) {
        try {
          writeStatus(system, context.layout, place, reported);
        } catch (error) {
          system.log.warning(
            `The missing heartbeat of ${place.name} was not recorded: ${describe(error)}`,
          );
        }
      }
      return status;
    }
    case "fresh":
      // DB-34: a code that only said the heartbeat was missing goes with it.
      return {
        ...status,
        status: heartbeat.status,
        code: status.code === CODE.unknown ? CODE.success : status.code,
        message: heartbeat.message ?? status.message,
      };
  }
}

function declaresHeartbeat(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
): boolean {
  try {
    return readHandlerManifest(system, layout, handler).reportHeartbeat;
  } catch {
    return false; // a package that is broken has said so when it was processed
  }
}

function failedInMemory(goal: HandlerGoal, place: HandlerRef, failure: Failure): HandlerReport {
  return {
    name: goal.name,
    version: place.version,
    status: "NotReady",
    code: failure.code,
    message: redact(failure.message),
    extensions: goal.settings.map((entry) => {
      const extension = goal.multiConfig ? entry.name : undefined;
      return {
        extensionName: extension,
        sequence: entry.sequence,
        status: substitute({ handler: place, extension }, "error", failure.code, failure.message),
      };
    }),
  };
}

/** EXT-66, STAT-26: after a goal state that was not understood, what is on disk is reported. */
export function reportDisk(
  system: Pick<System, "files" | "log" | "clock">,
  layout: Layout,
): HandlerReport[] {
  return listHandlers(system, layout).flatMap((handler) => {
    const status = readStatus(system, layout, handler);
    if (status === undefined) return [];
    return [
      {
        name: handler.name,
        version: handler.version,
        status: status.status,
        code: status.code,
        message: status.message === null ? undefined : redact(status.message),
        extensions:
          handler.state === "NotInstalled"
            ? []
            : settingsOnDisk(system, layout, handler).map(({ extension, sequence }) => ({
                extensionName: extension,
                sequence,
                status: readStatusFile(system, layout, {
                  handler,
                  name: displayName(handler.name, extension),
                  extension,
                  sequence,
                }),
              })),
      },
    ];
  });
}

/** For each extension the sequence number of the settings file that was modified last (EXT-103). */
export function settingsOnDisk(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerOnDisk | HandlerRef,
): { readonly extension: string | undefined; readonly sequence: number }[] {
  const config = configOf(layout, handler);
  const newest = new Map<string, { sequence: number; modifiedMs: number }>();
  for (const name of system.files.list(config)) {
    const match = /^(?:(.+)\.)?(\d{1,15})\.settings$/.exec(name);
    const stat = match === null ? undefined : system.files.stat(join(config, name));
    if (match === null || stat === undefined) continue;
    const extension = match[1] ?? "";
    const known = newest.get(extension);
    if (known === undefined || stat.modifiedMs >= known.modifiedMs)
      newest.set(extension, { sequence: Number(match[2]), modifiedMs: stat.modifiedMs });
  }
  const isMultiConfig = [...newest.keys()].some((extension) => extension !== "");
  return [...newest]
    .filter(([extension]) => (extension !== "") === isMultiConfig)
    .map(([extension, { sequence }]) => ({
      extension: extension === "" ? undefined : extension,
      sequence,
    }));
}
