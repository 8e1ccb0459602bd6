import { describe } from "../../base/error.ts";
import { JsonNumber } from "../../base/json.ts";
import { CODE } from "../../extensions/failure.ts";
import { type HandlerManifest, readHandlerManifest } from "../../extensions/handler-manifest.ts";
import { readHeartbeat } from "../../extensions/heartbeat.ts";
import { baseOf, displayName, sameName, type Layout } from "../../extensions/layout.ts";
import { settingsOnDisk } from "../../extensions/reports.ts";
import { readStatusFile, statusFileOf } from "../../extensions/status-file.ts";
import { type HandlerOnDisk, listHandlers, readStatus } from "../../extensions/store.ts";
import type { HandlerState } from "../../report/agent-state.ts";
import type { System } from "../../system/system.ts";
import { undecryptableSettings } from "./certificates.ts";
import { inspectCommand } from "./command-file.ts";
import type { Facts, HandlerFacts } from "./facts.ts";

export interface HandlersOptions {
  readonly states: readonly HandlerState[];
  readonly architecture: string;
  readonly unseen: (what: string) => void;
}

/**
 * Handlers as the daemon tells of them, with what their folders show. Folders are for root: without them there is
 * still what the daemon says. One handler that cannot be read does not hide the others.
 */
export function gatherHandlers(
  system: Pick<System, "files" | "clock" | "log">,
  layout: Layout,
  options: HandlersOptions,
): Pick<Facts, "handlers" | "seesFolders"> {
  const { states, unseen } = options;
  let onDisk: readonly HandlerOnDisk[];
  try {
    onDisk = listHandlers(system, layout);
  } catch {
    unseen(`files of extensions below ${layout.lib}: they are for root`);
    const told = states.map((state) => ({ ...NOTHING, ...nameOf(state), states: [state] }));
    return { handlers: told, seesFolders: false };
  }
  const wanted = onDisk.filter(
    (handler) =>
      handler.state === "Installed" ||
      handler.state === "Enabled" ||
      states.some((state) => isAbout(state, handler)),
  );
  const known = wanted.map((handler): HandlerFacts => {
    const own = states.filter((state) => isAbout(state, handler));
    const { name, version } = handler;
    try {
      return {
        ...NOTHING,
        name,
        version,
        states: own,
        ...lookAt(system, layout, handler, options),
      };
    } catch (error) {
      unseen(`the folder of ${name} ${version}: ${describe(error)}`);
      return { ...NOTHING, name, version, states: own };
    }
  });
  const others = states.filter((state) => !wanted.some((handler) => isAbout(state, handler)));
  const told = others.map((state) => ({ ...NOTHING, ...nameOf(state), states: [state] }));
  return { handlers: [...known, ...told], seesFolders: true };
}

const NOTHING = {
  written: undefined,
  commands: [],
  undecryptable: [],
  badStatus: [],
  heartbeat: undefined,
} as const;

function nameOf({ name, version }: HandlerState): { name: string; version: string } {
  return { name, version };
}

/** States are named `handler` or `handler.extension`. */
function isAbout(state: HandlerState, handler: HandlerOnDisk): boolean {
  if (state.version !== handler.version) return false;
  return (
    sameName(state.name, handler.name) ||
    state.name.toLowerCase().startsWith(`${handler.name.toLowerCase()}.`)
  );
}

function lookAt(
  system: Pick<System, "files" | "clock" | "log">,
  layout: Layout,
  handler: HandlerOnDisk,
  options: HandlersOptions,
): Omit<HandlerFacts, "name" | "version" | "states"> {
  const manifest = manifestOf(system, layout, handler);
  const isActive = handler.state === "Installed" || handler.state === "Enabled";
  return {
    written: readStatus(system, layout, handler),
    commands: manifest === undefined ? [] : commandsOf(system, layout, handler, manifest, options),
    undecryptable: undecryptableSettings(system, layout, handler),
    badStatus: badStatusOf(system, layout, handler),
    heartbeat:
      manifest?.reportHeartbeat === true && isActive
        ? readHeartbeat(system, layout, handler)
        : undefined,
  };
}

function manifestOf(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerOnDisk,
): HandlerManifest | undefined {
  try {
    return readHandlerManifest(system, layout, handler);
  } catch {
    return undefined; // a package that is broken has said so when it was processed
  }
}

/** A file that is the program of several commands is told once. */
function commandsOf(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerOnDisk,
  manifest: HandlerManifest,
  options: HandlersOptions,
): HandlerFacts["commands"] {
  const found = new Map<string, HandlerFacts["commands"][number]>();
  for (const [operation, command] of Object.entries(manifest.commands)) {
    if (command === undefined) continue;
    const base = baseOf(layout, handler);
    const problem = inspectCommand(system, base, command, options.architecture);
    if (problem !== undefined && !found.has(problem.file))
      found.set(problem.file, { operation, problem });
  }
  return [...found.values()];
}

function badStatusOf(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerOnDisk,
): HandlerFacts["badStatus"] {
  return settingsOnDisk(system, layout, handler).flatMap(({ extension, sequence }) => {
    const name = displayName(handler.name, extension);
    const source = { handler, name, extension, sequence };
    const { code, message, operation } = readStatusFile(system, layout, source);
    // What the agent says in place of a file has no operation.
    const isBroken =
      operation === null && code instanceof JsonNumber && code.toNumber() === CODE.statusFile;
    return isBroken ? [{ file: statusFileOf(layout, source), reason: message ?? "" }] : [];
  });
}
