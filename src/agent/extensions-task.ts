import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { describe, isAgentError } from "../base/error.ts";
import type { System } from "../system/system.ts";

/** What runs the extensions of a goal state (extensions/runner.ts). */
export interface ExtensionsRunner {
  /** One pass over a goal state. Errors: only AgentError "cancelled"; what fails is in the reports. */
  process(goal: ExtensionsGoalState, signal: AbortSignal): Promise<AggregateStatus>;
  /** What is to be reported now; cheap, and right also while commands run. */
  reports(goal: ExtensionsGoalState): readonly HandlerReport[];
}

/**
 * Extensions run in their own task (design D2): polling and status never wait for them. A goal state that arrives
 * while another one is processed waits; of several waiting ones only the newest is processed.
 */
export interface ExtensionsTask {
  submit(goal: ExtensionsGoalState): void;
  /** Outcome of the last pass that ended (STAT-13). */
  aggregate(): AggregateStatus | undefined;
  /** The goal state whose handlers are reported: the last one handed over (STAT-25). */
  reported(): ExtensionsGoalState | undefined;
  isBusy(): boolean;
  /** Ends when the signal aborts, after the running pass has noticed. */
  run(signal: AbortSignal): Promise<void>;
}

export interface ExtensionsTaskOptions {
  /** Before the first pass (cloud-init, older agents). */
  readonly ready: (signal: AbortSignal) => Promise<void>;
  /** Something of the state changed: the next status report should not wait for its period. */
  readonly onProgress: () => void;
}

export function createExtensionsTask(
  system: Pick<System, "log" | "emit" | "clock">,
  runner: ExtensionsRunner,
  options: ExtensionsTaskOptions,
): ExtensionsTask {
  let pending: ExtensionsGoalState | undefined;
  let current: ExtensionsGoalState | undefined;
  let reported: ExtensionsGoalState | undefined;
  let aggregate: AggregateStatus | undefined;
  let wake: (() => void) | undefined;

  const pass = async (goal: ExtensionsGoalState, signal: AbortSignal): Promise<void> => {
    const label = `${goal.id} channel: ${goal.channel} source: ${goal.source} activity: ${goal.activityId} correlation ${goal.correlationId} created: ${goal.createdAt}`;
    system.log.info(`ProcessExtensionsGoalState started [${label}]`);
    const started = system.clock.monotonic();
    try {
      aggregate = await runner.process(goal, signal);
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      const message = `Unexpected error processing the extensions of ${goal.id}: ${describe(error)}`;
      system.log.error(message);
      system.emit({ operation: "ExtensionProcessing", success: false, message, log: false });
      aggregate = {
        status: "Failed",
        code: -1,
        message,
        processedAt: system.clock.now(),
        sequence: goal.sequence,
      };
    }
    const elapsed = Math.round(system.clock.monotonic() - started);
    system.log.info(`ProcessExtensionsGoalState completed [${goal.id} ${elapsed} ms]`);
  };

  return {
    submit: (goal) => {
      if (current !== undefined) {
        const message = `A new goal state (${goal.id}) was received, but not all the extensions in the previous goal state (${current.id}) have completed`;
        system.log.warning(message);
        system.emit({
          operation: "GoalState",
          success: false,
          message: `[WARNING] ${message}`,
          log: false,
        });
      }
      pending = goal;
      reported = goal;
      wake?.();
    },
    aggregate: () => aggregate,
    reported: () => reported,
    isBusy: () => current !== undefined || pending !== undefined,
    run: async (signal) => {
      signal.addEventListener("abort", () => wake?.(), { once: true });
      let first = true;
      while (!signal.aborted) {
        if (pending === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
          wake = undefined;
          continue;
        }
        if (first) await options.ready(signal);
        first = false;
        current = pending;
        pending = undefined;
        try {
          await pass(current, signal);
        } finally {
          current = undefined;
        }
        options.onProgress();
      }
    },
  };
}
