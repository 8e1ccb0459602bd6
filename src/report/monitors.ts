import { describe, isAgentError } from "../base/error.ts";
import type { HostPlugin } from "../azure/host-plugin.ts";
import { drainHttpErrors, type HttpErrorCounts } from "../azure/retry.ts";
import { formatInterface, networkFingerprint, readInterfaces } from "../machine/network.ts";
import { formatRoute, readRoutes } from "../machine/routes.ts";
import type { System } from "../system/system.ts";
import { afterOutcome, durationText, isTriggered, type ErrorWindow } from "./error-window.ts";
import type { Metric } from "./event-parameters.ts";
import type { HealthService } from "./health-service.ts";

/** One periodic look at the machine or the platform (`system.md` §11); the agent's task table runs it. */
export interface Monitor {
  readonly name: string;
  readonly periodMs: number;
  /** Errors end this run only; the task table logs them at most once an hour. */
  readonly run: (signal: AbortSignal) => Promise<void>;
}

/** Answer of IMDS to the liveness question (`wire-protocol.md` IMDS-05). */
export interface ImdsHealth {
  readonly healthy: boolean;
  /** What is wrong; "" when nothing is. */
  readonly detail: string;
}

export interface MonitorDependencies {
  readonly hostPlugin: Pick<HostPlugin, "ensureAvailable" | "health">;
  readonly healthService: HealthService;
  readonly httpErrors: HttpErrorCounts;
  readonly imdsHealth: (signal: AbortSignal) => Promise<ImdsHealth>;
  readonly emitMetric: (metric: Metric) => void;
  /** Samples of the control groups, after their checks; undefined where there is nothing to measure (MON-01). */
  readonly resourceUsage?: ((signal: AbortSignal) => Promise<readonly Metric[]>) | undefined;
  /** `Debug.CgroupCheckPeriod`, ms. */
  readonly resourcePeriodMs: number;
  /** `Debug.CgroupLogMetrics`. */
  readonly logMetrics: boolean;
  /** `Monitor.NetworkConfigurationChanges`. */
  readonly networkChanges: boolean;
}

type Machine = Pick<System, "clock" | "log" | "emit" | "files" | "exec">;

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const HOST_PLUGIN_LIMIT = 5 * MINUTE;
const IMDS_LIMIT = 3 * MINUTE;
const THREAD = "MonitorHandler";

/** All monitors, in the order they run when several are due (`system.md` MON-08). */
export function createMonitors(
  system: Machine,
  dependencies: MonitorDependencies,
): readonly Monitor[] {
  let hostPlugin: HeartbeatState = {};
  let imds: HeartbeatState = {};
  let network: string | undefined;
  let networkSeen: string | undefined;
  const { healthService } = dependencies;

  return [
    {
      name: "ResetPeriodicLogMessages",
      periodMs: 12 * HOUR,
      run: async () => system.log.resetPeriodic(),
    },
    {
      name: "ReportNetworkErrors",
      periodMs: 30 * MINUTE,
      run: async () => reportNetworkErrors(system, dependencies.httpErrors),
    },
    {
      name: "PollResourceUsage",
      periodMs: dependencies.resourcePeriodMs,
      run: async (signal) =>
        reportMetrics(system, dependencies, (await dependencies.resourceUsage?.(signal)) ?? []),
    },
    {
      name: "PollSystemWideResourceUsage",
      periodMs: HOUR,
      run: async () =>
        reportMetrics(system, dependencies, memoryMetrics(system.files.readText("/proc/meminfo"))),
    },
    {
      name: "SendHostPluginHeartbeat",
      periodMs: MINUTE,
      run: async (signal) => {
        hostPlugin = await hostPluginHeartbeat(system, dependencies, hostPlugin, signal);
        await healthService.report(signal);
      },
    },
    {
      name: "SendImdsHeartbeat",
      periodMs: MINUTE,
      run: async (signal) => {
        imds = await imdsHeartbeat(system, dependencies, imds, signal);
        await healthService.report(signal);
      },
    },
    {
      name: "ReportNetworkConfigurationChanges",
      periodMs: dependencies.networkChanges ? MINUTE : 12 * HOUR,
      run: async () => {
        // Without the option the configuration is only logged once.
        if (!dependencies.networkChanges && network !== undefined) return;
        // Listing addresses takes a program, which an idle agent does not run.
        const fingerprint = networkFingerprint(system);
        if (fingerprint === networkSeen) return;
        network = await reportNetworkChanges(system, network);
        networkSeen = fingerprint;
      },
    },
  ];
}

/** Event `HttpErrors` with the counts since the last one, if there were any (MON-03 of wire-protocol.md). */
export function reportNetworkErrors(system: Pick<System, "emit">, counts: HttpErrorCounts): void {
  const { hostplugin, protocol, other } = drainHttpErrors(counts);
  if (hostplugin + protocol + other === 0) return;
  system.emit({
    operation: "HttpErrors",
    success: true,
    message: `hostplugin:${hostplugin};protocol:${protocol};other:${other}`,
    task: THREAD,
  });
}

