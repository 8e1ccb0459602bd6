import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { describe, type Failure } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { CODE } from "./failure.ts";
import { refreshHandlerEnvironments } from "./handler-environment.ts";
import { isCancelled, NO_LIMITS, type ResourceControl, type WorkContext } from "./handler-work.ts";
import { NO_ISOLATION, type Isolation } from "./invoke.ts";
import { displayName, layoutOf, type HandlerRef } from "./layout.ts";
import type { PackageSource } from "./package-source.ts";
import { plan, type Refusal } from "./plan.ts";
import { reconcile, type Progress } from "./reconcile.ts";
import { reportDisk, reportGoal } from "./reports.ts";

export interface RunnerOptions {
  readonly source: PackageSource;
  /** Address that extensions are told (EXT-74). */
  readonly wireServerAddress: string;
  /** The agent's own environment. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Versions of the platform's packages are honoured: VersioningGovernance may be required (EXT-16, UPD-32). */
  readonly isVersioningSupported?: boolean;
  readonly isolation?: Isolation;
  readonly limits?: ResourceControl;
  /** A handler began or ended something: its report is worth sending before the next period. */
  readonly onProgress?: () => void;
}

/**
 * Handlers of one VM. One pass at a time; `reports` may be called at any moment, also during one.
 *
 *     const runner = createExtensionsRunner(system, config, { source, wireServerAddress, environment });
 *     runner.refreshEnvironments();
 *     const aggregate = await runner.process(goal.extensions, signal);
 *     const handlers = runner.reports(goal.extensions);
 */
export interface ExtensionsRunner {
  /** EXT-53: once at every start of the agent. */
  refreshEnvironments(): void;
  /**
   * Brings the machine to the goal. undefined when nothing was processed because the goal is on hold (EXT-15).
   * Errors: AgentError "cancelled" only; commands under way then go on and are picked up by the next pass.
   */
  process(goal: ExtensionsGoalState, signal?: AbortSignal): Promise<AggregateStatus | undefined>;
  /** What is to be reported now for the goal that was handed to `process` last, or is to be. */
  reports(goal: ExtensionsGoalState): HandlerReport[];
}

/** Advertised to extensions (EXT-74). */
const EXTENSION_FEATURES = [{ key: "ExtensionTelemetryPipeline", value: "1.0" }];

export function createExtensionsRunner(
  system: System,
  config: Config,
  options: RunnerOptions,
): ExtensionsRunner {
  const layout = layoutOf(config);
  const log = system.log;
  const context: WorkContext = {
    layout,
    source: options.source,
    wireServerAddress: options.wireServerAddress,
    environment: options.environment,
    supportedFeatures: EXTENSION_FEATURES,
    isolation: options.isolation ?? NO_ISOLATION,
    limits: options.limits ?? NO_LIMITS,
    verify: () => Promise.resolve(false),
  };
  const features = [
    "MultipleExtensionsPerHandler",
    ...(options.isVersioningSupported === true ? ["VersioningGovernance"] : []),
  ];

  // What is known of the last pass; all of it is about the goal with this id.
  let goalId: string | undefined;
  let unsupported = false;
  let progress = new Map<string, Progress>();
  let chosen = new Map<string, HandlerRef>();
  let unwritten = new Map<string, Failure>();
  let refused = new Set<string>();

  const key = (handler: HandlerGoal, settings: SettingsGoal | undefined): string =>
    displayName(handler.name, handler.multiConfig ? settings?.name : undefined).toLowerCase();

  const pass = async (
    goal: ExtensionsGoalState,
    signal: AbortSignal | undefined,
  ): Promise<AggregateStatus | undefined> => {
    const finished = (status: "Success" | "Failed", code: number, message: string) => ({
      status,
      code,
      message,
      processedAt: system.clock.now(),
      sequence: goal.sequence,
    });
    const refusals = refusalsFor(goal);
    const decided = plan(goal, {
      honourOnHold: config["EnableOverProvisioning"],
      features,
      refuse: refusals,
    });
    goalId = goal.id;
    unsupported = decided.outcome === "unsupported";
    progress = new Map();
    chosen = new Map();
    unwritten = new Map();
    refused = new Set();
    if (decided.outcome === "on-hold") {
      log.info("Extensions are on hold, nothing is processed");
      return undefined;
    }
    if (decided.outcome === "unsupported") {
      const message = `Failing GS ${goal.id} as Unsupported features found: ${decided.features.join(", ")}`;
      log.warning(message);
      system.emit({ operation: "GoalStateUnsupportedFeatures", success: false, message });
      return finished("Failed", CODE.unsupportedFeatures, message);
    }
    for (const item of decided.items) {
      progress.set(key(item.handler, item.settings), { state: "waiting", handler: undefined });
      if (item.action === "refuse") refused.add(item.handler.name.toLowerCase());
    }
    await reconcile(system, context, decided, {
      goal,
      signal,
      onProgress: (item, now) => {
        progress.set(key(item.handler, item.settings), now);
        options.onProgress?.();
        if (now.handler !== undefined) chosen.set(item.handler.name.toLowerCase(), now.handler);
      },
      onUnwritten: (item, failure) => unwritten.set(key(item.handler, item.settings), failure),
    });
    return finished("Success", CODE.success, "GoalState executed successfully");
  };

  const refusalsFor = (_goal: ExtensionsGoalState) => (): Refusal | undefined => undefined;

  return {
    refreshEnvironments: () => refreshHandlerEnvironments(system, layout),

    process: async (goal, signal) => {
      const began = system.clock.monotonic();
      log.info(
        `ProcessExtensionsGoalState started [${goal.id} channel: ${goal.channel} source: ${goal.source} activity: ${goal.activityId} correlation ${goal.correlationId} created: ${goal.createdAt}]`,
      );
      try {
        return await pass(goal, signal);
      } catch (error) {
        if (isCancelled(error)) throw error;
        const message = `The goal state ${goal.id} could not be processed: ${describe(error)}`;
        log.error(message);
        system.emit({ operation: "ExtensionProcessing", success: false, message, log: false });
        return {
          status: "Failed",
          code: CODE.unknown,
          message,
          processedAt: system.clock.now(),
          sequence: goal.sequence,
        };
      } finally {
        const duration = Math.round(system.clock.monotonic() - began);
        log.info(`ProcessExtensionsGoalState completed [${goal.id} ${duration} ms]`);
      }
    },

    reports: (goal) => {
      const isCurrent = goal.id === goalId;
      if (isCurrent && unsupported) return reportDisk(system, layout);
      return reportGoal(system, goal, {
        layout,
        chosen: (handler) => (isCurrent ? chosen.get(handler.name.toLowerCase()) : undefined),
        isUnderWay: (handler, settings) => {
          const state = progress.get(key(handler, settings))?.state;
          return isCurrent && (state === "waiting" || state === "running");
        },
        unwritten: (handler, settings) =>
          isCurrent ? unwritten.get(key(handler, settings)) : undefined,
        isRefused: (handler) => refused.has(handler.name.toLowerCase()),
      });
    },
  };
}
