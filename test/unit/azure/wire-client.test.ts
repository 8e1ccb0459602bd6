import { expect, test } from "bun:test";
import type { AgentError } from "../../../src/base/error.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import {
  CONFIG_NAME,
  CONTAINER,
  createMachine,
  createPlatform,
  ENDPOINT,
  goalStateXml,
  takeUrls,
  URLS,
} from "./platform.ts";

const failure = (promise: Promise<unknown>): Promise<AgentError> =>
  promise.then(
    () => expect.unreachable(),
    (error: AgentError) => error,
  );

test("wire-protocol.md WIRE-01 WIRE-02: the version may be preferred or merely supported, and the request has no protocol headers", async () => {
  using system = createMachine();
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  await wire.negotiate();
  expect(system.requests[0]?.headers).toBeUndefined();
  const document = (preferred: string, supported: string): string =>
    `<Versions><Preferred><Version>${preferred}</Version></Preferred><Supported><Version>${supported}</Version></Supported></Versions>`;
  platform.answers.set(URLS.versions, { body: document("2010-12-15", "2012-11-30") });
  await wire.negotiate();
  platform.answers.set(URLS.versions, { body: document("2010-12-15", "2015-04-05") });
  const error = await failure(wire.negotiate());
  expect(error.code).toBe("protocol-not-found");
  expect(error.message).toContain("2010-12-15, 2015-04-05");
});

test("wire-protocol.md WIRE-03 MAP-02: the goal state is asked for with agent name and version", async () => {
  using system = createMachine();
  createPlatform(system);
  await createWireClient(system, ENDPOINT).goalState();
  const [request] = system.requests;
  expect(request).toMatchObject({
    method: "GET",
    url: "http://168.63.129.16/machine/?comp=goalstate",
    headers: { "x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30" },
    proxy: "never",
  });
  expect(Object.keys(request?.headers ?? {}).length).toBe(2);
});

test("wire-protocol.md WIRE-04: a POST says what it carries", async () => {
  using system = createMachine();
  createPlatform(system);
  system.route = () => ({ status: 200 });
  await createWireClient(system, ENDPOINT).post("/machine?comp=health", "<x/>", {
    what: "a report",
  });
  expect(system.requests[0]).toMatchObject({
    method: "POST",
    url: "http://168.63.129.16/machine?comp=health",
    headers: {
      "x-ms-agent-name": "WALinuxAgent",
      "x-ms-version": "2012-11-30",
      "Content-Type": "text/xml;charset=utf-8",
    },
    body: "<x/>",
    proxy: "never",
  });
});

test("wire-protocol.md WIRE-06: every failure is a protocol error, except that 410 stays what it is", async () => {
  using system = createMachine();
  const wire = createWireClient(system, ENDPOINT);
  const codeOf = async (answer: { status: number; body?: string } | Error): Promise<string> => {
    system.route = () => answer;
    return (await failure(wire.get(URLS.extensions, { what: "ExtensionsConfig" }))).code;
  };
  expect(await codeOf({ status: 404 })).toBe("protocol");
  expect(await codeOf({ status: 400, body: "InvalidContainerConfiguration" })).toBe("protocol");
  expect(await codeOf({ status: 500 })).toBe("protocol");
  expect(await codeOf({ status: 410 })).toBe("gone");
  const message = (await failure(wire.get(URLS.extensions, { what: "ExtensionsConfig" }))).message;
  expect(message).toStartWith("Could not read ExtensionsConfig from the WireServer: ");
});

test("wire-protocol.md GS-10 FIX-01: a goal state without RoleInstance is asked for six times, half a second apart", async () => {
  using system = createMachine();
  const platform = createPlatform(system);
  const empty =
    "<GoalState><Incarnation>17</Incarnation><Container><ContainerId>c</ContainerId></Container></GoalState>";
  platform.answers.set(URLS.goalState, { body: empty });
  const wire = createWireClient(system, ENDPOINT);
  const error = await failure(wire.goalState());
  expect(error).toMatchObject({ code: "protocol" });
  expect(error.message).toContain("17");
  expect(takeUrls(system).length).toBe(6);
  expect(system.clock.monotonic()).toBe(2500);
  let answers = 0;
  platform.answers.set(URLS.goalState, () => ({
    body: (answers += 1) < 3 ? empty : goalStateXml({}),
  }));
  expect((await wire.goalState()).document.incarnation).toBe("1");
  expect(takeUrls(system).length).toBe(3);
});

test("wire-protocol.md GS-11: every goal state GET brings the ids for the host plugin, also without a new incarnation", async () => {
  using system = createMachine();
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  expect(wire.ids()).toBeUndefined();
  await wire.goalState();
  expect(wire.ids()).toEqual({
    containerId: CONTAINER,
    configName: CONFIG_NAME,
    deploymentId: "deployment-1",
  });
  platform.answers.set(URLS.goalState, {
    body: goalStateXml({}).replace(CONTAINER, "other-container"),
  });
  await wire.goalState();
  expect(wire.ids()?.containerId).toBe("other-container");
});

test("an unchanged goal state is the very same value, so nothing is parsed again", async () => {
  using system = createMachine();
  createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  expect(await wire.goalState()).toBe(await wire.goalState());
});

test("what is no XML, or no goal state, is a protocol error that says so", async () => {
  using system = createMachine();
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  for (const body of [
    "",
    "<html><body>captive portal</body></html>",
    "not xml",
    '<!DOCTYPE x [<!ENTITY a "b">]><GoalState/>',
    "<GoalState><Incarnation>1</Incarnation><RoleInstance></GoalState>",
    "<GoalState><Incarnation>1</Incarnation><RoleInstance/></GoalState>",
  ]) {
    platform.answers.set(URLS.goalState, { body });
    expect(await failure(wire.goalState())).toMatchObject({ code: "protocol" });
  }
});
