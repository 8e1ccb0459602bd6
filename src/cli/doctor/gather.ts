import { runningDaemon } from "../../agent/instance.ts";
import { DEFAULT_ENDPOINT } from "../../azure/wire-client.ts";
import { parseIpv4 } from "../../base/address.ts";
import { describe } from "../../base/error.ts";
import { redact } from "../../base/redact.ts";
import { formatWarning } from "../../config/parse.ts";
import { layoutOf } from "../../extensions/layout.ts";
import { readPolicy } from "../../extensions/policy.ts";
import { mountOf, readMounts } from "../../machine/mounts.ts";
import { type AgentState, readAgentState } from "../../report/agent-state.ts";
import { architecture, environment, pid as ownPid } from "../../system/process.ts";
import { join, type SystemPath } from "../../system/root.ts";
import type { System } from "../../system/system.ts";
import { type Ground, LOG_FILE } from "../context.ts";
import type { AgentFacts, Facts, MachineFacts } from "./facts.ts";
import { gatherHandlers } from "./gather-handlers.ts";
import { gatherNetwork } from "./gather-network.ts";

export interface GatherOptions {
  readonly isRoot: boolean;
  /** Variables that may name a proxy; see `daemonEnvironment`. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly pid: number | undefined;
  readonly unseen: readonly string[];
}

/** Looks at everything once, side by side where it takes time. Reads only. Never throws. */
export async function gatherFacts(
  system: Pick<System, "root" | "files" | "exec" | "http" | "clock" | "log">,
  ground: Ground,
  options: GatherOptions,
): Promise<Facts> {
  const { config, warnings } = ground.loaded;
  const unseen = [...options.unseen];
  const see = (what: string): void => void unseen.push(what);
  const state = stateOf(system, see);
  const network = gatherNetwork(system, {
    endpoint: endpointOf(system, config["Lib.Dir"] as SystemPath),
    isRoot: options.isRoot,
    isFirewalled: config["OS.EnableFirewall"],
    proxy: {
      host: config["HttpProxy.Host"],
      port: config["HttpProxy.Port"],
      environment: options.environment,
    },
    storage: state?.storage ?? [],
    unseen: see,
  });
  const policyFile = config["Policy.PolicyFilePath"] as SystemPath;
  return {
    now: system.clock.now(),
    config,
    configWarnings: warnings.map(formatWarning),
    agent: agentFacts(system, {
      lib: config["Lib.Dir"] as SystemPath,
      pid: options.pid,
      state,
      see,
    }),
    machine: machineFacts(system, ground, see),
    ...gatherHandlers(system, layoutOf(config), {
      ...{ states: state?.handlers ?? [], architecture: architecture(), unseen: see },
    }),
    policy: {
      file: policyFile,
      state: readPolicy(system, policyFile, { enabled: config["Debug.EnableExtensionPolicy"] }),
    },
    network: await network,
    unseen,
  };
}

/**
 * The proxy variables of the running daemon, which are those of its service and not of the operator's shell. Without
 * a daemon, or without the right to look at it, the operator's own have to do.
 */
export function daemonEnvironment(
  system: Pick<System, "files">,
  ground: Ground,
): Pick<GatherOptions, "environment" | "pid" | "unseen"> {
  const pid = runningDaemon(system, ground.loaded.config, ownPid());
  const own = { environment: environment(), pid };
  if (pid === undefined) return { ...own, unseen: [] };
  try {
    const bytes = system.files.read(`/proc/${pid}/environ`, { maxBytes: 1024 * 1024 });
    const entries = Buffer.from(bytes).toString("utf8").split("\0");
    const variables = entries.map((entry): [string, string] => {
      const at = entry.indexOf("=");
      return [entry.slice(0, Math.max(0, at)), entry.slice(at + 1)];
    });
    return { environment: Object.fromEntries(variables), pid, unseen: [] };
  } catch {
    return {
      ...own,
      unseen: [`proxy variables of the agent's service (pid ${pid}): they are for root`],
    };
  }
}

function stateOf(
  system: Pick<System, "files">,
  see: (what: string) => void,
): AgentState | undefined {
  try {
    return readAgentState(system);
  } catch (error) {
    see(`what the agent says about itself: ${describe(error)}`);
    return undefined;
  }
}

/** What detection found; nearly everywhere it is the fixed address. */
function endpointOf(system: Pick<System, "files">, lib: SystemPath): string {
  try {
    const text = system.files.readTextIfExists(join(lib, "WireServerEndpoint"), { maxBytes: 1024 });
    const address = text?.trim() ?? "";
    return parseIpv4(address) === undefined ? DEFAULT_ENDPOINT : address;
  } catch {
    return DEFAULT_ENDPOINT; // for root only
  }
}

const MAX_LOG_BYTES = 64 * 1024 * 1024;
const SHOWN_ERRORS = 3;

function agentFacts(
  system: Pick<System, "files">,
  about: {
    readonly lib: SystemPath;
    readonly pid: number | undefined;
    readonly state: AgentState | undefined;
    readonly see: (what: string) => void;
  },
): AgentFacts {
  let disabled = false;
  let errors: readonly string[] = [];
  try {
    disabled = system.files.exists(join(about.lib, "disable_agent"));
  } catch {
    // For root only; that its folder cannot be seen is told with the extensions' files.
  }
  try {
    const bytes = system.files.exists(LOG_FILE)
      ? system.files.read(LOG_FILE, { maxBytes: MAX_LOG_BYTES })
      : new Uint8Array();
    const lines = Buffer.from(bytes).toString("utf8").split("\n");
    errors = lines
      .filter((line) => /^\S+ ERROR /.test(line))
      .slice(-SHOWN_ERRORS)
      .map(redact);
  } catch {
    about.see(`${LOG_FILE}: it is for root`);
  }
  return { pid: about.pid, state: about.state, disabled, errors };
}

function machineFacts(
  system: Pick<System, "files">,
  { loaded }: Ground,
  see: (what: string) => void,
): MachineFacts {
  const lib = loaded.config["Lib.Dir"] as SystemPath;
  const mounts = readMounts(system);
  if (mounts.length === 0) see("mounts: /proc/self/mountinfo is not there");
  const directories = [lib, loaded.config["Extension.LogDir"] as SystemPath];
  return {
    libMount: mountOf(mounts, lib),
    space: directories.flatMap((directory) => {
      const space = system.files.freeSpace(directory);
      return space === undefined ? [] : [{ directory, ...space }];
    }),
    architecture: architecture(),
  };
}
