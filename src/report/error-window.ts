/**
 * How long something has been failing without a success between (`wire-protocol.md` §17): undefined while it works,
 * else the monotonic time of the first failure, ms.
 */
export type ErrorWindow = number | undefined;

export function afterOutcome(window: ErrorWindow, success: boolean, now: number): ErrorWindow {
  return success ? undefined : (window ?? now);
}

/** It has failed for at least `limitMs`. */
export function isTriggered(window: ErrorWindow, now: number, limitMs: number): boolean {
  return window !== undefined && now - window >= limitMs;
}

/**
 * Minutes below an hour, else hours, with one or two decimals: `5.0 min`, `1.25 hr`. Whole days count as 24 hours.
 */
export function durationText(ms: number): string {
  const minutes = rounded(ms / 60_000);
  return minutes < 60 ? `${decimals(minutes)} min` : `${decimals(rounded(ms / 3_600_000))} hr`;
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

function decimals(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}
