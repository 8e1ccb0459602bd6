import { clockJump, readClocks } from "../machine/clock-watch.ts";
import type { System } from "../system/system.ts";
import type { Task } from "./tasks.ts";

const PERIOD_MS = 10_000;
const LIMIT_MS = 60_000;

/**
 * Notices that the machine was suspended or its clock set, and then makes all periodic work due: after hibernation
 * certificates, endpoint and disks may be others, and waits that were begun before mean nothing (`system.md` HIB-04).
 */
export function clockTask(system: Pick<System, "clock" | "log">, wake: () => void): Task {
  let last = readClocks(system);
  return {
    thread: "EnvHandler",
    name: "WatchClock",
    periodMs: () => PERIOD_MS,
    limitMs: LIMIT_MS,
    run: async () => {
      const now = readClocks(system);
      const jump = clockJump(last, now);
      last = now;
      if (jump === 0) return;
      system.log.info(
        `The clock went ${jump > 0 ? "ahead" : "back"} by ${Math.round(Math.abs(jump) / 1000)} s (suspension, or it was set); all periodic work starts over`,
      );
      wake();
    },
  };
}
