import { expect, test } from "bun:test";
import { egressText, peersOf } from "../../../src/cli/operator-egress.ts";
import { findHandler, statusCode, statusText } from "../../../src/cli/operator-status.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  type AgentState,
  type HandlerState,
  initialAgentState,
} from "../../../src/report/agent-state.ts";

const AGENT = { version: "2.15.0.1", pid: 77, startedAt: "2030-01-01T00:00:00Z" };
const FRESH = initialAgentState(AGENT);

function handler(name: string, state = "enabled"): HandlerState {
  return {
    name,
    version: "1.0",
    state,
    running: undefined,
    lastOperation: undefined,
    nextRetryAt: undefined,
    waitsFor: undefined,
    detail: undefined,
  };
}

const withGoal = (state: "done" | "failed" | "waiting"): AgentState => ({
  ...FRESH,
  goalState: {
    id: "incarnation_1",
    source: "Fabric",
    activityId: "",
    correlationId: "",
    state,
    since: AGENT.startedAt,
    detail: undefined,
  },
});

test("the exit code of status tells running, failed and not running apart", () => {
  expect(statusCode({ pid: undefined, state: undefined })).toBe(3);
  expect(statusCode({ pid: undefined, state: FRESH })).toBe(3);
  expect(statusCode({ pid: 77, state: undefined })).toBe(0);
  expect(statusCode({ pid: 77, state: withGoal("done") })).toBe(0);
  expect(statusCode({ pid: 77, state: withGoal("waiting") })).toBe(0);
  expect(statusCode({ pid: 77, state: withGoal("failed") })).toBe(2);
  expect(statusCode({ pid: 77, state: { ...FRESH, handlers: [handler("A", "failed")] } })).toBe(2);
  const ended = { operation: "enable", at: AGENT.startedAt, durationMs: 5, message: undefined };
  const unready = { ...handler("A", "NotReady"), lastOperation: { ...ended, exitCode: 1 } };
  expect(statusCode({ pid: 77, state: { ...FRESH, handlers: [unready] } })).toBe(2);
  const ready = { ...unready, state: "Ready, success" };
  expect(statusCode({ pid: 77, state: { ...FRESH, handlers: [ready] } })).toBe(0);
  expect(
    statusCode({ pid: 77, state: { ...FRESH, handlers: [handler("A", "Ready, error")] } }),
  ).toBe(2);
  const component = { name: "firewall", detail: undefined, since: AGENT.startedAt };
  expect(
    statusCode({ pid: 77, state: { ...FRESH, components: [{ ...component, state: "failed" }] } }),
  ).toBe(2);
  expect(
    statusCode({ pid: 77, state: { ...FRESH, components: [{ ...component, state: "off" }] } }),
  ).toBe(0);
});

test("status says whose account it shows", () => {
  expect(statusText({ pid: 77, state: FRESH })).toStartWith(
    "Agent 2.15.0.1, pid 77, running since",
  );
  expect(statusText({ pid: undefined, state: FRESH })).toStartWith(
    "No agent runs. This is what the last one of this kind left:\nAgent 2.15.0.1",
  );
  expect(statusText({ pid: 5, state: FRESH })).toStartWith("Another agent runs (pid 5).");
  expect(statusText({ pid: 5, state: undefined })).toContain("or the Python agent");
  expect(statusText({ pid: undefined, state: undefined })).toBe(
    "No agent runs, and none has run since boot.\n",
  );
});

test("an extension is found by its name or a part that only one has", () => {
  const known = [
    handler("Microsoft.Azure.Extensions.CustomScript"),
    handler("Contoso.Custom"),
    handler("Contoso.Other"),
  ];
  expect(findHandler(known, "customscript").name).toBe("Microsoft.Azure.Extensions.CustomScript");
  expect(findHandler(known, "contoso.custom").name).toBe("Contoso.Custom");
  expect(() => findHandler(known, "contoso")).toThrow(
    '"contoso" is part of several names: Contoso.Custom, Contoso.Other',
  );
  expect(() => findHandler(known, "nope")).toThrow(
    'There is no extension "nope": Microsoft.Azure.',
  );
  expect(() => findHandler([], "x")).toThrow('There is no extension "x"; there is none');
});

test("egress names each peer with its reason and what stops it", () => {
  const config = defaultConfig();
  const text = egressText(peersOf(config), undefined);
  for (const host of ["168.63.129.16:80", "168.63.129.16:32526", "169.254.169.254:80"]) {
    expect(text).toContain(host);
  }
  expect(text).toContain("telemetry; until Telemetry.Enabled=n");
  const quiet = peersOf({ ...config, "Telemetry.Enabled": false, "Logs.Collect": false });
  expect(quiet.filter(({ used }) => !used).map(({ reason }) => reason)).toEqual([
    "telemetry",
    "collected logs",
  ]);
  expect(
    peersOf(config)
      .filter(({ proxy }) => proxy)
      .every(({ port }) => port === 443),
  ).toBe(true);
});
