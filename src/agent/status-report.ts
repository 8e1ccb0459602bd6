import type { GoalState } from "../azure/goal-state.ts";
import type { Session } from "../azure/session.ts";
import { uploadStatus } from "../azure/status-upload.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { describe, isAgentError } from "../base/error.ts";
import { formatTimestamp0 } from "../base/time.ts";
import { INITIAL_GOAL_STATE_FILE, summarizeExtensions } from "../report/convergence.ts";
import { vmStatus, type SupportedFeatures } from "../report/vm-status.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** What the status document says about the machine itself. */
export interface MachineFacts {
  readonly agentVersion: string;
  readonly osName: string;
  readonly osVersion: string;
  readonly hostName: () => string;
  readonly features: () => SupportedFeatures;
}

/** What the platform was told last, for the operator and for the first convergence. */
export interface StatusOutcome {
  readonly at: number;
  readonly channel: "host" | "direct" | "stale-ids" | "none";
  readonly failure: string | undefined;
}

/**
 * Builds and uploads the VM status every period, also while extensions run (`wire-protocol.md` STAT-01..05, DB-01).
 */
export interface StatusReport {
  report(
    goal: GoalState,
    handlers: readonly HandlerReport[],
    options: ReportOptions,
  ): Promise<StatusOutcome>;
  /** True once a goal state has converged in this installation (FILE-17). */
  hasConverged(): boolean;
}

export interface ReportOptions {
  readonly aggregate: AggregateStatus | undefined;
  /** Extensions are still being processed: what looks terminal is the state from before. */
  readonly busy: boolean;
  readonly signal: AbortSignal;
}

export interface StatusReportOptions {
  readonly libDirectory: SystemPath;
  readonly facts: MachineFacts;
  /** Keeps the document in the current history folder (STAT-50); called only when more than its times changed. */
  readonly keep: (document: string) => void;
  /** `Status.UnchangedPeriod`, ms: what the platform knows already is told again only then (DB-03). */
  readonly unchangedPeriodMs: number;
}

const EXTENDED_FAILURE_MS = 15 * 60_000;
const FAILURE_EVENT_PERIOD_MS = 15 * 60_000;
const FORCE_PERIOD_MS = 5 * 60_000;

