import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { AgentError } from "../../../src/base/error.ts";
import { formatJson, type Json, JsonNumber } from "../../../src/base/json.ts";
import {
  createStatusReader,
  readStatusFile,
  writePlaceholder,
} from "../../../src/extensions/status-file.ts";
import { writeState, writeStatus } from "../../../src/extensions/store.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const REF = { name: NAME, version: "1.0" };
const LAYOUT = { lib: LIB, logs: LOGS } as const;
const BASE = `${LIB}/${NAME}-1.0` as const;
const FILE = `${BASE}/status/7.status` as const;
const SOURCE = { handler: REF, name: NAME, extension: undefined, sequence: 7 };

let world: World;
beforeEach(() => {
  world = createWorld();
  world.system.files.makeDirectory(`${BASE}/status`);
  world.system.files.makeDirectory(`${BASE}/config`);
});
afterEach(() => world[Symbol.dispose]());

const read = (content: string | Uint8Array) => {
  world.system.files.write(FILE, content);
  return readStatusFile(world.system, LAYOUT, SOURCE);
};
const readJson = (document: unknown) => read(JSON.stringify(document));
const whole = (status: Record<string, unknown>) => [{ version: "1.0", timestampUTC: "x", status }];
const json = (value: Json): string => formatJson(value);

