import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { CommandEvent } from "../extensions/invoke.ts";
import { displayName } from "../extensions/layout.ts";
import {
  createAgentStateFile,
  type GoalStateState,
  type HandlerState,
  type OperationState,
} from "../report/agent-state.ts";
import { pid } from "../system/process.ts";
import type { System } from "../system/system.ts";

/**
 * What the operator sees of the running agent (`waagent status`): collected from the tasks, kept in a file that is only
 * written when something changed.
 */
export interface OperatorView {
  goal(
    goal: ExtensionsGoalState,
    state: GoalStateState["state"],
    aggregate?: AggregateStatus,
  ): void;
  command(event: CommandEvent): void;
  /** What was reported last; handlers that are not in it any more disappear. */
  handlers(reports: readonly HandlerReport[]): void;
  /** A part of agent or machine, e.g. "firewall"; `state` is one word. */
  component(name: string, state: string, detail?: string): void;
}

export function createOperatorView(
  system: Pick<System, "files" | "log" | "clock">,
  version: string,
): OperatorView {
  const now = (): string => formatTimestamp0(system.clock.now());
  const file = createAgentStateFile(system, { version, pid: pid(), startedAt: now() });
  const running = new Map<string, { operation: string; since: string }>();
  const last = new Map<string, OperationState>();

  const withCommands = (
    handler: Pick<HandlerState, "name" | "version" | "state" | "waitsFor">,
  ): HandlerState => {
    const key = handler.name.toLowerCase();
    return {
      ...handler,
      running: running.get(key),
      lastOperation: last.get(key),
      nextRetryAt: undefined,
    };
  };

  return {
    goal: ({ id, source, activityId, correlationId }, state, aggregate) => {
      const detail = aggregate?.status === "Failed" ? aggregate.message : undefined;
      const shown = aggregate?.status === "Failed" ? "failed" : state;
      file.update({
        goalState: { id, source, activityId, correlationId, state: shown, since: now(), detail },
      });
    },
    command: ({ handler, extension, operation, ended }) => {
      const name = displayName(handler.name, extension);
      const key = name.toLowerCase();
      if (ended === undefined) running.set(key, { operation, since: now() });
      else {
        running.delete(key);
        const { exitCode, durationMs, failure } = ended;
        last.set(key, { operation, at: now(), exitCode, durationMs, message: failure });
      }
      const known = file.current().handlers.find((one) => one.name.toLowerCase() === key);
      const state = known?.state ?? "processing";
      file.update({
        handlers: [
          withCommands({ name, version: handler.version, state, waitsFor: known?.waitsFor }),
        ],
      });
    },
    handlers: (reports) => {
      const handlers = reports.flatMap((report): HandlerState[] => {
        const { name, version, status, message } = report;
        const waitsFor = status === "NotReady" ? message : undefined;
        if (report.extensions.length === 0)
          return [withCommands({ name, version, state: status, waitsFor })];
        return report.extensions.map(({ extensionName, status: extension }) =>
          withCommands({
            name: displayName(name, extensionName),
            version,
            state: extension.status === null ? status : `${status}, ${extension.status}`,
            waitsFor: extension.status === "error" ? (extension.message ?? undefined) : undefined,
          }),
        );
      });
      file.update({ onlyHandlers: handlers });
    },
    component: (name, state, detail) => {
      const known = file.current().components.find((one) => one.name === name);
      if (known?.state === state && known.detail === detail) return;
      file.update({ component: { name, state, detail, since: now() } });
    },
  };
}
