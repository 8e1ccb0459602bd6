import type { GoalStateClient, GoalStateUpdate } from "../azure/goal-state-client.ts";
import { describe } from "../base/error.ts";
import type { System } from "../system/system.ts";

/**
 * One look at the goal state each period, with the reporting of failures that the platform's people know: the first
 * three at once, the fourth as still failing, then one in six hours, and the recovery (`wire-protocol.md` GS-20).
 */
export interface GoalPoll {
  /** undefined when the goal state could not be fetched; the next poll tries again. */
  poll(signal: AbortSignal): Promise<GoalStateUpdate | undefined>;
  /** Failed updates since the last call (TEL-50). */
  takeFailures(): number;
}

const IMMEDIATE_REPORTS = 3;
const SILENCE_MS = 6 * 3_600_000;

export function createGoalPoll(
  system: Pick<System, "log" | "emit" | "clock">,
  goals: GoalStateClient,
): GoalPoll {
  let inARow = 0;
  let sinceHeartbeat = 0;
  let reportedAt = 0;
  let degraded: string | undefined;

  const failed = (error: unknown): void => {
    inARow += 1;
    sinceHeartbeat += 1;
    const now = system.clock.monotonic();
    const first = inARow <= IMMEDIATE_REPORTS + 1;
    if (!first && now - reportedAt < SILENCE_MS) return;
    reportedAt = now;
    const message =
      inARow <= IMMEDIATE_REPORTS
        ? `Error fetching the goal state: ${describe(error)}`
        : `Fetching the goal state is still failing (${inARow} times in a row): ${describe(error)}`;
    system.log.error(message);
    system.emit({ operation: "FetchGoalState", success: false, message, log: false });
  };

  const succeeded = ({ goalState }: GoalStateUpdate): void => {
    if (inARow === 0) return;
    const certificates = JSON.stringify(goalState.certificates);
    const message = `Fetching the goal state recovered from ${inARow} errors: ${goalState.extensions.id}, certificates ${certificates}`;
    inARow = 0;
    system.log.info(message);
    system.emit({ operation: "FetchGoalState", success: true, message });
  };

  return {
    poll: async (signal) => {
      try {
        const update = await goals.update({ signal });
        succeeded(update);
        const reason = update.degraded === undefined ? undefined : describe(update.degraded);
        if (reason !== undefined && reason !== degraded) {
          system.log.warning(
            `Fast Track cannot be asked, the WireServer's goal state is used: ${reason}`,
          );
        }
        degraded = reason;
        return update;
      } catch (error) {
        if (signal.aborted) throw error;
        failed(error);
        return undefined;
      }
    },
    takeFailures: () => {
      const count = sinceHeartbeat;
      sinceHeartbeat = 0;
      return count;
    },
  };
}
