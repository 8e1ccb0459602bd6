import { expect, test } from "bun:test";
import type { AgentError } from "../../../src/base/error.ts";
import {
  createHostPlugin,
  createObservationFilter,
  type HostObservation,
} from "../../../src/azure/host-plugin.ts";
import { createHttpErrorCounts } from "../../../src/azure/retry.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  CONFIG_NAME,
  CONTAINER,
  createMachine,
  createPlatform,
  ENDPOINT,
  HOST,
  takeUrls,
  URLS,
} from "./platform.ts";

function start(system: FakeSystem) {
  const platform = createPlatform(system);
  const observations: HostObservation[] = [];
  const wire = createWireClient(system, ENDPOINT, { errors: createHttpErrorCounts() });
  const hostPlugin = createHostPlugin(system, wire, {
    onObservation: (one) => void observations.push(one),
  });
  return { platform, wire, hostPlugin, observations };
}
const failure = (promise: Promise<unknown>): Promise<AgentError> =>
  promise.then(
    () => expect.unreachable(),
    (error: AgentError) => error,
  );

test("wire-protocol.md HGAP-01 HGAP-02 MAP-12 HSVC-12: the handshake carries only the container id, and a positive answer is kept", async () => {
  using system = createMachine();
  const { hostPlugin, observations } = start(system);
  await hostPlugin.ensureAvailable();
  await hostPlugin.ensureAvailable();
  const requests = system.requests.filter(({ url }) => url === URLS.hostVersions);
  expect(requests).toHaveLength(1);
  expect(requests[0]).toMatchObject({
    method: "GET",
    url: "http://168.63.129.16:32526/versions",
    proxy: "never",
  });
  expect(requests[0]?.headers).toEqual({ "x-ms-containerid": CONTAINER });
  expect(observations).toEqual([{ name: "GuestAgentPluginVersions", healthy: true, value: "" }]);
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "InitializeHostPlugin", success: true }),
  );
});

test("wire-protocol.md HGAP-02: another version is not enough, and what failed at the plugin is unhealthy", async () => {
  const outcome = async (answer: { status?: number; body?: string } | undefined) => {
    using system = createMachine();
    const { hostPlugin, platform, observations } = start(system);
    if (answer === undefined) platform.answers.delete(URLS.hostVersions);
    platform.answers.set(URLS.hostVersions, answer ?? (new Error() as never));
    const error = await failure(hostPlugin.ensureAvailable());
    expect(error.code).toBe("not-supported");
    expect(system.events).toContainEqual(
      expect.objectContaining({ operation: "InitializeHostPlugin", success: false }),
    );
    return observations.map(({ healthy }) => healthy);
  };
  expect(await outcome({ body: '["2013-01-01"]' })).toEqual([true]);
  expect(await outcome({ status: 404 })).toEqual([true]);
  expect(await outcome({ status: 502 })).toEqual([true]);
  expect(await outcome({ status: 500 })).toEqual([false]);
});

test("wire-protocol.md DB-04: a negative answer is kept for a minute, and finding out takes half a minute at most", async () => {
  using system = createMachine();
  const { hostPlugin, platform } = start(system);
  platform.answers.set(URLS.hostVersions, { status: 500 });
  await failure(hostPlugin.ensureAvailable());
  expect(system.clock.monotonic()).toBeLessThanOrEqual(30_000);
  takeUrls(system);
  await failure(hostPlugin.ensureAvailable());
  expect(takeUrls(system)).toEqual([]);
  await system.clock.sleep(61_000);
  platform.answers.set(URLS.hostVersions, { body: '["2015-09-01"]' });
  await hostPlugin.ensureAvailable();
  expect(takeUrls(system)).toEqual([`GET ${URLS.hostVersions}`]);
});

test("wire-protocol.md HGAP-03 GS-11: the headers are made of the latest ids, which are asked for when there are none", async () => {
  using system = createMachine();
  const { hostPlugin, platform } = start(system);
  expect(await hostPlugin.headers()).toEqual({
    "x-ms-version": "2015-09-01",
    "x-ms-containerid": CONTAINER,
    "x-ms-host-config-name": CONFIG_NAME,
  });
  expect(takeUrls(system)).toEqual([`GET ${URLS.goalState}`]);
  const { goalStateXml } = await import("./platform.ts");
  platform.answers.set(URLS.goalState, { body: goalStateXml({}).replace(CONTAINER, "moved") });
  await hostPlugin.refreshIds();
  expect((await hostPlugin.headers())["x-ms-containerid"]).toBe("moved");
  expect(takeUrls(system)).toEqual([`GET ${URLS.goalState}`]);
});

