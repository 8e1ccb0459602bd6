import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import { AgentError, describe, isAgentError, type Failure } from "../base/error.ts";
import type { System } from "../system/system.ts";
import { pause, retryOf, type Retry } from "./download-retry.ts";
import { CODE, toFailure } from "./failure.ts";
import { doWork } from "./handler-work.ts";
import type { WorkContext } from "./work.ts";
import { handlerLog } from "./handler-log.ts";
import { pickUp } from "./run-once.ts";
import { leftJournals } from "./journal.ts";
import { nameProblem, sameName, versionProblem, type HandlerRef } from "./layout.ts";
import type { Plan, Refusal, WorkItem } from "./plan.ts";
import { readStatusFile, writePlaceholder, type StatusSource } from "./status-file.ts";
import { listHandlers, readStatus, resolveHandler, writeStatus } from "./store.ts";

/** Commands of different handlers that run at the same time (`design.md` D3). */
const SIDE_BY_SIDE = 4;
/** For all waits of a pass together, from its start (SEQ-04). */
const WAIT_BUDGET_MS = 90 * 60_000;
const FIRST_POLL_MS = 250;
const MAX_POLL_MS = 5000;

/** Where an item of the pass under way is; what is reported meanwhile depends on it. */
export interface Progress {
  readonly state: "waiting" | "running" | "over";
  /** Known once the version is chosen. */
  readonly handler: HandlerRef | undefined;
  /** A failed download is tried again. */
  readonly retry?: Retry;
}

export interface PassOptions {
  readonly goal: ExtensionsGoalState;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (item: WorkItem, progress: Progress) => void;
  /** A failure that could not be written where it is reported from: disk full, or a name that is no file name. */
  readonly onUnwritten: (item: WorkItem, failure: Failure) => void;
  /** Aborts once nothing is to be tried again, because a newer goal state waits. */
  readonly superseded: AbortSignal;
}

/**
 * Executes a plan: independent handlers side by side, one command for a handler at a time, dependants after what
 * they need. A failure of one item is written where it is reported from, and stops only its dependants.
 * Errors: AgentError "cancelled"; nothing else, except what makes the pass itself impossible.
 */
export async function reconcile(
  system: System,
  context: WorkContext,
  plan: Extract<Plan, { outcome: "process" }>,
  options: PassOptions,
): Promise<void> {
  const deadline = system.clock.monotonic() + WAIT_BUDGET_MS;
  const slots = createSlots(SIDE_BY_SIDE);
  const ends: Promise<ItemEnd>[] = [];
  const terminal = new Map<number, Promise<string | undefined>>();

  const terminalStatus = (index: number): Promise<string | undefined> => {
    const known = terminal.get(index);
    if (known !== undefined) return known;
    const item = plan.items[index];
    const waiting =
      item === undefined
        ? Promise.resolve(undefined)
        : dependencyFailure(system, context, item, ends[index], deadline, options.signal);
    terminal.set(index, waiting);
    return waiting;
  };

  const runItem = async (item: WorkItem): Promise<ItemEnd> => {
    await Promise.all(item.after.map((index) => ends[index]));
    for (const index of item.needs) {
      const problem = await terminalStatus(index);
      if (problem === undefined) continue;
      options.onProgress(item, { state: "over", handler: undefined });
      skip(system, context, item, problem, options);
      return { ok: false, handler: undefined };
    }
    for (let tries = 1; ; tries += 1) {
      const end = await slots(() => processItem(system, context, item, { ...options, tries }));
      if (end.again === undefined) return end;
      // Not in a slot: others go on meanwhile.
      await pause(system, end.again, options);
    }
  };

  for (const item of plan.items) ends.push(runItem(item));
  const results = await Promise.allSettled(ends);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

interface ItemEnd {
  readonly ok: boolean;
  readonly handler: HandlerRef | undefined;
  /** It failed for want of the platform's storage, and is not over yet. */
  readonly again?: Retry;
}

async function processItem(
  system: System,
  context: WorkContext,
  item: WorkItem,
  options: PassOptions & { readonly tries: number },
): Promise<ItemEnd> {
  const { goal, signal } = options;
  if (signal?.aborted === true)
    throw new AgentError("cancelled", `${item.label} was not begun: cancelled`);
  let handler = knownVersion(system, context, item);
  let known: HandlerRef | undefined;
  let again: Retry | undefined;
  options.onProgress(item, { state: "running", handler: known });
  try {
    if (item.refusal !== undefined) {
      refuse(system, context, item, item.refusal, options);
      return { ok: false, handler: undefined };
    }
    await settleEarlierRuns(system, context, item, signal);
    const work = { goal, handler: item.handler, settings: item.settings, signal };
    await doWork(system, context, work, (chosen) => {
      handler = chosen;
      known = chosen;
      options.onProgress(item, { state: "running", handler: chosen });
    });
    return { ok: true, handler: known };
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    const failure = toFailure(error, "ExtensionProcessing");
    again = retryOf(system, error, { ...options, limit: context.downloadRetries });
    if (again !== undefined) {
      system.log.warning(`${item.label}: ${again.message}: ${failure.message}`);
      return { ok: false, handler: known, again };
    }
    reportFailure(system, context, item, handler, { failure, options });
    return { ok: false, handler: known };
  } finally {
    options.onProgress(
      item,
      again === undefined
        ? { state: "over", handler: known }
        : { state: "waiting", handler: known, retry: again },
    );
  }
}

/** A command that an earlier process began for this handler ends before any other one is started. */
async function settleEarlierRuns(
  system: System,
  context: WorkContext,
  item: WorkItem,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const journal of leftJournals(system, context.layout)) {
    if (!sameName(journal.data.handler, item.handler.name)) continue;
    for (const run of journal.data.runs) {
      if (run.outcome === undefined) await pickUp(system, context.layout, journal, run, signal);
    }
  }
}

