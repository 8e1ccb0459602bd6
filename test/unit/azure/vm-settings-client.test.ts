import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { createHostPlugin } from "../../../src/azure/host-plugin.ts";
import {
  createVmSettingsClient,
  type VmSettingsClient,
  type VmSettingsOutcome,
} from "../../../src/azure/vm-settings-client.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  CONFIG_NAME,
  CONTAINER,
  createMachine,
  createPlatform,
  ENDPOINT,
  LIB,
  URLS,
  type Answer,
  type Platform,
} from "./platform.ts";

const NOTE = `${LIB}/fast_track.json` as const;
const ETAG = "12345678901234567890";
const saved = new Map<string, string>();

function body(members: object = {}): string {
  return JSON.stringify({
    hostGAPluginVersion: "1.0.8.159",
    extensionGoalStatesSource: "FastTrack",
    extensionsLastModifiedTickCount: 638000000000000000,
    ...members,
  });
}

function start(
  system: FakeSystem,
  options: { enabled?: boolean } = {},
): { client: VmSettingsClient; platform: Platform; answer: (answer: Answer | Error) => void } {
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  const hostPlugin = createHostPlugin(system, wire);
  saved.clear();
  const client = createVmSettingsClient(
    system,
    { wire, hostPlugin },
    {
      libDir: LIB,
      enabled: options.enabled ?? true,
      history: (tag) => ({ save: (name, text) => void saved.set(`${tag}/${name}`, text) }),
    },
  );
  return {
    client,
    platform,
    answer: (answer) => void platform.answers.set(URLS.vmSettings, answer),
  };
}

const read = (client: VmSettingsClient, force = false): Promise<VmSettingsOutcome> =>
  client.read({ force });
const failure = (client: VmSettingsClient): Promise<AgentError> =>
  read(client).then(
    () => expect.unreachable(),
    (error: AgentError) => error,
  );
const vmRequests = (system: FakeSystem) =>
  system.requests.filter(({ url }) => url === URLS.vmSettings);

test("wire-protocol.md VMS-01 VMS-01a VMS-02 VMS-04 MAP-14: the request carries ids, a fresh correlation id, and the ETag as received unless forced", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ headers: { eTag: ETAG }, body: body() });
  const first = await read(client);
  expect(first).toMatchObject({ kind: "fast-track", etag: ETAG, newText: body() });
  answer({ status: 304 });
  const second = await read(client);
  expect(second).toMatchObject({ kind: "fast-track", etag: ETAG, newText: undefined });
  answer({ headers: { ETag: ETAG }, body: body() });
  await read(client, true);
  const requests = vmRequests(system);
  expect(requests.map(({ headers }) => headers?.["if-none-match"])).toEqual([
    undefined,
    ETAG,
    undefined,
  ]);
  expect(requests[0]).toMatchObject({
    method: "GET",
    proxy: "never",
    deadlineMs: 10_000,
    headers: {
      "x-ms-version": "2015-09-01",
      "x-ms-containerid": CONTAINER,
      "x-ms-host-config-name": CONFIG_NAME,
    },
  });
  const ids = requests.map(({ headers }) => headers?.["x-ms-client-correlationid"]);
  expect(ids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(3);
  expect(system.requests.some(({ url }) => url === URLS.hostVersions)).toBe(false);
});

test("wire-protocol.md VMS-03 VMS-07 VMS-08 VMS-09 VMS-12 HTTP-18: failures are protocol errors that carry the correlation id, and events by category", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  const cases: [Answer | Error, string][] = [
    [{ status: 500, body: "x" }, "ServerError"],
    [{ status: 404 }, ""],
    [{ status: 400 }, "ClientError"],
    [{ status: 302 }, "HttpError"],
    [new AgentError("http", "GET x timed out after 10 s", { errno: "ETIMEDOUT" }), "Timeout"],
    [new AgentError("http", "reset", { errno: "ECONNRESET" }), "RequestFailed"],
  ];
  for (const [given, category] of cases.filter(([, name]) => name !== "")) {
    using fresh = createMachine();
    const other = start(fresh);
    other.answer(given);
    const error = await failure(other.client);
    expect(error.code).toBe("protocol");
    // one attempt, and the id that was sent is the one that is reported
    expect(vmRequests(fresh)).toHaveLength(1);
    const sent = vmRequests(fresh)[0]?.headers?.["x-ms-client-correlationid"];
    expect(error.message).toContain(`[correlation ID: ${sent} eTag: None]`);
    const event = fresh.events.find(({ operation }) => operation === "VmSettings");
    expect(event?.success).toBe(true);
    expect(event?.message).toMatch(
      new RegExp(
        `^\\[${category}\\] GET vmSettings \\[correlation ID: [0-9a-f-]{36} eTag: None\\]: `,
      ),
    );
  }
  answer({ status: 502, body: "upstream" });
  expect((await failure(client)).message).toContain("[Internal error in HostGAPlugin]");
  answer({ status: 200, body: body() });
  expect((await failure(client)).message).toContain("ETag");
});

