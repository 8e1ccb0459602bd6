import { describe, expect, test } from "bun:test";
import { parseJson } from "../../../src/base/json.ts";
import {
  collectExtensionEvents,
  droppedSummary,
  extensionEventDocument,
  readExtensionEvent,
  type ExtensionEvent,
} from "../../../src/report/extension-events.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { facts } from "./facts.ts";

const good = {
  Version: "1.0",
  Timestamp: "2030-01-01T00:00:00.0000001Z",
  TaskName: "Downloading",
  EventLevel: "Info",
  Message: "hello",
  EventPid: "3228",
  EventTid: "1",
  OperationId: "op-1",
};
const read = (value: unknown) => readExtensionEvent(parseJson(JSON.stringify(value), "e"));

describe("one event", () => {
  test("wire-protocol.md ETP-05 extensions.md EXT-89: keys in any case, blanks trimmed, unknown keys dropped, ids may be integers", () => {
    const { Timestamp, ...others } = good;
    const event = read({
      ...others,
      tIMESTAMP: ` ${Timestamp} `,
      EventPid: 3228,
      EventTid: 1,
      More: { a: 1 },
    });
    expect(event).toEqual({
      version: "1.0",
      timestamp: Timestamp,
      task: "Downloading",
      level: "Info",
      message: "hello",
      processId: "3228",
      threadId: "1",
      operationId: "op-1",
    });
  });

  test("wire-protocol.md ETP-05 HTTP-22: signatures are redacted", () => {
    const event = read({ ...good, Message: "get https://h/x?a=1&sig=SECRET" }) as ExtensionEvent;
    expect(event.message).toBe("get https://h/x?a=1&sig=<redacted>");
  });

  test("wire-protocol.md ETP-06 extensions.md EXT-88: the message is cut to 3072 characters", () => {
    expect((read({ ...good, Message: "x".repeat(5000) }) as ExtensionEvent).message).toHaveLength(
      3072,
    );
  });

  test("wire-protocol.md ETP-06 extensions.md EXT-89: what makes an event be dropped", () => {
    for (const key of Object.keys(good)) {
      const { [key as keyof typeof good]: _, ...rest } = good;
      expect(read(rest)).toBe("MissingKeyError");
    }
    expect(read({ ...good, Message: "  " })).toBe("EmptyMessageError");
    expect(read({ ...good, OperationId: "x".repeat(6200) })).toBe("OversizeEventError");
    expect(read({ ...good, Version: "x".repeat(6200) })).toBe("OversizeEventError");
    expect(read({ ...good, Message: null })).toBe("wrong type");
    expect(read({ ...good, TaskName: 5 })).toBe("wrong type");
    expect(read({ ...good, EventPid: 1.5 })).toBe("wrong type");
    for (const other of [null, 5, "text", ["list"]]) expect(read(other)).toBe("wrong type");
  });

  test("wire-protocol.md ETP-07 TEL-03 extensions.md EXT-90: mapped to a line of the log table", () => {
    const context = { facts, identity: {} };
    const event = extensionEventDocument(
      "Pub.Ext",
      read(good) as ExtensionEvent,
      Date.UTC(2030, 0, 1),
      context,
    );
    expect(event).toMatchObject({ eventId: 7, providerId: "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F" });
    const value = (name: string) => event.parameters.find((one) => one.name === name)?.value;
    expect(event.parameters.slice(0, 5)).toEqual([
      { name: "EventName", value: "Pub.Ext-1.0" },
      { name: "CapabilityUsed", value: "Info" },
      { name: "Context1", value: "hello" },
      { name: "Context2", value: good.Timestamp },
      { name: "Context3", value: "op-1" },
    ]);
    expect(value("EventPid")).toBe("3228");
    expect(value("EventTid")).toBe("1");
    expect(value("TaskName")).toBe("Downloading");
    expect(value("OpcodeName")).toBe("2030-01-01T00:00:00.000000Z");
    expect(value("GAVersion")).toBe("WALinuxAgent-2.15.0.1");
    expect(value("ExtensionType")).toBeUndefined();
  });
});

