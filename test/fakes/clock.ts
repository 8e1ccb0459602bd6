import { AgentError } from "../../src/base/error.ts";
import type { Clock } from "../../src/system/clock.ts";

/** A clock that only moves when a test says so; sleepers wake in order of their time. */
export class FakeClock implements Clock {
  #now: number;
  #elapsed = 0;
  #sleepers: { at: number; wake: () => void }[] = [];
  /** With true, sleeping takes no real time: the clock jumps to the end of every sleep. */
  automatic: boolean;

  constructor(options: { now?: number; automatic?: boolean } = {}) {
    this.#now = options.now ?? Date.UTC(2030, 0, 1);
    this.automatic = options.automatic ?? true;
  }

  now(): number {
    return this.#now + this.#elapsed;
  }

  monotonic(): number {
    return this.#elapsed;
  }

  /** Steps the wall clock only, as an operator or the host would. */
  step(ms: number): void {
    this.#now += ms;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true)
      return Promise.reject(new AgentError("cancelled", "The wait was cancelled"));
    if (this.automatic) {
      this.#elapsed += Math.max(0, ms);
      return new Promise((resolve) => setImmediate(resolve));
    }
    return new Promise((resolve, reject) => {
      const sleeper = { at: this.#elapsed + ms, wake: resolve };
      this.#sleepers.push(sleeper);
      signal?.addEventListener("abort", () => {
        this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
        reject(new AgentError("cancelled", "The wait was cancelled"));
      });
    });
  }

  /** Moves time and lets everything that became due run. */
  async advance(ms: number): Promise<void> {
    const end = this.#elapsed + ms;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      const next = this.#sleepers.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > end) break;
      this.#sleepers = this.#sleepers.filter((other) => other !== next);
      this.#elapsed = Math.max(this.#elapsed, next.at);
      next.wake();
    }
    this.#elapsed = end;
    await new Promise((resolve) => setImmediate(resolve));
  }
}
