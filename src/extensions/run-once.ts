import { randomUUID } from "node:crypto";
import { AgentError, describe } from "../base/error.ts";
import { formatTimestamp0 } from "../base/time.ts";
import { CLAIM_FAILED, type RunningCommand } from "../system/launch.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { HandlerError } from "./failure.ts";
import {
  OPERATIONS,
  RUN_MARKER,
  type Invocation,
  type InvokeContext,
  type OperationRow,
} from "./invocation.ts";
import { runFileOf, type CommandRun, type Journal, type RunOutcome } from "./journal.ts";
import { baseOf, fullName, ownStateOf, type Layout } from "./layout.ts";
import { MAX_STREAM_BYTES, outputFiles, readOutput } from "./output.ts";

/** A run whose outcome is known. */
export type FinishedRun = CommandRun & { readonly outcome: RunOutcome };

/** What is started when the command has to run. */
export interface RunRequest {
  /** For the shell. */
  readonly line: string;
  /** Without the variable that tells this run from others. */
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * Runs a command, unless the journal has its run already: one that ended answers from its record, one that an earlier
 * process began is waited for. Errors: HandlerError when it cannot be started; AgentError "cancelled".
 */
export async function runOnce(
  system: System,
  context: InvokeContext,
  invocation: Invocation,
  request: RunRequest,
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
  system.log.info(`${OPERATIONS[operation].verb} extension: [${request.line}]`);
  return await startRun(system, context, invocation, request);
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
  { line, environment }: RunRequest,
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
    environment: { ...environment, [RUN_MARKER]: id },
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
    if (!isolated) requireClaim(system, request.runFile, result);
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
    const result = await waitFor(system.launch.start(request), line, signal);
    requireClaim(system, request.runFile, result);
    return finish(journal, again, result);
  } catch (error) {
    throw launchFailure(error, row, line);
  }
}

/** A command that could not write down that it starts does not start. Errors: AgentError "exec". */
function requireClaim(
  system: Pick<System, "files">,
  runFile: SystemPath,
  { code }: Pick<RunOutcome, "code">,
): void {
  if (code !== CLAIM_FAILED || (system.files.stat(runFile)?.size ?? 0) > 0) return;
  throw new AgentError("exec", `${runFile} could not be written; is the disk full?`);
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

/** Tells boots apart, so that a pid of an earlier boot is never taken for one of this. */
export function bootId(system: Pick<System, "files">): string {
  try {
    return (system.files.readTextIfExists("/proc/sys/kernel/random/boot_id") ?? "").trim();
  } catch {
    return ""; // without /proc the start time has to do
  }
}