test("wire-protocol.md VMS-12 VMS-13: at most three error events an hour, and an hourly summary that starts again from zero", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ status: 500 });
  for (let count = 0; count < 5; count += 1) await failure(client);
  const events = (operation: string) =>
    system.events.filter((event) => event.operation === operation);
  expect(events("VmSettings").length).toBe(3);
  await system.clock.sleep(3600_000);
  answer({ headers: { etag: ETAG }, body: body() });
  await read(client);
  const zero = {
    requests: 0,
    errors: 0,
    serverErrors: 0,
    clientErrors: 0,
    timeouts: 0,
    failedRequests: 0,
  };
  expect(events("VmSettingsSummary").map(({ message }) => JSON.parse(message) as unknown)).toEqual([
    { ...zero, requests: 5, errors: 5, serverErrors: 5 },
  ]);
  expect(system.lines.some((line) => line.includes('"errors":5'))).toBe(true);
  await system.clock.sleep(3600_000);
  system.lines.length = 0;
  await read(client);
  expect(JSON.parse(events("VmSettingsSummary")[1]?.message ?? "")).toEqual({
    ...zero,
    requests: 1,
  });
  expect(system.lines.some((line) => line.includes("last hour"))).toBe(false);
});

test("wire-protocol.md VMS-01 VMS-05: 410 brings fresh ids, a new correlation id and one more try", async () => {
  using system = createMachine();
  const { client, platform, answer } = start(system);
  let calls = 0;
  platform.answers.set(URLS.vmSettings, () =>
    (calls += 1) === 1 ? { status: 410 } : { headers: { etag: ETAG }, body: body() },
  );
  expect((await read(client)).kind).toBe("fast-track");
  expect(system.requests.map(({ url }) => url)).toEqual([
    URLS.goalState,
    URLS.vmSettings,
    URLS.goalState,
    URLS.vmSettings,
  ]);
  const [first, second] = vmRequests(system).map(
    (one) => one.headers?.["x-ms-client-correlationid"],
  );
  expect(first).toMatch(/^[0-9a-f-]{36}$/);
  expect(second).not.toBe(first);
  answer({ status: 410 });
  expect((await failure(client)).code).toBe("protocol");
});

test("wire-protocol.md VMS-06 VMS-16: 404 means not supported, and it is not asked again for six hours", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ status: 404 });
  expect(await read(client)).toEqual({ kind: "none" });
  expect(client.isSupported()).toBe(false);
  expect(system.events).toContainEqual(
    expect.objectContaining({
      operation: "VmSettings",
      success: true,
      message: "[VmSettingsNotSupported] HostGAPlugin: unknown",
    }),
  );
  await system.clock.sleep(6 * 3600_000 - 1000);
  await read(client);
  expect(vmRequests(system).length).toBe(1);
  await system.clock.sleep(1001);
  await read(client);
  expect(vmRequests(system).length).toBe(2);
});

test("wire-protocol.md VMS-10: a host plugin older than 1.0.8.133 does not support it, and a new version is reported", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ headers: { etag: ETAG }, body: body({ hostGAPluginVersion: "1.0.8.116" }) });
  expect(await read(client)).toEqual({ kind: "none" });
  expect(client.isSupported()).toBe(false);
  expect(system.files.exists(NOTE)).toBe(false);
  expect(system.events).toContainEqual(
    expect.objectContaining({
      operation: "HostPlugin",
      success: true,
      message: "HostGAPlugin version: 1.0.8.116",
    }),
  );
});

test("wire-protocol.md VMS-11 FILE-13: the note of the last Fast Track time comes and goes with the source", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ headers: { etag: "1" }, body: body() });
  await read(client);
  expect(system.files.readText(NOTE)).toBe('{"timestamp": "2022-09-28T22:13:20.000000Z"}');
  const before = system.files.stat(NOTE)?.inode;
  answer({ headers: { etag: "2" }, body: body() });
  await read(client);
  expect(system.files.stat(NOTE)?.inode).toBe(before);
  answer({ headers: { etag: "3" }, body: body({ extensionGoalStatesSource: "Fabric" }) });
  expect(await read(client)).toEqual({ kind: "none" });
  expect(system.files.exists(NOTE)).toBe(false);
  expect(client.isSupported()).toBe(true);
});