/** undefined when the item succeeded; else the text its dependants are skipped with (SEQ-03..06). */
async function dependencyFailure(
  system: System,
  context: WorkContext,
  item: WorkItem,
  end: Promise<ItemEnd> | undefined,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const { ok, handler } = (await end) ?? { ok: false, handler: undefined };
  if (!ok) {
    const cause =
      item.action === "refuse" && item.refusal !== undefined ? `: ${item.refusal.message}` : "";
    return `Skipping processing of extensions since execution of dependent extension ${item.label} failed${cause}`;
  }
  if (item.settings === undefined || handler === undefined) return undefined;
  const source = sourceOf(item, handler);
  let poll = FIRST_POLL_MS;
  let status: string | null = null;
  for (;;) {
    if (source !== undefined) status = readStatusFile(system, context.layout, source).status;
    if (status === "success") return undefined;
    if (status === "error")
      return `Dependent Extension ${item.label} did not succeed. Status was error`;
    const left = deadline - system.clock.monotonic();
    if (left <= 0)
      return `Dependent extension ${item.label} did not reach a terminal state within the allowed timeout. Last status was ${status ?? "none"}`;
    system.log.periodically(
      "INFO",
      60_000,
      `Waiting for ${item.label}, its status is ${status ?? "none"}; ${Math.ceil(left / 60_000)} min are left`,
      `wait ${item.label}`,
    );
    await system.clock.sleep(Math.min(poll, left), signal);
    poll = Math.min(MAX_POLL_MS, poll * 2);
  }
}

function sourceOf(item: WorkItem, handler: HandlerRef): StatusSource | undefined {
  if (item.settings === undefined) return undefined;
  return {
    handler,
    name: item.label,
    extension: item.handler.multiConfig ? item.settings.name : undefined,
    sequence: item.settings.sequence,
  };
}

/** SEQ-07. */
function skip(
  system: System,
  context: WorkContext,
  item: WorkItem,
  reason: string,
  options: PassOptions,
): void {
  const handler = knownVersion(system, context, item);
  const failure: Failure = {
    code: CODE.unknown,
    operation: "ExtensionProcessing",
    message: reason,
  };
  safely(system, item, { handler, failure, options }, () => {
    if (!item.handler.multiConfig || readStatus(system, context.layout, handler) === undefined)
      writeHandlerFailure(system, context, item, handler, failure);
    if (item.handler.multiConfig) placeholder(system, context, item, handler, failure, false);
  });
  emitFailure(system, context, item, handler, failure);
}

