import type { Json } from "../base/json.ts";

/**
 * Inputs of the VM status document (`wire-protocol.md` §14, `extensions.md` §9). The document itself is built by
 * report/vm-status.ts; these types are here because extensions/ produces them and report/ consumes them.
 */
export interface HandlerReport {
  readonly name: string;
  readonly version: string;
  /** "Ready", "NotReady", or a heartbeat's text, verbatim. */
  readonly status: string;
  readonly code: number;
  readonly message: string | undefined;
  /** One entry for each settings entry; empty means the handler alone is reported. */
  readonly extensions: readonly ExtensionReport[];
}

export interface ExtensionReport {
  /** Only for multi-config. */
  readonly extensionName: string | undefined;
  readonly sequence: number;
  readonly status: ExtensionStatus;
}

/** A status file's content after checking, or what the agent says in its place (EXT-104). */
export interface ExtensionStatus {
  readonly name: string | null;
  readonly operation: Json;
  readonly status: string | null;
  readonly code: Json;
  readonly configurationAppliedTime: Json;
  readonly message: string | null;
  readonly substatuses: readonly {
    readonly name: string | null;
    readonly status: string;
    readonly code: Json;
    readonly message: string | null;
  }[];
}

/** Outcome of the last pass over a goal state (STAT-13); undefined before the first one. */
export interface AggregateStatus {
  readonly status: "Success" | "Failed";
  readonly code: number;
  readonly message: string;
  /** ms since the epoch: when processing ended. */
  readonly processedAt: number;
  readonly sequence: string | number;
}
