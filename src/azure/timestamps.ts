import { TIMESTAMP_MINIMUM } from "../base/time.ts";

const FORM = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z?$/;

/** `YYYY-MM-DDTHH:MM:SS.ffffffZ`, also where fraction or Z were left out; undefined for other text. */
export function normalizeTimestamp(text: string): string | undefined {
  if (!FORM.test(text)) return undefined;
  const [whole = "", fraction = ""] = text.replace(/Z$/, "").split(".");
  return `${whole}.${fraction.padEnd(6, "0")}Z`;
}

/**
 * Orders two creation times as instants (DB-25): the normal form is fixed in width, so its text sorts by time and no
 * microsecond is lost on the way through a double. What cannot be read counts as the minimum.
 */
export function compareTimestamps(left: string, right: string): number {
  const a = normalizeTimestamp(left) ?? TIMESTAMP_MINIMUM;
  const b = normalizeTimestamp(right) ?? TIMESTAMP_MINIMUM;
  return a < b ? -1 : a > b ? 1 : 0;
}
