import { describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { parseXml } from "../../../src/base/xml.ts";
import { createEventSpool, type EventSpoolOptions } from "../../../src/report/events.ts";
import { createTelemetrySender, postThrough } from "../../../src/report/telemetry-sender.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { facts } from "./facts.ts";

const EVENTS = "/var/lib/waagent/events";

function world(change: { enabled?: boolean; spool?: Partial<EventSpoolOptions> } = {}) {
  const system = createFakeSystem({ now: Date.now() });
  const bodies: string[] = [];
  const flushes: boolean[] = [];
  const answers: (AgentError | undefined)[] = [];
  const spool = createEventSpool(system, {
    facts,
    directory: EVENTS,
    statusFile: "/var/lib/waagent/event_status.json",
    ...(change.enabled === undefined ? {} : { enabled: change.enabled }),
    ...change.spool,
  });
  const sender = createTelemetrySender(system, spool, {
    enabled: change.enabled ?? true,
    extensionLogDirectory: "/var/log/azure",
    post: (body, { flush }) => {
      const answer = answers.shift();
      if (answer !== undefined) return Promise.reject(answer);
      bodies.push(body);
      flushes.push(flush);
      return Promise.resolve();
    },
  });
  const emit = (message: string) => spool.emit({ operation: "Op", success: true, message });
  const put = (name: string, content: string | Uint8Array) => {
    system.files.makeDirectory(EVENTS);
    system.files.write(`${EVENTS}/${name}`, content);
  };
  return {
    system,
    bodies,
    flushes,
    answers,
    spool,
    sender,
    emit,
    put,
    waiting: () => system.files.list(EVENTS),
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

/** Parameters of every event in a body. */
function eventsIn(body: string): Record<string, string>[] {
  const provider = parseXml(body, "the body").children[0];
  return (provider?.children ?? []).map((event) =>
    Object.fromEntries(
      parseXml(`<E>${event.text ?? ""}</E>`, "the event").children.map(({ attributes }) => [
        attributes.get("Name") ?? "",
        `${attributes.get("Value")}${attributes.get("T") === "mt:wstr" ? "" : ` ${attributes.get("T")}`}`,
      ]),
    ),
  );
}
const unreachable = new AgentError("http", "POST failed: connection refused", {
  errno: "ECONNREFUSED",
});
const refused = new AgentError("http", "POST: [HTTP Failed] [400: Bad Request]", { status: 400 });

describe("delivery", () => {
  test("wire-protocol.md TEL-19 TEL-29 DB-18: events go out grouped by provider and leave the disk then", async () => {
    using w = world();
    w.emit("one");
    w.spool.emitWarning("two");
    w.emit("three");
    await w.sender.sendEvents();
    expect(
      w.bodies.map((body) => eventsIn(body).map((event) => event["Message"] ?? event["Context1"])),
    ).toEqual([["one", "three"], ["two"]]);
    expect(w.bodies.map((body) => /Provider id="(\w+)/.exec(body)?.[1])).toEqual([
      "69B669B9",
      "FFF0196F",
    ]);
    expect(w.waiting()).toEqual([]);
    await w.sender.sendEvents();
    expect(w.bodies).toHaveLength(2);
  });

  test("wire-protocol.md DB-18 extensions.md DB-41: nothing is lost while the platform cannot be reached; the wait grows and ends", async () => {
    using w = world();
    w.emit("one");
    for (let round = 0; round < 3; round += 1) w.answers.push(unreachable);
    await w.sender.sendEvents();
    expect(w.waiting()).toHaveLength(1);
    await w.sender.sendEvents();
    expect(w.answers).toHaveLength(2);
    for (const wait of [60_000, 120_000, 240_000]) {
      await w.system.clock.sleep(wait);
      await w.sender.sendEvents();
    }
    expect(w.bodies.map((body) => eventsIn(body)[0]?.["Message"])).toEqual(["one"]);
    expect(w.waiting()).toEqual([]);
  });

  test("wire-protocol.md TEL-32: a request stays below 64512 bytes of events", async () => {
    using w = world();
    for (let index = 0; index < 30; index += 1) w.emit("é".repeat(4000));
    await w.sender.sendEvents();
    expect(w.bodies.length).toBeGreaterThan(3);
    expect(w.bodies.flatMap(eventsIn)).toHaveLength(30);
    for (const body of w.bodies) {
      const events = /<Provider id="[^"]*">(.*)<\/Provider>/s.exec(body)?.[1] ?? "";
      expect(Buffer.byteLength(events)).toBeLessThan(64_512);
    }
    expect(Buffer.byteLength(w.bodies[0] ?? "")).toBeGreaterThan(50_000);
  });

  test("wire-protocol.md TEL-32 TEL-33: an event that fits into no request is dropped, told and counted", async () => {
    using w = world();
    w.emit("x".repeat(70_000));
    w.emit("small");
    await w.sender.sendEvents();
    expect(w.bodies.flatMap(eventsIn).map((event) => event["Message"])).toEqual(["small"]);
    expect(w.system.lines.join()).toContain("Dropped an event of");
    await w.sender.sendEvents();
    const [event] = eventsIn(w.bodies[1] ?? "");
    expect(event).toMatchObject({
      Operation: "ReportEventErrors",
      OperationSuccess: "False mt:bool",
    });
    expect(event?.["Message"]).toStartWith("DroppedEventsCount: 1");
  });

  test("wire-protocol.md TEL-32: no more than 15 calls in 15 seconds", async () => {
    using w = world();
    for (let index = 0; index < 20; index += 1) w.emit("x".repeat(50_000));
    const before = w.system.clock.monotonic();
    await w.sender.sendEvents();
    expect(w.bodies).toHaveLength(20);
    expect(w.system.clock.monotonic() - before).toBeGreaterThanOrEqual(15_000);
  });

  test("wire-protocol.md TEL-33 DB-18: what the platform refuses three times is given up and counted; the rest still goes out", async () => {
    using w = world();
    w.emit("poison");
    for (let round = 0; round < 3; round += 1) {
      w.answers.push(refused);
      await w.sender.sendEvents();
    }
    await w.sender.sendEvents();
    expect(w.bodies.flatMap(eventsIn).map((event) => event["Operation"])).toEqual([
      "ReportEventErrors",
    ]);
    expect(w.bodies.flatMap(eventsIn)[0]?.["Message"]).toContain("400: Bad Request");
    expect(w.waiting()).toEqual([]);
  });

  test("wire-protocol.md TEL-33: losing the event that tells about losses makes no new one", async () => {
    using w = world();
    w.spool.emit({ operation: "ReportEventErrors", success: false, message: "old", log: false });
    for (let round = 0; round < 5; round += 1) {
      w.answers.push(refused);
      await w.sender.sendEvents();
    }
    expect(w.answers).toHaveLength(2);
    expect(w.waiting()).toEqual([]);
  });

  test("wire-protocol.md TEL-28: before the end the spool is drained once more with short delays", async () => {
    using w = world();
    w.emit("last words");
    await w.sender.drain();
    expect(w.flushes).toEqual([true]);
    expect(w.waiting()).toEqual([]);
  });

  test("wire-protocol.md DB-18: events of an earlier process are sent by the next one", async () => {
    using w = world();
    w.emit("from before");
    const again = createEventSpool(w.system, {
      facts,
      directory: EVENTS,
      statusFile: "/var/lib/waagent/event_status.json",
    });
    const bodies: string[] = [];
    await createTelemetrySender(w.system, again, {
      enabled: true,
      extensionLogDirectory: "/var/log/azure",
      post: (body) => Promise.resolve(bodies.push(body)),
    }).sendEvents();
    expect(bodies).toHaveLength(1);
  });

  test("wire-protocol.md TEL-19: Telemetry.Enabled=n sends nothing and keeps no folder growing", async () => {
    using w = world({ enabled: false });
    w.emit("one");
    w.put("123.tld", "{}");
    w.system.files.makeDirectory("/var/log/azure/Pub.One/events");
    w.system.files.write("/var/log/azure/Pub.One/events/1.json", "{}");
    await w.sender.sendEvents();
    await w.sender.sendExtensionEvents();
    await w.sender.drain();
    expect(w.bodies).toEqual([]);
    expect(w.waiting()).toEqual([]);
    expect(w.system.files.list("/var/log/azure/Pub.One/events")).toEqual([]);
  });
});

describe("legacy files", () => {
  const own = [
    '{"name": "Name", "value": "Pub.Ext"}',
    '{"name": "Version", "value": "1.2"}',
    '{"name": "Operation", "value": "Op"}',
    '{"name": "OperationSuccess", "value": true}',
    '{"name": "Message", "value": "see https://h/x?sv=1&sig=SECRET"}',
    '{"name": "Duration", "value": 7}',
  ];
  const document = (parameters: string[], id = "1") =>
    `{"eventId": ${id}, "providerId": "P", "parameters": [${parameters.join()}]}`;

  test("wire-protocol.md TEL-19 TEL-21 TEL-18 DB-28: an extension's keeps its six parameters and gets ours, at its file's time", async () => {
    using w = world();
    w.put(
      "7.tld",
      document([
        ...own,
        '{"name": "IsInternal", "value": true}',
        '{"name": "GAVersion", "value": "x"}',
      ]),
    );
    w.system.files.setTimes(`${EVENTS}/7.tld`, w.system.clock.now() - 1000);
    const { modifiedMs = 0 } = w.system.files.stat(`${EVENTS}/7.tld`) ?? {};
    await w.sender.sendEvents();
    const [event] = eventsIn(w.bodies[0] ?? "");
    expect(Object.keys(event ?? {}).slice(0, 7)).toEqual([
      "Name",
      "Version",
      "Operation",
      "OperationSuccess",
      "Message",
      "Duration",
      "GAVersion",
    ]);
    expect(event).toMatchObject({
      Message: "see https://h/x?<redacted>",
      GAVersion: "WALinuxAgent-2.15.0.1",
      ExtensionType: "json",
      IsInternal: "False mt:bool",
      Duration: "7 mt:uint64",
    });
    expect(event?.["OpcodeName"]?.slice(0, 19)).toBe(
      new Date(modifiedMs).toISOString().slice(0, 19),
    );
  });

  test("wire-protocol.md TEL-22: an agent's event gets only what it lacks", async () => {
    using w = world();
    w.put(
      "7.tld",
      document([
        '{"name": "Name", "value": "WALinuxAgent"}',
        '{"name": "GAVersion", "value": "WALinuxAgent-2.0"}',
        '{"name": "Extra", "value": 1}',
      ]),
    );
    await w.sender.sendEvents();
    const [event] = eventsIn(w.bodies[0] ?? "");
    expect(event).toMatchObject({
      GAVersion: "WALinuxAgent-2.0",
      Extra: "1 mt:uint64",
      TaskName: "ExtHandler",
    });
  });

  test("wire-protocol.md TEL-23: with a textual event id two parameters stay away", async () => {
    using w = world();
    w.put("7.tld", document(own, '"1"'));
    await w.sender.sendEvents();
    const [event] = eventsIn(w.bodies[0] ?? "");
    expect(event).not.toHaveProperty("ExtensionType");
    expect(event).not.toHaveProperty("IsInternal");
    expect(event).toHaveProperty("OSVersion");
  });

  test("wire-protocol.md TEL-24 TEL-33: unreadable files get three looks a second apart, are removed, counted and told", async () => {
    using w = world();
    w.put("1.tld", "{half");
    w.put("2.tld", new Uint8Array([0xff, 0xfe, 0x7b, 0x00]));
    w.put("3.tld", document(own));
    const before = w.system.clock.monotonic();
    await w.sender.sendEvents();
    expect(w.system.clock.monotonic() - before).toBe(2000);
    expect(w.bodies.flatMap(eventsIn).map((event) => event["Name"])).toEqual(["Pub.Ext"]);
    await w.sender.sendEvents();
    const told = w.bodies.slice(1).flatMap(eventsIn);
    expect(told.map((event) => event["Operation"])).toEqual([
      "CollectEventErrors",
      "CollectEventUnicodeErrors",
    ]);
    expect(told[0]?.["Message"]).toContain("DroppedEventsCount: 1");
    expect(told[0]?.["Message"]).toContain("1.tld is not valid JSON");
    expect(w.waiting()).toEqual([]);
  });

  test("wire-protocol.md TEL-24: a file that becomes whole meanwhile is sent", async () => {
    using w = world();
    w.put("1.tld", "{half");
    const sending = w.sender.sendEvents();
    w.put("1.tld", document(own));
    await sending;
    expect(w.bodies).toHaveLength(1);
  });
});

describe("extensions' events", () => {
  const event = {
    Version: "1",
    Timestamp: "t",
    TaskName: "T",
    EventLevel: "Info",
    Message: "m",
    EventPid: "1",
    EventTid: "2",
    OperationId: "o",
  };
  function withEvents(w: ReturnType<typeof world>, files: Record<string, unknown>) {
    const folder = "/var/log/azure/Pub.Ext/events" as const;
    w.system.files.makeDirectory(folder);
    for (const [name, content] of Object.entries(files))
      w.system.files.write(`${folder}/${name}`, JSON.stringify(content));
    return () => w.system.files.list(folder);
  }

  test("wire-protocol.md ETP-07 ETP-08 ETP-09 extensions.md EXT-91: sent, then the folder is emptied of everything that was there", async () => {
    using w = world();
    const left = withEvents(w, {
      "1.json": [event, event],
      "2.json": { bad: 1 },
      "readme.txt": "x",
    });
    await w.sender.sendExtensionEvents();
    expect(w.bodies.flatMap(eventsIn).map((one) => [one["EventName"], one["EventPid"]])).toEqual([
      ["Pub.Ext-1", "1"],
      ["Pub.Ext-1", "1"],
    ]);
    expect(left()).toEqual([]);
    await w.sender.sendEvents();
    expect(eventsIn(w.bodies[1] ?? "")[0]?.["Context1"]).toContain(
      "Reason: MissingKeyError; Dropped Count: 1",
    );
  });

  test("extensions.md DB-41 wire-protocol.md ETP-09: without delivery the valid files stay, and only they", async () => {
    using w = world();
    const left = withEvents(w, { "1.json": event, "2.json": { bad: 1 } });
    w.answers.push(unreachable);
    await w.sender.sendExtensionEvents();
    expect(left()).toEqual(["1.json"]);
    await w.system.clock.sleep(300_000);
    await w.sender.sendExtensionEvents();
    expect(w.bodies).toHaveLength(1);
    expect(left()).toEqual([]);
  });
});

test("wire-protocol.md TEL-31 MAP-10 HTTP-09: three attempts also under throttling, 8 s between them, 2 s for a flush", async () => {
  const posted: unknown[] = [];
  const post = postThrough({
    post: (path, body, options) => {
      posted.push([path, body, options]);
      return Promise.resolve();
    },
  });
  await post("<x/>", { flush: false });
  await post("<x/>", { flush: true });
  expect(posted).toMatchObject([
    [
      "/machine?comp=telemetrydata",
      "<x/>",
      { attempts: 3, throttledAttempts: 3, throttleDelayMs: 8000 },
    ],
    [
      "/machine?comp=telemetrydata",
      "<x/>",
      { attempts: 3, throttledAttempts: 3, throttleDelayMs: 2000 },
    ],
  ]);
});
