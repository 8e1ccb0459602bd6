import { describe } from "../base/error.ts";
import { formatJson, toJson } from "../base/json.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import {
  OPERATIONS,
  type CommandEvent,
  type Invocation,
  type InvokeContext,
} from "./invocation.ts";
import type { RunOutcome } from "./journal.ts";
import { baseOf, displayName, type Layout } from "./layout.ts";
import { readOutput } from "./output.ts";
import { runOnce } from "./run-once.ts";

const INHERITED =
  /^(?:PATH|LANG|LANGUAGE|LC_[A-Z]+|TZ|HOME|USER|LOGNAME|SHELL|TMPDIR|OPENSSL_FIPS|_AZURE_GUEST_AGENT_DAEMON_VERSION_|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|all_proxy|ALL_PROXY)$/;
const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/**
 * Runs a command of a handler, at most once for its journal: a run that an earlier process began is waited for,
 * one that ended answers from its record. Success is exit code 0.
 * Errors: HandlerError with the operation's code, 1011 after a time-out; AgentError "cancelled", then the command
 * goes on and its journal tells the next process about it.
 */
export async function invoke(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
): Promise<void> {
  const { handler, operation, extension } = invocation;
  const row = OPERATIONS[operation];
  const line = commandLine(system, context.layout, invocation);
  const began = system.clock.monotonic();
  const tell = (ended?: Omit<NonNullable<CommandEvent["ended"]>, "durationMs">): void =>
    context.onCommand?.({
      handler,
      extension,
      operation,
      ...(ended === undefined
        ? {}
        : { ended: { ...ended, durationMs: Math.round(system.clock.monotonic() - began) } }),
    });
  tell();
  try {
    const run = await runOnce(system, context, invocation, {
      line,
      environment: environmentOf(system, context, invocation),
    });
    const output = readOutput(system, run.stdout, run.stderr);
    judge(system, context, invocation, line, run.outcome, output);
    tell({ exitCode: run.outcome.code, failure: undefined });
    const message = `Command: ${line}\n${output}`;
    system.log.info(message);
    system.emit({
      operation: row.event,
      success: true,
      message,
      durationMs: run.outcome.durationMs,
      name: displayName(handler.name, extension),
      version: handler.version,
    });
  } catch (error) {
    if (!(error instanceof HandlerError)) throw error;
    tell({ exitCode: error.status, failure: describe(error) });
    system.emit({
      operation: row.event,
      success: false,
      message: describe(error),
      durationMs: system.clock.monotonic() - began,
      name: displayName(handler.name, extension),
      version: handler.version,
      log: false,
    });
    throw error;
  }
}

function judge(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
  line: string,
  outcome: RunOutcome,
  output: string,
): void {
  const row = OPERATIONS[invocation.operation];
  if (outcome.timedOut) {
    throw new HandlerError(
      CODE.timeout,
      `[ExtensionError] Timeout(${row.timeoutMs / 1000}): ${line}\n${output}`,
      { exitCode: CODE.timeout, operation: row.event },
    );
  }
  if (outcome.code === 0) return;
  const hint = outcome.code === 126 ? noExecHint(system, context.layout) : "";
  throw new HandlerError(
    row.code,
    `[ExtensionOperationError] Non-zero exit code: ${outcome.code ?? "unknown"}, ${line}\n${output}${hint}`,
    {
      operation: row.event,
      ...(outcome.code === undefined ? {} : { exitCode: outcome.code }),
    },
  );
}

/** EXT-80: exit code 126 may come from a file system without execution. */
function noExecHint(system: Pick<System, "files" | "emit">, layout: Layout): string {
  let mounts: string;
  try {
    mounts = system.files.readText("/proc/mounts");
  } catch {
    return ""; // only a hint is lost
  }
  const lib = system.files.realPath(layout.lib);
  for (const mount of mounts.split("\n")) {
    const [, point = "", , options = ""] = mount.split(" ");
    const isPrefix = point === "/" || lib === point || lib.startsWith(`${point}/`);
    if (!isPrefix || point === "" || !options.split(",").includes("noexec")) continue;
    const hint = `\nWARNING: ${point} is mounted with the noexec flag, which can prevent execution of VM Extensions.`;
    system.emit({ operation: "NoExec", success: false, message: hint.trim() });
    return hint;
  }
  return "";
}

/** The command as the shell gets it (EXT-70). */
function commandLine(system: System, layout: Layout, invocation: Invocation): string {
  const base = system.files.realPath(baseOf(layout, invocation.handler));
  const quoted = /^[\w@%+=:,./-]+$/.test(base) ? base : `'${base.replaceAll("'", "'\\''")}'`;
  return `${quoted}/${invocation.command}`;
}

/** EXT-74; variables of the agent win over inherited ones (DB-32). */
function environmentOf(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
): Record<string, string> {
  const inherited = Object.fromEntries(
    Object.entries(context.environment).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && INHERITED.test(entry[0]),
    ),
  );
  const features = context.supportedFeatures.map(({ key, value }) => ({ Key: key, Value: value }));
  return {
    PATH: DEFAULT_PATH,
    ...inherited,
    AZURE_GUEST_AGENT_EXTENSION_PATH: system.files.realPath(
      baseOf(context.layout, invocation.handler),
    ),
    AZURE_GUEST_AGENT_EXTENSION_VERSION: invocation.handler.version,
    AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS: context.wireServerAddress,
    ConfigSequenceNumber: String(invocation.sequence),
    ...(invocation.extension === undefined ? {} : { ConfigExtensionName: invocation.extension }),
    ...(features.length === 0
      ? {}
      : { AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES: formatJson(toJson(features)) }),
    ...invocation.environment,
  };
}
