import { expect, test } from "bun:test";
import { createOperatorView } from "../../../src/agent/operator-view.ts";
import type { ExtensionsGoalState } from "../../../src/azure/goal-state.ts";
import { readAgentState } from "../../../src/report/agent-state.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const goal = {
  id: "incarnation_3",
  source: "Fabric",
  activityId: "a",
  correlationId: "c",
} as ExtensionsGoalState;
const handler = { name: "Pub.Ext", version: "1.0" };

test("extensions.md DB-26: the operator sees goal state, what runs, and how the last command of a handler ended", () => {
  using system = createFakeSystem();
  const view = createOperatorView(system, "2.15.0.1");
  view.goal(goal, "processing");
  view.command({ handler, extension: undefined, operation: "enable" });
  expect(readAgentState(system)?.handlers).toMatchObject([
    { name: "Pub.Ext", running: { operation: "enable" } },
  ]);

  view.command({
    handler,
    extension: undefined,
    operation: "enable",
    ended: { exitCode: 7, durationMs: 12, failure: "no disk" },
  });
  view.handlers([
    { ...handler, status: "NotReady", code: 1009, message: "failed", extensions: [] },
  ]);
  view.goal(goal, "done", {
    status: "Success",
    code: 0,
    message: "",
    processedAt: 0,
    sequence: "3",
  });
  view.component("status upload", "ok");
  const state = readAgentState(system);
  expect(state?.goalState).toMatchObject({ id: "incarnation_3", state: "done" });
  expect(state?.handlers).toMatchObject([
    {
      name: "Pub.Ext",
      state: "NotReady",
      waitsFor: "failed",
      lastOperation: { operation: "enable", exitCode: 7, message: "no disk" },
    },
  ]);
  expect(state?.handlers[0]?.running).toBeUndefined();
  expect(state?.components).toMatchObject([{ name: "status upload", state: "ok" }]);
});

test("system.md BET-31: a handler that is gone disappears, and nothing is written while nothing changes", () => {
  using system = createFakeSystem();
  const view = createOperatorView(system, "2.15.0.1");
  const report = { ...handler, status: "Ready", code: 0, message: undefined, extensions: [] };
  view.handlers([report]);
  view.component("firewall", "ok");
  const inode = system.files.stat("/run/waagent/status.json")?.inode;
  view.handlers([report]);
  view.component("firewall", "ok");
  expect(system.files.stat("/run/waagent/status.json")?.inode).toBe(inode as number);
  view.handlers([]);
  expect(readAgentState(system)?.handlers).toEqual([]);
});
