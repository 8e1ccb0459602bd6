/** Timestamps as the platform writes them (`wire-protocol.md` Conventions: TS6, TS0). */

/** `YYYY-MM-DDTHH:MM:SS.ffffffZ`, UTC, always six fraction digits. */
export function formatTimestamp6(epochMs: number): string {
  const iso = new Date(Math.floor(epochMs)).toISOString();
  const micros = Math.floor((epochMs - Math.floor(epochMs)) * 1000);
  return `${iso.slice(0, -1)}${String(micros).padStart(3, "0")}Z`;
}

/** `YYYY-MM-DDTHH:MM:SSZ`, UTC. */
export function formatTimestamp0(epochMs: number): string {
  return `${new Date(epochMs).toISOString().slice(0, 19)}Z`;
}

/** The TS6 minimum: stands for "no creation time known". */
export const TIMESTAMP_MINIMUM = "0001-01-01T00:00:00.000000Z";

/**
 * Ticks (100 ns since 0001-01-01) as TS6; absent, empty, `0` or unparsable gives the minimum.
 * Double arithmetic on purpose: the digits are persisted and compared (`wire-protocol.md` ECFG-06).
 */
export function ticksToTimestamp6(ticks: string | undefined): string {
  const text = (ticks ?? "").trim();
  if (!/^\d+$/.test(text)) return TIMESTAMP_MINIMUM;
  const seconds = Number(text) / 1e7;
  if (seconds === 0) return TIMESTAMP_MINIMUM;
  let whole = Math.floor(seconds);
  let micros = roundHalfEven((seconds - whole) * 1e6);
  if (micros === 1_000_000) {
    whole += 1;
    micros = 0;
  }
  const epochMs = (whole - SECONDS_FROM_YEAR_1) * 1000;
  const date = new Date(epochMs);
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999) return TIMESTAMP_MINIMUM;
  return `${String(date.getUTCFullYear()).padStart(4, "0")}${date.toISOString().slice(-20, -5)}.${String(micros).padStart(6, "0")}Z`;
}

const SECONDS_FROM_YEAR_1 = 62_135_596_800;

function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
