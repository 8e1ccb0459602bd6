import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { CgroupTree } from "./cgroup-tree.ts";

/** One value of a group of processes (`extensions.md` §16.4). */
export interface UsageMetric {
  readonly category: "CPU" | "Memory";
  readonly counter: string;
  readonly instance: string;
  readonly value: number;
}

/** A group that is measured; the directories are the same on version 2. */
export interface MeasuredGroup {
  readonly instance: string;
  readonly cpu: SystemPath | undefined;
  readonly memory: SystemPath | undefined;
  /** Throttling only means something under a quota. */
  readonly hasQuota: boolean;
}

/** What a later sample compares with. */
export interface CpuSample {
  /** Seconds of processor time. */
  readonly used: number;
  /** Seconds on a clock that never goes back. */
  readonly at: number;
  readonly throttled: number;
}

/** Seconds since the last sample, where there is a quota. */
export const THROTTLED_TIME = "Throttled Time (s)";
const TICKS_PER_SECOND = 100;
const HOURLY_COUNTERS: readonly string[] = ["Max Memory Usage (B)", "Swap Memory Usage (B)"];

/** True while a process is in the group or one level below (CG-35). */
export function hasProcesses(system: Pick<System, "files">, directory: SystemPath): boolean {
  const procs = (folder: SystemPath): boolean =>
    (read(system, join(folder, "cgroup.procs")) ?? "").trim() !== "";
  if (procs(directory)) return true;
  try {
    return system.files
      .list(directory)
      .some(
        (name) =>
          system.files.lstat(join(directory, name))?.kind === "directory" &&
          procs(join(directory, name)),
      );
  } catch {
    return false; // it went away between two looks
  }
}

/** Values of one group now, and what the next sample needs. A file that is not there is a counter that is left out. */
export function measure(
  system: Pick<System, "files" | "clock">,
  tree: CgroupTree,
  group: MeasuredGroup,
  before: CpuSample | undefined,
): { readonly metrics: readonly UsageMetric[]; readonly sample: CpuSample | undefined } {
  const sample = group.cpu === undefined ? undefined : cpuSample(system, tree, group.cpu);
  return {
    metrics: [...cpuMetrics(group, sample, before), ...memoryMetrics(system, tree, group)],
    sample,
  };
}

export function isHourly(metric: UsageMetric): boolean {
  return HOURLY_COUNTERS.includes(metric.counter);
}

function cpuMetrics(
  group: MeasuredGroup,
  now: CpuSample | undefined,
  before: CpuSample | undefined,
): UsageMetric[] {
  if (now === undefined || before === undefined || now.at <= before.at) return [];
  const metrics: UsageMetric[] = [];
  const percent = ((now.used - before.used) / (now.at - before.at)) * 100;
  if (percent >= 0)
    metrics.push({
      ...{ category: "CPU", counter: "% Processor Time", instance: group.instance },
      value: Math.round(percent * 1000) / 1000,
    });
  const throttled = now.throttled - before.throttled;
  if (group.hasQuota && throttled >= 0)
    metrics.push({
      ...{ category: "CPU", counter: THROTTLED_TIME, instance: group.instance },
      value: Math.round(throttled * 1000) / 1000,
    });
  return metrics;
}

function cpuSample(
  system: Pick<System, "files" | "clock">,
  tree: CgroupTree,
  directory: SystemPath,
): CpuSample | undefined {
  const at = system.clock.monotonic() / 1000;
  const stat = read(system, join(directory, "cpu.stat"));
  if (tree.version === 2) {
    const usage = value(stat, "usage_usec");
    if (usage === undefined) return undefined;
    return { at, used: usage / 1e6, throttled: (value(stat, "throttled_usec") ?? 0) / 1e6 };
  }
  const accounting = read(system, join(directory, "cpuacct.stat"));
  const user = value(accounting, "user");
  const kernel = value(accounting, "system");
  if (user === undefined || kernel === undefined) return undefined;
  const throttled = (value(stat, "throttled_time") ?? 0) / 1e9;
  return { at, used: (user + kernel) / TICKS_PER_SECOND, throttled };
}

function memoryMetrics(
  system: Pick<System, "files">,
  tree: CgroupTree,
  group: MeasuredGroup,
): UsageMetric[] {
  const directory = group.memory;
  if (directory === undefined) return [];
  const stat = read(system, join(directory, "memory.stat"));
  const isSecond = tree.version === 2;
  const anonymous = value(stat, isSecond ? "anon" : "rss");
  const cache = value(stat, isSecond ? "file" : "cache");
  const whole = (name: string): number | undefined => number(read(system, join(directory, name)));
  const values: readonly [string, number | undefined][] = [
    [
      "Total Memory Usage (B)",
      anonymous === undefined || cache === undefined ? undefined : anonymous + cache,
    ],
    ["Anon Memory Usage (B)", anonymous],
    ["Cache Memory Usage (B)", cache],
    ["Max Memory Usage (B)", whole(isSecond ? "memory.peak" : "memory.max_usage_in_bytes")],
    ["Swap Memory Usage (B)", isSecond ? whole("memory.swap.current") : value(stat, "swap")],
    [
      "Total Memory Throttled Events",
      isSecond ? value(read(system, join(directory, "memory.events")), "high") : undefined,
    ],
  ];
  return values.flatMap(([counter, amount]) =>
    amount === undefined
      ? []
      : [{ category: "Memory" as const, counter, instance: group.instance, value: amount }],
  );
}

function read(system: Pick<System, "files">, file: SystemPath): string | undefined {
  try {
    return system.files.readTextIfExists(file, { maxBytes: 1024 * 1024 });
  } catch {
    return undefined; // ENODEV while a group goes away
  }
}

/** A `name number` line. */
function value(text: string | undefined, name: string): number | undefined {
  const line = text?.split("\n").find((candidate) => candidate.startsWith(`${name} `));
  return number(line?.slice(name.length + 1));
}

function number(text: string | undefined): number | undefined {
  const trimmed = text?.trim() ?? "";
  return /^\d+$/.test(trimmed) ? Number(trimmed) : undefined;
}
