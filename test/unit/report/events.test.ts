import { describe, expect, test } from "bun:test";
import { statSync } from "node:fs";
import { parseEventDocument, type EventDocument } from "../../../src/report/event-document.ts";
import { osVersionText } from "../../../src/report/event-parameters.ts";
import { createEventSpool, type EventSpoolOptions } from "../../../src/report/events.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { facts } from "./facts.ts";

const NOW = Date.UTC(2030, 0, 2, 3, 4, 5, 250);

function spoolOn(system: FakeSystem, change: Partial<EventSpoolOptions> = {}) {
  return createEventSpool(system, {
    facts,
    directory: "/lib/events",
    statusFile: "/lib/event_status.json",
    ...change,
  });
}

function written(system: FakeSystem): EventDocument[] {
  return system.files
    .list("/lib/events")
    .map((name) => parseEventDocument(system.files.readText(`/lib/events/${name}`), name));
}

const values = (event: EventDocument | undefined): Record<string, unknown> =>
  Object.fromEntries(
    (event?.parameters ?? []).map(({ name, value }) => [
      name,
      value !== null && typeof value === "object"
        ? String((value as { text?: string }).text)
        : value,
    ]),
  );

describe("documents", () => {
  test("wire-protocol.md TEL-01 TEL-04 TEL-05 TEL-06 TEL-08 TEL-15: an operation of the agent, parameters in order, JSON types", () => {
    using system = createFakeSystem({ now: NOW });
    spoolOn(system).emit({
      operation: "HeartBeat",
      success: true,
      message: "ok",
      durationMs: 12.9,
    });
    const [name = ""] = system.files.list("/lib/events");
    expect(name).toBe(`${NOW * 1000}.waagent.tld`);
    expect(system.files.readText(`/lib/events/${name}`)).toBe(
      '{"eventId": 1, "providerId": "69B669B9-4AF8-4C50-BDC4-6006FA76E975", "parameters": [' +
        [
          '"Name", "value": "WALinuxAgent"',
          '"Version", "value": "2.15.0.1"',
          '"Operation", "value": "HeartBeat"',
          '"OperationSuccess", "value": true',
          '"Message", "value": "ok"',
          '"Duration", "value": 12',
          '"GAVersion", "value": "WALinuxAgent-2.15.0.1"',
          '"ContainerId", "value": "00000000-0000-0000-0000-000000000000"',
          '"OpcodeName", "value": "2030-01-02T03:04:05.250000Z"',
          '"EventTid", "value": 4711',
          '"EventPid", "value": 4711',
          '"TaskName", "value": "ExtHandler"',
          '"ExtensionType", "value": ""',
          '"IsInternal", "value": false',
          '"OSVersion", "value": "Linux:ubuntu-22.04-jammy:6.8.0"',
          '"ExecutionMode", "value": "IAAS"',
          '"RAM", "value": 3912',
          '"Processors", "value": 4',
          '"KeywordName", "value": "{\\"CpuArchitecture\\": \\"x86_64\\"}"',
          '"TenantName", "value": "TenantName_UNINITIALIZED"',
          '"RoleName", "value": "RoleName_UNINITIALIZED"',
          '"RoleInstanceName", "value": "RoleInstanceName_UNINITIALIZED"',
          '"Location", "value": "Location_UNINITIALIZED"',
          '"SubscriptionId", "value": "SubscriptionId_UNINITIALIZED"',
          '"ResourceGroupName", "value": "ResourceGroupName_UNINITIALIZED"',
          '"VMId", "value": "VMId_UNINITIALIZED"',
          '"ImageOrigin", "value": 0',
        ]
          .map((parameter) => `{"name": ${parameter}}`)
          .join(", ") +
        '], "file_type": ""}',
    );
  });

  test("wire-protocol.md TEL-07: what goal state and IMDS tell replaces the placeholders from then on", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system);
    spool.identify({
      containerId: "c-1",
      tenantName: "tenant",
      roleName: "role",
      roleInstanceName: "role_0",
    });
    spool.identify({
      location: "westeurope",
      subscriptionId: "s",
      resourceGroupName: "g",
      vmId: "v",
      imageOrigin: 2,
      tenantName: undefined,
    });
    spool.emit({ operation: "HeartBeat", success: true, message: "" });
    expect(values(written(system)[0])).toMatchObject({
      ContainerId: "c-1",
      TenantName: "tenant",
      RoleName: "role",
      RoleInstanceName: "role_0",
      Location: "westeurope",
      SubscriptionId: "s",
      ResourceGroupName: "g",
      VMId: "v",
      ImageOrigin: "2",
    });
  });

  test("wire-protocol.md TEL-08 TEL-04: an extension's operation carries its own name, version and task", () => {
    using system = createFakeSystem({ now: NOW });
    spoolOn(system).emit({
      operation: "Enable",
      success: true,
      message: "",
      name: "Pub.Ext.one",
      version: "1.2.3",
      task: "Extensions",
    });
    expect(values(written(system)[0])).toMatchObject({
      Name: "Pub.Ext.one",
      Version: "1.2.3",
      TaskName: "Extensions",
    });
  });

  test("wire-protocol.md TEL-02 TEL-16 TRAP-03: a metric keeps its decimal point and has no ExtensionType", () => {
    using system = createFakeSystem({ now: NOW });
    spoolOn(system).emitMetric({
      category: "CPU",
      counter: "% Processor Time",
      instance: "walinuxagent.service",
      value: 1,
    });
    const [name = ""] = system.files.list("/lib/events");
    const text = system.files.readText(`/lib/events/${name}`);
    expect(text).toStartWith(
      '{"eventId": 4, "providerId": "69B669B9-4AF8-4C50-BDC4-6006FA76E975", "parameters": [{"name": "Category", "value": "CPU"}, {"name": "Counter", "value": "% Processor Time"}, {"name": "Instance", "value": "walinuxagent.service"}, {"name": "Value", "value": 1.0}, {"name": "GAVersion"',
    );
    expect(text).not.toContain("ExtensionType");
  });

  test("wire-protocol.md TEL-03 TEL-09: a forced warning goes to the log and to the log table", () => {
    using system = createFakeSystem({ now: NOW });
    spoolOn(system).emitWarning("Dropped events for Extension: X");
    expect(written(system)[0]).toMatchObject({
      eventId: 7,
      providerId: "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F",
    });
    expect(Object.entries(values(written(system)[0])).slice(0, 5)).toEqual([
      ["EventName", "Log"],
      ["CapabilityUsed", "WARNING"],
      ["Context1", "Dropped events for Extension: X"],
      ["Context2", "2030-01-02T03:04:05.250000Z"],
      ["Context3", ""],
    ]);
    expect(system.lines).toEqual(["WARNING ExtHandler ExtHandler Dropped events for Extension: X"]);
  });

  test("wire-protocol.md TEL-18 HTTP-22: messages are redacted before they are written", () => {
    using system = createFakeSystem({ now: NOW });
    spoolOn(system).emit({
      operation: "Download",
      success: true,
      message: "from https://h/f?sv=1&sig=SECRET ok",
    });
    expect(values(written(system)[0])["Message"]).toBe("from https://h/f?<redacted> ok");
  });

  test("wire-protocol.md TEL-06 system.md MON-16: the OS version text", () => {
    expect(
      osVersionText({ name: "ubuntu", version: "22.04", codeName: "jammy" }, "6.8.0-azure"),
    ).toBe("Linux:ubuntu-22.04-jammy:6.8.0-azure");
  });
});

