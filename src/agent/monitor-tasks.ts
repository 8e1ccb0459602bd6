import { randomUUID } from "node:crypto";
import { imageOrigin } from "../azure/image-origin.ts";
import { checkImds, readCompute } from "../azure/imds.ts";
import type { Session } from "../azure/session.ts";
import { AGENT_LONG_NAME } from "../base/identity.ts";
import type { EventSpool } from "../report/events.ts";
import { createHealthService } from "../report/health-service.ts";
import { HEARTBEAT_PERIOD_MS, sendHeartbeat } from "../report/heartbeat.ts";
import { createMonitors, type MonitorDependencies } from "../report/monitors.ts";
import { reportOpenSsl, reportOsInfo } from "../report/os-info.ts";
import { createLogCollection } from "../report/log-collection.ts";
import { logRotation } from "../report/log-rotation.ts";
import { executablePath } from "../system/process.ts";
import type { System } from "../system/system.ts";
import { THROTTLED_TIME } from "../extensions/cgroup-usage.ts";
import type { Connection } from "./connection.ts";
import type { AgentContext } from "./context.ts";
import { memoryGuard } from "./memory-guard.ts";
import { createOwnQuota } from "./own-quota.ts";
import { createOwnUsage } from "./own-usage.ts";
import { profileOf } from "./profile.ts";
import { seconds } from "./settings.ts";
import type { Task } from "./tasks.ts";

export interface MonitorTasksOptions {
  readonly connection: Connection;
  readonly spool: EventSpool;
  /** Failed goal state updates since the last call. */
  readonly takeFailures: () => number;
  /** What extensions use (`extensions.md` CG-35). */
  readonly resourceUsage: NonNullable<MonitorDependencies["resourceUsage"]>;
  /** Commands of extensions run in groups of their own. */
  readonly isolates: () => boolean;
  /** All extensions of the goal state have come to an end. */
  readonly isSettled: () => boolean;
  readonly stop: AbortController;
}

const LIMIT_MS = 5 * 60_000;
const COLLECT_LIMIT_MS = 30 * 60_000;
const NEVER_AGAIN_MS = 2 ** 40;

/** The agent's looks at itself, the host and the machine (`system.md` §11), and its heartbeat (DAEMON-18). */
export function monitorTasks(
  system: System,
  context: AgentContext,
  session: Session,
  options: MonitorTasksOptions,
): readonly Task[] {
  const { config, distro, version } = context;
  const { connection, spool } = options;
  const { errors } = connection;
  const healthService = createHealthService(system, session.endpoint, { errors });
  connection.onObservation = (observation) => healthService.observe(observation);

  const ownUsage = createOwnUsage(system, { systemd: distro.capabilities.systemd });
  const ownQuota = profileOf(config).keepsMachine
    ? createOwnQuota(system, config, { ...options, place: ownUsage.place })
    : undefined;
  const monitors = createMonitors(system, {
    hostPlugin: session.hostPlugin,
    healthService,
    httpErrors: errors,
    imdsHealth: async (signal) => {
      const problem = await checkImds(system, { agentVersion: version, errors, signal });
      return { healthy: problem === undefined, detail: problem ?? "" };
    },
    emitMetric: spool.emitMetric,
    resourceUsage: async (signal) => {
      const own = ownUsage.sample();
      await ownQuota?.check(own.find(({ counter }) => counter === THROTTLED_TIME)?.value);
      return [...own, ...(await options.resourceUsage(signal))];
    },
    resourcePeriodMs: seconds(config["Debug.CgroupCheckPeriod"]),
    logMetrics: config["Debug.CgroupLogMetrics"],
    networkChanges: config["Monitor.NetworkConfigurationChanges"],
  });

  const logs = createLogCollection(system, {
    config,
    systemd: distro.capabilities.systemd,
    command: collectCommand(context),
    hostPlugin: session.hostPlugin,
    agentVersion: version,
  });

  let counter = 0;
  const heartbeatId = randomUUID();
  const collecting: readonly Task[] =
    logs === undefined
      ? []
      : [
          {
            thread: "CollectLogsHandler",
            name: "CollectLogs",
            delayMs: logs.delayMs,
            periodMs: () => logs.periodMs,
            limitMs: COLLECT_LIMIT_MS,
            run: logs.run,
          },
        ];
  const guard = memoryGuard(system, config, {
    memoryBytes: ownUsage.memoryBytes,
    isSettled: options.isSettled,
    end: () => options.stop.abort(),
  });
  return [
    ...collecting,
    ...(guard === undefined ? [] : [guard]),
    ...[...monitors, logRotation(system, "/var/log/waagent.log")].map(
      ({ name, periodMs, run }): Task => ({
        thread: "MonitorHandler",
        name,
        periodMs: () => periodMs,
        limitMs: LIMIT_MS,
        run,
      }),
    ),
    {
      thread: "ExtHandler",
      name: "HeartBeat",
      periodMs: () => HEARTBEAT_PERIOD_MS,
      limitMs: LIMIT_MS,
      run: async () => {
        sendHeartbeat(system, AGENT_LONG_NAME, {
          counter,
          id: heartbeatId,
          failedUpdates: options.takeFailures(),
          autoUpdate: false,
          updateMode: "SelfUpdate",
        });
        counter += 1;
      },
    },
    {
      thread: "ExtHandler",
      name: "DescribeMachine",
      periodMs: () => NEVER_AGAIN_MS,
      limitMs: LIMIT_MS,
      run: async (signal) => {
        await reportOsInfo(system, distro);
        await reportOpenSsl(system, config["OS.OpensslPath"]);
        const compute = await readCompute(system, { errors, signal });
        if (compute === undefined) return;
        const { location, subscriptionId, resourceGroupName, vmId } = compute;
        spool.identify({
          location,
          subscriptionId,
          resourceGroupName,
          vmId,
          imageOrigin: imageOrigin(compute),
        });
      },
    },
  ];
}

/** This program, once more, in the role of the log collector (`system.md` LOGC-04, THR-10). */
function collectCommand({ arguments: given }: AgentContext): readonly string[] {
  const { configurationPath } = given;
  return [
    executablePath(),
    "-collect-logs",
    ...(configurationPath === undefined ? [] : [`-configuration-path:${configurationPath}`]),
  ];
}
