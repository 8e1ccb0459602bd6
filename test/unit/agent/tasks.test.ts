import { describe, expect, test } from "bun:test";
import { startTasks, type Task } from "../../../src/agent/tasks.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const task = (name: string, run: Task["run"], rest: Partial<Task> = {}): Task => ({
  thread: "EnvHandler",
  name,
  periodMs: () => 30_000,
  limitMs: 60_000,
  run,
  ...rest,
});

describe("tasks", () => {
  test("system.md ENV-06: first run at once, the next one period after the end of a run", async () => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    const runs: number[] = [];
    const group = startTasks(
      system,
      [
        task("EnableFirewall", async () => {
          runs.push(system.clock.monotonic());
          await system.clock.sleep(5000);
        }),
      ],
      stop.signal,
    );
    await system.clock.advance(80_000);
    expect(runs).toEqual([0, 35_000, 70_000]);
    stop.abort();
    await system.clock.advance(10_000);
    await group.finished;
  });

  test("system.md ENV-06: the same error is logged once an hour, and the task goes on", async () => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    const group = startTasks(
      system,
      [task("SetRootDeviceScsiTimeout", () => Promise.reject(new Error("read-only sysfs")))],
      stop.signal,
    );
    await system.clock.advance(3_599_000);
    expect(system.lines).toEqual([
      "WARNING EnvHandler ExtHandler Error in SetRootDeviceScsiTimeout: read-only sysfs --- [NOTE: Will not log the same error for the next hour]",
    ]);
    await system.clock.advance(60_000);
    expect(system.lines).toHaveLength(2);
    stop.abort();
    await group.finished;
  });

  test("system.md BET-30: a task that is slow does not delay another one", async () => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    let quick = 0;
    const group = startTasks(
      system,
      [
        task("slow", (signal) => system.clock.sleep(1_000_000, signal)),
        task("quick", async () => void (quick += 1)),
      ],
      stop.signal,
    );
    await system.clock.advance(59_000);
    expect(quick).toBe(2);
    stop.abort();
    await system.clock.advance(20_000);
    await group.finished;
  });

  test("a run beyond its limit is told to stop, and the task runs again", async () => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    let runs = 0;
    const group = startTasks(
      system,
      [
        task("polite", async (signal) => {
          runs += 1;
          await system.clock.sleep(1_000_000, signal);
        }),
      ],
      stop.signal,
    );
    await system.clock.advance(95_000);
    expect(runs).toBe(2);
    stop.abort();
    await system.clock.advance(20_000);
    await group.finished;
  });

  test("a task that ignores its abort twice ends the process", async () => {
    using system = createFakeSystem({ automatic: false });
    const group = startTasks(
      system,
      [task("stuck", () => new Promise(() => undefined))],
      new AbortController().signal,
    );
    const outcome = group.finished.catch((error: Error) => error.message);
    await system.clock.advance(400_000);
    expect(await outcome).toContain("stuck hangs; the agent ends");
  });

  test("system.md HIB-04: waking runs sleeping tasks now, and one that runs once more", async () => {
    using system = createFakeSystem({ automatic: false });
    const stop = new AbortController();
    let runs = 0;
    const group = startTasks(
      system,
      [
        task("poll", async () => {
          runs += 1;
          await system.clock.sleep(1000);
        }),
      ],
      stop.signal,
    );
    await system.clock.advance(2000);
    group.wake();
    await system.clock.advance(500);
    expect(runs).toBe(2);
    group.wakeTask("poll");
    await system.clock.advance(1000);
    expect(runs).toBe(3);
    stop.abort();
    await system.clock.advance(20_000);
    await group.finished;
  });
});