describe("what is emitted", () => {
  test("wire-protocol.md TEL-55 system.md LOG-10: a failed event is logged at ERROR unless told otherwise", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system);
    spool.emit({
      operation: "Install",
      success: false,
      message: "no",
      name: "Pub.Ext",
      version: "1.0",
      durationMs: 5,
    });
    spool.emit({ operation: "Install", success: false, message: "quiet", log: false });
    spool.emit({ operation: "Install", success: true, message: "fine" });
    expect(system.lines).toEqual([
      "ERROR ExtHandler ExtHandler Event: name=Pub.Ext, op=Install, message=no, duration=5",
    ]);
    expect(written(system)).toHaveLength(3);
  });

  test("wire-protocol.md TEL-25 FILE-15 DB-23: ReportStatus goes out only when it flips, remembered over restarts", () => {
    using system = createFakeSystem({ now: NOW });
    system.files.makeDirectory("/lib");
    const report = (success: boolean) =>
      spoolOn(system).emit({ operation: "ReportStatus", success, message: "", log: false });
    for (const success of [true, true, false, false, true]) report(success);
    expect(written(system).map((event) => values(event)["OperationSuccess"])).toEqual([
      true,
      false,
      true,
    ]);
    expect(system.files.readText("/lib/event_status.json")).toBe(
      '{"WALinuxAgent-2.15.0.1-ReportStatus": true}',
    );
  });

  test("wire-protocol.md TEL-25: a damaged event_status.json is named and does not stop events", () => {
    using system = createFakeSystem({ now: NOW });
    system.files.makeDirectory("/lib");
    system.files.write("/lib/event_status.json", "{oops");
    spoolOn(system).emit({ operation: "ReportStatus", success: true, message: "" });
    expect(written(system)).toHaveLength(1);
    expect(system.lines[0]).toContain("/lib/event_status.json is not valid JSON");
  });

  test("wire-protocol.md TEL-26: an identical event is dropped within its period only", async () => {
    using system = createFakeSystem({ now: NOW, automatic: false });
    const spool = spoolOn(system);
    const emit = (message: string) =>
      spool.emit({
        operation: "StatusProcessing",
        success: false,
        message,
        periodMs: 1000,
        log: false,
      });
    emit("a");
    emit("a");
    emit("b");
    await system.clock.advance(999);
    emit("a");
    await system.clock.advance(1);
    emit("a");
    expect(written(system).map((event) => values(event)["Message"])).toEqual(["a", "b", "a"]);
  });

  test("wire-protocol.md TEL-15: with telemetry off failures are logged and nothing is kept", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system, { enabled: false });
    spool.emit({ operation: "Install", success: false, message: "no" });
    spool.emitMetric({ category: "CPU", counter: "x", instance: "", value: 1 });
    expect(system.lines).toHaveLength(1);
    expect(system.files.exists("/lib/events")).toBeFalse();
  });
});

