import type { Session } from "../azure/session.ts";
import type { Resources } from "../extensions/resources.ts";
import { createExtensionsRunner } from "../extensions/runner.ts";
import type { EventSpool } from "../report/events.ts";
import { environment, parentPid } from "../system/process.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";
import { createExtensionsTask } from "./extensions-task.ts";
import { hostName } from "./facts.ts";
import { createGoalPoll } from "./goal-poll.ts";
import { isOrphan } from "./orphan.ts";
import { createPackageSource } from "./package-source.ts";
import { withProfile } from "./profile.ts";
import { createVersionWatch } from "./requested-version.ts";
import type { OlderAgent } from "./instance.ts";
import type { OperatorView } from "./operator-view.ts";
import type { Connection } from "./connection.ts";
import { libDirectory, seconds } from "./settings.ts";
import { waitForCloudInit, waitForOlderAgents } from "./start-up.ts";
import { createStatusReport } from "./status-report.ts";
import type { Task, TaskGroup } from "./tasks.ts";

const MINUTE_MS = 60_000;
const REPORT_SLACK_MS = 1000;
const DISABLED_PERIOD_MS = 300_000;

export interface GoalTasksOptions {
  readonly connection: Connection;
  readonly spool: EventSpool;
  readonly view: OperatorView;
  /** Agents of an earlier start that still live. */
  readonly older: readonly OlderAgent[];
  /** Aborted by a signal, or by the agent itself when there is nothing left to serve. */
  readonly stop: AbortController;
  readonly resources: Resources;
}

/** Goal state, extensions and status: three tasks, so that none of them waits for another (design D2). */
export function goalTasks(
  system: System,
  context: AgentContext,
  session: Session,
  options: GoalTasksOptions,
): {
  readonly tasks: readonly Task[];
  readonly connect: (group: TaskGroup) => void;
  readonly takeFailures: () => number;
  /** Once a goal state has converged, while no extension is being processed. */
  readonly isSettled: () => boolean;
} {
  const { config, distro } = context;
  let group: TaskGroup | undefined;
  const verify = (): boolean => session.goals.current()?.extensions.source === "FastTrack";
  const { view } = options;
  const runner = createExtensionsRunner(system, withProfile(config), {
    source: createPackageSource(session.storage, options.connection.history, verify),
    wireServerAddress: session.endpoint,
    // `extensions.md` RUN-02, EXT-74.
    environment: { ...environment(), _AZURE_GUEST_AGENT_DAEMON_VERSION_: context.version },
    onProgress: () => group?.wakeTask("ReportStatus"),
    onCommand: view.command,
    configFile: context.configFile ?? "/etc/waagent.conf",
    isolation: options.resources.isolation,
    limits: options.resources.limits,
  });
  options.resources.prepare();
  runner.prepare();
  const poll = createGoalPoll(system, session.goals);
  const versions = createVersionWatch(system, config, context.version);
  const status = createStatusReport(system, session, {
    libDirectory: libDirectory(config),
    facts: {
      agentVersion: context.version,
      osName: distro.release.name,
      osVersion: distro.release.version,
      hostName: () => hostName(system),
      features: () => ({ versioningGovernance: false, fastTrack: session.isFastTrackSupported() }),
    },
    keep: (document) => options.connection.history.current()?.save("waagent_status.json", document),
    unchangedPeriodMs: seconds(config["Status.UnchangedPeriod"]),
  });
  const extensions = createExtensionsTask(system, runner, {
    ready: async (abort) => {
      await waitForOlderAgents(system, options.older, abort);
      await waitForCloudInit(system, context, abort);
    },
    onStarted: (goal) => {
      view.goal(goal, "processing");
      versions.look(goal.agentFamilies);
    },
    onProcessed: (goal, aggregate) => {
      view.goal(goal, "done", aggregate);
      group?.wakeTask("ReportStatus");
      void options.connection.history.archive();
    },
  });
  const first = session.goals.current();
  let lastIncarnation = first?.incarnation;
  if (first !== undefined && !first.extensions.outdated) extensions.submit(first.extensions);
  identify(options.spool, session);

  const periodMs = (): number => {
    if (!withProfile(config)["Extensions.Enabled"]) return DISABLED_PERIOD_MS;
    const key = status.hasConverged()
      ? "Extensions.GoalStatePeriod"
      : "Extensions.InitialGoalStatePeriod";
    return seconds(config[key]);
  };
  const tasks: Task[] = [
    {
      thread: "ExtHandler",
      name: "UpdateGoalState",
      periodMs,
      delayMs: periodMs(),
      limitMs: 10 * MINUTE_MS,
      run: async (abort) => {
        if (isForsaken(system, context)) {
          system.log.info("The daemon that started this process is gone, ending");
          options.stop.abort();
          return;
        }
        const update = await poll.poll(abort);
        // The report follows the poll, so that an idle agent wakes up once for both (STAT-01).
        group?.wakeTask("ReportStatus");
        if (update === undefined) return;
        if (update.extensionsChanged) extensions.submit(update.goalState.extensions);
        if (update.goalState.incarnation !== lastIncarnation) {
          lastIncarnation = update.goalState.incarnation;
          identify(options.spool, session);
          group?.wakeTask("RemoteAccess");
        } else if (update.certificatesRecovered) group?.wakeTask("RemoteAccess");
      },
    },
    {
      thread: "ExtHandler",
      name: "ReportStatus",
      // Only when a poll takes too long; else it is woken by each poll, and by what the extensions do.
      periodMs: () => periodMs() + REPORT_SLACK_MS,
      limitMs: 10 * MINUTE_MS,
      run: async (abort) => {
        const goal = session.goals.current();
        if (goal === undefined) return;
        const reported = extensions.reported() ?? goal.extensions;
        const handlers = runner.reports(reported);
        view.handlers(handlers, runner.waits());
        const { failure } = await status.report(goal, handlers, {
          aggregate: extensions.aggregate(),
          busy: extensions.isBusy(),
          signal: abort,
        });
        view.component("status upload", failure === undefined ? "ok" : "failed", failure);
      },
    },
    {
      thread: "ExtHandler",
      name: "ProcessExtensions",
      periodMs: () => 0,
      limitMs: undefined,
      run: (abort) => extensions.run(abort),
    },
  ];
  return {
    tasks,
    takeFailures: poll.takeFailures,
    isSettled: () => status.hasConverged() && !extensions.isBusy(),
    connect: (started) => {
      group = started;
    },
  };
}

/** Below another daemon, which has died (`system.md` DAEMON-16). */
function isForsaken(system: System, context: AgentContext): boolean {
  const { verb, debug } = context.arguments;
  return verb === "run-exthandlers" && !debug && isOrphan(system, context.config, parentPid());
}

/** Ids of the goal state for telemetry (`wire-protocol.md` TEL-07). */
function identify(spool: EventSpool, session: Session): void {
  const vm = session.goals.current()?.vm;
  if (vm === undefined) return;
  const { containerId, tenantName, roleName, instanceId } = vm;
  spool.identify({ containerId, tenantName, roleName, roleInstanceName: instanceId });
}
