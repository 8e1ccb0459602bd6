import type { SystemPath } from "../system/root.ts";
import { CODE } from "./failure.ts";
import type { Operation } from "./handler-manifest.ts";
import type { Journal } from "./journal.ts";
import type { HandlerRef, Layout } from "./layout.ts";

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

export interface OperationRow {
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
