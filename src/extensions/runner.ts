import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import type { AggregateStatus, HandlerReport } from "../azure/vm-status.ts";
import { describe, isAgentError, type Failure } from "../base/error.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { Config } from "../config/table.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { migrateOldState, removeVanished } from "./cleanup.ts";
import { createEnabledRecord } from "./enabled-record.ts";
import { CODE } from "./failure.ts";
import { refreshHandlerEnvironments } from "./handler-environment.ts";
import { NO_LIMITS, type ResourceControl, type WorkContext } from "./work.ts";
import { NO_ISOLATION, type CommandEvent, type Isolation } from "./invocation.ts";
import { displayName, layoutOf, type HandlerRef, type Layout } from "./layout.ts";
import type { PackageSource } from "./package-source.ts";
import { plan, printPlan, type WorkItem } from "./plan.ts";
import { isSignatureRequired, readPolicy, type PolicyState } from "./policy.ts";
import { createPolicyWatch } from "./policy-watch.ts";
import { refusedAsDisabled, refusedByPolicy } from "./refusals.ts";
import { reconcile, type Progress } from "./reconcile.ts";
import { reportDisk, reportGoal } from "./reports.ts";
import { canVerify, verifyPackage, writeTrustAnchor } from "./signature.ts";
import { createStatusReader } from "./status-file.ts";
import { listHandlers, resolveHandler } from "./store.ts";

export interface RunnerOptions {
  readonly source: PackageSource;
  /** Address that extensions are told (EXT-74). */
  readonly wireServerAddress: string;
  /** The agent's own environment. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Versions of the platform's packages are honoured: VersioningGovernance may be required (EXT-16, UPD-32). */
  readonly isVersioningSupported?: boolean;
  /** Named in the text of a refusal (EXT-20). */
  readonly configFile?: string;
  readonly isolation?: Isolation;
  readonly limits?: ResourceControl;
  /** A handler began or ended something: its report is worth sending before the next period. */
  readonly onProgress?: () => void;
  /** Every command, when it begins and when it has ended. */
  readonly onCommand?: (event: CommandEvent) => void;
}

/**
 * Handlers of one VM. One pass at a time; `reports` may be called at any moment, also during one.
 *
 *     const runner = createExtensionsRunner(system, config, { source, wireServerAddress, environment });
 *     runner.prepare();
 *     const aggregate = await runner.process(goal.extensions, signal);
 *     const handlers = runner.reports(goal.extensions);
 */
export interface ExtensionsRunner {
  /** Once at every start: state of old agents, environment files (EXT-53), trust anchor (SIG-04). Never throws. */
  prepare(): void;
  /**
   * Brings the machine to the goal. undefined when nothing was processed because the goal is on hold (EXT-15).
   * Errors: AgentError "cancelled" only; commands under way then go on and are picked up by the next pass.
   */
  process(goal: ExtensionsGoalState, signal?: AbortSignal): Promise<AggregateStatus | undefined>;
  /** A newer goal state waits: nothing of the pass under way is tried again after a pause. */
  supersede(): void;
  /** What is to be reported now for the goal that was handed to `process` last, or is to be. */
  reports(goal: ExtensionsGoalState): HandlerReport[];
  /** Extensions of the pass under way that wait, by display name in lower case, and for whom. */
  waits(): ReadonlyMap<string, string>;
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
  const policyFile = config["Policy.PolicyFilePath"] as SystemPath;
  const opensslPath = config["OS.OpensslPath"];
  const context: WorkContext = {
    layout,
    source: options.source,
    enabled: config["Extensions.SkipUnchanged"] ? createEnabledRecord(system, layout) : undefined,
    downloadRetries: config["Extensions.DownloadRetries"],
    wireServerAddress: options.wireServerAddress,
    environment: options.environment,
    onCommand: options.onCommand,
    supportedFeatures: EXTENSION_FEATURES,
    isolation: options.isolation ?? NO_ISOLATION,
    limits: options.limits ?? NO_LIMITS,
    verify: async (goal, handler, archive, staging) => {
      const isRequired = policy.state === "on" && isSignatureRequired(policy.policy, handler.name);
      if (!isRequired && !(await isValidationOn())) return false;
      const { encodedSignature } = goal;
      return await verifyPackage(system, layout, {
        ...{ handler, archive, staging, encodedSignature, opensslPath, isRequired },
      });
    },
  };
  const policyOptions = { enabled: config["Debug.EnableExtensionPolicy"] };
  const policyWatch = createPolicyWatch(system, policyFile, policyOptions);
  let policy: PolicyState = { state: "off" };
  let validation: Promise<boolean> | undefined;
  const isValidationOn = (): Promise<boolean> =>
    (validation ??= config["Debug.EnableSignatureValidation"]
      ? canVerify(system, opensslPath)
      : Promise.resolve(false));
  const features = [
    "MultipleExtensionsPerHandler",
    ...(options.isVersioningSupported === true ? ["VersioningGovernance"] : []),
  ];