/** POL-06, EXT-20, EXT-28. */
function refuse(
  system: System,
  context: WorkContext,
  item: WorkItem,
  refusal: Refusal,
  options: PassOptions,
): void {
  const handler = knownVersion(system, context, item);
  safely(system, item, { handler, failure: refusal, options }, () => {
    writeHandlerFailure(system, context, item, handler, refusal);
    if (refusal.overwritesStatus) {
      if (item.handler.state === "enabled")
        placeholder(system, context, item, handler, { ...refusal, operation: null }, true);
    } else if (item.handler.multiConfig) {
      placeholder(system, context, item, handler, refusal, false);
    }
  });
  emitFailure(system, context, item, handler, refusal);
}

/** EXT-28..33. */
function reportFailure(
  system: System,
  context: WorkContext,
  item: WorkItem,
  handler: HandlerRef,
  { failure, options }: { readonly failure: Failure; readonly options: PassOptions },
): void {
  safely(system, item, { handler, failure, options }, () => {
    const isMultiConfigEnable = item.handler.multiConfig && failure.operation === "Enable";
    if (!isMultiConfigEnable) writeHandlerFailure(system, context, item, handler, failure);
    if (item.handler.multiConfig) placeholder(system, context, item, handler, failure, false);
  });
  emitFailure(system, context, item, handler, failure);
}

/** Writes what is reported; when that is not possible the failure is kept in memory and reported from there. */
function safely(
  system: System,
  item: WorkItem,
  about: {
    readonly handler: HandlerRef;
    readonly failure: Failure;
    readonly options: PassOptions;
  },
  write: () => void,
): void {
  if (!isUsable(about.handler)) {
    about.options.onUnwritten(item, about.failure);
    return;
  }
  try {
    write();
  } catch (error) {
    system.log.error(`The failure of ${item.label} could not be written: ${describe(error)}`);
    about.options.onUnwritten(item, about.failure);
  }
}

/** The version that status is kept for when nothing was chosen. */
function knownVersion(system: System, context: WorkContext, item: WorkItem): HandlerRef {
  return resolveHandler(listHandlers(system, context.layout), item.handler);
}

function writeHandlerFailure(
  system: System,
  context: WorkContext,
  item: WorkItem,
  handler: HandlerRef,
  failure: Pick<Failure, "code" | "message">,
): void {
  writeStatus(system, context.layout, handler, {
    status: "NotReady",
    code: failure.code,
    message: failure.message,
    supportsMultiConfig: item.handler.multiConfig,
  });
}

function placeholder(
  system: System,
  context: WorkContext,
  item: WorkItem,
  handler: HandlerRef,
  failure: { readonly code: number; readonly operation: string | null; readonly message: string },
  overwrite: boolean,
): void {
  const source = sourceOf(item, handler);
  if (source === undefined) return;
  writePlaceholder(system, context.layout, source, { ...failure, status: "error" }, { overwrite });
}

/** Tells the platform's telemetry and both logs (EXT-86). */
function emitFailure(
  system: System,
  context: WorkContext,
  item: WorkItem,
  handler: HandlerRef,
  failure: Pick<Failure, "operation" | "message">,
): void {
  const text = `Event: name=${item.label}, op=${failure.operation}, message=${failure.message}, duration=0`;
  if (isUsable(handler)) handlerLog(system, context.layout, handler).log.error(text);
  else system.log.error(text);
  system.emit({
    operation: failure.operation,
    success: false,
    message: failure.message,
    name: item.label,
    version: handler.version,
    log: false,
  });
}

function isUsable(handler: HandlerRef): boolean {
  return nameProblem(handler.name) === undefined && versionProblem(handler.version) === undefined;
}

/** Runs tasks in order of arrival, never more than `limit` at a time. */
function createSlots(limit: number): <Result>(task: () => Promise<Result>) => Promise<Result> {
  const queue: (() => void)[] = [];
  let free = limit;
  return async (task) => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => queue.push(resolve));
    try {
      return await task();
    } finally {
      const next = queue.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}