describe("a status file", () => {
  test("extensions.md EXT-102 wire-protocol.md STAT-31: is passed on, code and operation untyped", () => {
    const status = readJson(
      whole({
        name: "Demo",
        operation: "Enable",
        status: "warning",
        code: "0x7",
        configurationAppliedTime: "2030",
        formattedMessage: { lang: "en-US", message: "done https://a/b?sig=x" },
        substatus: [
          null,
          {
            name: "part",
            status: "success",
            code: 4,
            formattedMessage: { lang: "en", message: null },
          },
          { status: "error" },
        ],
      }),
    );
    // The name is the platform's, whatever the file says.
    expect(status).toEqual({
      name: NAME,
      operation: "Enable",
      status: "warning",
      code: "0x7",
      configurationAppliedTime: "2030",
      message: "done https://a/b?<redacted>",
      substatuses: [
        { name: "part", status: "success", code: new JsonNumber("4"), message: null },
        { name: null, status: "error", code: new JsonNumber("0"), message: null },
      ],
    });
  });

  test.each(["[]", "null", "\uFEFF[]"])(
    "extensions.md EXT-101 wire-protocol.md STAT-31: %p is an empty status, never terminal",
    (text) => {
      expect(read(text)).toEqual({
        name: NAME,
        operation: null,
        status: null,
        code: null,
        configurationAppliedTime: null,
        message: null,
        substatuses: [],
      });
    },
  );

  test("extensions.md EXT-101 EXT-102: only the first element counts, an unknown or odd word is an error, code defaults to 0", () => {
    expect(read('[{"status": {"status": "Success"}}, 5, "x"]')).toMatchObject({
      status: "error",
      code: new JsonNumber("0"),
      message: null,
    });
    expect(readJson(whole({ status: 5 })).status).toBe("error");
    expect(readJson(whole({ status: "success", substatus: null })).substatuses).toEqual([]);
  });

  test.each<[string, string]>([
    ['{"status": {"status": "success"}}', "the document must be an array"],
    ["5", "the document must be an array"],
    ['"text"', "the document must be an array"],
    ["[null]", "/0 must be an object, it is null"],
    ["[5]", "/0 must be an object"],
    ['[{"status": null}]', "/0/status must be an object"],
    ['[{"status": {}}]', "/0/status/status must be a status word, it is missing"],
    [
      '[{"status": {"status": "success", "formattedMessage": 5}}]',
      "/0/status/formattedMessage must be an object",
    ],
    [
      '[{"status": {"status": "success", "formattedMessage": {"lang": "x"}}}]',
      "/0/status/formattedMessage/message must be there",
    ],
    ['[{"status": {"status": "success", "substatus": 5}}]', "/0/status/substatus must be an array"],
    [
      '[{"status": {"status": "success", "substatus": [5]}}]',
      "/0/status/substatus/0 must be an object",
    ],
    [
      '[{"status": {"status": "success", "substatus": [{"status": "ok"}]}}]',
      "/0/status/substatus/0/status must be one of",
    ],
  ])(
    "extensions.md EXT-104 EXT-107 DB-05 E2E-50 wire-protocol.md STAT-33 STAT-35: %s is malformed, with its place",
    (text, reason) => {
      const status = read(text);
      expect(status).toMatchObject({ status: "error", code: new JsonNumber("1012"), name: NAME });
      expect(status.message).toContain("Could not get a valid status");
      expect(status.message).toContain(reason);
    },
  );

  test("extensions.md EXT-104 wire-protocol.md STAT-33: what is not JSON is quoted up to 2000 characters", () => {
    const status = read(`not json ${"x".repeat(5000)}`);
    expect(status).toMatchObject({ status: "error", code: new JsonNumber("1012") });
    expect(status.message).toContain("has an incorrect format");
    expect(status.message?.match(/x/g)?.length).toBeLessThan(2010);
    expect(status.message?.match(/x/g)?.length).toBeGreaterThan(1900);
  });

  test("extensions.md EXT-104 DB-06 wire-protocol.md STAT-33: a missing file is transitioning at once, an unreadable one an error", () => {
    const began = world.system.clock.monotonic();
    const missing = readStatusFile(world.system, LAYOUT, SOURCE);
    expect(world.system.clock.monotonic()).toBe(began);
    expect(missing).toMatchObject({
      status: "transitioning",
      code: new JsonNumber("0"),
      name: NAME,
    });
    expect(missing.message).toContain("does not exist");
    world.system.files.makeDirectory(FILE);
    const unreadable = readStatusFile(world.system, LAYOUT, SOURCE);
    expect(unreadable).toMatchObject({ status: "error", code: new JsonNumber("-1") });
    expect(unreadable.message).toContain("could not read");
  });

  test("extensions.md DB-05: pipes, 50 MB, UTF-16 and broken UTF-8 are read or refused, never waited for", () => {
    spawnSync("mkfifo", [world.system.files.realPath(FILE)]);
    expect(readStatusFile(world.system, LAYOUT, SOURCE)).toMatchObject({ status: "error" });
    world.system.files.remove(FILE);
    const text = JSON.stringify(whole({ status: "success", operation: "ü" }));
    const utf16 = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(text, "utf16le")]);
    expect(read(utf16)).toMatchObject({ status: "success", operation: "ü" });
    expect(read(Buffer.from(utf16).subarray(2))).toMatchObject({ status: "error" });
    const broken = Buffer.from(JSON.stringify(whole({ status: "success", operation: "a?" })));
    broken[broken.indexOf("?")] = 0xff;
    expect(read(broken)).toMatchObject({ status: "success", operation: "a\uFFFD" });
    const large = readJson(
      whole({
        status: "success",
        formattedMessage: { lang: "x", message: "m".repeat(50_000_000) },
      }),
    );
    expect(large.message?.length).toBe(1024);
    world.system.files.write(FILE, new Uint8Array(70_000_000), { durable: false });
    expect(readStatusFile(world.system, LAYOUT, SOURCE).message).toContain("70000000 bytes");
  });

  test("extensions.md EXT-104 wire-protocol.md STAT-34 STAT-35: texts of an oversized file are cut, nulls are fine", () => {
    const part = (index: number, size: number) => ({
      name: index === 0 ? null : `n${index}`,
      status: "success",
      formattedMessage: index === 1 ? null : { lang: "x", message: "s".repeat(size) },
    });
    const status = readJson(
      whole({
        status: "success",
        formattedMessage: { lang: "x", message: "m".repeat(2000) },
        substatus: Array.from({ length: 20 }, (_, index) => part(index, 12_000)),
      }),
    );
    expect(status.message?.length).toBe(1024);
    expect(status.message).toEndWith("m ... [TRUNCATED]");
    expect(status.substatuses[2]?.message?.length).toBe(10_240);
    expect(status.substatuses[2]?.message).toEndWith(" ... [TRUNCATED]");
    // 1024 + 12 x (10240 + 2 or 3) is the most that stays within 131072.
    expect(status.substatuses.length).toBe(13);
    const small = readJson(
      whole({ status: "success", formattedMessage: { lang: "x", message: "m".repeat(2000) } }),
    );
    expect(small.message?.length).toBe(2000);
  });
});

