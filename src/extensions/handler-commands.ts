import { describe } from "../base/error.ts";
import { CODE, HandlerError } from "./failure.ts";
import { handlerLog } from "./handler-log.ts";
import { commandFor, type HandlerManifest, type Operation } from "./handler-manifest.ts";
import { invoke } from "./invoke.ts";
import { baseOf, packageOf, type HandlerRef } from "./layout.ts";
import {
  enabledExtensions,
  readExtensionState,
  removeExtensionFiles,
  writeExtensionState,
  writeState,
  writeStatus,
} from "./store.ts";
import { extensionOf, sequenceOf, type Bench } from "./work.ts";

/** The commands of a handler, each with the state it leaves on disk (`extensions.md` §7, §8.3). */

export interface CommandOptions {
  readonly manifest: HandlerManifest;
  readonly environment?: Readonly<Record<string, string>>;
  /** Default: the extension that triggered the work. */
  readonly extension?: string | undefined;
  readonly sequence?: number;
}

/** One command. Errors: those of `invoke`. */
export async function runCommand(
  bench: Bench,
  handler: HandlerRef,
  operation: Operation,
  options: CommandOptions,
): Promise<void> {
  const { system, context, journal, signal } = bench;
  const extension = "extension" in options ? options.extension : extensionOf(bench);
  await invoke(handlerLog(system, context.layout, handler, extension), context, {
    handler,
    operation,
    command: commandFor(options.manifest, operation, handler),
    sequence: options.sequence ?? sequenceOf(bench),
    extension,
    environment: options.environment ?? {},
    journal,
    signal,
  });
}

/** `uninstallCode`: exit code of the old version's uninstall, NOT_RUN outside of updates (EXT-76). */
export async function install(
  bench: Bench,
  target: HandlerRef,
  manifest: HandlerManifest,
  uninstallCode: string,
): Promise<void> {
  await runCommand(bench, target, "install", {
    manifest,
    environment: { AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE: uninstallCode },
  });
  writeState(bench.system, bench.context.layout, target, "Installed");
  reportState(bench, target, "NotReady", "Plugin installed but not enabled");
}

/** EXT-82. */
export async function enable(
  bench: Bench,
  target: HandlerRef,
  manifest: HandlerManifest,
  uninstallCode: string,
): Promise<void> {
  const { system, context } = bench;
  const extension = extensionOf(bench);
  await context.limits.apply(target, extension, manifest);
  await runCommand(bench, target, "enable", {
    manifest,
    environment: { AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE: uninstallCode },
  });
  if (extension !== undefined)
    writeExtensionState(system, context.layout, target, extension, "enabled");
  await context.limits.track(target, manifest);
  writeState(system, context.layout, target, "Enabled");
  reportState(bench, target, "Ready", "Plugin enabled");
}

export interface ToDisable {
  readonly extension: string | undefined;
  readonly sequence: number;
  /** For good: its files go, and a failure does not count (MC-06). */
  readonly isDeleted?: boolean;
}

/** EXT-83. */
export async function disable(
  bench: Bench,
  target: HandlerRef,
  manifest: HandlerManifest,
  entry: ToDisable,
): Promise<void> {
  const { system, context } = bench;
  const { layout } = context;
  const { extension, sequence, isDeleted = false } = entry;
  try {
    await runCommand(bench, target, "disable", { manifest, extension, sequence });
  } catch (error) {
    if (!isDeleted || !(error instanceof HandlerError)) throw error;
    system.log.info(
      `The failure of disable is ignored for a deleted extension: ${describe(error)}`,
    );
  }
  if (extension !== undefined) {
    if (isDeleted) removeExtensionFiles(system, layout, target, extension);
    else writeExtensionState(system, layout, target, extension, "disabled");
  }
  if (extension === undefined || enabledExtensions(system, layout, target).length === 0) {
    writeState(system, layout, target, "Installed");
    reportState(bench, target, "NotReady", "Plugin disabled");
  }
}

/**
 * What an update or uninstall has to disable first: the handler itself, or those extensions of the goal that are
 * recorded as enabled (MC-07) or were disabled by this very item before a restart.
 */
export function toDisable(bench: Bench, target: HandlerRef): readonly ToDisable[] {
  const { system, context, handler, journal } = bench;
  if (!handler.multiConfig) return [{ extension: undefined, sequence: sequenceOf(bench) }];
  return handler.settings
    .filter(
      ({ name }) =>
        readExtensionState(system, context.layout, target, name) === "enabled" ||
        journal.find({ ...target, operation: "disable", extension: name }) !== undefined,
    )
    .map(({ name, sequence }) => ({ extension: name, sequence }));
}

/** A disable of that version is in the journal: the state on disk says no more that it was enabled. */
export function wasDisabledHere(bench: Bench, target: HandlerRef): boolean {
  return bench.journal.data.runs.some(
    (run) => run.operation === "disable" && run.version === target.version,
  );
}

/** Directory, package and limits of a version; its logs stay (EXT-64). */
export async function removeHandler(bench: Bench, target: HandlerRef): Promise<void> {
  const { system, context, handler } = bench;
  system.files.remove(packageOf(context.layout, target));
  system.files.remove(baseOf(context.layout, target));
  const extensions = handler.multiConfig ? handler.settings.map((entry) => entry.name) : [];
  await context.limits.forget(target, extensions);
}

function reportState(
  bench: Bench,
  handler: HandlerRef,
  status: "Ready" | "NotReady",
  message: string,
): void {
  writeStatus(bench.system, bench.context.layout, handler, {
    status,
    code: CODE.success,
    message,
    supportsMultiConfig: bench.handler.multiConfig,
  });
}
