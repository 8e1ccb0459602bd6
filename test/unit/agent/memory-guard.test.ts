import { expect, test } from "bun:test";
import { memoryGuard } from "../../../src/agent/memory-guard.ts";
import { startTasks } from "../../../src/agent/tasks.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const QUOTA = 1000;
const ON: Partial<Config> = {
  "Debug.EnableAgentMemoryUsageCheck": true,
  "Debug.AgentMemoryQuota": QUOTA,
};

function guard(change: Partial<Config> = {}) {
  const system = createFakeSystem({ automatic: false });
  const stop = new AbortController();
  const state = { used: QUOTA as number | undefined, settled: true, looks: [] as number[] };
  const task = memoryGuard(
    system,
    { ...defaultConfig(), ...change },
    {
      memoryBytes: () => {
        state.looks.push(system.clock.monotonic() / 1000);
        return state.used;
      },
      isSettled: () => state.settled,
      end: () => stop.abort(),
    },
  );
  return { system, stop, state, task, [Symbol.dispose]: () => system[Symbol.dispose]() };
}

test("system.md DAEMON-23: the memory guard is off unless it is asked for", () => {
  using w = guard();
  expect(w.task).toBeUndefined();
});

test("system.md DAEMON-23; extensions.md RUN-20: first look after 5 minutes, then every check period, and above the quota the agent ends", async () => {
  using w = guard({ ...ON, "Debug.CgroupCheckPeriod": 60 });
  const { finished } = startTasks(w.system, [w.task ?? expect.unreachable()], w.stop.signal);
  await w.system.clock.advance(299_000);
  expect(w.state.looks).toEqual([]);
  await w.system.clock.advance(1000);
  await w.system.clock.advance(60_000);
  expect(w.state.looks).toEqual([300, 360]);
  w.state.settled = false;
  w.state.used = QUOTA + 1;
  await w.system.clock.advance(60_000);
  expect(w.state.looks).toEqual([300, 360]);
  w.state.settled = true;
  w.state.used = undefined;
  await w.system.clock.advance(60_000);
  expect([w.stop.signal.aborted, w.system.events]).toEqual([false, []]);
  w.state.used = QUOTA + 1;
  await w.system.clock.advance(60_000);
  await finished;
  expect(w.stop.signal.aborted).toBe(true);
  expect(w.state.looks).toEqual([300, 360, 480, 540]);
  expect(w.system.events).toMatchObject([{ operation: "AgentMemory", success: false }]);
  expect(w.system.lines.join()).toContain("more than Debug.AgentMemoryQuota (1000)");
});
