import { AgentError } from "../base/error.ts";
import { redact } from "../base/redact.ts";
import {
  defaultFile,
  defaultFileFor,
  type DefaultFileName,
  defaultFileNames,
} from "../config/default-file.ts";
import { type LoadedConfig, loadConfig } from "../config/load.ts";
import { formatWarning, type Origin } from "../config/parse.ts";
import { showValue } from "../config/show.ts";
import { type ConfigKey, configKeys, definitionOf, isConfigKey } from "../config/table.ts";
import { detectDistro, detectRelease } from "../distro/detect.ts";
import { writeStdout } from "../system/process.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { earlySystem } from "./early.ts";
import { EXIT } from "./exit-codes.ts";
import type { OperatorData } from "./operator-commands.ts";
import { configurationPath } from "./run.ts";

type Machine = Pick<System, "files" | "exec">;

/** `waagent config check`: exit 0 when the file says nothing odd, 1 otherwise. */
export async function checkConfig(
  data: OperatorData,
  options: { readonly file?: string | undefined; readonly json?: boolean | undefined },
): Promise<number> {
  const configured =
    options.file === undefined ? undefined : configurationPath(options.file, data.root);
  const loaded = await load(earlySystem(data.root), configured);
  writeStdout(options.json === true ? checkJson(loaded) : checkText(loaded));
  return loaded.warnings.length === 0 ? EXIT.ok : EXIT.failure;
}

/** `waagent config show`: effective values with their origin, also of keys that the classic listing leaves out. */
export async function showConfig(
  data: OperatorData,
  options: {
    readonly key?: string | undefined;
    readonly changed?: boolean | undefined;
    readonly json?: boolean | undefined;
  },
): Promise<number> {
  const { key } = options;
  if (key !== undefined && !isConfigKey(key)) {
    throw new AgentError("bad-input", `There is no configuration key ${JSON.stringify(key)}`);
  }
  const loaded = await load(earlySystem(data.root), undefined);
  const keys = (key === undefined ? configKeys().toSorted() : [key]).filter(
    (candidate) =>
      options.changed !== true || loaded.config[candidate] !== definitionOf(candidate).default,
  );
  writeStdout(options.json === true ? showJson(loaded, keys) : showText(loaded, keys));
  return EXIT.ok;
}

/** `waagent config default`. Errors: a name there is no file for, with the names there are. */
export async function printDefault(
  data: OperatorData,
  distro: string | undefined,
): Promise<number> {
  writeStdout(defaultFile(distro === undefined ? await ownFile(data) : fileNamed(distro)));
  return EXIT.ok;
}

async function ownFile(data: OperatorData): Promise<DefaultFileName> {
  return defaultFileFor(await detectRelease(earlySystem(data.root)));
}

function fileNamed(name: string): DefaultFileName {
  const found = defaultFileNames().find((candidate) => candidate === name);
  if (found !== undefined) return found;
  throw new AgentError(
    "bad-input",
    `There is no default file ${JSON.stringify(name)}; there are ${defaultFileNames().join(", ")}`,
  );
}

async function load(system: Machine, configured: SystemPath | undefined): Promise<LoadedConfig> {
  const { configPath } = await detectDistro(system);
  return loadConfig(system, { configured, preferred: configPath });
}

/** One line for each warning, or one that all is well. */
export function checkText(loaded: LoadedConfig): string {
  if (loaded.warnings.length === 0) return `${loaded.file}: no problems\n`;
  return loaded.warnings.map((warning) => `${formatWarning(warning)}\n`).join("");
}

function checkJson(loaded: LoadedConfig): string {
  return `${JSON.stringify({ file: loaded.file ?? null, warnings: loaded.warnings }, null, 2)}\n`;
}

/** `Key = value    # origin`, comments in one column. */
export function showText(loaded: LoadedConfig, keys: readonly ConfigKey[]): string {
  const rows = keys.map((key) => ({
    text: `${key} = ${printed(loaded, key)}`,
    origin: originText(loaded.origins[key]),
  }));
  const width = Math.min(60, Math.max(0, ...rows.map(({ text }) => text.length)));
  return rows.map(({ text, origin }) => `${text.padEnd(width)}  # ${origin}\n`).join("");
}

function showJson(loaded: LoadedConfig, keys: readonly ConfigKey[]): string {
  const values = keys.map((key) => {
    const value = loaded.config[key];
    return [
      key,
      {
        value: typeof value === "string" ? redact(value) : (value ?? null),
        origin: loaded.origins[key],
      },
    ];
  });
  return `${JSON.stringify({ file: loaded.file ?? null, values: Object.fromEntries(values) }, null, 2)}\n`;
}

/** A proxy may carry a password: unlike the file, a terminal is often shared. */
function printed(loaded: LoadedConfig, key: ConfigKey): string {
  return redact(showValue(loaded.config[key]));
}

function originText(origin: Origin): string {
  switch (origin.from) {
    case "file":
      return `${origin.file}:${origin.line}`;
    case "keys":
      return `as ${origin.keys.join(" and ")}`;
    case "default":
      return "default";
  }
}
