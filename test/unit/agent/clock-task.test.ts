import { expect, test } from "bun:test";
import { clockTask } from "../../../src/agent/clock-task.ts";
import { createFakeSystem } from "../../fakes/system.ts";

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
