import type { Config } from "../config/table.ts";
import { describe, isAgentError } from "../base/error.ts";
import { parentPid, pid } from "../system/process.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { foreignProcesses } from "./own-processes.ts";

/** The agent's service as its control group shows it. */
export interface OwnPlace {
  /** "waagent.service". */
  readonly unit: string;
  readonly version: 1 | 2;
  /** Where the CPU controller counts; undefined where nobody does. */
  readonly cpu: SystemPath | undefined;
}

export interface OwnQuotaOptions {
  /** undefined when no service manager has started the agent in a group of its own. */
  readonly place: OwnPlace | undefined;
  /** Commands of extensions run in groups of their own, so that no quota of the agent's holds them back. */
  readonly isolates: () => boolean;
  /** Nothing of an extension is being done, or was not for long. */
  readonly isSettled: () => boolean;
  /** Default: this process. */
  readonly self?: { readonly pid: number; readonly parentPid: number };
}

/** Keeps the agent from taking more of the machine than it is meant to (`extensions.md` CG-12, CG-40, CG-41). */
export interface OwnQuota {
  /** `throttled`: seconds since the last check, undefined where nobody counts. Never throws. */
  check(throttled: number | undefined): Promise<void>;
}

const TIMEOUT_MS = 30_000;
const PERIOD_US = 100_000;
const MAX_LISTED = 5;
/** Where `set-property --runtime` leaves what was set, until the next boot. */
const RUNTIME_DROP_INS = "/run/systemd/system.control";

/**
 * At the first check that finds extensions settled, at the latest the second one, the service gets its CPU quota: from
 * then on the agent has little to do, and a start is not slowed down (measured: half a core doubles the time to Ready).
 * Every later check only reads files. The quota goes for good when it hurts: the agent is throttled a lot, or something
 * that is not the agent lives in its group. A quota that the operator has given is never touched.
 */
export function createOwnQuota(
  system: Pick<System, "files" | "exec" | "log" | "emit">,
  config: Pick<
    Config,
    | "Debug.AgentCpuQuota"
    | "Debug.AgentCpuThrottledTimeThreshold"
    | "Debug.CgroupDisableOnProcessCheckFailure"
    | "Debug.CgroupDisableOnQuotaCheckFailure"
  >,
  options: OwnQuotaOptions,
): OwnQuota {
  const { place } = options;
  const { log } = system;
  const self = options.self ?? { pid: pid(), parentPid: parentPid() };
  const quota = config["Debug.AgentCpuQuota"];
  let state: "waiting" | "on" | "off" = "waiting";
  let checks = 0;
  let suspected = false;

  const foreign = (group: SystemPath): readonly string[] =>
    config["Debug.CgroupDisableOnProcessCheckFailure"] ? foreignProcesses(system, group, self) : [];
  const listed = (processes: readonly string[]): string =>
    `[${processes.slice(0, MAX_LISTED).join(", ")}]${processes.length > MAX_LISTED ? ` and ${processes.length - MAX_LISTED} more` : ""}`;

  const off = (reason: string): void => {
    state = "off";
    log.info(`[CGI] Agent cgroups enabled: False, ${reason}`);
  };

  const begin = async (unit: string, cpu: SystemPath, version: 1 | 2): Promise<void> => {
    const set = quotaOf(system, cpu, version);
    const isRuntime = system.files.exists(join(RUNTIME_DROP_INS, `${unit}.d`, "50-CPUQuota.conf"));
    if (set !== undefined && !isRuntime) return off("the service has a CPU quota already");
    const found = foreign(cpu);
    if (found.length > 0) {
      const message = `Found unexpected processes in the agent cgroup before agent enable cgroups: ${listed(found)}`;
      system.emit({ operation: "CGroupsDisabled", success: false, message, log: false });
      log.warning(`[CGW] ${message}`);
      // An earlier start may have set one, and it would hold them back.
      if (set !== undefined) await setProperties(unit, ["CPUQuota="]);
      return off("it would hold back processes that are not the agent's");
    }
    if (set !== (quota * PERIOD_US) / 100)
      await setProperties(unit, [
        "CPUAccounting=yes",
        "MemoryAccounting=yes",
        `CPUQuota=${quota}%`,
      ]);
    state = "on";
    log.info(`[CGI] Agent cgroups enabled: True, CPU quota of ${unit}: ${quota}%`);
  };

  const setProperties = async (unit: string, properties: readonly string[]): Promise<void> => {
    await system.exec.run({
      argv: ["systemctl", "set-property", unit, ...properties, "--runtime"],
      timeoutMs: TIMEOUT_MS,
    });
  };

  const lift = async (unit: string, reason: string): Promise<void> => {
    state = "off";
    const message = `Disabling resource usage monitoring. Reason: ${reason}`;
    log.warning(`[CGW] ${message}`);
    system.emit({ operation: "CGroupsDisabled", success: false, message, log: false });
    await setProperties(unit, ["CPUQuota="]);
    log.info(`[CGI] The CPU quota of ${unit} is taken away`);
  };

  const watch = async (unit: string, cpu: SystemPath, throttled: number): Promise<void> => {
    if (!options.isolates())
      return lift(unit, "commands of extensions run in the agent's own control group");
    const limit = config["Debug.AgentCpuThrottledTimeThreshold"];
    if (config["Debug.CgroupDisableOnQuotaCheckFailure"] && throttled > limit)
      return lift(
        unit,
        `The agent was throttled for ${throttled.toFixed(1)} s, more than ${limit} s`,
      );
    const found = foreign(cpu);
    // A process may be seen on its way into another group; one that is there twice stays (CG-41).
    if (found.length > 0 && suspected)
      return lift(unit, `The agent's cgroup includes unexpected processes: ${listed(found)}`);
    suspected = found.length > 0;
  };

  return {
    check: async (throttled) => {
      if (state === "off") return;
      checks += 1;
      try {
        if (place?.cpu === undefined)
          return off("its service has no control group with a CPU controller");
        if (state === "on") return await watch(place.unit, place.cpu, throttled ?? 0);
        if (!options.isSettled() && checks < 2) return;
        if (!options.isolates())
          return off("commands of extensions have no control groups of their own");
        await begin(place.unit, place.cpu, place.version);
      } catch (error) {
        if (!isAgentError(error)) throw error;
        // CG-42: it is tried once.
        state = "off";
        log.warning(`[CGW] The CPU quota of the agent could not be changed: ${describe(error)}`);
      }
    },
  };
}

/** µs in 100 ms; undefined without a quota. */
function quotaOf(
  system: Pick<System, "files">,
  cpu: SystemPath,
  version: 1 | 2,
): number | undefined {
  const read = (name: string): string => system.files.readTextIfExists(join(cpu, name)) ?? "";
  const [quota = "", period = ""] =
    version === 2
      ? read("cpu.max").trim().split(" ")
      : [read("cpu.cfs_quota_us").trim(), read("cpu.cfs_period_us").trim()];
  if (!/^\d+$/.test(quota) || !/^\d+$/.test(period)) return undefined;
  return Math.round((Number(quota) / Number(period)) * PERIOD_US);
}