describe("reading again and again", () => {
  test("a file that has settled is not read again until it changes", () => {
    const { system } = world;
    const reader = createStatusReader(system, LAYOUT);
    // The files of the fake machine have real times.
    system.clock.step(Date.now() + 10_000 - system.clock.now());
    let reads = 0;
    const original = system.files.read;
    system.files.read = (...input) => {
      reads += 1;
      return original(...input);
    };
    const write = (operation: string): void =>
      system.files.write(FILE, JSON.stringify(whole({ status: "success", operation })));
    expect(reader(SOURCE)).toMatchObject({ status: "transitioning" });
    write("a");
    expect([reader(SOURCE).operation, reader(SOURCE).operation, reads]).toEqual(["a", "a", 1]);
    write("b");
    expect([reader(SOURCE).operation, reads]).toEqual(["b", 2]);
    system.files.remove(FILE);
    expect(reader(SOURCE)).toMatchObject({ status: "transitioning" });
    // Written a moment ago: it may be written again in the same moment.
    system.clock.step(Date.now() - system.clock.now());
    write("c");
    reads = 0;
    reader(SOURCE);
    reader(SOURCE);
    expect(reads).toBe(2);
  });

  test("a file that could not be read once is read again although it stays the same", () => {
    const { system } = world;
    const reader = createStatusReader(system, LAYOUT);
    system.clock.step(Date.now() + 10_000 - system.clock.now());
    system.files.write(FILE, JSON.stringify(whole({ status: "success" })));
    const original = system.files.read;
    system.files.read = () => {
      throw new AgentError("io", "Could not read", { errno: "EIO" });
    };
    expect(reader(SOURCE)).toMatchObject({ status: "error" });
    system.files.read = original;
    expect(reader(SOURCE)).toMatchObject({ status: "success" });
  });
});

describe("placeholders", () => {
  test("extensions.md EXT-109 wire-protocol.md STAT-37: layout, folder mode, and never over what the extension wrote", () => {
    world.system.files.remove(`${BASE}/status`);
    const placeholder = { operation: "Enable", status: "error", code: -1, message: "m" } as const;
    writePlaceholder(world.system, LAYOUT, SOURCE, placeholder, { overwrite: false });
    expect(world.system.files.stat(`${BASE}/status`)?.mode).toBe(0o700);
    expect(world.system.files.readText(FILE)).toBe(
      `[{"version": 1.0, "timestampUTC": "2030-01-01T00:00:00Z", "status": {"name": "${NAME}", "operation": "Enable", "status": "error", "code": -1, "formattedMessage": {"lang": "en-US", "message": "m"}}}]`,
    );
    world.system.files.write(FILE, "own");
    writePlaceholder(world.system, LAYOUT, SOURCE, placeholder, { overwrite: false });
    expect(world.system.files.readText(FILE)).toBe("own");
    writePlaceholder(
      world.system,
      LAYOUT,
      SOURCE,
      { ...placeholder, operation: null },
      { overwrite: true },
    );
    expect(world.system.files.readText(FILE)).toContain('"operation": null');
  });
});

/** A handler that was processed before, by whomever. */
function onDisk(
  more: { state?: "Enabled" | "NotInstalled"; manifest?: Record<string, unknown> } = {},
): void {
  writeState(world.system, LAYOUT, REF, more.state ?? "Enabled");
  writeStatus(world.system, LAYOUT, REF, {
    status: "Ready",
    code: 0,
    message: "Plugin enabled",
    supportsMultiConfig: false,
  });
  world.system.files.write(
    `${BASE}/HandlerManifest.json`,
    JSON.stringify([{ handlerManifest: { enableCommand: "x", ...more.manifest } }]),
  );
  world.system.files.write(FILE, JSON.stringify(whole({ status: "success" })));
}
const wanted = goal([handler(NAME, "1.0", { settings: [settings(7)] })]);
const report = () => world.runner.reports(wanted);

