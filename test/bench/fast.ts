/**
 * The agent with timers that run quicker, so that thousands of polls take minutes. Only the bench builds it; nothing but
 * the waits differs. WAAGENT_BENCH_SPEED says how many times quicker.
 */
const speed = Number(process.env["WAAGENT_BENCH_SPEED"] ?? "1");
const { setTimeout: original } = globalThis;
globalThis.setTimeout = ((handler: () => void, milliseconds = 0, ...rest: unknown[]) =>
  original(handler, milliseconds / speed, ...rest)) as typeof setTimeout;

await import("../../src/main.ts");
export {};