describe("bounds", () => {
  const emit = (spool: ReturnType<typeof spoolOn>, count: number, message = "m") => {
    for (let index = 0; index < count; index += 1)
      spool.emit({ operation: "Op", success: true, message: `${message}${index}` });
  };
  const limits = { maxFiles: 5, maxBytes: 1_000_000, maxAgeMs: 10_000 };

  test("wire-protocol.md FILE-14 system.md LOG-11: the folder is private", () => {
    using system = createFakeSystem({ now: NOW });
    emit(spoolOn(system), 1);
    expect(system.files.stat("/lib/events")?.mode).toBe(0o700);
    const [name = ""] = system.files.list("/lib/events");
    expect(statSync(system.files.realPath(`/lib/events/${name}`)).mode & 0o777).toBe(0o600);
  });

  test("wire-protocol.md TRAP-10: names are microseconds and never collide, also when the clock steps back", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system);
    emit(spool, 2);
    system.clock.step(-5000);
    emit(spool, 1);
    expect(system.files.list("/lib/events")).toEqual(
      [0, 1, 2].map((offset) => `${NOW * 1000 + offset}.waagent.tld`),
    );
  });

  test("wire-protocol.md TEL-17: a full folder loses its oldest files by name, counting what was there before", () => {
    using system = createFakeSystem({ now: NOW });
    system.files.makeDirectory("/lib/events");
    for (const name of ["1000.tld", "1001.waagent.tld"]) {
      system.files.write(`/lib/events/${name}`, "{}");
      system.files.setTimes(`/lib/events/${name}`, NOW);
    }
    const spool = spoolOn(system, { limits });
    emit(spool, 5);
    expect(spool.files.list()).toHaveLength(5);
    expect(system.files.list("/lib/events")).toHaveLength(5);
    expect(system.files.list("/lib/events")[0]).toBe(`${NOW * 1000}.waagent.tld`);
    expect(spool.files.takeDropped()).toBe(2);
    expect(spool.files.takeDropped()).toBe(0);
  });

  test("wire-protocol.md TEL-17 DB-18: bytes are bounded too", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system, { limits: { ...limits, maxFiles: 100, maxBytes: 10_000 } });
    emit(spool, 40, "x".repeat(500));
    const sizes = spool.files.list().map((file) => system.files.stat(file.path)?.size ?? 0);
    expect(sizes.length).toBeGreaterThan(2);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(10_000);
    expect(spool.files.takeDropped()).toBe(40 - sizes.length);
  });

  test("wire-protocol.md DB-18: an event that nobody took in time is given up; a clock step is no reason to", async () => {
    using system = createFakeSystem({ now: NOW, automatic: false });
    const spool = spoolOn(system, { limits });
    emit(spool, 1);
    system.clock.step(365 * 24 * 3600 * 1000);
    expect(spool.files.list()).toHaveLength(1);
    await system.clock.advance(10_000);
    expect(spool.files.list()).toHaveLength(0);
    expect(system.files.list("/lib/events")).toEqual([]);
    expect(spool.files.takeDropped()).toBe(1);
  });

  test("wire-protocol.md TEL-19: files of others are noticed, leftovers of a crash are removed, the rest is left alone", () => {
    using system = createFakeSystem({ now: NOW });
    const spool = spoolOn(system);
    expect(spool.files.list()).toEqual([]);
    system.files.makeDirectory("/lib/events");
    for (const name of ["7.tld", "note.txt", ".8.waagent.tld.1.2.tmp"]) {
      system.files.write(`/lib/events/${name}`, "{}");
      system.files.setTimes(`/lib/events/${name}`, NOW - 100_000);
    }
    expect(spool.files.list().map((file) => [file.path, file.byAgent])).toEqual([
      ["/lib/events/7.tld", false],
    ]);
    expect(system.files.list("/lib/events")).toEqual(["7.tld", "note.txt"]);
  });

  test("system.md LOG-11: a folder that cannot be written costs the event and nothing else", () => {
    using system = createFakeSystem({ now: NOW });
    system.files.makeDirectory("/lib");
    system.files.write("/lib/events", "a file stands where the folder should");
    const spool = spoolOn(system);
    emit(spool, 2);
    expect(spool.files.takeDropped()).toBe(2);
    expect(system.files.readText("/lib/events")).toContain("a file stands");
  });
});
