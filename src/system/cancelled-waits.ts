import type { System } from "./system.ts";

/**
 * The same system, whose sleeps end with AgentError "cancelled" when the signal aborts, also those of code that knows
 * no signal. Programs and requests that run are finished: only waiting may be cut short anywhere.
 */
export function withCancelledWaits(system: System, signal: AbortSignal): System {
  const { clock } = system;
  return {
    ...system,
    clock: {
      now: () => clock.now(),
      monotonic: () => clock.monotonic(),
      sleep: (ms, own) =>
        clock.sleep(ms, own === undefined ? signal : AbortSignal.any([own, signal])),
    },
  };
}