describe("folders", () => {
  function machine() {
    const system = createFakeSystem({ now: Date.now() });
    const folder = (handler: string) => `/var/log/azure/${handler}/events` as const;
    const write = (handler: string, name: string, content: unknown) => {
      system.files.makeDirectory(folder(handler));
      system.files.write(
        `${folder(handler)}/${name}`,
        typeof content === "string" ? content : JSON.stringify(content),
      );
    };
    const collect = (seen = new Map()) => collectExtensionEvents(system, "/var/log/azure", seen);
    return { system, write, collect, [Symbol.dispose]: () => system[Symbol.dispose]() };
  }

  test("wire-protocol.md ETP-02 ETP-03 ETP-10 extensions.md EXT-88: every handler, newest name first, one object or a list", async () => {
    using world = machine();
    world.write("Pub.One", "100.json", good);
    world.write("Pub.One", "200.JSON", [good, { ...good, Message: "second" }]);
    world.write("Odd name", "1.json", good);
    for (const name of ["x1.json", "1.tld", "1.json.tmp"]) world.write("Pub.One", name, good);
    const [odd, one] = await world.collect();
    expect(odd?.handler).toBe("Odd name");
    expect(one?.files.map((file) => [file.path, file.events.length])).toEqual([
      ["/var/log/azure/Pub.One/events/200.JSON", 2],
      ["/var/log/azure/Pub.One/events/100.json", 1],
    ]);
    expect(one?.rest.map((path) => path.split("/").at(-1))).toEqual([
      "1.json.tmp",
      "1.tld",
      "x1.json",
    ]);
    expect(world.system.lines).toContain(
      "INFO ExtHandler ExtHandler Collected 3 events for extension: Pub.One",
    );
  });

  test("wire-protocol.md ETP-04 ETP-08 extensions.md EXT-88: 360 events at most, the newest; the rest is counted", async () => {
    using world = machine();
    world.write("Pub.One", "2.json", Array(300).fill(good));
    world.write("Pub.One", "1.json", Array(100).fill(good));
    world.write("Pub.One", "0.json", [good]);
    const [one] = await world.collect();
    expect(one?.files.map((file) => file.events.length)).toEqual([300, 60]);
    expect(droppedSummary(one!)).toBe(
      "Dropped events for Extension: Pub.One; Details:\n\tReason: more than 360 events; Dropped Count: 40\n\tReason: older files, after 360 events; Dropped Count: 1",
    );
  });

  test("wire-protocol.md ETP-03 ETP-08: oversized files and bad events are counted by reason", async () => {
    using world = machine();
    world.write("Pub.One", "1.json", [
      { ...good, Message: "" },
      { ...good, Message: "" },
      { a: 1 },
      good,
    ]);
    world.write("Pub.One", "2.json", " ".repeat(4 * 1024 * 1024 + 1));
    const [one] = await world.collect();
    expect(Object.fromEntries(one?.dropped ?? [])).toEqual({
      "the file 2.json has 4194305 bytes, more than 4194304": 1,
      EmptyMessageError: 2,
      MissingKeyError: 1,
    });
    expect(one?.rest).toEqual(["/var/log/azure/Pub.One/events/2.json"]);
  });

  test("wire-protocol.md ETP-03 extensions.md EXT-91: a half-written file is read again twice, a second apart", async () => {
    using world = machine();
    world.write("Pub.One", "1.json", "{");
    const before = world.system.clock.monotonic();
    const [one] = await world.collect();
    expect(world.system.clock.monotonic() - before).toBe(2000);
    expect(one?.rest).toHaveLength(1);
    expect(world.system.lines.at(-1)).toContain(
      "/var/log/azure/Pub.One/events/1.json is not valid JSON",
    );

    const late = world.collect();
    world.write("Pub.One", "1.json", good);
    expect((await late)[0]?.files).toHaveLength(1);
  });

  test("wire-protocol.md ETP-03: a folder full of garbage takes seconds, not hours", async () => {
    using world = machine();
    for (let index = 0; index < 100; index += 1) world.write("Pub.One", `${index}.json`, "garbage");
    const before = world.system.clock.monotonic();
    expect((await world.collect())[0]?.rest).toHaveLength(100);
    expect(world.system.clock.monotonic() - before).toBeLessThanOrEqual(20_000);
  });

  test("wire-protocol.md ETP-09: a link instead of the folder is not followed", async () => {
    using world = machine();
    world.write("Pub.One", "1.json", good);
    world.system.files.makeDirectory("/var/log/azure/Pub.Evil");
    world.system.files.link("../Pub.One/events", "/var/log/azure/Pub.Evil/events");
    world.system.files.write("/var/log/azure/stray", "");
    expect((await world.collect()).map((one) => one.handler)).toEqual(["Pub.One"]);
  });

  test("wire-protocol.md ETP-02: an empty folder is not listed again until something happens in it", async () => {
    using world = machine();
    world.write("Pub.One", "1.json", good);
    world.system.files.remove("/var/log/azure/Pub.One/events/1.json");
    const seen = new Map();
    expect(await world.collect(seen)).toEqual([]);
    expect(seen.size).toBe(1);
    world.write("Pub.One", "2.json", good);
    expect(await world.collect(seen)).toHaveLength(1);
  });
});
