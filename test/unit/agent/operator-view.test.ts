import { expect, test } from "bun:test";
import { createOperatorView } from "../../../src/agent/operator-view.ts";
import type { ExtensionsGoalState } from "../../../src/azure/goal-state.ts";
import {
  describeAgentState,
  initialAgentState,
  readAgentState,
} from "../../../src/report/agent-state.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const goal = {
  id: "incarnation_3",
  source: "Fabric",
  activityId: "a",
  correlationId: "c",
  handlers: [] as readonly unknown[],
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
      detail: "failed",
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

test("extensions.md DB-26: what an extension says for its state is told apart from whom it waits for", () => {
  using system = createFakeSystem();
  const view = createOperatorView(system, "2.15.0.1");
  const installing = { ...handler, status: "Installing", code: 0, message: "in work" };
  view.handlers([{ ...installing, extensions: [] }], new Map([["pub.ext", "Pub.First"]]));
  const [shown] = readAgentState(system)?.handlers ?? [];
  expect(shown).toMatchObject({ waitsFor: "Pub.First", detail: "in work" });
  const text = describeAgentState({
    ...initialAgentState({ version: "1", pid: 1, startedAt: "t" }),
    handlers: shown === undefined ? [] : [shown],
  });
  expect(text).toContain("    waits for Pub.First\n    says: in work\n");
});

test("wire-protocol.md HTTP-22: of storage addresses only hosts and the end of the permission are shown", () => {
  using system = createFakeSystem();
  const view = createOperatorView(system, "2.15.0.1");
  const sas = (expiry: string): string => `sv=1&sr=b&sig=SECRET&se=${encodeURIComponent(expiry)}`;
  view.goal(
    {
      ...goal,
      statusBlob: { type: "BlockBlob", url: `https://one.test/c/b?${sas("2030-01-02T03:04:05Z")}` },
      handlers: [
        {
          manifestUris: [
            `https://two.test/m?${sas("2031-01-01")}`,
            `https://two.test/n?${sas("2030-06-01T00:00Z")}`,
            "http://three.test:8080/m",
            "no address",
          ],
        },
      ],
    } as unknown as ExtensionsGoalState,
    "processing",
  );
  expect(readAgentState(system)?.storage).toEqual([
    { purpose: "status", origin: "https://one.test", expiresAt: "2030-01-02T03:04:05Z" },
    { purpose: "packages", origin: "https://two.test", expiresAt: "2030-06-01T00:00:00Z" },
    { purpose: "packages", origin: "http://three.test:8080", expiresAt: undefined },
  ]);
  expect(system.files.readText("/run/waagent/status.json")).not.toContain("SECRET");
});
