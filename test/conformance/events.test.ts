import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseXml } from "../../src/base/xml.ts";
import { parseEventDocument } from "../../src/report/event-document.ts";
import { createEventSpool } from "../../src/report/events.ts";
import { createTelemetrySender } from "../../src/report/telemetry-sender.ts";
import { createFakeSystem } from "../fakes/system.ts";
import { facts } from "../unit/report/facts.ts";
import { areFixturesThere, fixtures, skipWithoutFixtures } from "./fixtures.ts";

const EVENTS = "/var/lib/waagent/events";
const FOLDER = "/var/log/azure/Pub.Ext/events";

function machine() {
  const system = createFakeSystem({ now: Date.now() });
  const bodies: string[] = [];
  const spool = createEventSpool(system, {
    facts,
    directory: EVENTS,
    statusFile: "/var/lib/waagent/event_status.json",
  });
  const sender = createTelemetrySender(system, spool, {
    enabled: true,
    extensionLogDirectory: "/var/log/azure",
    post: (body) => Promise.resolve(bodies.push(body)),
  });
  const put = (folder: typeof EVENTS | typeof FOLDER, name: string, source = name) => {
    system.files.makeDirectory(folder);
    system.files.write(
      `${folder}/${path.basename(name)}`,
      readFileSync(path.join(fixtures, source)),
    );
  };
  return {
    system,
    sender,
    put,
    /** Parameters of every event sent so far, `value` or `value type` where it is no text. */
    sent: (): Record<string, string>[] =>
      bodies.flatMap((body) =>
        (parseXml(body, "the body").children[0]?.children ?? []).map((event) =>
          Object.fromEntries(
            parseXml(`<E>${event.text ?? ""}</E>`, "the event").children.map(({ attributes }) => [
              attributes.get("Name") ?? "",
              `${attributes.get("Value")}${attributes.get("T") === "mt:wstr" ? "" : ` ${attributes.get("T")}`}`,
            ]),
          ),
        ),
      ),
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const names = (folder: string): string[] => readdirSync(path.join(fixtures, folder)).sort();

  /** What is in a file and what becomes of it: Name, Message and how its common parameters were completed. */
  const AGENT_EVENTS: Readonly<Record<string, Record<string, string> | "unreadable">> = {
    "1478123456789000.tld": { Name: "Test Event", Message: "", GAVersion: "WALinuxAgent-2.15.0.1" },
    "1478123456789001.tld": {
      Message: "Linux Message",
      Duration: "42 mt:uint64",
      OperationSuccess: "False mt:bool",
    },
    "1479766858966718.tld": {
      Name: "WALinuxAgent",
      Version: "2.3.0.1",
      GAVersion: "WALinuxAgent-2.15.0.1",
    },
    "custom_script_1.tld": {
      Name: "Microsoft.Azure.Extensions.CustomScript",
      Duration: "150000 mt:uint64",
      ExtensionType: "json",
      OpcodeName: "mtime",
    },
    "custom_script_2.tld": { Message: "A test telemetry message.", IsInternal: "False mt:bool" },
    "custom_script_extra_parameters.tld": {
      GAVersion: "WALinuxAgent-2.15.0.1",
      IsInternal: "False mt:bool",
      ExtensionType: "json",
      TaskName: "ExtHandler",
      OpcodeName: "mtime",
    },
    "custom_script_invalid_json.tld": "unreadable",
    "custom_script_no_read_access.tld": { Message: "A test telemetry message." },
    "custom_script_nonascii_characters.tld": { Message: "Worldעיות אחרותआज" },
    "event_with_callstack.waagent.tld": { Name: "WALinuxAgent", Version: "2.2.46" },
    "event_with_sas_token.tld": { Name: "Test Event", Message: "redacted" },
    "legacy_agent.tld": {
      GAVersion: "WALinuxAgent-1.1.1",
      OpcodeName: "1970-01-01 12:00:00",
      TaskName: "ALegacyTask",
      OSVersion: "Linux:ubuntu-22.04-jammy:6.8.0",
    },
    "legacy_agent_no_timestamp.tld": { TaskName: "ALegacyTask", OpcodeName: "mtime" },
  };

  describe("events of agents and extensions in the event folder", () => {
    test("wire-protocol.md FIX-20: every sample has an expectation", () => {
      expect(names("events").filter((name) => name.endsWith(".tld"))).toEqual(
        Object.keys(AGENT_EVENTS).sort(),
      );
    });

    for (const [name, wanted] of Object.entries(AGENT_EVENTS)) {
      test(`wire-protocol.md FIX-20 TEL-19 TEL-21 TEL-22 TEL-24: ${name}`, async () => {
        using m = machine();
        m.put(EVENTS, name, `events/${name}`);
        const modified = m.system.files.stat(`${EVENTS}/${name}`)?.modifiedMs ?? 0;
        await m.sender.sendEvents();
        expect(m.system.files.exists(`${EVENTS}/${name}`)).toBeFalse();
        if (wanted === "unreadable") {
          expect(m.sent()).toEqual([]);
          await m.sender.sendEvents();
          expect(m.sent()[0]).toMatchObject({ Operation: "CollectEventErrors" });
          expect(m.sent()[0]?.["Message"]).toContain(`${name} is not valid JSON`);
          return;
        }
        const [event = {}, ...more] = m.sent();
        expect(more).toEqual([]);
        const { OpcodeName, Message, ...rest } = wanted;
        expect(event).toMatchObject(rest);
        if (OpcodeName === "mtime")
          expect(event["OpcodeName"]?.slice(0, 19)).toBe(
            new Date(modified).toISOString().slice(0, 19),
          );
        else if (OpcodeName !== undefined) expect(event["OpcodeName"]).toBe(OpcodeName);
        if (Message === "redacted") {
          expect(event["Message"]).toContain("<redacted>");
          expect(event["Message"]).not.toContain("8YHwmibhas");
        } else if (Message !== undefined) expect(event["Message"]).toBe(Message);
      });
    }

    test("wire-protocol.md FIX-20 TEL-19: only names ending in .tld are events", async () => {
      using m = machine();
      for (const name of names("events/collect_and_send_events_unreadable_data"))
        m.put(EVENTS, name, `events/collect_and_send_events_unreadable_data/${name}`);
      await m.sender.sendEvents();
      expect(m.system.files.list(EVENTS)).toEqual(["IncorrectExtension.tmp"]);
      expect(m.sent()).toHaveLength(1);
    });
  });

  test("wire-protocol.md TEL-20 TEL-23: samples of the agent's unit tests in JSON and XML", async () => {
    const read = (name: string) =>
      parseEventDocument(readFileSync(path.join(fixtures, "ext", name), "utf8"), name);
    expect(read("event.json")).toMatchObject({ eventId: 1, fileType: "json" });
    expect(read("event_from_agent.json").eventId).toBe(1);
    expect(read("dsc_event.json").eventId).toBe("1");
    const xml = read("event_from_extension.xml");
    expect(xml).toMatchObject({
      eventId: "1",
      fileType: "xml",
      providerId: "69B669B9-4AF8-4C50-BDC4-6006FA76E975",
    });
    const value = (name: string) => xml.parameters.find((one) => one.name === name)?.value;
    expect(value("OperationSuccess")).toBe(true);
    expect(value("IsInternal")).toBe(false);

    using m = machine();
    m.put(EVENTS, "1.tld", "ext/event_from_extension.xml");
    m.put(EVENTS, "2.tld", "ext/dsc_event.json");
    await m.sender.sendEvents();
    expect(
      m.sent().map((event) => [event["Name"], event["OperationSuccess"], "ExtensionType" in event]),
    ).toEqual([
      ["Microsoft.OSTCExtensions.VMAccessForLinux", "True mt:bool", false],
      ["Microsoft.Azure.GuestConfiguration.DSCAgent", "True mt:bool", false],
    ]);
  });

  /** Events that are sent, and what is told about the others. */
  const EXTENSION_EVENTS: Readonly<
    Record<string, { readonly sent: number; readonly told?: string }>
  > = {
    different_cases: { sent: 2 },
    empty_message: { sent: 0, told: "EmptyMessageError; Dropped Count: 1" },
    extra_parameters: { sent: 2, told: "MissingKeyError; Dropped Count: 1" },
    int_type: { sent: 1 },
    large_messages: { sent: 1 },
    missing_parameters: { sent: 0, told: "MissingKeyError; Dropped Count: 7" },
    mix_files: { sent: 9, told: "MissingKeyError; Dropped Count: 2" },
    sas_files: { sent: 2 },
    special_chars: { sent: 1 },
    well_formed_files: { sent: 23 },
  };

  describe("events of extensions", () => {
    test("wire-protocol.md FIX-21: every sample has an expectation", () => {
      expect(names("events/extension_events")).toEqual(Object.keys(EXTENSION_EVENTS).sort());
    });

    for (const [name, wanted] of Object.entries(EXTENSION_EVENTS)) {
      test(`wire-protocol.md FIX-21 ETP-02 ETP-05 ETP-06 ETP-07 ETP-08 ETP-09: ${name}`, async () => {
        using m = machine();
        for (const file of names(`events/extension_events/${name}`))
          m.put(FOLDER, file, `events/extension_events/${name}/${file}`);
        await m.sender.sendExtensionEvents();
        const events = m.sent();
        expect(events).toHaveLength(wanted.sent);
        expect(m.system.files.list(FOLDER)).toEqual([]);
        for (const event of events) {
          expect(event["EventName"]).toBe("Pub.Ext-1");
          expect(event["EventPid"]).toMatch(/^\d+$/);
          expect((event["Context1"] ?? "").length).toBeLessThanOrEqual(3072);
        }
        expect(JSON.stringify(events)).not.toContain("sXBjML1Fpk9UnTBtajo05ZTFSk0LWFGvARZ6WlVcAog");
        await m.sender.sendEvents();
        const told = m.sent().slice(events.length);
        expect(told.map((event) => event["CapabilityUsed"])).toEqual(
          wanted.told === undefined ? [] : ["WARNING"],
        );
        if (wanted.told !== undefined) expect(told[0]?.["Context1"]).toContain(wanted.told);
      });
    }

    test("wire-protocol.md FIX-21 ETP-02: the newest file's events come first", async () => {
      using m = machine();
      for (const file of names("events/extension_events/well_formed_files"))
        m.put(FOLDER, file, `events/extension_events/well_formed_files/${file}`);
      await m.sender.sendExtensionEvents();
      expect(m.sent()[0]?.["Context1"]).toBe("This is the latest event");
    });
  });
}
