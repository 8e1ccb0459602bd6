import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { seconds } from "./settings.ts";
import type { Task } from "./tasks.ts";

export interface MemoryGuardOptions {
  /** What the agent's control group holds now, swap included; undefined where nobody counts it. */
  readonly memoryBytes: () => number | undefined;
  /** No extension is being processed, and once all of them had come to an end. */
  readonly isSettled: () => boolean;
  /** Ends the agent with exit code 0; the service manager starts it afresh. */
  readonly end: () => void;
}

const FIRST_CHECK_MS = 5 * 60_000;
const LIMIT_MS = 60_000;

/**
 * Ends an agent that holds more memory than `Debug.AgentMemoryQuota` (`system.md` DAEMON-23); undefined unless
 * `Debug.EnableAgentMemoryUsageCheck` asks for it. This program's text alone may count for more than the quota's
 * default, so whoever switches it on gives a quota too.
 */
export function memoryGuard(
  system: Pick<System, "log" | "emit">,
  config: Pick<
    Config,
    "Debug.EnableAgentMemoryUsageCheck" | "Debug.AgentMemoryQuota" | "Debug.CgroupCheckPeriod"
  >,
  { memoryBytes, isSettled, end }: MemoryGuardOptions,
): Task | undefined {
  if (!config["Debug.EnableAgentMemoryUsageCheck"]) return undefined;
  const quota = config["Debug.AgentMemoryQuota"];
  return {
    thread: "ExtHandler",
    name: "CheckMemory",
    delayMs: FIRST_CHECK_MS,
    periodMs: () => seconds(config["Debug.CgroupCheckPeriod"]),
    limitMs: LIMIT_MS,
    run: async () => {
      if (!isSettled()) return;
      const used = memoryBytes();
      if (used === undefined || used <= quota) return;
      const message = `The agent uses ${used} bytes of memory, more than Debug.AgentMemoryQuota (${quota}); it ends so that the service manager starts it afresh`;
      system.log.warning(message);
      system.emit({ operation: "AgentMemory", success: false, message, log: false });
      end();
    },
  };
}
