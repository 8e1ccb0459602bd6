import { describe, isAgentError } from "../base/error.ts";
import { compareVersions } from "../base/version.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import {
  disable,
  enable,
  install,
  removeHandler,
  runCommand,
  toDisable,
  wasDisabledHere,
} from "./handler-commands.ts";
import { handlerLog, prepareHandlerLog } from "./handler-log.ts";
import { readHandlerManifest, type HandlerManifest } from "./handler-manifest.ts";
import { uninstallCodeOf, update } from "./handler-update.ts";
import { openJournal } from "./journal.ts";
import { baseOf, displayName, sameName, type HandlerRef } from "./layout.ts";
import { initialise, obtainPackage } from "./package.ts";
import type { PackageOffer } from "./package-source.ts";
import { writeSettings } from "./settings-file.ts";
import { readStatusFile } from "./status-file.ts";
import { findInstalled, listHandlers, readExtensionState, readState, writeState } from "./store.ts";
import { chooseVersion, isExactlyInstalled, type ChosenPackage } from "./version-choice.ts";
import {
  configError,
  extensionOf,
  NOT_RUN,
  sequenceOf,
  type Bench,
  type Work,
  type WorkContext,
} from "./work.ts";

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
  const { handler, goal } = work;
  const { layout } = context;
  if (handler.invalid !== undefined || handler.state === undefined)
    throw configError(handler.invalid ?? `the state of ${handler.name} is not known`);
  const installed = findInstalled(listHandlers(system, layout), handler.name);
  const offer = await choose(system, context, work, installed);
  // The name on disk stays what it is when the platform changes its case (DB-08).
  const target = { name: installed?.name ?? handler.name, version: offer.chosen.version };
  onVersion(target);
  prepareHandlerLog(system, layout, target, extensionOf(work));
  const own = handlerLog(system, layout, target, extensionOf(work));
  own.log.info(`Target handler state: ${handler.state} [${goal.id}]`);
  const { journal, isContinued } = openJournal(own, layout, {
    handler: handler.name,
    target: target.version,
    extension: extensionOf(work),
    goal: goal.id,
    sequence: sequenceOf(work),
    from: installed?.version,
  });
  if (isContinued) own.log.info("Continuing what was begun before");
  const bench: Bench = { ...work, system: own, context, journal };
  try {
    if (handler.state === "enabled") await bringToEnabled(bench, target, offer);
    else if (handler.state === "disabled") await bringToDisabled(bench, target);
    else await bringToGone(bench, target);
  } catch (error) {
    // What failed for want of disk or memory goes on where it stopped; a command that failed begins anew (EXT-61).
    if (error instanceof HandlerError) journal.remove();
    throw error;
  }
  journal.remove();
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
  let offer: PackageOffer;
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
    throw new HandlerError(CODE.unknown, "Failed to get ext handler pkgs", {
      cause: error,
      isTransient: true,
    });
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

/** Installs or updates where needed, then enables, or disables a deleted extension. */
async function bringToEnabled(bench: Bench, target: HandlerRef, offer: Offer): Promise<void> {
  const { system, context, settings, goal } = bench;
  const extension = extensionOf(bench);
  if (isUnchanged(bench, target)) {
    system.log.info(
      "Enabled for this goal state already, and the agent was only restarted: enable is not run again",
    );
    await context.limits.track(target, readHandlerManifest(system, context.layout, target));
    return;
  }
  const { manifest, uninstallCode } = await bringToInstalled(bench, target, offer);
  if (extension === undefined || settings?.state !== "disabled") {
    await enable(bench, target, manifest, uninstallCode);
    context.enabled?.add(goal.id, { handler: target, extension, settings });
    return;
  }
  const isEnabled = readExtensionState(system, context.layout, target, extension) === "enabled";
  if (isEnabled || wasDisabledHere(bench, target)) {
    const sequence = sequenceOf(bench);
    await disable(bench, target, manifest, { extension, sequence, isDeleted: true });
  } else system.log.info(`The extension ${extension} is disabled already`);
}

/** `Extensions.SkipUnchanged`: enabled for this goal state, with these settings, and successful (DB-37). */
function isUnchanged(bench: Bench, target: HandlerRef): boolean {
  const { system, context, settings, goal } = bench;
  const { layout } = context;
  const extension = extensionOf(bench);
  if (context.enabled?.has(goal.id, { handler: target, extension, settings }) !== true)
    return false;
  if (readState(system, layout, target) !== "Enabled") return false;
  if (settings === undefined) return true;
  if (
    extension !== undefined &&
    readExtensionState(system, layout, target, extension) !== "enabled"
  )
    return false;
  const name = displayName(target.name, extension);
  const source = { handler: target, name, extension, sequence: settings.sequence };
  return (
    settings.state === "enabled" && readStatusFile(system, layout, source).status === "success"
  );
}

