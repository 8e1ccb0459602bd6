import { runningDaemon } from "../agent/instance.ts";
import { AgentError } from "../base/error.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/table.ts";
import { detectDistro } from "../distro/detect.ts";
import {
  baseOf,
  configOf,
  type HandlerRef,
  type Layout,
  layoutOf,
  logFolderOf,
  statusOf,
} from "../extensions/layout.ts";
import {
  type AgentState,
  describeAgentState,
  type HandlerState,
  readAgentState,
} from "../report/agent-state.ts";
import { pid as ownPid, writeStderr, writeStdout } from "../system/process.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { earlySystem } from "./early.ts";
import { EXIT } from "./exit-codes.ts";
import type { OperatorData } from "./operator-commands.ts";

/** What can be said about the agent from outside. */
export interface AgentStatus {
  /** pid of the daemon that lives now, ours or another agent's; undefined when none does. */
  readonly pid: number | undefined;
  /** The daemon's own account; undefined when none of ours has run since boot. */
  readonly state: AgentState | undefined;
}

/**
 * `waagent status`: reads one file in memory and asks nobody, so it answers at once and also when the agent hangs.
 * Exit code 0 when the agent runs and nothing has failed, 2 when something has, 3 when no agent runs.
 * Errors: AgentError "bad-input" when the file is damaged.
 */
export async function showStatus(
  data: OperatorData,
  options: { readonly json?: boolean | undefined },
): Promise<number> {
  const system = earlySystem(data.root);
  const config = await readConfig(system);
  const status: AgentStatus = {
    pid: runningDaemon(system, config, ownPid()),
    state: readAgentState(system),
  };
  writeStdout(options.json === true ? statusJson(status) : statusText(status));
  return statusCode(status);
}

/** `waagent explain HANDLER`: one extension, and where to look further. Exit code 0, 2 when it has failed, 1 when unknown. */
export async function explainHandler(
  data: OperatorData,
  options: { readonly handler: string; readonly json?: boolean | undefined },
): Promise<number> {
  const system = earlySystem(data.root);
  const config = await readConfig(system);
  const state = readAgentState(system);
  if (state === undefined) {
    writeStderr("No agent of this kind has run since boot, so no extension is known\n");
    return EXIT.notRunning;
  }
  const handler = findHandler(state.handlers, options.handler);
  const files = handlerFiles(system, config, handler);
  writeStdout(
    options.json === true
      ? `${JSON.stringify({ ...handler, files }, null, 2)}\n`
      : explanation(state, handler, files),
  );
  return hasFailed(handler) ? EXIT.degraded : EXIT.ok;
}

async function readConfig(system: Pick<System, "files" | "exec">): Promise<Config> {
  const { configPath } = await detectDistro(system);
  return loadConfig(system, { preferred: configPath }).config;
}

/** See `showStatus`. */
export function statusCode({ pid, state }: AgentStatus): number {
  if (pid === undefined) return EXIT.notRunning;
  if (state === undefined) return EXIT.ok;
  const failed =
    state.goalState?.state === "failed" ||
    state.components.some((part) => isFailed(part.state)) ||
    state.handlers.some(hasFailed);
  return failed ? EXIT.degraded : EXIT.ok;
}

/** Its state says so, or it is not ready and its last command did not end well. */
function hasFailed({ state, lastOperation }: HandlerState): boolean {
  if (isFailed(state)) return true;
  return /^not ?ready/i.test(state) && lastOperation !== undefined && lastOperation.exitCode !== 0;
}

function isFailed(state: string): boolean {
  return /fail|error/i.test(state);
}

/** The status for people. */
export function statusText({ pid, state }: AgentStatus): string {
  if (state === undefined) {
    return pid === undefined
      ? "No agent runs, and none has run since boot.\n"
      : `An agent runs (pid ${pid}) that leaves no state: another version, or the Python agent.\n`;
  }
  const told = describeAgentState(state);
  if (pid === state.agent.pid) return told;
  const now = pid === undefined ? "No agent runs." : `Another agent runs (pid ${pid}).`;
  return `${now} This is what the last one of this kind left:\n${told}`;
}

function statusJson({ pid, state }: AgentStatus): string {
  return `${JSON.stringify({ running: pid !== undefined, pid: pid ?? null, state: state ?? null }, null, 2)}\n`;
}

/** By name, or by a part of it that only one has; letters of either case. Errors: AgentError "bad-input" with the names. */
export function findHandler(handlers: readonly HandlerState[], wanted: string): HandlerState {
  const word = wanted.toLowerCase();
  const exact = handlers.find(({ name }) => name.toLowerCase() === word);
  if (exact !== undefined) return exact;
  const found = handlers.filter(({ name }) => name.toLowerCase().includes(word));
  if (found.length === 1 && found[0] !== undefined) return found[0];
  const names = (found.length === 0 ? handlers : found).map(({ name }) => name).join(", ");
  const reason =
    found.length > 0
      ? `${JSON.stringify(wanted)} is part of several names`
      : `There is no extension ${JSON.stringify(wanted)}`;
  throw new AgentError(
    "bad-input",
    names === "" ? `${reason}; there is none` : `${reason}: ${names}`,
  );
}

interface HandlerFiles {
  readonly logs: SystemPath;
  readonly status: SystemPath;
  readonly settings: SystemPath;
}

/** Names of extensions of a multi-config handler are `handler.extension`; folders are the handler's. */
function handlerFiles(
  system: Pick<System, "files">,
  config: Config,
  handler: HandlerState,
): HandlerFiles {
  const layout = layoutOf(config);
  const words = handler.name.split(".");
  const names = words.map((_, index) => words.slice(0, words.length - index).join("."));
  const ref = { name: handler.name, version: handler.version };
  try {
    const name = names.find((candidate) =>
      system.files.exists(baseOf(layout, { ...ref, name: candidate })),
    );
    return filesOf(layout, { ...ref, name: name ?? ref.name });
  } catch {
    return filesOf(layout, ref); // the state directory is for root only: the name has to do
  }
}

function filesOf(layout: Layout, ref: HandlerRef): HandlerFiles {
  return {
    logs: logFolderOf(layout, ref.name),
    status: statusOf(layout, ref),
    settings: configOf(layout, ref),
  };
}

function explanation(state: AgentState, handler: HandlerState, files: HandlerFiles): string {
  const alone = describeAgentState({ ...state, components: [], handlers: [handler] });
  const lines = alone.split("\n");
  const own = lines.slice(lines.indexOf("Extensions:") + 1).join("\n");
  return `${own}  logs:     ${files.logs}\n  status:   ${files.status}\n  settings: ${files.settings}\n`;
}