test("wire-protocol.md DB-24: content of an unknown source is not used, and that is reported", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ headers: { etag: "1" }, body: body({ extensionGoalStatesSource: undefined }) });
  expect(await read(client)).toEqual({ kind: "none" });
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "VmSettings", success: false }),
  );
});

test("wire-protocol.md VMS-15 VMS-17 VMS-19: support that was there and is gone names the last Fast Track time", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  expect(client.isSupported()).toBe(false);
  answer({ headers: { etag: "1" }, body: body() });
  await read(client);
  answer({ headers: { etag: "2" }, body: body({ extensionGoalStatesSource: "Fabric" }) });
  await read(client);
  answer({ status: 404 });
  expect(await read(client)).toEqual({
    kind: "stopped",
    lastTimestamp: "2022-09-28T22:13:20.000000Z",
  });
  expect(system.events).toContainEqual(
    expect.objectContaining({
      success: false,
      message: "[VmSettingsSupportStopped] HostGAPlugin: 1.0.8.159",
    }),
  );
  expect(await read(client)).toEqual({ kind: "none" });

  using taken = createMachine();
  taken.files.write(NOTE, '{"timestamp": "2030-05-05T00:00:00.000000Z"}');
  const other = start(taken);
  expect(other.client.isSupported()).toBe(true);
  other.answer({ status: 404 });
  expect(await read(other.client)).toEqual({
    kind: "stopped",
    lastTimestamp: "2030-05-05T00:00:00.000000Z",
  });

  using damaged = createMachine({ now: Date.UTC(2031, 0, 1) });
  damaged.files.write(NOTE, '{"timestamp": 5');
  const third = start(damaged);
  third.answer({ status: 404 });
  expect(await read(third.client)).toEqual({
    kind: "stopped",
    lastTimestamp: "2031-01-01T00:00:00.000000Z",
  });
});

test("wire-protocol.md VMS-18: with Fast Track off nothing is asked, and the note tells since when", async () => {
  using system = createMachine();
  system.files.write(NOTE, '{"timestamp": "2030-05-05T00:00:00.000000Z"}');
  const { client } = start(system, { enabled: false });
  expect(await read(client)).toEqual({ kind: "none" });
  expect(system.requests).toEqual([]);
  expect(client.isSupported()).toBe(false);
  expect(client.disabledSince()).toBe("2030-05-05T00:00:00.000000Z");
  client.forgetLastFastTrack();
  expect(client.disabledSince()).toBeUndefined();
});

test("wire-protocol.md VMS-47: a document that cannot be used is kept once for each ETag and fails every poll", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({ headers: { etag: "77" }, body: '{"protectedSettings": "x"' });
  expect((await failure(client)).code).toBe("bad-input");
  expect([...saved.keys()]).toEqual(["77/VmSettings.json"]);
  saved.clear();
  expect((await failure(client)).code).toBe("bad-input");
  expect(saved.size).toBe(0);
  answer({ headers: { etag: "78" }, body: "[]" });
  await failure(client);
  expect([...saved.keys()]).toEqual(["78/VmSettings.json"]);
});

test("wire-protocol.md FIX-15: a Fabric document that cannot be parsed fails as well", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  answer({
    headers: { etag: "1" },
    body: body({ extensionGoalStatesSource: "Fabric", gaFamilies: {} }),
  });
  expect((await failure(client)).code).toBe("bad-input");
});

test("wire-protocol.md VMS-44: what became of dependencies is an event", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  const extension = {
    name: "P.E",
    version: "1",
    state: "enabled",
    settingsSeqNo: 0,
    settings: [{}],
    dependsOn: [{ dependencyLevel: 1 }],
  };
  answer({ headers: { etag: "1" }, body: body({ extensionGoalStates: [extension] }) });
  await read(client);
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "ProvisionAfterExtensions", success: false }),
  );
});

test("after a failure the last outcome is still known", async () => {
  using system = createMachine();
  const { client, answer } = start(system);
  expect(client.cached()).toEqual({ kind: "none" });
  answer({ headers: { etag: "1" }, body: body() });
  await read(client);
  answer({ status: 500 });
  await failure(client);
  expect(client.cached()).toMatchObject({ kind: "fast-track", etag: "1", newText: undefined });
});
