import { AgentError } from "../base/error.ts";
import { formatJson, JsonReader, toJson } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * What `waagent status` shows: the daemon's view of itself, in a file that is written only when something changed
 * (`system.md` BET-31, `extensions.md` DB-26). Times are TS0 text. Nothing in it is secret: anybody may read it.
 */
export interface AgentState {
  readonly version: 1;
  readonly agent: {
    readonly version: string;
    readonly pid: number;
    readonly startedAt: string;
  };
  readonly goalState: GoalStateState | undefined;
  /** Sorted by name. */
  readonly handlers: readonly HandlerState[];
  /** Parts of the agent and of the machine: "provisioning", "firewall", "resource disk", "status upload", ... */
  readonly components: readonly ComponentState[];
  /** Where the goal state's storage is, without the paths and signatures of its addresses. */
  readonly storage: readonly StorageState[];
}

export interface StorageState {
  readonly purpose: "status" | "packages";
  /** Scheme, host and port: "https://account.blob.core.windows.net". */
  readonly origin: string;
  /** When the platform's permission for it ends; undefined for an address without one. */
  readonly expiresAt: string | undefined;
}

export interface GoalStateState {
  /** `incarnation_<N>` or `etag_<ETag>`. */
  readonly id: string;
  readonly source: string;
  readonly activityId: string;
  readonly correlationId: string;
  readonly state: "processing" | "done" | "failed" | "waiting";
  readonly since: string;
  /** Why it failed or waits. */
  readonly detail: string | undefined;
}

export interface HandlerState {
  /** Handler, or `handler.extension`. */
  readonly name: string;
  readonly version: string;
  /** "installed", "enabled", "disabled", "failed", ... */
  readonly state: string;
  /** What runs right now. */
  readonly running: { readonly operation: string; readonly since: string } | undefined;
  readonly lastOperation: OperationState | undefined;
  readonly nextRetryAt: string | undefined;
  /** Which other extension it waits for. */
  readonly waitsFor: string | undefined;
  /** What it, or the agent about it, has to say for its state. */
  readonly detail: string | undefined;
}

export interface OperationState {
  readonly operation: string;
  readonly at: string;
  /** undefined when it did not end by itself. */
  readonly exitCode: number | undefined;
  readonly durationMs: number;
  readonly message: string | undefined;
}

export interface ComponentState {
  readonly name: string;
  /** One word: "ok", "off", "failed", "waiting", ... */
  readonly state: string;
  readonly detail: string | undefined;
  /** When it came into this state. */
  readonly since: string;
}

/** Members that are present replace; handlers and components are told apart by name. */
export interface AgentStateChange {
  readonly goalState?: GoalStateState;
  readonly handlers?: readonly HandlerState[];
  /** Replaces the whole list, for when handlers have gone. */
  readonly onlyHandlers?: readonly HandlerState[];
  readonly component?: ComponentState;
  /** Replaces the whole list. */
  readonly storage?: readonly StorageState[];
}

/** On a file system in memory, so that it also says whether this boot's agent ever ran. */
export const AGENT_STATE_FILE = "/run/waagent/status.json";
const MAX_BYTES = 4 * 1024 * 1024;
const MAX_DETAIL = 1000;

export function initialAgentState(agent: AgentState["agent"]): AgentState {
  return { version: 1, agent, goalState: undefined, handlers: [], components: [], storage: [] };
}

/** The very same value when nothing changed. A component that stays in its state keeps its `since`. */
export function mergeAgentState(state: AgentState, change: AgentStateChange): AgentState {
  const { goalState, component, storage } = change;
  let next = state;
  if (goalState !== undefined && !isSame(goalState, state.goalState))
    next = { ...next, goalState: { ...goalState, detail: shortened(goalState.detail) } };
  const handlers =
    change.onlyHandlers ??
    (change.handlers === undefined ? undefined : merged(state.handlers, change.handlers));
  if (handlers !== undefined) {
    const sorted = handlers.map(cleanHandler).toSorted(byName);
    if (!isSame(sorted, state.handlers)) next = { ...next, handlers: sorted };
  }
  if (component !== undefined) {
    const clean = { ...component, detail: shortened(component.detail) };
    const before = state.components.find((one) => one.name === clean.name);
    if (before?.state !== clean.state || before.detail !== clean.detail) {
      const kept = before?.state === clean.state ? { ...clean, since: before.since } : clean;
      const others = state.components.filter((one) => one.name !== clean.name);
      next = { ...next, components: [...others, kept].toSorted(byName) };
    }
  }
  if (storage !== undefined && !isSame(storage, state.storage)) next = { ...next, storage };
  return next;
}

