import { expect, test } from "bun:test";
import { createExtensionsTask } from "../../../src/agent/extensions-task.ts";
import type { ExtensionsGoalState } from "../../../src/azure/goal-state.ts";
import type { AggregateStatus } from "../../../src/azure/vm-status.ts";
import type { ExtensionsRunner } from "../../../src/extensions/runner.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const goal = (id: string): ExtensionsGoalState => ({ id }) as ExtensionsGoalState;
const success = (sequence: string): AggregateStatus => ({
  status: "Success",
  code: 0,
  message: "",
  processedAt: 0,
  sequence,
});
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));

function setUp(process: ExtensionsRunner["process"]) {
  const stop = new AbortController();
  const system = createFakeSystem();
  const done: string[] = [];
  const superseded: number[] = [];
  let gate = Promise.resolve();
  const task = createExtensionsTask(
    system,
    { process, supersede: () => superseded.push(done.length) } as unknown as ExtensionsRunner,
    {
      ready: () => gate,
      onStarted: () => undefined,
      onProcessed: ({ id }) => done.push(id),
    },
  );
  return {
    system,
    task,
    stop,
    done,
    superseded,
    close: (until: Promise<void>) => void (gate = until),
  };
}

test("extensions.md EXT-11 DB-01: a pass runs in its own task; of goal states that arrive meanwhile only the newest is processed", async () => {
  const releases: (() => void)[] = [];
  const processed: string[] = [];
  const { system, task, stop, done } = setUp(async ({ id }) => {
    processed.push(id);
    await new Promise<void>((resolve) => releases.push(resolve));
    return success(id);
  });
  const running = task.run(stop.signal);
  task.submit(goal("1"));
  await turn();
  expect(task.isBusy()).toBe(true);
  task.submit(goal("2"));
  task.submit(goal("3"));
  expect(task.reported()?.id).toBe("3");
  releases.shift()?.();
  await turn();
  releases.shift()?.();
  await turn();
  expect(processed).toEqual(["1", "3"]);
  expect(done).toEqual(["1", "3"]);
  expect(task.aggregate()?.sequence).toBe("3");
  expect(task.isBusy()).toBe(false);
  stop.abort();
  await running;
  system[Symbol.dispose]();
});

test("wire-protocol.md GS-33: a new goal state before the last one is finished is told as a warning", async () => {
  const { system, task, stop, superseded } = setUp(() => new Promise(() => undefined));
  void task.run(stop.signal);
  task.submit(goal("1"));
  await turn();
  expect(superseded).toEqual([]);
  task.submit(goal("2"));
  // Pauses of the pass under way end (`extensions.md` DB-36).
  expect(superseded).toEqual([0]);
  expect(system.events).toMatchObject([{ operation: "GoalState", success: false }]);
  expect(system.events[0]?.message).toStartWith("[WARNING] A new goal state (2) was received");
  system[Symbol.dispose]();
});

test("extensions.md EXT-15 EXT-17: a goal state on hold leaves the last outcome as it is", async () => {
  const { system, task, stop } = setUp(async ({ id }) => (id === "held" ? undefined : success(id)));
  void task.run(stop.signal);
  expect(task.aggregate()).toBeUndefined();
  task.submit(goal("1"));
  await turn();
  task.submit(goal("held"));
  await turn();
  expect(task.aggregate()?.sequence).toBe("1");
  expect(task.reported()?.id).toBe("held");
  stop.abort();
  system[Symbol.dispose]();
});

test("extensions.md RUN-15: the first pass waits for what has to come before, later ones do not", async () => {
  const processed: string[] = [];
  const { system, task, stop, close } = setUp(async ({ id }) => {
    processed.push(id);
    return success(id);
  });
  let open = (): void => undefined;
  close(new Promise((resolve) => (open = resolve)));
  void task.run(stop.signal);
  task.submit(goal("1"));
  await turn();
  expect(processed).toEqual([]);
  open();
  await turn();
  task.submit(goal("2"));
  await turn();
  expect(processed).toEqual(["1", "2"]);
  stop.abort();
  system[Symbol.dispose]();
});