export function createStatusReport(
  system: System,
  session: Session,
  options: StatusReportOptions,
): StatusReport {
  const { facts, libDirectory } = options;
  const markerFile = join(libDirectory, INITIAL_GOAL_STATE_FILE);
  let converged = system.files.exists(markerFile);
  let summary: string | undefined;
  let kept: string | undefined;
  /** The last document without its time, and at a fixed time. */
  let seen: { readonly withoutTime: string; readonly timeless: string } | undefined;
  let failingSince: number | undefined;
  let forcedAt: number | undefined;
  /** What the platform knows; undefined after a failed upload. */
  let told:
    | {
        readonly outcome: StatusOutcome;
        readonly at: number;
        readonly timeless: string;
        readonly blob: string;
      }
    | undefined;

  /** Changes of the extensions' states are logged and sent; the first convergence leaves its mark (STAT-51). */
  const summarize = (handlers: readonly HandlerReport[], busy: boolean): void => {
    const next = summarizeExtensions(handlers);
    if (next.text !== summary) {
      summary = next.text;
      const message =
        next.converged && !busy
          ? `All extensions in the goal state have reached a terminal state: ${next.text}`
          : `Extension status: ${next.text}`;
      system.log.info(message);
      system.emit({ operation: "GoalState", success: true, message });
    }
    if (!converged && next.converged && !busy) {
      system.files.write(markerFile, next.text, { mode: 0o600 });
      converged = true;
    }
  };

  const failed = (error: unknown): string => {
    const message = describe(error);
    const now = system.clock.monotonic();
    failingSince ??= now;
    if (now - failingSince >= EXTENDED_FAILURE_MS) {
      failingSince = now;
      system.emit({ operation: "ReportStatusExtended", success: false, message });
    }
    system.log.periodically(
      "ERROR",
      FAILURE_EVENT_PERIOD_MS,
      `Could not report the status of the VM: ${message}`,
      "status upload",
    );
    system.emit({
      operation: "ExtensionProcessing",
      success: false,
      message: `Failed to report status: ${message}`,
      periodMs: FAILURE_EVENT_PERIOD_MS,
      log: false,
    });
    return message;
  };

  /** STAT-05: not built means not uploaded; the next report tries again. */
  const unbuilt = (error: unknown): string => {
    const message = `The status could not be built: ${describe(error)}`;
    system.log.periodically("ERROR", FAILURE_EVENT_PERIOD_MS, message, "status build");
    system.emit({ operation: "ReportStatus", success: false, message, log: false });
    return message;
  };

  const build = (
    handlers: readonly HandlerReport[],
    aggregate: AggregateStatus | undefined,
    now: number,
  ): string =>
    vmStatus({
      now,
      agentVersion: facts.agentVersion,
      computerName: facts.hostName(),
      osName: facts.osName,
      osVersion: facts.osVersion,
      update: undefined,
      handlers,
      aggregate,
      features: facts.features(),
    });

  /** The document at a fixed time: when only time went by it is the same as before. */
  const withoutTimes = (
    document: string,
    handlers: readonly HandlerReport[],
    { at, aggregate }: Pick<ReportOptions, "aggregate"> & { readonly at: number },
  ): string => {
    const withoutTime = document.replaceAll(formatTimestamp0(at), "");
    // The rule while idle, for which nothing has to be built a second time.
    if (withoutTime !== seen?.withoutTime)
      seen = { withoutTime, timeless: build(handlers, aggregate, 0) };
    return seen.timeless;
  };

  /** Nothing is written when only time went by. */
  const keepChanged = (
    document: string,
    timeless: string,
    { handlers, busy }: Pick<ReportOptions, "busy"> & { handlers: readonly HandlerReport[] },
  ): void => {
    if (timeless !== kept) {
      options.keep(document);
      kept = timeless;
      summarize(handlers, busy);
    } else if (!converged) summarize(handlers, busy);
  };

  /** STAT-02: perhaps the goal state was read at an unlucky moment. Not at every report: it is a full fetch. */
  const askForBlob = async (
    signal: AbortSignal,
  ): Promise<GoalState["extensions"]["statusBlob"]> => {
    const now = system.clock.monotonic();
    if (forcedAt !== undefined && now - forcedAt < FORCE_PERIOD_MS) return undefined;
    forcedAt = now;
    return (await session.goals.update({ force: true, signal })).goalState.extensions.statusBlob;
  };

  return {
    hasConverged: () => converged,
    report: async (goal, handlers, { aggregate, busy, signal }) => {
      const at = system.clock.now();
      let document: string;
      let timeless: string;
      try {
        document = build(handlers, aggregate, at);
        timeless = withoutTimes(document, handlers, { at, aggregate });
      } catch (error) {
        return { at, channel: "none", failure: unbuilt(error) };
      }
      try {
        keepChanged(document, timeless, { handlers, busy });
      } catch (error) {
        // A full disk must not keep the platform from hearing about the VM.
        system.log.periodically(
          "WARNING",
          FAILURE_EVENT_PERIOD_MS,
          `The status could not be kept on disk: ${describe(error)}`,
          "status on disk",
        );
      }
      try {
        const blob = goal.extensions.statusBlob ?? (await askForBlob(signal));
        if (blob === undefined)
          return { at, channel: "none", failure: "the goal state names no status blob" };
        const monotonic = system.clock.monotonic();
        if (
          told?.timeless === timeless &&
          told.blob === blob.url &&
          monotonic - told.at < options.unchangedPeriodMs
        )
          return told.outcome;
        told = undefined;
        const channel = await uploadStatus(system, session, { document, blob, signal });
        session.goals.statusReported();
        failingSince = undefined;
        system.emit({
          operation: "ReportStatus",
          success: true,
          message: `Status uploaded (${channel})`,
        });
        const outcome = { at, channel, failure: undefined };
        told = { outcome, at: monotonic, timeless, blob: blob.url };
        return outcome;
      } catch (error) {
        if (isAgentError(error, "cancelled")) throw error;
        session.goals.statusReported();
        return { at, channel: "none", failure: failed(error) };
      }
    },
  };
}