function merged(
  known: readonly HandlerState[],
  changed: readonly HandlerState[],
): readonly HandlerState[] {
  const names = new Set(changed.map((one) => one.name));
  return [...known.filter((one) => !names.has(one.name)), ...changed];
}

function cleanHandler(handler: HandlerState): HandlerState {
  return {
    ...handler,
    waitsFor: shortened(handler.waitsFor),
    detail: shortened(handler.detail),
    lastOperation:
      handler.lastOperation === undefined
        ? undefined
        : { ...handler.lastOperation, message: shortened(handler.lastOperation.message) },
  };
}

function shortened(text: string | undefined): string | undefined {
  return text === undefined ? undefined : redact(text).slice(0, MAX_DETAIL);
}

function byName(left: { readonly name: string }, right: { readonly name: string }): number {
  return left.name < right.name ? -1 : left.name > right.name ? 1 : 0;
}

/** Whether both would be written alike: a member that is undefined is not written. */
function isSame(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null)
    return false;
  if (Array.isArray(left) !== Array.isArray(right)) return false;
  const [before, after] = [new Map(Object.entries(left)), new Map(Object.entries(right))];
  const keys = new Set([...before.keys(), ...after.keys()]);
  return [...keys].every((key) => isSame(before.get(key), after.get(key)));
}

/** The daemon's end: merges changes and writes the file when there were any. Never throws. */
export function createAgentStateFile(
  system: Pick<System, "files" | "log">,
  agent: AgentState["agent"],
  file: SystemPath = AGENT_STATE_FILE,
): { update(change: AgentStateChange): void; current(): AgentState } {
  let state = initialAgentState(agent);

  const write = (): void => {
    try {
      const directory = file.slice(0, file.lastIndexOf("/")) as SystemPath;
      if (!system.files.exists(directory)) system.files.makeDirectory(directory, { mode: 0o755 });
      system.files.write(file, `${formatAgentState(state)}\n`, { mode: 0o644, durable: false });
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      system.log.periodically(
        "WARNING",
        3_600_000,
        `The state for "waagent status" could not be written: ${text}`,
        "agent state",
      );
    }
  };
  write();

  return {
    update: (change) => {
      const next = mergeAgentState(state, change);
      if (next === state) return;
      state = next;
      write();
    },
    current: () => state,
  };
}

/** The document as one line of JSON. */
export function formatAgentState(state: AgentState): string {
  return formatJson(toJson(state));
}

/**
 * The reader's end. undefined when no agent has run since boot.
 * Errors: AgentError "bad-input" when the file is damaged, "not-supported" when another agent version wrote it.
 */
export function readAgentState(
  system: Pick<System, "files">,
  file: SystemPath = AGENT_STATE_FILE,
): AgentState | undefined {
  const text = system.files.readTextIfExists(file, { maxBytes: MAX_BYTES });
  return text === undefined ? undefined : parseAgentState(text, file);
}

export function parseAgentState(text: string, what: string): AgentState {
  const reader = JsonReader.parse(text, what);
  reader.object();
  const version = reader.get("version").integer();
  if (version !== 1) {
    throw new AgentError(
      "not-supported",
      `${what} has format ${version}, this program knows format 1`,
    );
  }
  const agent = reader.get("agent");
  const goalState = reader.get("goalState");
  return {
    version: 1,
    agent: {
      version: agent.get("version").string(),
      pid: agent.get("pid").integer(),
      startedAt: agent.get("startedAt").string(),
    },
    goalState: goalState.isAbsent ? undefined : parseGoalState(goalState),
    handlers: reader.get("handlers").items().map(parseHandler),
    components: reader
      .get("components")
      .items()
      .map((component) => ({
        name: component.get("name").string(),
        state: component.get("state").string(),
        detail: component.get("detail").optionalString(),
        since: component.get("since").string(),
      })),
    // An agent of an earlier version does not write it.
    storage: reader.get("storage").isAbsent ? [] : reader.get("storage").items().map(parseStorage),
  };
}

