import { describe, expect, test } from "bun:test";
import {
  createAgentStateFile,
  describeAgentState,
  formatAgentState,
  initialAgentState,
  mergeAgentState,
  parseAgentState,
  readAgentState,
  type HandlerState,
} from "../../../src/report/agent-state.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const agent = { version: "2.15.0.1", pid: 4711, startedAt: "2030-01-01T00:00:00Z" };
const goalState = {
  id: "incarnation_3",
  source: "Fabric",
  activityId: "a",
  correlationId: "c",
  state: "processing",
  since: "2030-01-01T00:00:01Z",
  detail: undefined,
} as const;
const handler: HandlerState = {
  name: "Pub.Ext",
  version: "1.2.3",
  state: "enabled",
  running: { operation: "enable", since: "2030-01-01T00:00:02Z" },
  lastOperation: {
    operation: "install",
    at: "2030-01-01T00:00:02Z",
    exitCode: 0,
    durationMs: 1234,
    message: undefined,
  },
  nextRetryAt: undefined,
  waitsFor: "Pub.Other",
  detail: "half of it is done",
};
const firewall = {
  name: "firewall",
  state: "ok",
  detail: undefined,
  since: "2030-01-01T00:00:03Z",
};

describe("changes", () => {
  test("extensions.md DB-26: goal state, handlers and components are merged, sorted by name", () => {
    let state = mergeAgentState(initialAgentState(agent), {
      goalState,
      handlers: [handler, { ...handler, name: "Aaa.Ext" }],
      component: firewall,
    });
    state = mergeAgentState(state, { handlers: [{ ...handler, state: "failed" }] });
    expect(state.goalState).toEqual(goalState);
    expect(state.handlers.map((one) => [one.name, one.state])).toEqual([
      ["Aaa.Ext", "enabled"],
      ["Pub.Ext", "failed"],
    ]);
    expect(mergeAgentState(state, { onlyHandlers: [] }).handlers).toEqual([]);
  });

  test("system.md BET-31: the same facts make the very same value", () => {
    const state = mergeAgentState(initialAgentState(agent), {
      goalState,
      handlers: [handler],
      component: firewall,
    });
    expect(
      mergeAgentState(state, {
        goalState: { ...goalState },
        handlers: [{ ...handler }],
        component: { ...firewall, since: "later" },
      }),
    ).toBe(state);
    expect(mergeAgentState(state, {})).toBe(state);
  });

  test("system.md BET-31: since tells when a component came into its state", () => {
    const state = mergeAgentState(initialAgentState(agent), { component: firewall });
    const detailed = mergeAgentState(state, {
      component: { ...firewall, detail: "nft", since: "later" },
    });
    expect(detailed.components).toEqual([{ ...firewall, detail: "nft" }]);
    const failed = mergeAgentState(detailed, {
      component: { ...firewall, state: "failed", detail: "no nft", since: "later" },
    });
    expect(failed.components).toEqual([
      { name: "firewall", state: "failed", detail: "no nft", since: "later" },
    ]);
  });

  test("wire-protocol.md HTTP-22: nothing secret gets in", () => {
    const secret = "https://h/f?sv=1&sig=SECRET";
    const state = mergeAgentState(initialAgentState(agent), {
      goalState: { ...goalState, detail: secret },
      handlers: [
        {
          ...handler,
          waitsFor: secret,
          detail: secret,
          lastOperation: {
            operation: "x",
            at: "",
            exitCode: undefined,
            durationMs: 0,
            message: secret,
          },
        },
      ],
      component: { ...firewall, detail: secret },
    });
    expect(formatAgentState(state)).not.toContain("SECRET");
  });
});

describe("the file", () => {
  const file = "/run/waagent/status.json";

  test("system.md BET-31: written when something changed, readable for all, read back as it was", () => {
    using system = createFakeSystem();
    const writer = createAgentStateFile(system, agent);
    expect(readAgentState(system)).toEqual(initialAgentState(agent));
    writer.update({ goalState, handlers: [handler], component: firewall });
    expect(readAgentState(system)).toEqual(writer.current());
    expect(system.files.stat(file)?.mode).toBe(0o644);
    const before = system.files.stat(file)?.inode;
    writer.update({ goalState, component: { ...firewall, since: "later" } });
    expect(system.files.stat(file)?.inode).toBe(before!);
  });

  test("system.md BET-31: no file, a damaged one and one of another format are told apart", () => {
    using system = createFakeSystem();
    expect(readAgentState(system)).toBeUndefined();
    expect(() => parseAgentState("{", file)).toThrow("/run/waagent/status.json is not valid JSON");
    expect(() => parseAgentState('{"version": 2}', file)).toThrow(
      "has format 2, this program knows format 1",
    );
    expect(() => parseAgentState('{"version": 1, "agent": {"version": 5}}', file)).toThrow(
      "/agent/version must be a string",
    );
    const odd = formatAgentState(mergeAgentState(initialAgentState(agent), { goalState })).replace(
      "processing",
      "dreaming",
    );
    expect(() => parseAgentState(odd, file)).toThrow("/goalState/state must be one of processing");
  });

  test("system.md BET-31: a directory that cannot be made costs a warning", () => {
    using system = createFakeSystem();
    system.files.write("/run", "a file");
    createAgentStateFile(system, agent).update({ component: firewall });
    expect(system.lines).toHaveLength(1);
    expect(system.lines[0]).toContain(
      'WARNING ExtHandler ExtHandler The state for "waagent status" could not be written',
    );
  });
});

test("extensions.md DB-26: the text for people names state, operation, exit code, duration, retry and wait", () => {
  const state = mergeAgentState(initialAgentState(agent), {
    goalState: { ...goalState, state: "failed", detail: "no feature" },
    component: { ...firewall, state: "off", detail: "OS.EnableFirewall=n" },
    handlers: [{ ...handler, nextRetryAt: "2030-01-01T01:00:00Z" }],
  });
  expect(describeAgentState(state))
    .toBe(`Agent 2.15.0.1, pid 4711, running since 2030-01-01T00:00:00Z
Goal state: incarnation_3 (Fabric), failed since 2030-01-01T00:00:01Z: no feature
firewall: off since 2030-01-01T00:00:03Z: OS.EnableFirewall=n
Extensions:
  Pub.Ext 1.2.3: enabled
    running enable since 2030-01-01T00:00:02Z
    last install at 2030-01-01T00:00:02Z: exit code 0 after 1.2 s
    next try at 2030-01-01T01:00:00Z
    waits for Pub.Other
    says: half of it is done
`);
  expect(describeAgentState(initialAgentState(agent))).toContain(
    "Goal state: none yet\nExtensions: none\n",
  );
});
