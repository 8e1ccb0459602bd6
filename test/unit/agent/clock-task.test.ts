import { expect, test } from "bun:test";
import { clockTask } from "../../../src/agent/clock-task.ts";
import { startTasks, type Task } from "../../../src/agent/tasks.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const HOUR_MS = 3_600_000;

test("system.md HIB-04: after a suspension all periodic work is due once, ordinary time wakes nobody", async () => {
  using system = createFakeSystem();
  const { signal } = new AbortController();
  let wakes = 0;
  const task = clockTask(system, () => {
    wakes += 1;
  });
  await system.clock.sleep(task.periodMs());
  await task.run(signal);
  expect(wakes).toBe(0);
  system.clock.step(8 * 3_600_000);
  await task.run(signal);
  await task.run(signal);
  expect(wakes).toBe(1);
  expect(system.lines).toHaveLength(1);
  expect(system.lines[0]).toContain("The clock went ahead by 28800 s");
});

test.each([
  ["ahead", 3 * 86_400_000],
  ["back", -3 * 86_400_000],
])(
  "system.md HIB-04: when the clock jumps %s, tasks run within a look of it and keep their periods after it",
  async (_, jump) => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    const runs: number[] = [];
    const hourly: Task = {
      thread: "ExtHandler",
      name: "Hourly",
      periodMs: () => HOUR_MS,
      limitMs: 60_000,
      run: async () => void runs.push(system.clock.monotonic()),
    };
    const group = startTasks(system, [hourly, clockTask(system, () => group.wake())], stop.signal);
    await system.clock.advance(15_000);
    expect(runs).toEqual([0]);
    system.clock.step(jump);
    await system.clock.advance(10_000);
    expect(runs).toEqual([0, 20_000]);
    await system.clock.advance(2 * HOUR_MS);
    expect(runs).toEqual([0, 20_000, 20_000 + HOUR_MS, 20_000 + 2 * HOUR_MS]);
    stop.abort();
    await group.finished;
  },
);
