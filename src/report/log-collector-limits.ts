import { AgentError, isAgentError } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** The collector looks after itself when the periodic driver asks for it by this variable (`system.md` LOGC-04). */
export const MONITOR_VARIABLE = "_AZURE_GUEST_AGENT_LOG_COLLECTOR_MONITOR_CGROUPS_";
export const COLLECTOR_SLICE = "azure-walinuxagent-logcollector.slice";

/** Exit codes of `-collect-logs` (`system.md` LOGC-05). */
export const COLLECT_EXIT = {
  ok: 0,
  failed: 1,
  groupUnusable: 2,
  memoryLimit: 3,
  wrongSlice: 4,
} as const;

/** Why the collector must not go on, with the exit code that tells its driver. */
export class CollectorStop extends AgentError {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super("refused", message);
    this.exitCode = exitCode;
  }
}

/** What the collector's process uses, as its control group counts it (LOGC-10). */
export interface ResourceUse {
  readonly anonymousAndSwapBytes: number;
  readonly cacheBytes: number;
  /** Times the group hit its soft memory limit; 0 on version 1. */
  readonly throttledEvents: number;
}

/** The control group the collector runs in. */
export interface OwnGroup {
  readonly version: 1 | 2;
  readonly use: () => ResourceUse;
}

/** LOGC-10. This program was measured at 16 MB of anonymous memory while it packed 138 MB of logs. */
export const LIMITS: ResourceUse = {
  anonymousAndSwapBytes: 25 * 1024 * 1024,
  cacheBytes: 155 * 1024 * 1024,
  throttledEvents: 10,
};
export const SAMPLE_PERIOD_MS = 2000;

const MOUNT: SystemPath = "/sys/fs/cgroup";
const SLICE_TRIES = 3;
const SLICE_WAIT_MS = 5000;

/** Which limit is exceeded, undefined while none is. */
export function exceededLimit(use: ResourceUse, limits: ResourceUse = LIMITS): string | undefined {
  const checks: readonly (readonly [string, keyof ResourceUse])[] = [
    ["anonymous and swap memory", "anonymousAndSwapBytes"],
    ["page cache", "cacheBytes"],
    ["memory throttle events", "throttledEvents"],
  ];
  for (const [name, key] of checks)
    if (use[key] > limits[key]) return `${name}: ${use[key]}, more than ${limits[key]}`;
  return undefined;
}

/** Greatest of each figure (LOGC-11). */
export function maximum(left: ResourceUse, right: ResourceUse): ResourceUse {
  return {
    anonymousAndSwapBytes: Math.max(left.anonymousAndSwapBytes, right.anonymousAndSwapBytes),
    cacheBytes: Math.max(left.cacheBytes, right.cacheBytes),
    throttledEvents: Math.max(left.throttledEvents, right.throttledEvents),
  };
}

/**
 * Waits until systemd has put this process into the collector's slice. Errors: CollectorStop when it is not
 * there after three tries, or when cpu or memory cannot be counted. Says where it is in the words of LOG-12.
 */
export async function findOwnGroup(
  system: Pick<System, "files" | "clock" | "log">,
  signal?: AbortSignal,
): Promise<OwnGroup> {
  for (let attempt = 1; ; attempt += 1) {
    const found = locate(system);
    if (found === undefined)
      throw new CollectorStop(
        COLLECT_EXIT.groupUnusable,
        "Control groups for cpu and memory are not available",
      );
    if (found.paths.every((path) => path.split("/").includes(COLLECTOR_SLICE))) {
      const [cpu = "", memory = cpu] = found.paths;
      system.log.info(
        `Using cgroup v${found.group.version} for resource enforcement and monitoring`,
      );
      system.log.info(`cpu controller for cgroup: ${cpu}`);
      system.log.info(`memory controller for cgroup: ${memory}`);
      return found.group;
    }
    if (attempt >= SLICE_TRIES) {
      throw new CollectorStop(
        COLLECT_EXIT.wrongSlice,
        `The log collector is not in ${COLLECTOR_SLICE}, it is in ${found.paths.join(" and ")}`,
      );
    }
    await system.clock.sleep(SLICE_WAIT_MS, signal);
  }
}

function locate(
  system: Pick<System, "files">,
): { readonly paths: readonly string[]; readonly group: OwnGroup } | undefined {
  const groups = parseOwnGroups(system.files.readTextIfExists("/proc/self/cgroup") ?? "");
  const memory = groups.get("memory");
  const cpu = groups.get("cpu");
  if (memory !== undefined && cpu !== undefined) {
    const directory = join(MOUNT, "memory", memory);
    if (!system.files.exists(directory)) return undefined;
    return {
      paths: [cpu, memory],
      group: { version: 1, use: () => readVersion1(system, directory) },
    };
  }
  const unified = groups.get("");
  if (unified === undefined) return undefined;
  const directory = join(MOUNT, unified);
  const controllers = system.files.readTextIfExists(join(directory, "cgroup.controllers")) ?? "";
  const available = controllers.trim().split(/\s+/);
  if (!available.includes("cpu") || !available.includes("memory")) return undefined;
  return { paths: [unified], group: { version: 2, use: () => readVersion2(system, directory) } };
}

/** `/proc/self/cgroup`: controller -> path; the unified hierarchy has the key "". */
export function parseOwnGroups(text: string): ReadonlyMap<string, string> {
  const groups = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line);
    if (match === null) continue;
    for (const controller of (match[1] ?? "").split(",")) groups.set(controller, match[2] ?? "");
  }
  return groups;
}

function readVersion1(system: Pick<System, "files">, directory: SystemPath): ResourceUse {
  const stat = counters(system, join(directory, "memory.stat"));
  return {
    anonymousAndSwapBytes: (stat.get("rss") ?? 0) + (stat.get("swap") ?? 0),
    cacheBytes: stat.get("cache") ?? 0,
    throttledEvents: 0,
  };
}

function readVersion2(system: Pick<System, "files">, directory: SystemPath): ResourceUse {
  const stat = counters(system, join(directory, "memory.stat"));
  const swap = Number(readOptional(system, join(directory, "memory.swap.current")).trim() || 0);
  return {
    anonymousAndSwapBytes: (stat.get("anon") ?? 0) + swap,
    cacheBytes: stat.get("file") ?? 0,
    throttledEvents: counters(system, join(directory, "memory.events")).get("high") ?? 0,
  };
}

function counters(system: Pick<System, "files">, file: SystemPath): ReadonlyMap<string, number> {
  const lines = readOptional(system, file).split("\n");
  return new Map(lines.map((line) => [line.split(" ")[0] ?? "", Number(line.split(" ")[1] ?? 0)]));
}

function readOptional(system: Pick<System, "files">, file: SystemPath): string {
  try {
    return system.files.readTextIfExists(file) ?? "";
  } catch (error) {
    if (isAgentError(error, "io")) return ""; // ENODEV while the group goes away
    throw error;
  }
}