describe("reports", () => {
  test("extensions.md EXT-103 EXT-110 EXT-112 wire-protocol.md STAT-27 STAT-29: a handler of the goal, with the status of its sequence number", () => {
    onDisk();
    expect(report()).toMatchObject([
      {
        name: NAME,
        version: "1.0",
        status: "Ready",
        code: 0,
        message: "Plugin enabled",
        extensions: [{ sequence: 7, status: { status: "success" } }],
      },
    ]);
    const next = goal([handler(NAME, "1.0", { settings: [settings(8)] })]);
    expect(world.runner.reports(next)[0]?.extensions[0]).toMatchObject({
      sequence: 8,
      status: { status: "transitioning" },
    });
  });

  test("extensions.md EXT-110 wire-protocol.md STAT-27 STAT-30: without HandlerStatus there is nothing to report once the pass is over", async () => {
    world.system.files.remove(`${BASE}/config`);
    const gone = goal([handler(NAME, "1.0", { state: "uninstall", settings: [settings(7)] })]);
    await world.runner.process(gone);
    expect(world.runner.reports(gone)).toEqual([]);
  });

  test("extensions.md EXT-111: no extension status while the handler is not installed", async () => {
    onDisk({ state: "NotInstalled" });
    expect(report()).toMatchObject([{ status: "Ready", extensions: [] }]);
  });

  test("extensions.md EXT-57 EXT-107: HandlerStatus of any shape hides nothing of the others", () => {
    onDisk();
    for (const text of [
      "5",
      "[]",
      "null",
      "not json",
      "{",
      '{"status": 5}',
      "\u0000",
      '{"code": "x", "message": 4}',
    ]) {
      world.system.files.write(`${BASE}/config/HandlerStatus`, text);
      world.system.files.makeDirectory(`${LIB}/Other-1.0/config`);
      world.system.files.write(`${LIB}/Other-1.0/config/HandlerState`, "Enabled");
      world.system.files.write(
        `${LIB}/Other-1.0/config/HandlerStatus`,
        '{"status": "Ready", "code": 0, "unknown": 1}',
      );
      const both = goal([handler(NAME, "1.0"), handler("Other", "1.0")]);
      const reports = world.runner.reports(both);
      expect(reports.at(-1)).toMatchObject({ name: "Other", status: "Ready", message: undefined });
    }
  });

  test("extensions.md EXT-57: what is stored has no shared access signature", () => {
    writeStatus(world.system, LAYOUT, REF, {
      status: "NotReady",
      code: 1,
      message: "from https://a.b/c?sv=1&sig=secret and https://a.b/c?x=1&sig=secret",
      supportsMultiConfig: false,
    });
    expect(world.read(`${NAME}-1.0/config/HandlerStatus`)).not.toContain("secret");
  });

  test("extensions.md EXT-66 wire-protocol.md STAT-26: after unsupported features what is on disk is reported, with the newest settings", async () => {
    onDisk();
    const config = `${BASE}/config` as const;
    world.system.files.write(`${config}/9.settings`, "");
    world.system.files.write(`${config}/7.settings`, "");
    world.system.files.setTimes(`${config}/9.settings`, 1000);
    const multi = `${LIB}/Multi-2.0/config`;
    world.system.files.makeDirectory(multi as SystemPath);
    world.system.files.write(`${multi}/HandlerState` as SystemPath, "Enabled");
    world.system.files.write(
      `${multi}/HandlerStatus` as SystemPath,
      '{"status": "Ready", "code": 0}',
    );
    world.system.files.write(`${multi}/first.3.settings` as SystemPath, "");
    world.system.files.write(`${multi}/second.one.4.settings` as SystemPath, "");
    world.system.files.makeDirectory(`${LIB}/WALinuxAgent-9.9.9.9/config`);
    world.system.files.write(
      `${LIB}/WALinuxAgent-9.9.9.9/config/HandlerStatus`,
      '{"status": "Ready"}',
    );
    const unsupported = goal([], {
      requiredFeatures: ["MultipleExtensionsPerHandler", "Teleport"],
    });
    expect(await world.runner.process(unsupported)).toMatchObject({ status: "Failed", code: 2001 });
    expect(world.runner.reports(unsupported)).toMatchObject([
      { name: NAME, extensions: [{ extensionName: undefined, sequence: 7 }] },
      {
        name: "Multi",
        version: "2.0",
        extensions: [
          { extensionName: "first", sequence: 3 },
          { extensionName: "second.one", sequence: 4 },
        ],
      },
    ]);
  });

  test("extensions.md EXT-114 DB-01: while a command runs the state of an earlier goal is not reported as this one's", async () => {
    world.offer({ name: NAME, version: "1.0", script: "#!/bin/sh\nsleep 0.5\n" });
    writeStatus(world.system, LAYOUT, REF, {
      status: "NotReady",
      code: 1007,
      message: "old",
      supportsMultiConfig: false,
    });
    const processing = world.runner.process(wanted);
    await Bun.sleep(150);
    expect(report()).toMatchObject([
      {
        status: "Installing",
        code: 0,
        extensions: [{ sequence: 7, status: { status: "transitioning" } }],
      },
    ]);
    await processing;
    expect(report()).toMatchObject([{ status: "Ready" }]);
  });
});

