import { describe } from "../base/error.ts";
import type { System } from "../system/system.ts";
import type { SystemPath } from "../system/root.ts";
import { type ConfigWarning, parseConfig, type ResolvedConfig, resolveConfig } from "./parse.ts";

export interface LoadedConfig extends ResolvedConfig {
  /** The file that was read; undefined when there was none and everything is at its default. */
  readonly file: SystemPath | undefined;
}

/** A configuration file is a few KiB; more is something else. */
const MAX_BYTES = 1024 * 1024;

/**
 * Where packages and images put the file besides the distribution's own place (OS-14, DB-32, `system.md` PKG-10).
 * One file only, no drop-in directory: tools edit it by deleting `Key=` lines and appending one (CONF-08), and
 * expect that to be the last word.
 */
const FALLBACKS: readonly SystemPath[] = [
  "/etc/waagent.conf",
  "/usr/share/oem/waagent.conf",
  "/oem/waagent.conf",
  "/usr/share/waagent/waagent.conf",
  "/usr/share/defaults/waagent/waagent.conf",
  "/usr/local/etc/waagent.conf",
];

/**
 * Reads the configuration. `configured` is the path of `-configuration-path:`, then no other file is tried;
 * `preferred` the distribution's. Never fails: a file that is missing, empty or unreadable leaves the defaults and
 * says so in a warning (DB-21), because an agent that does not start cannot be repaired through it.
 */
export function loadConfig(
  system: Pick<System, "files">,
  paths: { readonly configured?: SystemPath | undefined; readonly preferred: SystemPath },
): LoadedConfig {
  const candidates =
    paths.configured === undefined
      ? [paths.preferred, ...FALLBACKS.filter((file) => file !== paths.preferred)]
      : [paths.configured];
  const problems: ConfigWarning[] = [];
  for (const file of candidates) {
    const text = readConfigText(system, file, problems);
    if (text === undefined) continue;
    const resolved = parseConfig(text, file);
    return { ...resolved, file, warnings: [...problems, ...resolved.warnings] };
  }
  if (problems.length === 0) {
    const [first = paths.preferred, ...others] = candidates;
    const elsewhere = others.length === 0 ? "" : ` and none of ${others.join(", ")}`;
    problems.push({ file: first, message: `The file does not exist${elsewhere}` });
  }
  problems.push({
    file: candidates[0] ?? paths.preferred,
    message: "No configuration was read; every key has its default value",
  });
  return { ...resolveConfig([]), file: undefined, warnings: problems };
}

function readConfigText(
  system: Pick<System, "files">,
  file: SystemPath,
  problems: ConfigWarning[],
): string | undefined {
  let bytes: Uint8Array;
  try {
    if (!system.files.exists(file)) return undefined;
    bytes = system.files.read(file, { maxBytes: MAX_BYTES });
  } catch (error) {
    problems.push({ file, message: `The file could not be read: ${describe(error)}` });
    return undefined;
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // A Latin-1 word in a comment must not cost the whole configuration.
    problems.push({ file, message: "The file is not valid UTF-8; bad bytes are read as \uFFFD" });
    text = new TextDecoder("utf-8").decode(bytes);
  }
  if (text.trim() !== "") return text;
  problems.push({ file, message: "The file is empty" });
  return undefined;
}
