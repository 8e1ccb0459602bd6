import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { sasExpiry } from "../azure/sas.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { CommandEvent } from "../extensions/invocation.ts";
import { displayName } from "../extensions/layout.ts";
import {
  createAgentStateFile,
  type GoalStateState,
  type HandlerState,
  type OperationState,
  type StorageState,
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
  /**
   * What was reported last; handlers that are not in it any more disappear. `waits` says by display name in lower
   * case whom an extension waits for.
   */
  handlers(reports: readonly HandlerReport[], waits?: ReadonlyMap<string, string>): void;
  /** A part of agent or machine, e.g. "firewall"; `state` is one word. */
  component(name: string, state: string, detail?: string): void;
}

/** Of the addresses only their hosts and when their permission ends: this is for everybody to read. */
function storageOf(goal: ExtensionsGoalState): readonly StorageState[] {
  const urls = [
    ...(goal.statusBlob === undefined ? [] : [["status", goal.statusBlob.url] as const]),
    ...goal.handlers.flatMap(({ manifestUris }) =>
      manifestUris.map((url) => ["packages", url] as const),
    ),
  ];
  const found = new Map<string, StorageState>();
  for (const [purpose, url] of urls) {
    if (!URL.canParse(url)) continue;
    const expiry = sasExpiry(url);
    const expiresAt = expiry === undefined ? undefined : formatTimestamp0(expiry);
    const { origin } = new URL(url);
    const key = `${purpose} ${origin}`;
    const known = found.get(key)?.expiresAt;
    // Of several permissions the one that ends first is the one that will be missed.
    if (!found.has(key) || (expiresAt !== undefined && (known === undefined || expiresAt < known)))
      found.set(key, { purpose, origin, expiresAt });
  }
  return [...found.values()];
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
    handler: Pick<HandlerState, "name" | "version" | "state" | "waitsFor" | "detail">,
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
    goal: (goal, state, aggregate) => {
      const { id, source, activityId, correlationId } = goal;
      const detail = aggregate?.status === "Failed" ? aggregate.message : undefined;
      const shown = aggregate?.status === "Failed" ? "failed" : state;
      file.update({
        goalState: { id, source, activityId, correlationId, state: shown, since: now(), detail },
        storage: storageOf(goal),
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
          withCommands({
            ...{ name, version: handler.version, state },
            ...{ waitsFor: undefined, detail: known?.detail },
          }),
        ],
      });
    },
    handlers: (reports, waits = new Map()) => {
      const entry = (
        name: string,
        version: string,
        about: { readonly state: string; readonly detail: string | null | undefined },
      ): HandlerState =>
        withCommands({
          ...{ name, version, state: about.state, detail: about.detail ?? undefined },
          waitsFor: waits.get(name.toLowerCase()),
        });
      const handlers = reports.flatMap((report): HandlerState[] => {
        const { name, version, status } = report;
        const message = status === "Ready" ? undefined : report.message;
        if (report.extensions.length === 0)
          return [entry(name, version, { state: status, detail: message })];
        return report.extensions.map(({ extensionName, status: extension }) =>
          entry(displayName(name, extensionName), version, {
            state: extension.status === null ? status : `${status}, ${extension.status}`,
            detail: message ?? (extension.status === "error" ? extension.message : undefined),
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
