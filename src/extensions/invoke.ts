import { randomUUID } from "node:crypto";
import { AgentError, describe } from "../base/error.ts";
import { formatJson, toJson } from "../base/json.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { RunningCommand } from "../system/launch.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import type { Operation } from "./handler-manifest.ts";
import { runFileOf, type CommandRun, type Journal, type RunOutcome } from "./journal.ts";
import {
  baseOf,
  displayName,
  fullName,
  ownStateOf,
  type HandlerRef,
  type Layout,
} from "./layout.ts";
import { MAX_STREAM_BYTES, outputFiles, readOutput } from "./output.ts";

/** A command of a handler has begun or ended, for whoever watches (`extensions.md` DB-26). */
export interface CommandEvent {
  readonly handler: HandlerRef;
  readonly extension: string | undefined;
  readonly operation: Operation;
  /** Absent when it has only begun. */
  readonly ended?: {
    /** undefined when there is none, after a time-out or when it could not be started. */
    readonly exitCode: number | undefined;
    readonly durationMs: number;
    /** Why it failed. */
    readonly failure: string | undefined;
  };
}

/** What all commands of all handlers have in common. */
export interface InvokeContext {
  readonly onCommand?: ((event: CommandEvent) => void) | undefined;
  readonly layout: Layout;
  readonly wireServerAddress: string;
  /** The agent's own environment; only what is harmless is handed on (`extensions.md` DB-32). */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** What extensions are told that the agent can do (EXT-74). */
  readonly supportedFeatures: readonly { readonly key: string; readonly value: string }[];
  readonly isolation: Isolation;
}

/** Where commands run, so that they are never in the agent's own control group (`extensions.md` §16). */
export interface Isolation {
  /** Called for every start. `through` must be a program that replaces itself by the command. */
  place(request: {
    readonly handler: HandlerRef;
    readonly extension: string | undefined;
    readonly operation: Operation;
    readonly id: string;
  }): Promise<{ readonly through?: readonly string[]; readonly cgroup?: SystemPath }>;
  /** The placement of this run failed before the command started: what to do about it is the isolation's business. */
  failed(reason: string): void;
}

export const NO_ISOLATION: Isolation = {
  place: () => Promise.resolve({}),
  failed: () => undefined,
};

export interface Invocation {
  readonly handler: HandlerRef;
  readonly operation: Operation;
  /** From the manifest: relative to the base directory, arguments included. */
  readonly command: string;
  /** Of the settings that triggered the operation, 0 without settings. */
  readonly sequence: number;
  /** Only for multi-config. */
  readonly extension: string | undefined;
  /** Besides EXT-74. */
  readonly environment: Readonly<Record<string, string>>;
  readonly journal: Journal;
  readonly signal: AbortSignal | undefined;
}

interface OperationRow {
  readonly timeoutMs: number;
  /** Failure code for an exit code other than 0, and for a command that cannot be started. */
  readonly code: number;
  /** Telemetry operation (§21.5) and the verb of the log line. */
  readonly event: string;
  readonly verb: string;
}

/** `extensions.md` EXT-71. */
export const OPERATIONS: Readonly<Record<Operation, OperationRow>> = {
  install: { timeoutMs: 900_000, code: CODE.install, event: "Install", verb: "Install" },
  enable: { timeoutMs: 300_000, code: CODE.enable, event: "Enable", verb: "Enable" },
  update: { timeoutMs: 900_000, code: CODE.update, event: "Update", verb: "Update" },
  disable: { timeoutMs: 900_000, code: CODE.disable, event: "Disable", verb: "Disable" },
  uninstall: { timeoutMs: 300_000, code: CODE.processing, event: "UnInstall", verb: "Uninstall" },
};

/** A variable whose value is unique to a run; its processes are found by it when it has to be ended. */
export const RUN_MARKER = "WAAGENT_RUN_ID";
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
    const run = await runOnce(system, context, invocation, line);
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

type FinishedRun = CommandRun & { readonly outcome: RunOutcome };

async function runOnce(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
  line: string,
): Promise<FinishedRun> {
  const { handler, operation, extension, journal } = invocation;
  const key = { ...handler, operation, extension };
  const earlier = journal.find(key);
  if (earlier?.outcome !== undefined) {
    system.log.info(`${OPERATIONS[operation].verb} ran already before the agent was restarted`);
    return earlier as FinishedRun;
  }
  if (earlier !== undefined) {
    const finished = await pickUp(system, context.layout, journal, earlier, invocation.signal);
    if (finished !== undefined) return finished;
  }
  system.log.info(`${OPERATIONS[operation].verb} extension: [${line}]`);
  const placed = { ...invocation, placement: undefined };
  return await startRun(system, context, placed, line);
}

/**
 * Waits for a run of an earlier process. undefined when it never started, or was lost with the machine: then it
 * may be started. Errors: AgentError "cancelled".
 */