const GOAL_STATES = ["processing", "done", "failed", "waiting"] as const;

function parseGoalState(reader: JsonReader): GoalStateState {
  const state = GOAL_STATES.find((one) => one === reader.get("state").string());
  if (state === undefined) throw reader.get("state").expected(`one of ${GOAL_STATES.join(", ")}`);
  return {
    id: reader.get("id").string(),
    source: reader.get("source").string(),
    activityId: reader.get("activityId").string(),
    correlationId: reader.get("correlationId").string(),
    state,
    since: reader.get("since").string(),
    detail: reader.get("detail").optionalString(),
  };
}

function parseStorage(reader: JsonReader): StorageState {
  return {
    purpose: reader.get("purpose").string() === "status" ? "status" : "packages",
    origin: reader.get("origin").string(),
    expiresAt: reader.get("expiresAt").optionalString(),
  };
}

function parseHandler(reader: JsonReader): HandlerState {
  const running = reader.get("running");
  const last = reader.get("lastOperation");
  return {
    name: reader.get("name").string(),
    version: reader.get("version").string(),
    state: reader.get("state").string(),
    running: running.isAbsent
      ? undefined
      : { operation: running.get("operation").string(), since: running.get("since").string() },
    lastOperation: last.isAbsent
      ? undefined
      : {
          operation: last.get("operation").string(),
          at: last.get("at").string(),
          exitCode: last.get("exitCode").optionalNumber(),
          durationMs: last.get("durationMs").number(),
          message: last.get("message").optionalString(),
        },
    nextRetryAt: reader.get("nextRetryAt").optionalString(),
    waitsFor: reader.get("waitsFor").optionalString(),
    detail: reader.get("detail").optionalString(),
  };
}

/** The state for people: a few lines, one for each thing that matters. */
export function describeAgentState(state: AgentState): string {
  const { agent, goalState } = state;
  const lines = [`Agent ${agent.version}, pid ${agent.pid}, running since ${agent.startedAt}`];
  lines.push(
    goalState === undefined
      ? "Goal state: none yet"
      : `Goal state: ${goalState.id} (${goalState.source}), ${goalState.state} since ${goalState.since}${because(goalState.detail)}`,
  );
  for (const component of state.components)
    lines.push(
      `${component.name}: ${component.state} since ${component.since}${because(component.detail)}`,
    );
  lines.push(state.handlers.length === 0 ? "Extensions: none" : "Extensions:");
  for (const handler of state.handlers) lines.push(...describeHandler(handler));
  return `${lines.join("\n")}\n`;
}

function describeHandler(handler: HandlerState): readonly string[] {
  const { running, lastOperation: last } = handler;
  return [
    `  ${handler.name} ${handler.version}: ${handler.state}`,
    ...(running === undefined ? [] : [`    running ${running.operation} since ${running.since}`]),
    ...(last === undefined
      ? []
      : [
          `    last ${last.operation} at ${last.at}: ${last.exitCode === undefined ? "did not end" : `exit code ${last.exitCode}`} after ${(last.durationMs / 1000).toFixed(1)} s${because(last.message)}`,
        ]),
    ...(handler.nextRetryAt === undefined ? [] : [`    next try at ${handler.nextRetryAt}`]),
    ...(handler.waitsFor === undefined ? [] : [`    waits for ${handler.waitsFor}`]),
    // What its last command said is there already.
    ...(handler.detail === undefined || last?.message?.includes(handler.detail) === true
      ? []
      : [`    says: ${handler.detail}`]),
  ];
}

function because(detail: string | undefined): string {
  return detail === undefined || detail === "" ? "" : `: ${detail}`;
}
