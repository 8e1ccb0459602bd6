import type { SystemPath } from "../system/root.ts";
import {
  type Config,
  type ConfigKey,
  configKeys,
  definitionOf,
  INERT_KEYS,
  isConfigKey,
  type KeyDefinition,
} from "./table.ts";

/** One `Key=value` line; `text` is the value after quotes and comments are gone, undefined for `None` (CONF-04). */
export interface Assignment {
  readonly file: SystemPath;
  /** From 1. */
  readonly line: number;
  readonly key: string;
  readonly text: string | undefined;
}

/** Something in the file that does not mean what its author may think; the agent goes on with what it says. */
export interface ConfigWarning {
  readonly file: SystemPath;
  readonly line?: number;
  readonly key?: string;
  /** A whole sentence without place: "Logs.Verbose must be y or n, not \"yes\"; n is used". */
  readonly message: string;
}

/** Where an effective value comes from. */
export type Origin =
  | { readonly from: "file"; readonly file: SystemPath; readonly line: number }
  | { readonly from: "default" }
  /** The key is absent and takes the value of others. */
  | { readonly from: "keys"; readonly keys: readonly string[] };

export interface ResolvedConfig {
  readonly config: Config;
  readonly origins: Readonly<Record<ConfigKey, Origin>>;
  /** Keys that have a value in the file, also a bad one (CONF-07). */
  readonly present: ReadonlySet<string>;
  readonly warnings: readonly ConfigWarning[];
}

/**
 * The lines of a configuration file (`provisioning.md` CONF-02..04, DB-21). A line counts when it has a `=` and
 * does not begin with `#`; the value ends at the first `#`; blanks and double quotes around it are dropped.
 * CRLF ends a line too.
 */
export function readAssignments(text: string, file: SystemPath): readonly Assignment[] {
  const found: Assignment[] = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
    const equals = line.indexOf("=");
    if (equals < 0 || line.startsWith("#")) continue;
    const key = line.slice(0, equals).trim();
    // An indented comment that has a `=`: nobody means it as a key (CONF-02).
    if (key.startsWith("#")) continue;
    const value = (line.slice(equals + 1).split("#")[0] ?? "").replace(/^[ "]+|[ "]+$/g, "").trim();
    found.push({ file, line: index + 1, key, text: value === "None" ? undefined : value });
  }
  return found;
}

/** Typed effective values out of assignments (CONF-05..07); the last of equal keys wins. Pure. */
export function resolveConfig(assignments: readonly Assignment[]): ResolvedConfig {
  const warnings: ConfigWarning[] = [];
  const last = new Map<string, Assignment>();
  for (const assignment of assignments) {
    warnings.push(...judgeKey(assignment, last.get(assignment.key)));
    last.set(assignment.key, assignment);
  }
  const values: Record<string, boolean | number | string | undefined> = {};
  const origins: Record<string, Origin> = {};
  for (const key of configKeys()) {
    const definition = definitionOf(key);
    const assignment = last.get(key);
    values[key] = definition.default;
    origins[key] = { from: "default" };
    if (assignment?.text === undefined) continue;
    const reading = readValue(key, definition, assignment.text);
    if (reading.problem !== undefined) {
      warnings.push(at(assignment, `${reading.problem}; ${shown(reading.value)} is used`));
    }
    values[key] = reading.value;
    if (reading.usable) {
      origins[key] = { from: "file", file: assignment.file, line: assignment.line };
    }
  }
  applyFollowers(values, origins);
  const present = new Set(
    [...last.values()].flatMap(({ key, text }) => (text === undefined ? [] : [key])),
  );
  warnings.push(...judgeTogether(last, present));
  return {
    config: values as unknown as Config,
    origins: origins as Record<ConfigKey, Origin>,
    present,
    warnings: warnings.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)),
  };
}

/** Reads the whole text of one file. Pure. */
export function parseConfig(text: string, file: SystemPath): ResolvedConfig {
  return resolveConfig(readAssignments(text, file));
}

/** "/etc/waagent.conf:12: Unknown key ..." */
export function formatWarning(warning: ConfigWarning): string {
  const place = warning.line === undefined ? warning.file : `${warning.file}:${warning.line}`;
  return `${place}: ${warning.message}`;
}

function at(assignment: Assignment, message: string): ConfigWarning {
  return { file: assignment.file, line: assignment.line, key: assignment.key, message };
}

function judgeKey(assignment: Assignment, earlier: Assignment | undefined): ConfigWarning[] {
  const { key } = assignment;
  if (key === "") return [at(assignment, "There is a value without a key; the line is ignored")];
  if (!isConfigKey(key)) {
    if (INERT_KEYS.includes(key)) return [];
    const near = nearestKey(key);
    const hint = near === undefined ? "" : `; did you mean ${near}?`;
    return [at(assignment, `The key ${printable(key)} is unknown and ignored${hint}`)];
  }
  if (earlier !== undefined && earlier.text !== assignment.text) {
    return [
      at(assignment, `${key} was already set on line ${earlier.line}; the last value counts`),
    ];
  }
  return [];
}

