import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import { compareVersions } from "../base/version.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import { handlerLog, prepareHandlerLog } from "./handler-log.ts";
import {
  commandFor,
  readHandlerManifest,
  type HandlerManifest,
  type Operation,
} from "./handler-manifest.ts";
import { invoke, type InvokeContext } from "./invoke.ts";
import { openJournal, type Journal } from "./journal.ts";
import { baseOf, packageOf, statusOf, type HandlerRef } from "./layout.ts";
import { initialise, obtainPackage } from "./package.ts";
import type { PackageSource } from "./package-source.ts";
import { writeSettings } from "./settings-file.ts";
import {
  enabledExtensions,
  findInstalled,
  listHandlers,
  readExtensionState,
  readState,
  removeExtensionFiles,
  writeExtensionState,
  writeState,
  writeStatus,
} from "./store.ts";
import { chooseVersion, isExactlyInstalled, type ChosenPackage } from "./version-choice.ts";

/** What the work on one handler needs besides the goal. */
export interface WorkContext extends InvokeContext {
  readonly source: PackageSource;
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

const NOT_RUN = "NOT_RUN";

/**
 * Does the work of one item: install or update where needed, then enable (or disable, for a deleted extension of a
 * multi-config handler); disable; or uninstall. `onVersion` is told the version as soon as it is known.
 * Errors: HandlerError, AgentError; "cancelled" leaves everything to the next process.
 */
export async function doWork(
  system: System,
  context: WorkContext,
  work: Work,
  onVersion: (handler: HandlerRef) => void,
): Promise<void> {
  const { handler, settings, goal } = work;
  if (handler.invalid !== undefined || handler.state === undefined)
    throw configError(handler.invalid ?? `the state of ${handler.name} is not known`);
  const installed = findInstalled(listHandlers(system, context.layout), handler.name);
  const offer = await choose(system, context, work, installed);
  // The name on disk stays what it is when the platform changes its case (DB-08).
  const target = { name: installed?.name ?? handler.name, version: offer.chosen.version };
  onVersion(target);
  prepareHandlerLog(system, context.layout, target, extensionOf(work));
  const own = handlerLog(system, context.layout, target, extensionOf(work));
  own.log.info(`Target handler state: ${handler.state} [${goal.id}]`);
  const { journal, isContinued } = openJournal(system, context.layout, {
    handler: handler.name,
    target: target.version,
    extension: extensionOf(work),
    goal: goal.id,
    sequence: settings?.sequence ?? 0,
    from: installed?.version,
  });
  if (isContinued) own.log.info("Continuing after a restart of the agent");
  const steps = createSteps(own, context, work, journal);
  try {
    if (handler.state === "enabled") await steps.enable(target, offer);
    else if (handler.state === "disabled") await steps.disableOnly(target);
    else await steps.uninstall(target);
  } catch (error) {
    // What failed for want of disk or memory goes on where it stopped; a command that failed begins anew (EXT-61).
    if (error instanceof HandlerError) journal.remove();
    throw error;
  }
  journal.remove();
}

export function configError(reason: string): HandlerError {
  return new HandlerError(
    CODE.unknown,
    `The extension's configuration in the goal state is not valid: ${reason}`,
    { operation: "InvalidExtensionConfig" },
  );
}

interface Offer {
  readonly chosen: ChosenPackage;
  readonly manifestUri: string | undefined;
}

/** EXT-36, EXT-38, DB-21. */
async function choose(
  system: System,
  context: WorkContext,
  work: Work,
  installed: HandlerRef | undefined,
): Promise<Offer> {
  const { handler } = work;
  const asInstalled = (version: string): Offer => ({
    chosen: { version, uris: [] },
    manifestUri: undefined,
  });
  if (handler.state !== "enabled") return asInstalled(installed?.version ?? handler.version);
  if (installed !== undefined && isExactlyInstalled(handler, installed.version))
    return asInstalled(installed.version);
  let offer: Awaited<ReturnType<PackageSource["versions"]>>;
  try {
    offer = await context.source.versions(handler, work.signal);
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    if (installed !== undefined && compareVersions(installed.version, handler.version) === 0) {
      system.log.warning(
        `The manifest of ${handler.name} cannot be had, going on with the installed version: ${describe(error)}`,
      );
      return asInstalled(installed.version);
    }
    throw new HandlerError(CODE.unknown, "Failed to get ext handler pkgs", { cause: error });
  }
  const chosen = chooseVersion(handler.version, offer);
  if (chosen === undefined)
    throw new HandlerError(
      CODE.unknown,
      `Unable to find version ${handler.version} in manifest for extension ${handler.name}`,
      { operation: "Download" },
    );
  if (chosen.version !== handler.version)
    system.emit({
      operation: "RequestedVersionMismatch",
      success: true,
      message: `Requested version: ${handler.version}, chosen version: ${chosen.version}`,
      name: handler.name,
      version: chosen.version,
    });
  return { chosen, manifestUri: offer.manifestUri };
}

function extensionOf(work: Work): string | undefined {
  return work.handler.multiConfig ? work.settings?.name : undefined;
}

function createSteps(system: System, context: WorkContext, work: Work, journal: Journal) {
  const { layout } = context;
  const { handler: goal, settings, signal } = work;
  const extension = extensionOf(work);
  const sequence = settings?.sequence ?? 0;

  const run = async (
    handler: HandlerRef,
    operation: Operation,
    options: {
      readonly manifest: HandlerManifest;
      readonly environment?: Readonly<Record<string, string>>;
      readonly extension?: string | undefined;
      readonly sequence?: number;
    },
  ): Promise<void> => {
    const name = "extension" in options ? options.extension : extension;
    await invoke(handlerLog(system, layout, handler, name), context, {
      handler,
      operation,
      command: commandFor(options.manifest, operation, handler),
      sequence: options.sequence ?? sequence,
      extension: name,
      environment: options.environment ?? {},
      journal,
      signal,
    });
  };

  const report = (handler: HandlerRef, status: "Ready" | "NotReady", message: string): void =>
    writeStatus(system, layout, handler, {
      status,
      code: CODE.success,
      message,
      supportsMultiConfig: goal.multiConfig,
    });

  /** MC-03. */
  const requireMultiConfig = (handler: HandlerRef, manifest: HandlerManifest): void => {
    if (goal.multiConfig && !manifest.supportsMultipleExtensions)
      throw configError(
        `${handler.name} ${handler.version} does not support multiple extensions, but the goal state has it so`,
      );
  };

  const prepare = async (target: HandlerRef, offer: Offer): Promise<HandlerManifest> => {
    if (!journal.data.prepared) {
      writeState(system, layout, target, "NotInstalled");
      await obtainPackage(system, layout, target, offer.chosen, context.source, {
        manifestUri: offer.manifestUri,
        signal,
        verify: (archive, staging) => context.verify(goal, target, archive, staging),
      });
      initialise(system, layout, target);
      journal.update({ prepared: true });
    }
    const manifest = readHandlerManifest(system, layout, target);
    requireMultiConfig(target, manifest);
    await context.limits.apply(target, extension, manifest);
    return manifest;
  };

  const install = async (
    target: HandlerRef,
    manifest: HandlerManifest,
    uninstallCode: string,
  ): Promise<void> => {
    await run(target, "install", {
      manifest,
      environment: { AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE: uninstallCode },
    });
    writeState(system, layout, target, "Installed");
    report(target, "NotReady", "Plugin installed but not enabled");
  };

  const enableHere = async (
    target: HandlerRef,
    manifest: HandlerManifest,
    uninstallCode: string,
  ): Promise<void> => {
    await context.limits.apply(target, extension, manifest);
    await run(target, "enable", {
      manifest,
      environment: { AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE: uninstallCode },
    });
    if (extension !== undefined) writeExtensionState(system, layout, target, extension, "enabled");
    await context.limits.track(target, manifest);
    writeState(system, layout, target, "Enabled");
    report(target, "Ready", "Plugin enabled");
  };

  /** EXT-83; an extension that is deleted for good also loses its files (MC-06). */
  const disableHere = async (
    target: HandlerRef,
    manifest: HandlerManifest,
    options: {
      readonly extension: string | undefined;
      readonly sequence: number;
      readonly isDeleted?: boolean;
    },
  ): Promise<void> => {
    try {
      await run(target, "disable", { manifest, ...options });
    } catch (error) {
      if (options.isDeleted !== true || !(error instanceof HandlerError)) throw error;
      system.log.info(
        `The failure of disable is ignored for a deleted extension: ${describe(error)}`,
      );
    }
    if (options.extension !== undefined) {
      if (options.isDeleted === true)
        removeExtensionFiles(system, layout, target, options.extension);
      else writeExtensionState(system, layout, target, options.extension, "disabled");
    }
    if (options.extension === undefined || enabledExtensions(system, layout, target).length === 0) {
      writeState(system, layout, target, "Installed");
      report(target, "NotReady", "Plugin disabled");
    }
  };

  /** Extensions whose disable belongs to an update or uninstall: the enabled ones of the goal, or the handler itself. */
  const toDisable = (
    target: HandlerRef,
  ): { readonly extension: string | undefined; readonly sequence: number }[] => {
    if (!goal.multiConfig) return [{ extension: undefined, sequence }];
    const recorded = goal.settings.filter(
      (entry) =>
        readExtensionState(system, layout, target, entry.name) === "enabled" ||
        journal.find({ ...target, operation: "disable", extension: entry.name }) !== undefined,
    );
    return recorded.map((entry) => ({ extension: entry.name, sequence: entry.sequence }));
  };

  const wasDisabledHere = (target: HandlerRef): boolean =>
    journal.data.runs.some(
      (entry) => entry.operation === "disable" && entry.version === target.version,
    );

  const removeHandler = async (target: HandlerRef): Promise<void> => {
    const extensions = goal.settings.map((entry) => entry.name);
    system.files.remove(packageOf(layout, target));
    system.files.remove(baseOf(layout, target));
    await context.limits.forget(target, goal.multiConfig ? extensions : []);
  };

  /** §8.4 from step 2 on; `old` may be gone already when the agent was restarted in between. */
  const update = async (
    old: HandlerRef,
    target: HandlerRef,
    manifest: HandlerManifest,
  ): Promise<string> => {
    const tolerate = manifest.continueOnUpdateFailure;
    const codes = new Map<string, string>();
    const isThere = system.files.exists(join(baseOf(layout, old), "HandlerManifest.json"));
    const oldManifest = isThere ? readHandlerManifest(system, layout, old) : undefined;
    if (oldManifest !== undefined) {
      if (readState(system, layout, old) === "Enabled" || wasDisabledHere(old)) {
        for (const entry of toDisable(old)) {
          const code = await attempt(tolerate, () => disableHere(old, oldManifest, entry));
          codes.set(entry.extension ?? "", code);
        }
      }
      copyProgress(system, statusOf(layout, old), statusOf(layout, target), [
        [join(baseOf(layout, old), "mrseq"), join(baseOf(layout, target), "mrseq")],
      ]);
      await runUpdate(old, oldManifest, target, manifest, codes);
    }
    let uninstallCode = journalCode(journal, { ...old, operation: "uninstall", extension }) ?? "0";
    if (oldManifest !== undefined) {
      uninstallCode = await attempt(tolerate, async () => {
        await context.limits.release(old, oldManifest);
        await run(old, "uninstall", { manifest: oldManifest });
      });
    }
    await removeHandler(old);
    if (manifest.updateWithInstall) await install(target, manifest, uninstallCode);
    else {
      system.log.info("The manifest says that an update does not install");
      writeState(system, layout, target, "Installed");
    }
    return uninstallCode;
  };

  /** Step 4: on an upgrade the new version's command, on a downgrade the old one's (EXT-60). */
  const runUpdate = async (
    old: HandlerRef,
    oldManifest: HandlerManifest,
    target: HandlerRef,
    manifest: HandlerManifest,
    codes: ReadonlyMap<string, string>,
  ): Promise<void> => {
    const isDowngrade = compareVersions(target.version, old.version) < 0;
    const runner = isDowngrade ? old : target;
    const disableCodes = goal.multiConfig
      ? {
          AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS: `[${goal.settings
            .map(
              (entry) =>
                `{"extensionName": ${JSON.stringify(entry.name)}, "exitCode": "${codes.get(entry.name) ?? NOT_RUN}"}`,
            )
            .join(", ")}]`,
        }
      : { AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE: codes.get("") ?? NOT_RUN };
    try {
      await run(runner, "update", {
        manifest: isDowngrade ? oldManifest : manifest,
        environment: {
          VERSION: target.version,
          AZURE_GUEST_AGENT_UPDATING_FROM_VERSION: isDowngrade ? target.version : old.version,
          // DB-35: what a downgrade really comes from.
          WAAGENT_UPDATING_FROM_INSTALLED_VERSION: old.version,
          ...disableCodes,
        },
      });
    } catch (error) {
      if (error instanceof HandlerError) writeState(system, layout, runner, "FailedUpgrade");
      throw error;
    }
  };

  const enable = async (target: HandlerRef, offer: Offer): Promise<void> => {
    const state = readState(system, layout, target);
    const from = journal.data.from;
    const isUpdate = from !== undefined && compareVersions(from, target.version) !== 0;
    let manifest: HandlerManifest;
    let uninstallCode = NOT_RUN;
    if (state === "NotInstalled" || state === "FailedUpgrade") {
      manifest = await prepare(target, offer);
      writeSettings(system, layout, target, settings, { multiConfig: goal.multiConfig });
      if (!isUpdate) await install(target, manifest, NOT_RUN);
      else {
        const old = oldVersion(system, context, goal, from);
        uninstallCode = await update(old, target, manifest);
      }
    } else {
      manifest = readHandlerManifest(system, layout, target);
      requireMultiConfig(target, manifest);
      if (isUpdate) {
        const old = { ...target, version: from };
        uninstallCode =
          journalCode(journal, { ...old, operation: "uninstall", extension }) ?? NOT_RUN;
      }
      writeSettings(system, layout, target, settings, { multiConfig: goal.multiConfig });
    }
    if (extension === undefined || settings?.state !== "disabled") {
      await enableHere(target, manifest, uninstallCode);
    } else if (
      readExtensionState(system, layout, target, extension) === "enabled" ||
      wasDisabledHere(target)
    ) {
      await disableHere(target, manifest, { extension, sequence, isDeleted: true });
    } else system.log.info(`The extension ${extension} is disabled already`);
  };

  const disableOnly = async (target: HandlerRef): Promise<void> => {
    system.emit({
      operation: "RequestedStateDisabled",
      success: true,
      message: "The goal state asks for the deprecated state disabled",
      name: target.name,
      version: target.version,
    });
    if (readState(system, layout, target) !== "Enabled" && !wasDisabledHere(target)) return;
    const manifest = readHandlerManifest(system, layout, target);
    await disableHere(target, manifest, { extension, sequence });
  };

  const uninstall = async (target: HandlerRef): Promise<void> => {
    const isThere = system.files.exists(join(baseOf(layout, target), "HandlerManifest.json"));
    const state = readState(system, layout, target);
    if (isThere && state !== "NotInstalled") {
      const manifest = readHandlerManifest(system, layout, target);
      if (state === "Enabled" || wasDisabledHere(target))
        for (const entry of toDisable(target)) await disableHere(target, manifest, entry);
      await context.limits.release(target, manifest);
      try {
        await run(target, "uninstall", { manifest });
      } catch (error) {
        if (!(error instanceof HandlerError)) throw error;
        system.log.warning(`Uninstall failed, removing ${target.name} anyway: ${describe(error)}`);
      }
    }
    await removeHandler(target);
  };

  return { enable, disableOnly, uninstall };
}

function oldVersion(
  system: System,
  context: WorkContext,
  goal: HandlerGoal,
  version: string,
): HandlerRef {
  const onDisk = listHandlers(system, context.layout).find(
    (handler) =>
      handler.version === version && handler.name.toLowerCase() === goal.name.toLowerCase(),
  );
  return { name: onDisk?.name ?? goal.name, version };
}

/** "0", or the code that is passed on when the new version tolerates the failure (EXT-59, EXT-78). */
async function attempt(tolerate: boolean, action: () => Promise<void>): Promise<string> {
  try {
    await action();
    return "0";
  } catch (error) {
    if (!(error instanceof HandlerError)) throw error;
    if (!tolerate)
      throw new HandlerError(
        CODE.update,
        `[ExtensionUpdateError] ${error.message}; ContinueOnUpdate: False`,
        { cause: error, operation: "Update" },
      );
    return String(error.status ?? error.failureCode);
  }
}

function journalCode(journal: Journal, key: Parameters<Journal["find"]>[0]): string | undefined {
  const outcome = journal.find(key)?.outcome;
  if (outcome === undefined) return undefined;
  return String(outcome.timedOut ? CODE.timeout : (outcome.code ?? CODE.unknown));
}

/** Step 3: what the old version had reported stays readable until the new one writes its own (EXT-63). */
function copyProgress(
  system: Pick<System, "files">,
  from: SystemPath,
  to: SystemPath,
  more: readonly (readonly [SystemPath, SystemPath])[],
): void {
  const { files } = system;
  const pairs: (readonly [SystemPath, SystemPath])[] = [
    ...files.list(from).map((name) => [join(from, name), join(to, name)] as const),
    ...more,
  ];
  for (const [source, target] of pairs) {
    if (files.lstat(source)?.kind !== "file" || files.lstat(target) !== undefined) continue;
    files.copy(source, target);
  }
}

export function isCancelled(error: unknown): boolean {
  return error instanceof AgentError && error.code === "cancelled";
}
