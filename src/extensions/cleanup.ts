import type { ExtensionsGoalState } from "../azure/goal-state.ts";
import { describe, errnoOf } from "../base/error.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readHandlerManifest } from "./handler-manifest.ts";
import type { ResourceControl } from "./work.ts";
import { leftJournals } from "./journal.ts";
import {
  baseOf,
  isAgentName,
  nameProblem,
  ownStateOf,
  packageOf,
  parseDirectoryName,
  sameName,
  type HandlerRef,
  type Layout,
} from "./layout.ts";
import { findInstalled, listHandlers } from "./store.ts";

/**
 * Handlers that the goal state does not name any more are deleted, without running any of their commands
 * (`extensions.md` EXT-18). Loudly: what they left running goes on (DB-09).
 */
export async function removeVanished(
  system: System,
  layout: Layout,
  goal: ExtensionsGoalState,
  options: {
    readonly limits: ResourceControl;
    /** Versions whose status is reported for the goal; their directories stay in any state. */
    readonly reported: readonly HandlerRef[];
  },
): Promise<void> {
  const { limits, reported } = options;
  const isWanted = (handler: HandlerRef): boolean =>
    goal.handlers.some((wanted) => sameName(wanted.name, handler.name));
  for (const handler of listHandlers(system, layout)) {
    if (isWanted(handler)) continue;
    const base = baseOf(layout, handler);
    system.log.warning(
      `${handler.name} ${handler.version} is not in the goal state any more: removing ${base} without running its disable or uninstall command${servicesOf(system, layout, handler)}`,
    );
    try {
      system.files.remove(packageOf(layout, handler));
      system.files.remove(base);
      await limits.forget(handler, handler.enabledExtensions);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT")
        system.log.warning(`${base} could not be removed: ${describe(error)}`);
    }
  }
  removeFailedVersions(system, layout, reported);
  removeOrphanedPackages(system, layout, isWanted);
  removeOrphanedJournals(system, layout, goal);
}

/** Versions whose install never succeeded, once another version of the handler is installed; EXT-19 leaves them for ever. */
function removeFailedVersions(
  system: Pick<System, "files" | "log">,
  layout: Layout,
  reported: readonly HandlerRef[],
): void {
  const handlers = listHandlers(system, layout);
  for (const handler of handlers) {
    const installed = findInstalled(handlers, handler.name);
    if (handler.state !== "NotInstalled" || installed === undefined) continue;
    const { name, version } = handler;
    if (reported.some((one) => sameName(one.name, name) && one.version === version)) continue;
    try {
      system.files.remove(packageOf(layout, handler));
      system.files.remove(baseOf(layout, handler));
      system.log.info(
        `Removed ${handler.name} ${handler.version}, which was never installed; ${installed.version} is`,
      );
    } catch (error) {
      system.log.warning(`${baseOf(layout, handler)} could not be removed: ${describe(error)}`);
    }
  }
}

/** Package files without a directory, in the names of this agent and of older ones (DB-08). */
function removeOrphanedPackages(
  system: Pick<System, "files" | "log">,
  layout: Layout,
  isWanted: (handler: HandlerRef) => boolean,
): void {
  for (const name of system.files.list(layout.lib)) {
    if (!name.endsWith(".zip")) continue;
    const handler = packageName(name.slice(0, -4));
    if (handler === undefined || isWanted(handler)) continue;
    if (system.files.exists(baseOf(layout, handler))) continue;
    try {
      system.files.remove(join(layout.lib, name));
      system.log.info(`Removed the package ${name}, nothing belongs to it`);
    } catch (error) {
      system.log.warning(`The package ${name} could not be removed: ${describe(error)}`);
    }
  }
}

function packageName(stem: string): HandlerRef | undefined {
  const [name, version, ...more] = stem.split("__");
  if (name !== undefined && version !== undefined && more.length === 0) {
    const handler = parseDirectoryName(`${name}-${version}`);
    return handler !== undefined && !isAgentName(name) && nameProblem(name) === undefined
      ? handler
      : undefined;
  }
  return parseDirectoryName(stem);
}

/** Journals of items that are not in the goal any more, and then what no journal names. */
function removeOrphanedJournals(
  system: Pick<System, "files" | "log">,
  layout: Layout,
  goal: ExtensionsGoalState,
): void {
  const isWanted = (name: string, extension: string | undefined): boolean =>
    goal.handlers.some(
      (handler) =>
        sameName(handler.name, name) &&
        (handler.multiConfig
          ? handler.settings.some((entry) => entry.name === extension)
          : extension === undefined),
    );
  for (const journal of leftJournals(system, layout)) {
    const { handler, extension } = journal.data;
    if (!isWanted(handler, extension)) journal.remove();
  }
  if (leftJournals(system, layout).length > 0) return;
  const runs = join(ownStateOf(layout), "runs");
  for (const name of system.files.list(runs)) system.files.remove(join(runs, name));
}

function servicesOf(system: Pick<System, "files">, layout: Layout, handler: HandlerRef): string {
  try {
    const { services } = readHandlerManifest(system, layout, handler).resourceLimits;
    return services.length === 0
      ? ""
      : `; it named these services, which go on: ${services.map((service) => service.name).join(", ")}`;
  } catch {
    return ""; // a broken package has no services that could be named
  }
}

/** State of agents before 2.2 moves to where it is looked for (EXT-97). */
export function migrateOldState(system: Pick<System, "files" | "log">, layout: Layout): void {
  const { files } = system;
  const old = join(layout.lib, "handler_state");
  if (files.lstat(old)?.kind !== "directory") return;
  for (const name of files.list(old)) {
    const handler = parseDirectoryName(name);
    if (handler === undefined) continue;
    const config = join(baseOf(layout, handler), "config");
    if (!files.exists(config)) continue;
    for (const [from, to] of [
      ["state", "HandlerState"],
      ["status", "HandlerStatus"],
    ] as const) {
      const source = join(old, name, from);
      const target = join(config, to);
      if (!files.exists(source) || files.exists(target)) continue;
      try {
        files.write(target, files.read(source), { mode: 0o600 });
      } catch (error) {
        system.log.warning(`${source} could not be migrated: ${describe(error)}`);
      }
    }
  }
  files.remove(old);
}
