import type { Session } from "../azure/session.ts";
import { describe, isAgentError } from "../base/error.ts";
import type { EventSpool } from "../report/events.ts";
import {
  COLLECT_PERIOD_MS,
  createTelemetrySender,
  type PostTelemetry,
} from "../report/telemetry-sender.ts";
import type { System } from "../system/system.ts";
import type { Connection } from "./connection.ts";
import type { AgentContext } from "./context.ts";
import { environmentTasks } from "./environment-tasks.ts";
import { createResources, type Resources } from "../extensions/resources.ts";
import { createExtensionsRunner } from "../extensions/runner.ts";
import { monitorTasks } from "./monitor-tasks.ts";
import { createPackageSource } from "./package-source.ts";
import { createExtensionsTask } from "./extensions-task.ts";
import { hostName } from "./facts.ts";
import { createGoalPoll } from "./goal-poll.ts";
import { extensionLogDirectory, libDirectory, seconds } from "./settings.ts";
import { environment, parentPid } from "../system/process.ts";
import type { OperatorView } from "./operator-view.ts";
import type { OlderAgent } from "./instance.ts";
import { isOrphan } from "./orphan.ts";
import { remoteAccessTask } from "./remote-access-task.ts";
import { prepareState, waitForCloudInit, waitForOlderAgents } from "./start-up.ts";
import { profileOf, withProfile } from "./profile.ts";
import { createVersionWatch } from "./requested-version.ts";
import { createStatusReport } from "./status-report.ts";
import { startTasks, type Task, type TaskGroup } from "./tasks.ts";

export interface ServeOptions {
  readonly connection: Connection;
  readonly spool: EventSpool;
  readonly view: OperatorView;
  /** Agents of an earlier start that still live. */
  readonly older: readonly OlderAgent[];
  /** Aborted by a signal, or by the agent itself when there is nothing left to serve. */
  readonly stop: AbortController;
}

const MINUTE_MS = 60_000;
const DISABLED_PERIOD_MS = 300_000;
const DRAIN_MS = 5000;

/**
 * The long part of the agent's life: every periodic activity as a task of its own. Ends when the signal aborts.
 * Errors: AgentError when a task hangs, so that the service manager starts the agent afresh.
 */
export async function serve(
  system: System,
  context: AgentContext,
  options: ServeOptions,
): Promise<void> {
  const { config } = context;
  const { connection, spool } = options;
  const { signal } = options.stop;
  system.log.become({ thread: "ExtHandler", prefix: "ExtHandler" });
  system.log.info(`Azure Linux Agent (Goal State Agent version ${context.version})`);
  prepareState(system, context);
  const session = await openPatiently(system, context, connection, signal);

  const sender = createTelemetrySender(system, spool, {
    post: telemetryPost(session),
    enabled: config["Telemetry.Enabled"],
    extensionLogDirectory: extensionLogDirectory(config),
  });
  const resources = createResources(system, {
    systemd: context.distro.capabilities.systemd,
    unitDirectory: context.distro.unitDirectory,
  });
  const goal = goalTasks(system, context, session, { ...options, resources });
  const tasks: Task[] = [
    ...goal.tasks,
    ...(profileOf(config).keepsMachine
      ? [
          ...environmentTasks(system, context, session, connection),
          remoteAccessTask(system, context, session),
        ]
      : []),
    ...monitorTasks(system, context, session, {
      connection,
      spool,
      takeFailures: goal.takeFailures,
      resourceUsage: resources.sample,
    }),
    {
      thread: "SendTelemetryHandler",
      name: "SendTelemetry",
      periodMs: () => COLLECT_PERIOD_MS,
      delayMs: 5000,
      limitMs: 10 * MINUTE_MS,
      run: (abort) => sender.sendEvents(abort),
    },
    {
      thread: "TelemetryEventsCollector",
      name: "CollectExtensionEvents",
      periodMs: () => seconds(config["Debug.EtpCollectionPeriod"]),
      limitMs: 10 * MINUTE_MS,
      run: (abort) => sender.sendExtensionEvents(abort),
    },
  ];
  const group = startTasks(system, tasks, signal);
  goal.connect(group);
  await group.finished;
  await drain(sender.drain(AbortSignal.timeout(DRAIN_MS)));
}

/** Goal state, extensions and status: three tasks, so that none of them waits for another (design D2). */
function goalTasks(
  system: System,
  context: AgentContext,
  session: Session,
  options: ServeOptions & { readonly resources: Resources },
): {
  readonly tasks: readonly Task[];
  readonly connect: (group: TaskGroup) => void;
  readonly takeFailures: () => number;
} {
  const { config, distro } = context;
  let group: TaskGroup | undefined;
  const verify = (): boolean => session.goals.current()?.extensions.source === "FastTrack";
  const { view } = options;
  const runner = createExtensionsRunner(system, withProfile(config), {
    source: createPackageSource(session.storage, options.connection.history, verify),
    wireServerAddress: session.endpoint,
    environment: environment(),
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
        if (update === undefined) return;
        if (update.extensionsChanged) extensions.submit(update.goalState.extensions);
        if (update.goalState.incarnation !== lastIncarnation) {
          lastIncarnation = update.goalState.incarnation;
          identify(options.spool, session);
          group?.wakeTask("RemoteAccess");
        }
        if (update.extensionsChanged) group?.wakeTask("ReportStatus");
      },
    },
    {
      thread: "ExtHandler",
      name: "ReportStatus",
      periodMs,
      limitMs: 10 * MINUTE_MS,
      run: async (abort) => {
        const goal = session.goals.current();
        if (goal === undefined) return;
        const reported = extensions.reported() ?? goal.extensions;
        const handlers = runner.reports(reported);
        view.handlers(handlers);
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
    connect: (started) => {
      group = started;
    },
  };
}

/** Blocks until the first goal state is there (`wire-protocol.md` GS-19). Errors: only AgentError "cancelled". */
async function openPatiently(
  system: System,
  context: AgentContext,
  connection: Connection,
  signal: AbortSignal,
): Promise<Session> {
  for (;;) {
    try {
      return await connection.open(signal);
    } catch (error) {
      if (isAgentError(error, "cancelled") || signal.aborted) throw error;
      system.log.error(`Could not get the first goal state: ${describe(error)}`);
      await system.clock.sleep(seconds(context.config["Extensions.GoalStatePeriod"]), signal);
    }
  }
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

/** `wire-protocol.md` MAP-10, TEL-31. */
function telemetryPost(session: Session): PostTelemetry {
  return (body, { flush, signal }) =>
    session.wire.post("/machine?comp=telemetrydata", body, {
      what: "telemetry",
      attempts: 3,
      throttledAttempts: 3,
      throttleDelayMs: flush ? 2000 : 8000,
      signal,
    });
}

/** Leaving must not take long; what is not delivered stays on disk. */
async function drain(sending: Promise<void>): Promise<void> {
  try {
    await sending;
  } catch (error) {
    if (!isAgentError(error)) throw error; // a failed or cancelled last send is fine, the events stay on disk
  }
}
