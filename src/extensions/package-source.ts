import type { HandlerGoal } from "../azure/goal-state.ts";
import type { SystemPath } from "../system/root.ts";

/** Where packages come from; azure/download.ts is behind it in the agent, a folder of files in tests. */
export interface PackageSource {
  /** All versions the handler's manifest offers (`extensions.md` EXT-34). Errors: AgentError. */
  versions(handler: HandlerGoal, signal: AbortSignal | undefined): Promise<PackageOffer>;
  /**
   * Downloads one package into `file` (EXT-42, EXT-43) and hands it to `accept`; when that throws, the next URI is
   * tried, except for an AgentError "refused" or "cancelled". The file is gone when this ends.
   * Errors: AgentError "protocol" when no URI worked, and what `accept` refused with.
   */
  download(request: PackageRequest): Promise<void>;
  /** Keeps the text of a document in the history of the goal state, e.g. the policy (POL-09). */
  keep?(name: string, text: string): void;
}

export interface PackageOffer {
  readonly packages: readonly { readonly version: string; readonly uris: readonly string[] }[];
  /** Where the manifest came from (EXT-42). */
  readonly manifestUri?: string | undefined;
}

export interface PackageRequest {
  /** For texts, e.g. "the package Contoso.Agent-1.2.3". */
  readonly what: string;
  readonly uris: readonly string[];
  readonly manifestUri: string | undefined;
  readonly file: SystemPath;
  readonly accept: (file: SystemPath) => Promise<void>;
  readonly signal: AbortSignal | undefined;
}