/** The target version is installed and has its settings. */
async function bringToInstalled(
  bench: Bench,
  target: HandlerRef,
  offer: Offer,
): Promise<{ readonly manifest: HandlerManifest; readonly uninstallCode: string }> {
  const { system, context, handler, journal } = bench;
  const { layout } = context;
  const { from } = journal.data;
  const old =
    from === undefined || compareVersions(from, target.version) === 0
      ? undefined
      : versionOnDisk(system, context, handler.name, from);
  const state = readState(system, layout, target);
  if (state === "NotInstalled" || state === "FailedUpgrade") {
    const manifest = await prepare(bench, target, offer);
    writeOwnSettings(bench, target);
    if (old !== undefined)
      return { manifest, uninstallCode: await update(bench, { old, target, manifest }) };
    await install(bench, target, manifest, NOT_RUN);
    return { manifest, uninstallCode: NOT_RUN };
  }
  const manifest = readHandlerManifest(system, layout, target);
  requireMultiConfig(bench, target, manifest);
  writeOwnSettings(bench, target);
  const earlier = old === undefined ? undefined : uninstallCodeOf(bench, old);
  return { manifest, uninstallCode: earlier ?? NOT_RUN };
}

/** The package is in place and initialised (§8.4 step 1). */
async function prepare(bench: Bench, target: HandlerRef, offer: Offer): Promise<HandlerManifest> {
  const { system, context, handler, journal, signal } = bench;
  const { layout } = context;
  if (!journal.data.prepared) {
    writeState(system, layout, target, "NotInstalled");
    await obtainPackage(system, layout, target, offer.chosen, context.source, {
      manifestUri: offer.manifestUri,
      signal,
      verify: (archive, staging) => context.verify(handler, target, archive, staging),
    });
    initialise(system, layout, target);
    journal.update({ prepared: true });
  }
  const manifest = readHandlerManifest(system, layout, target);
  requireMultiConfig(bench, target, manifest);
  await context.limits.apply(target, extensionOf(bench), manifest);
  return manifest;
}

function writeOwnSettings(bench: Bench, target: HandlerRef): void {
  const { system, context, handler, settings } = bench;
  const { multiConfig } = handler;
  writeSettings(system, context.layout, target, settings, { multiConfig });
}

/** MC-03. */
function requireMultiConfig(bench: Bench, target: HandlerRef, manifest: HandlerManifest): void {
  if (bench.handler.multiConfig && !manifest.supportsMultipleExtensions)
    throw configError(
      `${target.name} ${target.version} does not support multiple extensions, but the goal state has it so`,
    );
}

/** EXT-24. */
async function bringToDisabled(bench: Bench, target: HandlerRef): Promise<void> {
  const { system, context } = bench;
  system.emit({
    operation: "RequestedStateDisabled",
    success: true,
    message: "The goal state asks for the deprecated state disabled",
    name: target.name,
    version: target.version,
  });
  if (readState(system, context.layout, target) !== "Enabled" && !wasDisabledHere(bench, target))
    return;
  const manifest = readHandlerManifest(system, context.layout, target);
  await disable(bench, target, manifest, {
    extension: extensionOf(bench),
    sequence: sequenceOf(bench),
  });
}

/** EXT-64, EXT-65. */
async function bringToGone(bench: Bench, target: HandlerRef): Promise<void> {
  const { system, context } = bench;
  const { layout } = context;
  const isThere = system.files.exists(join(baseOf(layout, target), "HandlerManifest.json"));
  const state = readState(system, layout, target);
  if (isThere && state !== "NotInstalled") {
    const manifest = readHandlerManifest(system, layout, target);
    if (state === "Enabled" || wasDisabledHere(bench, target))
      for (const entry of toDisable(bench, target)) await disable(bench, target, manifest, entry);
    await context.limits.release(target, manifest);
    try {
      await runCommand(bench, target, "uninstall", { manifest });
    } catch (error) {
      if (!(error instanceof HandlerError)) throw error;
      system.log.warning(`Uninstall failed, removing ${target.name} anyway: ${describe(error)}`);
    }
  }
  await removeHandler(bench, target);
}

function versionOnDisk(
  system: System,
  context: WorkContext,
  name: string,
  version: string,
): HandlerRef {
  const onDisk = listHandlers(system, context.layout).find(
    (handler) => handler.version === version && sameName(handler.name, name),
  );
  return { name: onDisk?.name ?? name, version };
}
