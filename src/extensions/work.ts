import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { EnabledRecord } from "./enabled-record.ts";
import { CODE, HandlerError } from "./failure.ts";
import type { HandlerManifest } from "./handler-manifest.ts";
import type { InvokeContext } from "./invocation.ts";
import type { Journal } from "./journal.ts";
import type { HandlerRef } from "./layout.ts";
import type { PackageSource } from "./package-source.ts";

/** What the work on one handler needs besides the goal. */
export interface WorkContext extends InvokeContext {
  readonly source: PackageSource;
  /** undefined: every start of the agent enables again (EXT-11). */
  readonly enabled: EnabledRecord | undefined;
  /** How often a failed download is tried again within a pass; the platform expects 0 (EXT-84). */
  readonly downloadRetries: number;
  readonly limits: ResourceControl;
  /** Looks at an unpacked package; see PackageOptions.verify. */
  readonly verify: (
    goal: HandlerGoal,
    handler: HandlerRef,
    archive: SystemPath,
    staging: SystemPath,
  ) => Promise<boolean>;
}

/** Limits and accounting of handlers (`extensions.md` CG-20..24). Never fails an extension (CG-42). */
export interface ResourceControl {
  apply(
    handler: HandlerRef,
    extension: string | undefined,
    manifest: HandlerManifest,
  ): Promise<void>;
  track(handler: HandlerRef, manifest: HandlerManifest): Promise<void>;
  /** Services of a handler that is about to be uninstalled. */
  release(handler: HandlerRef, manifest: HandlerManifest): Promise<void>;
  /** The handler is gone. */
  forget(handler: HandlerRef, extensions: readonly string[]): Promise<void>;
}

export const NO_LIMITS: ResourceControl = {
  apply: () => Promise.resolve(),
  track: () => Promise.resolve(),
  release: () => Promise.resolve(),
  forget: () => Promise.resolve(),
};

/** One settings entry of one handler, or a handler without settings. */
export interface Work {
  readonly goal: ExtensionsGoalState;
  readonly handler: HandlerGoal;
  readonly settings: SettingsGoal | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Everything at hand while one item is worked on. */
export interface Bench extends Work {
  /** Its log is that of the handler. */
  readonly system: System;
  readonly context: WorkContext;
  readonly journal: Journal;
}

/** Value of an exit code variable whose command did not run (EXT-76, EXT-77). */
export const NOT_RUN = "NOT_RUN";

/** Name of the extension, only for multi-config. */
export function extensionOf(work: Pick<Work, "handler" | "settings">): string | undefined {
  return work.handler.multiConfig ? work.settings?.name : undefined;
}

/** Of the settings that triggered the work, 0 without settings. */
export function sequenceOf(work: Pick<Work, "settings">): number {
  return work.settings?.sequence ?? 0;
}

/** EXT-28. */
export function configError(reason: string): HandlerError {
  return new HandlerError(
    CODE.unknown,
    `The extension's configuration in the goal state is not valid: ${reason}`,
    { operation: "InvalidExtensionConfig" },
  );
}
