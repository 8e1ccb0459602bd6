import type { AgentContext } from "../agent/context.ts";
import { AGENT_NAME, USER_AGENT, VERSION } from "../base/identity.ts";
import { AgentError, describe } from "../base/error.ts";
import { parseJson } from "../base/json.ts";
import { type LoadedConfig, loadConfig } from "../config/load.ts";
import { formatWarning } from "../config/parse.ts";
import { detectDistro, unknownDistroWarning } from "../distro/detect.ts";
import type { Distro } from "../distro/distro.ts";
import { createSystem } from "../system/create.ts";
import type { TelemetryEvent } from "../system/event.ts";
import type { LogIdentity, LogLevel } from "../system/log.ts";
import { environment, isJournal } from "../system/process.ts";
import { join, type Root, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { earlySystem } from "./early.ts";

/** What is known before there is a log: the machine's files and programs, its distribution, its configuration. */
export interface Ground {
  readonly root: Root;
  readonly early: Pick<System, "files" | "exec">;
  readonly distro: Distro;
  readonly loaded: LoadedConfig;
}

/** Reads release, capabilities and configuration. Never fails. */
export async function prepareGround(
  directory: string | undefined,
  configured: SystemPath | undefined,
): Promise<Ground> {
  const { root, ...early } = earlySystem(directory);
  const distro = await detectDistro(early);
  const loaded = loadConfig(early, { configured, preferred: distro.configPath });
  return { root, early, distro, loaded };
}

export interface ContextOptions {
  readonly identity: LogIdentity & { readonly thread: string };
  readonly verbose: boolean;
  readonly write: (line: string) => void;
}

/** The agent's log; its place is not configurable (CLI-09). */
export const LOG_FILE: SystemPath = "/var/log/waagent.log";

/** Everything a command works with, and the first lines of its log: what is odd about configuration and distribution. */
export function createContext(
  ground: Ground,
  options: ContextOptions,
): Omit<AgentContext, "arguments"> {
  const { root, distro, loaded } = ground;
  const { config } = loaded;
  const system = createSystem({
    root,
    log: appenders(ground, options),
    http: {
      userAgent: USER_AGENT,
      proxy: {
        host: config["HttpProxy.Host"],
        port: config["HttpProxy.Port"],
        environment: environment(),
      },
      connectTo: root.isMachine ? undefined : connectMap(ground.early),
    },
    environment: {
      // `system.md` DAEMON-03: children of older agents read this.
      _AZURE_GUEST_AGENT_DAEMON_VERSION_: VERSION,
      ...(config["OS.EnableFIPS"] ? { OPENSSL_FIPS: "1" } : {}),
    },
    // Until the daemon gives events their spool, a failure is at least logged (`system.md` LOG-10).
    emit: (event) => logFailure(system, event),
  });
  for (const warning of loaded.warnings) {
    system.log.warning(`Configuration: ${formatWarning(warning)}`);
  }
  const unknown = unknownDistroWarning(distro);
  if (unknown !== undefined) system.log.warning(unknown);
  makeExtensionLogDirectory(system, config["Extension.LogDir"]);
  return {
    system,
    config,
    origins: loaded.origins,
    configFile: loaded.file,
    distro,
    version: VERSION,
  };
}

/** `system.md` LOG-05, LOG-06. */
function appenders(ground: Ground, options: ContextOptions) {
  const { config } = ground.loaded;
  const shown: LogLevel = options.verbose ? "VERBOSE" : "INFO";
  const kept: LogLevel = options.verbose || config["Logs.Verbose"] ? "VERBOSE" : "INFO";
  const provisioned = ground.early.files.exists(join(config["Lib.Dir"], "provisioned"));
  return {
    identity: options.identity,
    stdout: { level: shown, write: options.write, isJournal: isJournal() },
    file: { level: kept, path: LOG_FILE },
    console:
      config["Logs.Console"] && !provisioned
        ? { level: kept, path: "/dev/console" as const }
        : undefined,
  };
}

function logFailure(system: Pick<System, "log">, event: TelemetryEvent): void {
  if (event.success || event.log === false) return;
  system.log.error(
    `Event: name=${event.name ?? AGENT_NAME}, op=${event.operation}, message=${event.message}, duration=${event.durationMs ?? 0}`,
  );
}

/** CLI-08: it exists after every command; a file in its place is an error and stops nothing. */
function makeExtensionLogDirectory(
  system: Pick<System, "files" | "log">,
  directory: SystemPath,
): void {
  try {
    const found = system.files.stat(directory);
    if (found?.kind === "directory") return;
    if (found !== undefined) throw new AgentError("io", `${directory} is not a directory`);
    system.files.makeDirectory(directory, { mode: 0o755 });
  } catch (error) {
    system.log.error(`The log directory of extensions cannot be used: ${describe(error)}`);
  }
}

const CONNECT_FILE: SystemPath = "/run/waagent-connect.json";

/**
 * Under a scratch root, where an emulated host listens instead of the platform's addresses:
 * `{"168.63.129.16:80": "127.0.0.1:40080"}`. Errors: AgentError "bad-input" naming the file.
 */
export function connectMap(system: Pick<System, "files">): ReadonlyMap<string, string> | undefined {
  const text = system.files.readTextIfExists(CONNECT_FILE, { maxBytes: 64 * 1024 });
  if (text === undefined) return undefined;
  const value = parseJson(text, CONNECT_FILE);
  if (!(value instanceof Map)) {
    throw new AgentError("bad-input", `${CONNECT_FILE} must hold a JSON object`);
  }
  return new Map(
    [...value].map(([from, to]) => {
      if (typeof to === "string") return [from, to];
      throw new AgentError("bad-input", `${CONNECT_FILE}: the value of ${from} is not text`);
    }),
  );
}
