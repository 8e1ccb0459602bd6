import { compareVersions } from "../base/version.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import {
  disable,
  install,
  removeHandler,
  runCommand,
  toDisable,
  wasDisabledHere,
} from "./handler-commands.ts";
import { readHandlerManifest, type HandlerManifest } from "./handler-manifest.ts";
import { baseOf, statusOf, type HandlerRef } from "./layout.ts";
import { readState, writeState } from "./store.ts";
import { extensionOf, NOT_RUN, type Bench } from "./work.ts";

/** Two versions of a handler, and what the new one says about updates. */
export interface VersionChange {
  readonly old: HandlerRef;
  readonly target: HandlerRef;
  readonly manifest: HandlerManifest;
}

/**
 * `extensions.md` §8.4 from step 2 to 7. The old version may be gone already when the agent was restarted in between.
 * Resolves to the exit code of its uninstall command. Errors: HandlerError, 1008 when the old version stops it (EXT-59).
 */
export async function update(bench: Bench, change: VersionChange): Promise<string> {
  const { system, context } = bench;
  const { old, target, manifest } = change;
  const { layout } = context;
  const isThere = system.files.exists(join(baseOf(layout, old), "HandlerManifest.json"));
  const uninstallCode = isThere
    ? await leaveOldVersion(bench, change, readHandlerManifest(system, layout, old))
    : (uninstallCodeOf(bench, old) ?? "0");
  await removeHandler(bench, old);
  if (manifest.updateWithInstall) await install(bench, target, manifest, uninstallCode);
  else {
    system.log.info("The manifest says that an update does not install");
    writeState(system, layout, target, "Installed");
  }
  return uninstallCode;
}

/** Exit code that an earlier process got from the uninstall of that version within this update. */
export function uninstallCodeOf(bench: Bench, old: HandlerRef): string | undefined {
  const key = { ...old, operation: "uninstall", extension: extensionOf(bench) } as const;
  const outcome = bench.journal.find(key)?.outcome;
  if (outcome === undefined) return undefined;
  return String(outcome.timedOut ? CODE.timeout : (outcome.code ?? CODE.unknown));
}

/** Steps 2 to 5. */
async function leaveOldVersion(
  bench: Bench,
  change: VersionChange,
  oldManifest: HandlerManifest,
): Promise<string> {
  const { system, context } = bench;
  const { old, target, manifest } = change;
  const { layout } = context;
  const tolerate = manifest.continueOnUpdateFailure;
  const codes = new Map<string | undefined, string>();
  if (readState(system, layout, old) === "Enabled" || wasDisabledHere(bench, old)) {
    for (const entry of toDisable(bench, old)) {
      const code = await attempt(tolerate, () => disable(bench, old, oldManifest, entry));
      codes.set(entry.extension, code);
    }
  }
  copyProgress(system, statusOf(layout, old), statusOf(layout, target), [
    [join(baseOf(layout, old), "mrseq"), join(baseOf(layout, target), "mrseq")],
  ]);
  await runUpdate(bench, change, oldManifest, codes);
  return await attempt(tolerate, async () => {
    await context.limits.release(old, oldManifest);
    await runCommand(bench, old, "uninstall", { manifest: oldManifest });
  });
}

/** Step 4: on an upgrade the new version's command, on a downgrade the old one's (EXT-60). */
async function runUpdate(
  bench: Bench,
  { old, target, manifest }: VersionChange,
  oldManifest: HandlerManifest,
  codes: ReadonlyMap<string | undefined, string>,
): Promise<void> {
  const isDowngrade = compareVersions(target.version, old.version) < 0;
  const runner = isDowngrade ? old : target;
  try {
    await runCommand(bench, runner, "update", {
      manifest: isDowngrade ? oldManifest : manifest,
      environment: {
        VERSION: target.version,
        AZURE_GUEST_AGENT_UPDATING_FROM_VERSION: isDowngrade ? target.version : old.version,
        // DB-35: what a downgrade really comes from.
        WAAGENT_UPDATING_FROM_INSTALLED_VERSION: old.version,
        ...disableCodes(bench, codes),
      },
    });
  } catch (error) {
    if (error instanceof HandlerError)
      writeState(bench.system, bench.context.layout, runner, "FailedUpgrade");
    throw error;
  }
}

/** EXT-76. */
function disableCodes(
  { handler }: Bench,
  codes: ReadonlyMap<string | undefined, string>,
): Readonly<Record<string, string>> {
  if (!handler.multiConfig)
    return { AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE: codes.get(undefined) ?? NOT_RUN };
  const entries = handler.settings.map(
    ({ name }) =>
      `{"extensionName": ${JSON.stringify(name)}, "exitCode": "${codes.get(name) ?? NOT_RUN}"}`,
  );
  return {
    AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS: `[${entries.join(", ")}]`,
  };
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
