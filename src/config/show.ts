import { type Config, type ConfigKey, configKeys, definitionOf } from "./table.ts";

/**
 * What `-show-configuration` prints (`provisioning.md` CLI-28): `Key = value` for every public key in byte order.
 * The values are the effective ones (DB-21), so they may differ from the reference where its listing was wrong.
 */
export function showConfiguration(config: Config): string {
  return shownKeys()
    .map((key) => `${key} = ${showValue(config[key])}\n`)
    .join("");
}

/** Keys of the listing in byte order; all names are ASCII, so the default sort is byte order. */
export function shownKeys(): readonly ConfigKey[] {
  return configKeys()
    .filter((key) => definitionOf(key).shown !== false)
    .toSorted();
}

/** True, False, None, decimal numbers, bare text. */
export function showValue(value: boolean | number | string | undefined): string {
  if (value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return String(value);
}