test("wire-protocol.md HGAP-05 MAP-15: an artifact is named in a header, with verification and manifest where they apply", async () => {
  using system = createMachine();
  const { hostPlugin } = start(system);
  const url = "https://storage.example/pkg.zip?sig=S";
  const plain = await hostPlugin.artifactRequest(url, { verify: false });
  expect(plain).toMatchObject({ method: "GET", url: `${HOST}/extensionArtifact`, proxy: "never" });
  expect(plain.headers).toEqual({ ...(await hostPlugin.headers()), "x-ms-artifact-location": url });
  const full = await hostPlugin.artifactRequest(url, {
    verify: true,
    manifestUri: "https://storage.example/m.xml",
  });
  expect(full.headers).toEqual({
    ...(await hostPlugin.headers()),
    "x-ms-artifact-location": url,
    "x-ms-verify-from-artifacts-blob": "true",
    "x-ms-artifact-manifest-location": "https://storage.example/m.xml",
  });
});

test("wire-protocol.md HGAP-04 MAP-13: health is one attempt without headers", async () => {
  using system = createMachine();
  const { hostPlugin, platform } = start(system);
  platform.answers.set(`${HOST}/health`, { status: 202 });
  expect(await hostPlugin.health()).toBeUndefined();
  expect(system.requests[0]?.headers).toBeUndefined();
  platform.answers.set(`${HOST}/health`, { status: 503 });
  takeUrls(system);
  expect(await hostPlugin.health()).toContain("503");
  expect(takeUrls(system)).toEqual([`GET ${HOST}/health`]);
});

test("wire-protocol.md HGAP-07 MAP-17 HTTP-04 system.md LOGC-08: logs go up as they are, with deployment and client headers and half a minute of time", async () => {
  using system = createMachine();
  const { hostPlugin, platform } = start(system);
  platform.answers.set(`${HOST}/vmAgentLog`, { status: 200 });
  await hostPlugin.putLog("/var/lib/waagent/logcollector/logs.zip", { agentVersion: "2.15.0.1" });
  const request = system.requests.at(-1);
  expect(request).toMatchObject({
    method: "PUT",
    url: "http://168.63.129.16:32526/vmAgentLog",
    body: { file: "/var/lib/waagent/logcollector/logs.zip" },
    deadlineMs: 30_000,
    proxy: "never",
  });
  const { "x-ms-client-correlationid": correlation, ...headers } = request?.headers ?? {};
  expect(headers).toEqual({
    "x-ms-version": "2015-09-01",
    "x-ms-containerid": CONTAINER,
    "x-ms-vmagentlog-deploymentid": "deployment-1",
    "x-ms-client-name": "WALinuxAgent",
    "x-ms-client-version": "2.15.0.1",
  });
  expect(correlation).toMatch(/^[0-9a-f-]{36}$/);
  platform.answers.set(`${HOST}/vmAgentLog`, { status: 500 });
  takeUrls(system);
  expect((await failure(hostPlugin.putLog("/x", { agentVersion: "1" }))).code).toBe("http");
  expect(takeUrls(system)).toHaveLength(6);
});

test("wire-protocol.md HGAP-09 HSVC-11: observations are one a minute, and unhealthy only after five minutes of errors", () => {
  using system = createMachine({ automatic: false });
  const seen: boolean[] = [];
  const filter = createObservationFilter(system, ({ healthy }) => void seen.push(healthy));
  const fail = (): void =>
    filter.add({ name: "GuestAgentPluginStatus", healthy: false, value: "x" });
  const succeed = (): void =>
    filter.add({ name: "GuestAgentPluginStatus", healthy: true, value: "" });
  let now = 0;
  const at = (minutes: number, action: () => void): void => {
    now = minutes * 60_000;
    Object.defineProperty(system.clock, "monotonic", { value: () => now, configurable: true });
    action();
  };
  at(0, fail);
  at(0.5, fail);
  expect(seen).toEqual([true]);
  at(2, fail);
  at(4.9, fail);
  expect(seen).toEqual([true, true, true]);
  at(6, fail);
  expect(seen.at(-1)).toBe(false);
  at(7, succeed);
  at(8, fail);
  expect(seen.slice(-2)).toEqual([true, true]);
});

test("wire-protocol.md HGAP-08: 200, 201 and 202 are success, 410 means stale ids, 429 and 503 are waited for, 502 is tried again", async () => {
  const outcome = async (status: number): Promise<[string, number]> => {
    using system = createMachine();
    const { hostPlugin, platform } = start(system);
    platform.answers.set(URLS.status, { status });
    const code = await hostPlugin.putStatus("{}").then(
      () => "ok",
      (error: AgentError) => error.code,
    );
    return [code, takeUrls(system).filter((url) => url === `PUT ${URLS.status}`).length];
  };
  for (const status of [200, 201, 202]) expect(await outcome(status)).toEqual(["ok", 1]);
  expect(await outcome(400)).toEqual(["http", 1]);
  expect(await outcome(404)).toEqual(["http", 1]);
  expect(await outcome(410)).toEqual(["gone", 1]);
  expect(await outcome(502)).toEqual(["http", 6]);
  for (const status of [429, 503]) expect((await outcome(status))[1]).toBeGreaterThan(6);
});
