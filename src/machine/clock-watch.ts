import type { System } from "../system/system.ts";

/** Two clocks read at the same instant. */
export interface ClockReading {
  readonly wall: number;
  readonly monotonic: number;
}

/** Small steps are what time synchronisation does all day. */
const JUMP_MS = 30_000;

export function readClocks(system: Pick<System, "clock">): ClockReading {
  return { wall: system.clock.now(), monotonic: system.clock.monotonic() };
}

/**
 * By how many ms the wall clock ran ahead of the monotonic one since the last reading, when that is more than 30 s;
 * else 0. The monotonic clock stands still while the machine is suspended, so after hibernation this is how long it
 * slept: whoever waits for a time must look again (`system.md` HIB-04). Negative when the clock was set back.
 */
export function clockJump(before: ClockReading, now: ClockReading): number {
  const jump = now.wall - before.wall - (now.monotonic - before.monotonic);
  return Math.abs(jump) > JUMP_MS ? jump : 0;
}
