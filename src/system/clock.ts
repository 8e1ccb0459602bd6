import { AgentError } from "../base/error.ts";

export interface Clock {
  /** Wall clock, ms since the epoch, with microsecond fraction. */
  now(): number;
  /** Never goes back; ms. Does not advance while the machine is suspended, see `wake`. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with AgentError "cancelled" when the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export function createClock(): Clock {
  return {
    now: () => performance.timeOrigin + performance.now() + wallDrift(),
    monotonic: () => performance.now(),
    sleep,
  };
}

/** The wall clock can be stepped; performance.now cannot see that, Date can. */
function wallDrift(): number {
  const drift = Date.now() - (performance.timeOrigin + performance.now());
  return Math.abs(drift) < 2 ? 0 : drift;
}

/** Timers of the runtime hold 31 bits; a longer wait is several. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  for (let left = ms; ; left -= LONGEST_TIMER_MS) {
    await sleepOnce(Math.min(Math.max(0, left), LONGEST_TIMER_MS), signal);
    if (left <= LONGEST_TIMER_MS) return;
  }
}

function sleepOnce(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(cancelled());
      return;
    }
    const stop = (): void => {
      clearTimeout(timer);
      reject(cancelled());
    };
    const timer = setTimeout(
      () => {
        signal?.removeEventListener("abort", stop);
        resolve();
      },
      Math.max(0, ms),
    );
    signal?.addEventListener("abort", stop, { once: true });
  });
}

function cancelled(): AgentError {
  return new AgentError("cancelled", "The wait was cancelled");
}
