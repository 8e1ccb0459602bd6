import { findCgroupTree, serviceDirectory, type CgroupTree } from "../extensions/cgroup-tree.ts";
import {
  isHourly,
  measure,
  type CpuSample,
  type MeasuredGroup,
  type UsageMetric,
} from "../extensions/cgroup-usage.ts";
import { parseOwnGroups } from "../report/log-collector-limits.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { OwnPlace } from "./own-quota.ts";

/** Fixed, also where the unit is called otherwise (`system.md` MON-13). */
export const AGENT_INSTANCE = "walinuxagent.service";
const HOUR_MS = 3_600_000;

export interface OwnUsage {
  /** The service the agent runs as, in a group that has a CPU controller or not; undefined without a service. */
  readonly place: OwnPlace | undefined;
  /** Since the last call where a counter needs it; for telemetry. */
  sample(): readonly UsageMetric[];
  /** Total and swap, bytes; undefined where nobody counts them (`system.md` DAEMON-23). */
  memoryBytes(): number | undefined;
}

const MEMORY_COUNTERS: readonly string[] = ["Total Memory Usage (B)", "Swap Memory Usage (B)"];

/**
 * What the agent itself uses, as the control group of its service counts it (`wire-protocol.md` §16.4, `system.md`
 * MON-12, MON-13). Runs nothing and changes nothing; an agent that no service manager has started is not measured.
 */
export function createOwnUsage(
  system: Pick<System, "files" | "exec" | "clock" | "log">,
  options: { readonly systemd: boolean },
): OwnUsage {
  const tree = findCgroupTree(system, options);
  const group = tree === undefined ? undefined : findOwnGroup(system, tree);
  if (tree === undefined || group === undefined)
    return { place: undefined, sample: () => [], memoryBytes: () => undefined };
  for (const controller of ["cpu", "memory"] as const) {
    const path = group[controller];
    if (path !== undefined)
      system.log.info(`[CGI] Started tracking ${controller} cgroup ${AGENT_INSTANCE} [${path}]`);
  }
  let before: CpuSample | undefined;
  let hourlyDue = Number.NEGATIVE_INFINITY;
  return {
    place: { unit: group.unit, version: tree.version, cpu: countedBy(system, tree, group.cpu) },
    memoryBytes: () => {
      const { metrics } = measure(system, tree, { ...group, hasQuota: false }, undefined);
      const values = metrics
        .filter(({ counter }) => MEMORY_COUNTERS.includes(counter))
        .map(({ value }) => value);
      return values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0);
    },
    sample: () => {
      const now = system.clock.monotonic();
      const withHourly = now >= hourlyDue;
      if (withHourly) hourlyDue = now + HOUR_MS;
      const measured = { ...group, hasQuota: hasQuota(system, tree, group.cpu) };
      const { metrics, sample } = measure(system, tree, measured, before);
      before = sample ?? before;
      return metrics.filter((metric) => withHourly || !isHourly(metric));
    },
  };
}

function findOwnGroup(
  system: Pick<System, "files">,
  tree: CgroupTree,
): (Omit<MeasuredGroup, "hasQuota"> & { readonly unit: string }) | undefined {
  const own = parseOwnGroups(system.files.readTextIfExists("/proc/self/cgroup") ?? "");
  const directory = (controller: "cpu" | "memory"): SystemPath | undefined => {
    const path = own.get(tree.version === 2 ? "" : controller) ?? "";
    // CG-06: a shell or a container around us is no measure of the agent.
    if (!/^\/(?:azure|system)\.slice\/[^/]+\.service$/.test(path)) return undefined;
    const found = serviceDirectory(system, tree, path, controller);
    return found !== undefined && system.files.exists(found) ? found : undefined;
  };
  const cpu = directory("cpu");
  const memory = directory("memory");
  const known = cpu ?? memory;
  return known === undefined
    ? undefined
    : { instance: AGENT_INSTANCE, unit: nameOf(known), cpu, memory };
}

/** The directory, when the machine has a CPU controller for it; systemd puts it to work when a quota is set. */
function countedBy(
  system: Pick<System, "files">,
  tree: CgroupTree,
  directory: SystemPath | undefined,
): SystemPath | undefined {
  if (directory === undefined || tree.version === 1) return directory;
  const controllers = system.files.readTextIfExists("/sys/fs/cgroup/cgroup.controllers") ?? "";
  return controllers.trim().split(/\s+/).includes("cpu") ? directory : undefined;
}

/** The operator may give or take a quota at any time. */
function hasQuota(
  system: Pick<System, "files">,
  tree: CgroupTree,
  directory: SystemPath | undefined,
): boolean {
  if (directory === undefined) return false;
  const file = join(directory, tree.version === 2 ? "cpu.max" : "cpu.cfs_quota_us");
  try {
    return /^\d/.test(system.files.readTextIfExists(file) ?? "");
  } catch {
    return false; // ENODEV while the service ends
  }
}
