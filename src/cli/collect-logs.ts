import type { AgentContext } from "../agent/context.ts";
import { collectLogsCommand } from "../report/log-collector.ts";
import { MONITOR_VARIABLE } from "../report/log-collector-limits.ts";
import { environment, isTerminal, writeStderr } from "../system/process.ts";
import type { SystemPath } from "../system/root.ts";
import { LOG_FILE } from "./context.ts";

/** `-collect-logs [-full]` (`system.md` §10.2): resolves to the exit code of LOGC-05. */
export function collectLogs(
  { system, config }: Omit<AgentContext, "arguments">,
  { full }: { readonly full: boolean },
): Promise<number> {
  return collectLogsCommand(system, {
    full,
    monitored: environment()[MONITOR_VARIABLE] === "1",
    progress: isTerminal() ? (line) => writeStderr(`${line}\n`) : undefined,
    libDirectory: config["Lib.Dir"] as SystemPath,
    logDirectory: config["Extension.LogDir"] as SystemPath,
    agentLog: LOG_FILE,
  });
}
