import { describe, isAgentError } from "../base/error.ts";
import type { HostPlugin } from "../azure/host-plugin.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { archivePath } from "./log-collector.ts";
import { COLLECT_EXIT, COLLECTOR_SLICE, MONITOR_VARIABLE } from "./log-collector-limits.ts";

/** How the collector is kept from disturbing the machine (`system.md` LOGC-04, BET-20). */
export type CollectorLimits = "scope-v2" | "scope-v1" | "nice";

/** The periodic collection and upload of logs (`system.md` §10.1); one per process. */
export interface LogCollection {
  /** Before the first run, ms. */
  readonly delayMs: number;
  /** From the end of a run to the start of the next, ms. */
  readonly periodMs: number;
  /** One collection and, after success, its upload. Does nothing once it was stopped. Errors: only "cancelled". */
  run(signal: AbortSignal): Promise<void>;
  /** False after an exit code that says that trying again makes no sense (LOGC-05). */
  isActive(): boolean;
}

export interface LogCollectionOptions {
  readonly config: Pick<
    Config,
    | "Logs.Collect"
    | "Logs.CollectPeriod"
    | "Debug.LogCollectorInitialDelay"
    | "Debug.EnableCgroupV2ResourceLimiting"
    | "Lib.Dir"
  >;
  /** Systemd is the service manager. */
  readonly systemd: boolean;
  /** This program with `-collect-logs` and, where given, `-configuration-path:`. */
  readonly command: readonly string[];
  readonly hostPlugin: Pick<HostPlugin, "ensureAvailable" | "putLog">;
  readonly agentVersion: string;
}

const RUN_LIMIT_MS = 20 * 60_000;
const MAX_WRONG_SLICES = 3;
const MAX_OUTPUT = 1000;
const THREAD = "CollectLogsHandler";

type Machine = Pick<System, "files" | "exec" | "clock" | "log" | "emit">;

/** undefined when `Logs.Collect=n`; the decision is logged and sent (LOGC-01). */
export function createLogCollection(
  system: Machine,
  options: LogCollectionOptions,
): LogCollection | undefined {
  const { config } = options;
  const tell = (success: boolean, message: string): void =>
    system.emit({ operation: "LogCollection", success, message, task: THREAD });
  const decision = (text: string): void => {
    system.log.info(text);
    tell(true, text);
  };
  if (!config["Logs.Collect"]) {
    decision("Log collection is off: Logs.Collect=n");
    return undefined;
  }
  const limits = chooseLimits(system, options);
  decision(
    `Log collection is on, limits by ${limits === "nice" ? "nice and ionice" : "a systemd scope"}`,
  );

  const archive = archivePath(config["Lib.Dir"]);
  let active = true;
  let wrongSlices = 0;

  /** Exit code of the collector and its last words; 1 also when it could not be started. */
  const collect = async (signal: AbortSignal): Promise<{ code: number; output: string }> => {
    try {
      const { code, stdout, stderr } = await system.exec.run({
        argv: collectorCommand(system, limits, options.command),
        okCodes: "any",
        timeoutMs: RUN_LIMIT_MS,
        environment: limits === "nice" ? {} : { [MONITOR_VARIABLE]: "1" },
        signal,
      });
      return { code, output: `${stdout}${stderr}`.trim().slice(-MAX_OUTPUT) };
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      return { code: COLLECT_EXIT.failed, output: `it could not be run: ${describe(error)}` };
    }
  };

  const judge = (code: number, output: string): void => {
    if (code === COLLECT_EXIT.ok) wrongSlices = 0;
    if (code === COLLECT_EXIT.wrongSlice) wrongSlices += 1;
    const isFinal =
      code === COLLECT_EXIT.groupUnusable ||
      code === COLLECT_EXIT.memoryLimit ||
      wrongSlices >= MAX_WRONG_SLICES;
    if (code === COLLECT_EXIT.ok) return;
    const message = `Log collection failed with exit code ${code}${output === "" ? "" : `: ${output}`}`;
    system.log.warning(isFinal ? `${message}; there is none until the next start` : message);
    tell(false, message);
    if (isFinal) active = false;
  };

  const upload = async (signal: AbortSignal): Promise<void> => {
    try {
      await options.hostPlugin.ensureAvailable(signal);
      await options.hostPlugin.putLog(archive, { agentVersion: options.agentVersion, signal });
      system.log.info("Successfully uploaded logs.");
      tell(true, "Successfully uploaded logs.");
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      const message = `The logs could not be uploaded: ${describe(error)}`;
      system.log.warning(message);
      tell(false, message);
    }
  };

  return {
    delayMs: config["Debug.LogCollectorInitialDelay"] * 1000,
    periodMs: config["Logs.CollectPeriod"] * 1000,
    isActive: () => active,
    run: async (signal) => {
      if (!active) return;
      system.log.info("Starting log collection...");
      const before = system.files.stat(archive)?.inode;
      const { code, output } = await collect(signal);
      judge(code, output);
      if (code !== COLLECT_EXIT.ok) return;
      // The collector replaces the file only when it is complete: the same file again is an old one (BET-18).
      const after = system.files.stat(archive);
      if (after === undefined || after.inode === before) {
        system.log.warning(`The log collector left no new ${archive}`);
        tell(false, `The log collector left no new ${archive}`);
        return;
      }
      system.log.info("Successfully collected logs.");
      tell(true, `Successfully collected logs. Archive size: ${after.size} bytes`);
      await upload(signal);
    },
  };
}

/** A scope where systemd runs and both cpu and memory can be limited, else priorities only (BET-20). */
export function chooseLimits(
  system: Pick<System, "files" | "exec">,
  { systemd, config }: Pick<LogCollectionOptions, "systemd" | "config">,
): CollectorLimits {
  if (!systemd || system.exec.find("systemd-run") === undefined) return "nice";
  const controllers = system.files.readTextIfExists("/sys/fs/cgroup/cgroup.controllers");
  if (controllers !== undefined) {
    const available = controllers.trim().split(/\s+/);
    const usable = available.includes("cpu") && available.includes("memory");
    return usable && config["Debug.EnableCgroupV2ResourceLimiting"] ? "scope-v2" : "nice";
  }
  const mounted = system.files.list("/sys/fs/cgroup");
  return mounted.includes("memory") && mounted.some((name) => name.split(",").includes("cpu"))
    ? "scope-v1"
    : "nice";
}

/** The whole command line of one run (LOGC-04). */
export function collectorCommand(
  system: Pick<System, "exec">,
  limits: CollectorLimits,
  command: readonly string[],
): readonly string[] {
  if (limits === "nice") {
    const lowered: string[] = [];
    if (system.exec.find("nice") !== undefined) lowered.push("nice", "-n", "19");
    if (system.exec.find("ionice") !== undefined) lowered.push("ionice", "-c", "3");
    return [...lowered, ...command];
  }
  return [
    "systemd-run",
    "--unit=collect-logs.scope",
    `--slice=${COLLECTOR_SLICE}`,
    "--scope",
    "--property=CPUAccounting=yes",
    "--property=MemoryAccounting=yes",
    "--property=CPUQuota=5%",
    ...(limits === "scope-v2" ? ["--property=MemoryHigh=170M"] : []),
    ...command,
  ];
}
