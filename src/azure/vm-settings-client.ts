import type { ExtensionsGoalState } from "./goal-state.ts";

/** What the host plugin says about Fast Track (`wire-protocol.md` §10). */
export type VmSettingsOutcome =
  /** Fast Track has nothing to say: not supported, or the content is the WireServer's. */
  | { readonly kind: "none" }
  | {
      readonly kind: "fast-track";
      readonly goal: ExtensionsGoalState;
      readonly etag: string;
      /** As received, unredacted. */
      readonly text: string;
      /** Not the answer of an earlier call. */
      readonly updated: boolean;
    }
  /** It was supported and is not any more (VMS-17). */
  | { readonly kind: "stopped"; readonly lastTimestamp: string };

export interface VmSettingsClient {
  /** Errors: AgentError "protocol" or "bad-input"; `cached()` stays as it was. */
  read(options: {
    readonly force: boolean;
    readonly signal?: AbortSignal | undefined;
  }): Promise<VmSettingsOutcome>;
  /** The last outcome, as not updated. */
  cached(): VmSettingsOutcome;
  /** Creation time of the last Fast Track goal, where a Fabric one that is older must not be processed (VMS-18). */
  disabledSince(): string | undefined;
  forgetLastFastTrack(): void;
}