  const readStatusFile = createStatusReader(system, layout);

  // What is known of the last pass; all of it is about the goal with this id.
  let goalId: string | undefined;
  let unsupported = false;
  let items: readonly WorkItem[] = [];
  let progress = new Map<string, Progress>();
  let chosen = new Map<string, HandlerRef>();
  let unwritten = new Map<string, Failure>();
  let refused = new Set<string>();
  let newer = new AbortController();

  const key = (handler: HandlerGoal, settings: SettingsGoal | undefined): string =>
    displayName(handler.name, handler.multiConfig ? settings?.name : undefined).toLowerCase();

  const outcome = (
    goal: ExtensionsGoalState,
    ...[status, code, message]: ["Success" | "Failed", number, string]
  ): AggregateStatus => ({
    ...{ status, code, message },
    processedAt: system.clock.now(),
    sequence: goal.sequence,
  });

  const pass = async (
    goal: ExtensionsGoalState,
    signal: AbortSignal | undefined,
  ): Promise<AggregateStatus | undefined> => {
    policy = readPolicy(system, policyFile, policyOptions);
    if (policy.state !== "off" && policy.text !== undefined)
      options.source.keep?.("waagent_policy.json", policy.text);
    const decided = plan(goal, {
      honourOnHold: config["EnableOverProvisioning"],
      features,
      refuse: (handler) =>
        config["Extensions.Enabled"]
          ? refusedByPolicy(handler, policy, policyFile)
          : refusedAsDisabled(handler, options.configFile ?? "/etc/waagent.conf"),
    });
    policyWatch.look(goal.handlers);
    log.verbose(`Plan of ${goal.id}:\n${printPlan(decided)}`);
    goalId = goal.id;
    unsupported = decided.outcome === "unsupported";
    items = decided.outcome === "process" ? decided.items : [];
    progress = new Map();
    chosen = new Map();
    unwritten = new Map();
    refused = new Set();
    if (decided.outcome === "on-hold") {
      const message = "Extensions are on hold, nothing is processed";
      log.info(message);
      system.emit({ operation: "ExtensionProcessing", success: true, message });
      return undefined;
    }
    if (decided.outcome === "unsupported") {
      const message = `Failing GS ${goal.id} as Unsupported features found: ${decided.features.join(", ")}`;
      log.warning(message);
      system.emit({ operation: "GoalStateUnsupportedFeatures", success: false, message });
      return outcome(goal, "Failed", CODE.unsupportedFeatures, message);
    }
    if (goal.signatureCapable) for (const handler of goal.handlers) reportSigned(system, handler);
    for (const item of decided.items) {
      progress.set(key(item.handler, item.settings), { state: "waiting", handler: undefined });
      if (item.action === "refuse") refused.add(item.handler.name.toLowerCase());
    }
    newer = new AbortController();
    await reconcile(system, context, decided, {
      goal,
      signal,
      superseded: newer.signal,
      onProgress: (item, now) => {
        progress.set(key(item.handler, item.settings), now);
        if (now.handler !== undefined) chosen.set(item.handler.name.toLowerCase(), now.handler);
        options.onProgress?.();
      },
      onUnwritten: (item, failure) => unwritten.set(key(item.handler, item.settings), failure),
    });
    const onDisk = listHandlers(system, layout);
    await removeVanished(system, layout, goal, {
      limits: context.limits,
      reported: goal.handlers.map(
        (handler) => chosen.get(handler.name.toLowerCase()) ?? resolveHandler(onDisk, handler),
      ),
    });
    return outcome(goal, "Success", CODE.success, "GoalState executed successfully");
  };