describe("heartbeats", () => {
  // On hold: the pass is over and nothing was touched.
  const held = goal([handler(NAME, "1.0", { settings: [settings(7)] })], { onHold: true });
  const report = () => world.runner.reports(held);
  beforeEach(() => world.runner.process(held));
  const beat = (text: string, ageMs = 0): void => {
    world.system.files.write(`${BASE}/heartbeat.log`, text);
    world.system.files.setTimes(`${BASE}/heartbeat.log`, world.system.clock.now() - ageMs);
  };
  const good =
    '[{"version": 1.0, "heartbeat": {"status": "ready", "code": 9, "formattedMessage": {"lang": "en-US", "message": "alive"}}}]';

  test("extensions.md EXT-120 EXT-121 wire-protocol.md STAT-28: a fresh one replaces status and message verbatim, its code is ignored", () => {
    onDisk({ manifest: { reportHeartbeat: true } });
    beat(good, 600_000);
    expect(report()).toMatchObject([{ status: "ready", code: 0, message: "alive" }]);
    beat('[{"heartbeat": {"status": "x"}}]');
    expect(report()).toMatchObject([{ status: "x", message: "Plugin enabled" }]);
  });

  test("extensions.md EXT-120: without reportHeartbeat nobody looks", () => {
    onDisk();
    beat(good);
    expect(report()).toMatchObject([{ status: "Ready", message: "Plugin enabled" }]);
  });

  test("extensions.md EXT-122 wire-protocol.md STAT-28: an old one is Unresponsive", () => {
    onDisk({ manifest: { reportHeartbeat: true } });
    beat(good, 601_000);
    expect(report()).toMatchObject([
      { status: "Unresponsive", code: 0, message: "Plugin enabled" },
    ]);
  });

  test.each([
    "",
    "[]",
    "[1]",
    "null",
    "5",
    "{}",
    '[{"heartbeat": {}}]',
    '[{"heartbeat": {"status": 5}}]',
    "not json",
  ])(
    "extensions.md EXT-107 EXT-123 DB-34 wire-protocol.md STAT-28: %p shows as -1 from the next report on, and recovers",
    (text) => {
      onDisk({ manifest: { reportHeartbeat: true } });
      if (text !== "") beat(text);
      expect(report()).toMatchObject([{ status: "Ready", code: 0 }]);
      expect(report()).toMatchObject([
        { status: "NotReady", code: -1, extensions: [{ sequence: 7 }] },
      ]);
      expect(JSON.parse(world.read(`${NAME}-1.0/config/HandlerStatus`) ?? "")).toMatchObject({
        code: -1,
      });
      beat(good);
      expect(report()).toMatchObject([{ status: "ready", code: 0, message: "alive" }]);
    },
  );

  test("extensions.md EXT-125: not read while the handler is not installed", () => {
    onDisk({ state: "NotInstalled", manifest: { reportHeartbeat: true } });
    report();
    expect(report()).toMatchObject([{ status: "Ready", code: 0 }]);
  });

  test("extensions.md EXT-124: it never lifts a refusal, its message is added", async () => {
    const policy =
      '{"policyVersion": "0.1", "extensionPolicies": {"allowListedExtensionsOnly": true}}';
    world[Symbol.dispose]();
    world = createWorld({ config: { "Debug.EnableExtensionPolicy": true } });
    world.system.files.makeDirectory(`${BASE}/status`);
    onDisk({ manifest: { reportHeartbeat: true } });
    world.system.files.makeDirectory("/etc");
    world.system.files.write("/etc/waagent_policy.json", policy);
    beat(good);
    await world.runner.process(wanted);
    const [first] = world.runner.reports(wanted);
    expect(first).toMatchObject({ status: "NotReady", code: 1009 });
    expect(first?.message).toMatch(
      /not specified as an allowed extension.*previously enabled.*alive/,
    );
  });
});

test("extensions.md EXT-104: numbers of the agent are written as numbers", () => {
  expect(json(readStatusFile(world.system, LAYOUT, SOURCE).code)).toBe("0");
});