/** Used and available memory of the whole machine, MB (`wire-protocol.md` TEL-48), without running `free`. */
export function memoryMetrics(meminfo: string): readonly Metric[] {
  const kibibytes = (name: string): number | undefined => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(meminfo);
    return match === null ? undefined : Number(match[1]);
  };
  const total = kibibytes("MemTotal");
  // Kernels before 3.14 have no estimate; free memory and cache come close.
  const available =
    kibibytes("MemAvailable") ??
    (kibibytes("MemFree") ?? 0) + (kibibytes("Buffers") ?? 0) + (kibibytes("Cached") ?? 0);
  if (total === undefined) return [];
  const megabytes = (value: number): number => Math.round((value / 1024) * 1000) / 1000;
  return [
    metric("Used Memory (MB)", megabytes(total - available)),
    metric("Available Memory (MB)", megabytes(available)),
  ];
}

function metric(counter: string, value: number): Metric {
  return { category: "Memory", counter, instance: "", value };
}

function reportMetrics(
  system: Pick<System, "log">,
  { emitMetric, logMetrics }: Pick<MonitorDependencies, "emitMetric" | "logMetrics">,
  metrics: readonly Metric[],
): void {
  for (const one of metrics) {
    emitMetric(one);
    if (logMetrics)
      system.log.info(`Metric ${one.category}/${one.counter} [${one.instance}] = ${one.value}`);
  }
}

/** What a heartbeat remembers between two runs. */
export interface HeartbeatState {
  readonly failing?: ErrorWindow;
}

/**
 * Is the host plugin alive? Unhealthy only after five minutes of failures (MON-05). The goal state, which the
 * reference reads here for the ids in the headers, is polled anyway (`wire-protocol.md` DB-02).
 */
export async function hostPluginHeartbeat(
  system: Pick<System, "clock" | "emit">,
  { hostPlugin, healthService }: Pick<MonitorDependencies, "hostPlugin" | "healthService">,
  state: HeartbeatState,
  signal: AbortSignal,
): Promise<HeartbeatState> {
  let problem: string | undefined;
  try {
    await hostPlugin.ensureAvailable(signal);
    problem = await hostPlugin.health(signal);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    if (!isAgentError(error, "not-supported")) {
      failedHeartbeat(system, "HostPluginHeartbeat", describe(error));
      return state;
    }
    problem = describe(error);
  }
  const now = system.clock.monotonic();
  const failing = afterOutcome(state.failing, problem === undefined, now);
  const unhealthy = isTriggered(failing, now, HOST_PLUGIN_LIMIT);
  healthService.observe({ name: "GuestAgentPluginHeartbeat", healthy: !unhealthy });
  if (unhealthy && failing !== undefined) {
    system.emit({
      operation: "HostPluginHeartbeatExtended",
      success: false,
      message: `${durationText(now - failing)} since successful heartbeat`,
      periodMs: 15 * MINUTE,
      task: THREAD,
    });
  }
  return { failing };
}

/** Does IMDS answer sensibly? Unhealthy only after three minutes of failures (MON-06). */
export async function imdsHeartbeat(
  system: Pick<System, "clock" | "emit">,
  { imdsHealth, healthService }: Pick<MonitorDependencies, "imdsHealth" | "healthService">,
  state: HeartbeatState,
  signal: AbortSignal,
): Promise<HeartbeatState> {
  let answer: ImdsHealth;
  try {
    answer = await imdsHealth(signal);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    failedHeartbeat(system, "ImdsHeartbeat", describe(error));
    return state;
  }
  const now = system.clock.monotonic();
  const failing = afterOutcome(state.failing, answer.healthy, now);
  healthService.observe({
    name: "InstanceMetadataHeartbeat",
    healthy: !isTriggered(failing, now, IMDS_LIMIT),
    value: answer.detail,
  });
  return { failing };
}

function failedHeartbeat(
  system: Pick<System, "emit">,
  operation: "HostPluginHeartbeat" | "ImdsHeartbeat",
  message: string,
): void {
  system.emit({ operation, success: false, message, periodMs: HOUR, task: THREAD });
}

/** Logs routes and interfaces when they differ from `last`; the text is the state of the next run (MON-07). */
export async function reportNetworkChanges(
  system: Pick<System, "files" | "exec" | "log">,
  last: string | undefined,
): Promise<string> {
  const routes = readRoutes(system).map(formatRoute);
  const interfaces = (await readInterfaces(system)).map(formatInterface);
  const now = [...routes.slice(0, 100), ...interfaces].join("\n");
  if (now !== last)
    system.log.info(`Network ${last === undefined ? "configuration" : "changed"}:\n${now}`);
  return now;
}