export async function pickUp(
  system: System,
  layout: Layout,
  journal: Journal,
  run: CommandRun,
  signal: AbortSignal | undefined,
): Promise<FinishedRun | undefined> {
  const runFile = runFileOf(layout, run.id);
  const label = `${run.operation} of ${fullName(run, run.extension)}`;
  const state =
    run.bootId === bootId(system)
      ? await system.launch.settle(runFile)
      : ({ state: "lost" } as const);
  switch (state.state) {
    case "never-started":
      return undefined;
    case "lost":
      system.log.warning(`The ${label} was interrupted; it is run again`);
      return undefined;
    case "ended":
      system.log.info(`The ${label} ended with code ${state.code} while the agent was not running`);
      return finish(journal, run, {
        code: state.code,
        timedOut: false,
        durationMs: Math.max(0, system.clock.now() - run.startedAt),
      });
    case "running": {
      const elapsed = Math.max(0, system.clock.now() - run.startedAt);
      const left = Math.max(1000, Math.min(run.timeoutMs, run.timeoutMs - elapsed));
      system.log.info(
        `The ${label} is still running as process ${state.identity.pid}, waiting for it`,
      );
      const command = system.launch.attach(state.identity, {
        runFile,
        timeoutMs: left,
        stdout: run.stdout,
        stderr: run.stderr,
        cgroup: run.cgroup,
        marker: RUN_MARKER,
        markerValue: run.id,
        maxOutputBytes: MAX_STREAM_BYTES,
      });
      const result = await waitFor(command, label, signal);
      if (result.code === undefined && !result.timedOut) {
        system.log.warning(`The ${label} was interrupted; it is run again`);
        return undefined;
      }
      return finish(journal, run, { ...result, durationMs: elapsed + result.durationMs });
    }
  }
}

async function startRun(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
  line: string,
): Promise<FinishedRun> {
  const { handler, operation, extension, journal, signal } = invocation;
  if (signal?.aborted === true)
    throw new AgentError("cancelled", `The ${operation} of ${handler.name} was not started`);
  const { layout } = context;
  const row = OPERATIONS[operation];
  const id = randomUUID();
  const now = system.clock.now();
  const time = formatTimestamp0(now).replaceAll(":", "").replaceAll("-", "");
  const output = outputFiles(
    system,
    layout,
    handler.name,
    `${time}-${operation}-${id.slice(0, 8)}${extension === undefined ? "" : `-${encodeURIComponent(extension).slice(0, 100)}`}`,
  );
  system.files.makeDirectory(join(ownStateOf(layout), "runs"), { mode: 0o700 });
  const place = await context.isolation.place({ handler, extension, operation, id });
  const run: CommandRun = {
    ...handler,
    operation,
    extension,
    id,
    bootId: bootId(system),
    startedAt: now,
    timeoutMs: row.timeoutMs,
    ...output,
    cgroup: place.cgroup,
    outcome: undefined,
  };
  journal.record(run);
  const request = {
    shellCommand: line,
    cwd: baseOf(layout, handler),
    environment: environmentOf(system, context, invocation, id),
    ...output,
    runFile: runFileOf(layout, id),
    timeoutMs: row.timeoutMs,
    marker: RUN_MARKER,
    maxOutputBytes: MAX_STREAM_BYTES,
  };
  const isolated = place.through !== undefined || place.cgroup !== undefined;
  let failure: string | undefined;
  try {
    const result = await waitFor(system.launch.start({ ...request, ...place }), line, signal);
    // 125 and 1 are also what the placing program itself answers when it could not do its part.
    if (!isolated || result.timedOut || result.code === 0) return finish(journal, run, result);
    const state = await system.launch.settle(request.runFile);
    if (state.state !== "never-started") return finish(journal, run, result);
    failure = `exit code ${result.code ?? "unknown"}: ${readOutput(system, run.stdout, run.stderr)}`;
  } catch (error) {
    if (!isolated || !(error instanceof AgentError) || error.code !== "exec")
      throw launchFailure(error, row, line);
    failure = describe(error);
  }
  // The command provably did not run (DB-16), so it may be started without its place.
  context.isolation.failed(failure);
  system.files.remove(request.runFile);
  const again = { ...run, cgroup: undefined };
  journal.record(again);
  try {
    return finish(journal, again, await waitFor(system.launch.start(request), line, signal));
  } catch (error) {
    throw launchFailure(error, row, line);
  }
}

function finish(journal: Journal, run: CommandRun, outcome: RunOutcome): FinishedRun {
  const finished = { ...run, outcome };
  journal.record(finished);
  return finished;
}

function launchFailure(error: unknown, row: OperationRow, line: string): unknown {
  if (!(error instanceof AgentError) || error.code !== "exec") return error;
  return new HandlerError(row.code, `[ExtensionError] Could not start ${line}`, {
    cause: error,
    operation: row.event,
  });
}

/** Waits for the end, or until the signal says to leave it alone. */
async function waitFor(
  command: RunningCommand,
  label: string,
  signal: AbortSignal | undefined,
): Promise<RunOutcome> {
  if (signal === undefined) return await command.wait();
  const { promise, reject } = Promise.withResolvers<never>();
  const stop = (): void =>
    reject(new AgentError("cancelled", `The wait for ${label} was cancelled; it goes on`));
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await Promise.race([command.wait(), promise]);
  } finally {
    signal.removeEventListener("abort", stop);
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
  id: string,
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
    [RUN_MARKER]: id,
  };
}

/** Tells boots apart, so that a pid of an earlier boot is never taken for one of this. */
function bootId(system: Pick<System, "files">): string {
  try {
    return (system.files.readTextIfExists("/proc/sys/kernel/random/boot_id") ?? "").trim();
  } catch {
    return ""; // without /proc the start time has to do
  }
}
