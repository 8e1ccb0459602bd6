import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import type { AggregateStatus } from "../azure/vm-status.ts";
import type { ExtensionsRunner } from "../extensions/runner.ts";
import type { System } from "../system/system.ts";

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
  readonly onStarted: (goal: ExtensionsGoalState) => void;
  /** After each pass: the next status report should not wait for its period. */
  readonly onProcessed: (goal: ExtensionsGoalState, aggregate: AggregateStatus | undefined) => void;
}

export function createExtensionsTask(
  system: Pick<System, "log" | "emit">,
  runner: ExtensionsRunner,
  options: ExtensionsTaskOptions,
): ExtensionsTask {
  let pending: ExtensionsGoalState | undefined;
  let current: ExtensionsGoalState | undefined;
  let reported: ExtensionsGoalState | undefined;
  let aggregate: AggregateStatus | undefined;
  let wake: (() => void) | undefined;

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
        runner.supersede();
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
        const goal = pending;
        current = goal;
        pending = undefined;
        options.onStarted(goal);
        try {
          // A goal that is on hold leaves the last outcome as it is (EXT-15).
          aggregate = (await runner.process(goal, signal)) ?? aggregate;
        } finally {
          current = undefined;
        }
        options.onProcessed(goal, aggregate);
      }
    },
  };
}