function judgeTogether(
  last: ReadonlyMap<string, Assignment>,
  present: ReadonlySet<string>,
): ConfigWarning[] {
  const newer = last.get("AutoUpdate.UpdateToLatestVersion");
  if (newer === undefined || !present.has(newer.key) || !present.has("AutoUpdate.Enabled")) {
    return [];
  }
  return [
    at(
      newer,
      "AutoUpdate.Enabled and AutoUpdate.UpdateToLatestVersion are both set; AutoUpdate.UpdateToLatestVersion counts",
    ),
  ];
}

type Value = boolean | number | string | undefined;

interface Reading {
  readonly value: Value;
  /** False when the default stands in for what the file says. */
  readonly usable: boolean;
  readonly problem?: string;
}

function readValue(key: string, definition: KeyDefinition, text: string): Reading {
  const bad = (wanted: string): Reading => ({
    value: definition.default,
    usable: false,
    problem: `${key} must be ${wanted}, not ${printable(text)}`,
  });
  switch (definition.type) {
    case "boolean":
      if (/^[yn]$/i.test(text)) return { value: text.toLowerCase() === "y", usable: true };
      return bad("y or n");
    case "integer":
      if (!/^[+-]?[0-9]+(_[0-9]+)*$/.test(text)) return bad("a whole number");
      return inRange(key, definition, text);
    case "path":
      return text.startsWith("/") && !text.includes("\0")
        ? { value: text, usable: true }
        : bad("an absolute path");
    case "string":
      if (definition.values === undefined || definition.values.includes(text)) {
        return { value: text, usable: true };
      }
      return {
        value: text,
        usable: true,
        problem: `${key} should be one of ${definition.values.join(", ")}`,
      };
  }
}

/** The nearest value that is allowed; for a key without a default, none. */
function inRange(key: string, definition: KeyDefinition, text: string): Reading {
  const value = Number(text.replaceAll("_", ""));
  const minimum = definition.minimum ?? Number.MIN_SAFE_INTEGER;
  const maximum = definition.maximum ?? Number.MAX_SAFE_INTEGER;
  if (value >= minimum && value <= maximum) return { value, usable: true };
  const limits =
    definition.maximum === undefined
      ? `at least ${minimum}`
      : definition.minimum === undefined
        ? `at most ${maximum}`
        : `between ${minimum} and ${maximum}`;
  return {
    value:
      definition.default === undefined ? undefined : Math.min(maximum, Math.max(minimum, value)),
    usable: definition.default !== undefined,
    problem: `${key} must be ${limits}, not ${text.slice(0, 40)}`,
  };
}

/** Keys that are absent take the value of others (CONF-11, CONF-20, CONF-31). */
function applyFollowers(values: Record<string, Value>, origins: Record<string, Origin>): void {
  for (const key of configKeys()) {
    const { follows, type } = definitionOf(key);
    if (follows === undefined || origins[key]?.from === "file") continue;
    const sources = follows.filter((source) => origins[source]?.from === "file");
    if (sources.length === 0) continue;
    values[key] =
      type === "boolean"
        ? sources.some((source) => values[source] === true)
        : values[sources[0] ?? ""];
    origins[key] = { from: "keys", keys: sources };
  }
}

function shown(value: Value): string {
  if (value === undefined) return "no value";
  if (typeof value === "boolean") return value ? "y" : "n";
  return typeof value === "number" ? String(value) : printable(value);
}

/** Quoted, one line, bounded: the text comes from a file anybody may have damaged. */
function printable(text: string): string {
  return JSON.stringify(text.length <= 80 ? text : `${text.slice(0, 80)}...`);
}

/** A known key that differs in case, dots or one or two letters. */
function nearestKey(key: string): string | undefined {
  if (key.length > 64) return undefined;
  const plain = (text: string): string => text.toLowerCase().replaceAll(/[._\s-]/g, "");
  let best: { readonly key: string; readonly distance: number } | undefined;
  for (const candidate of configKeys()) {
    const distance = editDistance(plain(key), plain(candidate));
    if (distance <= 2 && (best === undefined || distance < best.distance)) {
      best = { key: candidate, distance };
    }
  }
  return best?.key;
}

function editDistance(left: string, right: string): number {
  let previous = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i += 1) {
    const current = [i];
    for (let j = 1; j <= right.length; j += 1) {
      const replace = (previous[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1);
      current.push(Math.min(replace, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[right.length] ?? 0;
}