  return {
    prepare: () => {
      const steps: readonly [string, () => void][] = [
        ["make the state directory", () => makeStateDirectory(system, layout)],
        ["migrate state of an old agent", () => migrateOldState(system, layout)],
        ["refresh the environment files", () => refreshHandlerEnvironments(system, layout)],
        ["write the trust anchor", () => void writeTrustAnchor(system, layout)],
      ];
      for (const [what, step] of steps) {
        try {
          step();
        } catch (error) {
          // A full disk at start is no reason not to run: each of these is tried again at the next start.
          log.error(`Could not ${what}: ${describe(error)}`);
        }
      }
      // Looked for by other tools (§21.4).
      log.info("Extension Telemetry pipeline enabled: True");
    },

    process: async (goal, signal) => {
      const began = system.clock.monotonic();
      log.info(
        `ProcessExtensionsGoalState started [${goal.id} channel: ${goal.channel} source: ${goal.source} activity: ${goal.activityId} correlation ${goal.correlationId} created: ${goal.createdAt}]`,
      );
      try {
        return await pass(goal, signal);
      } catch (error) {
        if (isAgentError(error, "cancelled")) throw error;
        const message = `The goal state ${goal.id} could not be processed: ${describe(error)}`;
        log.error(message);
        system.emit({ operation: "ExtensionProcessing", success: false, message, log: false });
        return outcome(goal, "Failed", CODE.unknown, message);
      } finally {
        const duration = Math.round(system.clock.monotonic() - began);
        log.info(`ProcessExtensionsGoalState completed [${goal.id} ${duration} ms]`);
      }
    },

    supersede: () => newer.abort(),

    reports: (goal) => {
      policyWatch.look(goal.handlers);
      const isCurrent = goal.id === goalId;
      if (isCurrent && unsupported) return reportDisk(system, layout);
      return reportGoal(system, goal, {
        layout,
        readStatusFile,
        chosen: (handler) => (isCurrent ? chosen.get(handler.name.toLowerCase()) : undefined),
        isUnderWay: (handler, settings) => {
          // A goal that was not handed over yet waits as a whole.
          const state = progress.get(key(handler, settings))?.state;
          return !isCurrent || state === "waiting" || state === "running";
        },
        unwritten: (handler, settings) =>
          isCurrent ? unwritten.get(key(handler, settings)) : undefined,
        retry: (handler, settings) =>
          isCurrent ? progress.get(key(handler, settings))?.retry?.message : undefined,
        isRefused: (handler) => refused.has(handler.name.toLowerCase()),
      });
    },

    waits: () => {
      const stateOf = (item: WorkItem | undefined): Progress["state"] | undefined =>
        item === undefined ? undefined : progress.get(key(item.handler, item.settings))?.state;
      const waiting = items.filter((item) => stateOf(item) === "waiting");
      return new Map(
        waiting.flatMap((item): [string, string][] => {
          const retry = progress.get(key(item.handler, item.settings))?.retry;
          if (retry !== undefined)
            return [
              [
                item.label.toLowerCase(),
                `a new try of the download at ${formatTimestamp0(retry.at)}`,
              ],
            ];
          const others = [...new Set([...item.after, ...item.needs])].map((index) => items[index]);
          const pending = others.filter((other) => stateOf(other) !== "over");
          // All of them are over: what is missing is the success that one of them has to report (SEQ-04).
          const needed = pending.length > 0 ? pending : item.needs.map((index) => items[index]);
          const names = needed.flatMap((other) => (other === undefined ? [] : [other.label]));
          return [[item.label.toLowerCase(), names.length > 0 ? names.join(", ") : "its turn"]];
        }),
      );
    },
  };
}

/** SIG-06. */
function reportSigned(system: Pick<System, "emit">, handler: HandlerGoal): void {
  if (handler.state === "uninstall") return;
  const isSigned = handler.encodedSignature !== "";
  system.emit({
    operation: "ExtensionSigned",
    success: isSigned,
    message: isSigned ? "The package is signed" : "The package is not signed",
    name: handler.name,
    version: handler.version,
    log: false,
  });
}

function makeStateDirectory(system: Pick<System, "files">, layout: Layout): void {
  system.files.makeDirectory(layout.lib, { mode: 0o700, keepMode: true });
}
