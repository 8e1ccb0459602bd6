import type { Session } from "../azure/session.ts";
import { describe, isAgentError } from "../base/error.ts";
import {
  COLLECT_PERIOD_MS,
  createTelemetrySender,
  postThrough,
} from "../report/telemetry-sender.ts";
import type { System } from "../system/system.ts";
import type { Connection } from "./connection.ts";
import type { AgentContext } from "./context.ts";
import { clockTask } from "./clock-task.ts";
import { goalTasks, type GoalTasksOptions } from "./goal-tasks.ts";
import { environmentTasks } from "./environment-tasks.ts";
import { createResources } from "../extensions/resources.ts";
import { monitorTasks } from "./monitor-tasks.ts";
import { extensionLogDirectory, seconds } from "./settings.ts";
import { prepareOwnUnit } from "./own-unit.ts";
import { remoteAccessTask } from "./remote-access-task.ts";
import { prepareState } from "./start-up.ts";
import { profileOf } from "./profile.ts";
import { startTasks, type Task } from "./tasks.ts";

export type ServeOptions = Omit<GoalTasksOptions, "resources">;

const MINUTE_MS = 60_000;
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
    post: postThrough(session.wire),
    enabled: config["Telemetry.Enabled"],
    extensionLogDirectory: extensionLogDirectory(config),
  });
  const resources = createResources(system, {
    systemd: context.distro.capabilities.systemd,
    unitDirectory: context.distro.unitDirectory,
    agentService: context.distro.serviceName,
    enforceMemory: config["Extensions.EnforceMemoryQuota"],
    tasksMax: config["Extensions.TasksMax"],
  });
  if (profileOf(config).keepsMachine) prepareOwnUnit(system, context.distro);
  const goal = goalTasks(system, context, session, { ...options, resources });
  const tasks: Task[] = [
    ...goal.tasks,
    ...(profileOf(config).keepsMachine
      ? [
          ...environmentTasks(system, context, session, options),
          remoteAccessTask(system, context, session),
        ]
      : []),
    ...monitorTasks(system, context, session, {
      connection,
      spool,
      takeFailures: goal.takeFailures,
      resourceUsage: resources.sample,
      isolates: resources.isolates,
      isSettled: goal.isSettled,
      stop: options.stop,
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
  tasks.push(clockTask(system, () => group.wake()));
  const group = startTasks(system, tasks, signal);
  goal.connect(group);
  await group.finished;
  await drain(sender.drain(AbortSignal.timeout(DRAIN_MS)));
}

/** Blocks until the first goal state is there (`wire-protocol.md` GS-19). Errors: only AgentError "cancelled". */
export async function openPatiently(
  system: Pick<System, "clock" | "log">,
  context: Pick<AgentContext, "config">,
  connection: Pick<Connection, "open">,
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

/** Leaving must not take long; what is not delivered stays on disk. */
async function drain(sending: Promise<void>): Promise<void> {
  try {
    await sending;
  } catch (error) {
    if (!isAgentError(error)) throw error; // a failed or cancelled last send is fine, the events stay on disk
  }
}
