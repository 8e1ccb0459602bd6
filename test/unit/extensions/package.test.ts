import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { parseHandlerManifest } from "../../../src/extensions/handler-manifest.ts";
import { buildExtension, RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { buildZip } from "../../fakes/zip.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const demo = { name: NAME, version: "1.0", script: RECORDING_SCRIPT };
const manifest = JSON.stringify([
  {
    handlerManifest: Object.fromEntries(
      ["install", "enable", "update", "disable", "uninstall"].map((one) => [
        `${one}Command`,
        "bin/run",
      ]),
    ),
  },
]);
const BASE = `${LIB}/${NAME}-1.0` as const;

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

const run = async () => {
  const wanted = goal([handler(NAME, "1.0", { settings: [settings(3)] })]);
  await world.runner.process(wanted);
  return world.runner.reports(wanted)[0];
};
const offerBytes = (bytes: Uint8Array): void => void world.packages.set(`${NAME} 1.0`, bytes);

describe("download", () => {
  test("extensions.md EXT-34 EXT-46 EXT-48 EXT-52 wire-protocol.md FILE-19: a package becomes the handler's directory with its folders, rights and environment", async () => {
    world.offer({ ...demo, files: [{ name: "lib/data.txt", data: "x", mode: 0o100400 }] });
    await run();
    const { files } = world.system;
    for (const name of ["bin/run", "lib/data.txt", "HandlerManifest.json"])
      expect([name, files.stat(`${BASE}/${name}`)?.mode]).toEqual([name, 0o744]);
    expect(files.stat(`${BASE}/config`)?.mode).toBe(0o700);
    expect(files.stat(`${BASE}/status`)?.mode).toBe(0o700);
    expect(files.stat(`${LOGS}/${NAME}/events`)?.mode).toBe(0o700);
    expect(files.stat(`${LOGS}/${NAME}`)?.mode).toBe(0o755);
    const root = files.realPath("/").replace(/\/$/, "");
    expect(world.read(`${NAME}-1.0/HandlerEnvironment.json`)?.replaceAll(root, "")).toBe(
      `[{"name": "${NAME}", "version": 1.0, "handlerEnvironment": {"logFolder": "${LOGS}/${NAME}", "configFolder": "${BASE}/config", "statusFolder": "${BASE}/status", "heartbeatFile": "${BASE}/heartbeat.log", "eventsFolder": "${LOGS}/${NAME}/events", "eventsFolder_preview": "${LOGS}/${NAME}/events"}}]`.replaceAll(
        "//",
        "/",
      ),
    );
    expect(world.fetched).toEqual([`manifest ${NAME}`, `package ${NAME} 1.0`]);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "Download", success: true, name: NAME, version: "1.0" }),
    );
  });

  test("extensions.md EXT-29: when no source has the package the code is 1001, with the download prefix", async () => {
    world.packages.set(`${NAME} 1.0`, new Uint8Array());
    const report = await run();
    expect(report).toMatchObject({ status: "NotReady", code: 1001 });
    expect(report?.message).toStartWith(
      `Failed to download the package of ${NAME}-1.0: No source had`,
    );
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "Download", success: false }),
    );
    expect(world.system.files.list(`${LIB}/extensions/staging`)).toEqual([]);
    expect(world.system.files.exists(`${LIB}/${NAME}__1.0.zip`)).toBe(false);
  });

  test("extensions.md EXT-40: a manifest that cannot be had is a generic failure", async () => {
    world.failManifests(new AgentError("protocol", "both channels failed"));
    expect(await run()).toMatchObject({
      code: -1,
      message: "Failed to get ext handler pkgs: both channels failed",
    });
  });

  test("extensions.md EXT-41 wire-protocol.md DL-09: a package that is there already is used; when it is broken it goes and the download follows", async () => {
    world.offer(demo);
    world.system.files.makeDirectory(LIB);
    world.system.files.write(`${LIB}/${NAME}__1.0.zip`, buildExtension(demo));
    expect(await run()).toMatchObject({ status: "Ready" });
    expect(world.fetched).toEqual([`manifest ${NAME}`]);
    expect(world.system.files.exists(`${LIB}/${NAME}__1.0.zip`)).toBe(true);
    expect(world.system.files.exists(`${LIB}/${NAME}-1.0/HandlerManifest.json`)).toBe(true);
    using other = createWorld();
    other.offer(demo);
    other.system.files.makeDirectory(LIB);
    other.system.files.write(`${LIB}/${NAME}__1.0.zip`, "broken");
    await other.runner.process(goal([handler(NAME, "1.0")]));
    expect(other.fetched).toEqual([`manifest ${NAME}`, `package ${NAME} 1.0`]);
    expect(other.system.files.exists(`${LIB}/${NAME}__1.0.zip`)).toBe(false);
  });

  test("extensions.md EXT-29 EXT-44 DB-12: a bad archive fails only this handler, with the reason", async () => {
    offerBytes(buildZip([{ name: "a", data: "1", crc: 5 }]));
    const report = await run();
    expect(report?.message).toContain('"a": its checksum is wrong');
    expect(world.system.files.exists(`${BASE}/a`)).toBe(false);
  });

  test("extensions.md EXT-45 DB-12: links and names that point outside are made harmless, loudly", async () => {
    offerBytes(
      buildZip([
        { name: "HandlerManifest.json", data: manifest },
        { name: "bin/run", data: "#!/bin/sh\n" },
        { name: "../../../etc/cron.d/x", data: "evil" },
        { name: "shadow", data: "/etc/shadow", mode: 0o120777 },
      ]),
    );
    expect(await run()).toMatchObject({ status: "Ready" });
    expect(world.read(`${NAME}-1.0/etc/cron.d/x`)).toBe("evil");
    expect(world.system.files.lstat(`${BASE}/shadow`)?.kind).toBe("file");
    expect(world.system.files.exists("/etc")).toBe(false);
    expect(world.system.lines.filter((line) => line.startsWith("WARNING")).length).toBe(2);
  });
});

describe("what the package holds", () => {
  test("extensions.md EXT-47: the manifest is found below, highest first, and copied up without its mark", async () => {
    offerBytes(
      buildZip([
        { name: "z/deep/HandlerManifest.json", data: "no" },
        { name: "b/HandlerManifest.json", data: `\uFEFF${manifest}` },
        { name: "b/HandlerManifest.json.bak", data: "no" },
        { name: "bin/run", data: "#!/bin/sh\n" },
      ]),
    );
    expect(await run()).toMatchObject({ status: "Ready" });
    expect(world.read(`${NAME}-1.0/HandlerManifest.json`)).toBe(manifest);
    expect(world.system.files.stat(`${BASE}/HandlerManifest.json`)?.mode).toBe(0o644);
  });

  test("extensions.md EXT-47 EXT-29: without a manifest it is a download failure", async () => {
    offerBytes(buildZip([{ name: "bin/run", data: "x" }]));
    expect((await run())?.message).toContain("has no HandlerManifest.json");
  });

  test.each([
    ["not json", "not json"],
    ["an empty array", "[]"],
    ["an object", "{}"],
    ["no section", "[{}]"],
    ["a section of another type", '[{"handlerManifest": 5}]'],
  ])("extensions.md EXT-51: %s is 1003", async (_name, text) => {
    offerBytes(buildExtension({ ...demo, manifestText: text }));
    expect(await run()).toMatchObject({ status: "NotReady", code: 1003 });
  });

  test("extensions.md EXT-51: a manifest that is gone later is 1002", async () => {
    world.offer(demo);
    await run();
    world.system.files.remove(`${BASE}/HandlerManifest.json`);
    expect(await run()).toMatchObject({ code: 1002 });
  });

  test("extensions.md EXT-49 EXT-50: leniencies of the manifest", () => {
    const parse = (section: Record<string, unknown>) =>
      parseHandlerManifest(JSON.stringify([{ handlerManifest: section }]), "m");
    const strict = parse({
      installCommand: "//bin/a b",
      enableCommand: 5,
      reportHeartbeat: "TRUE",
      continueOnUpdateFailure: "yes",
      supportsMultipleExtensions: true,
      updateMode: "UPDATEWITHINSTALL",
      rebootAfterInstall: "whatever",
    });
    expect(strict).toMatchObject({
      commands: { install: "bin/a b", enable: undefined, update: undefined },
      reportHeartbeat: true,
      continueOnUpdateFailure: false,
      supportsMultipleExtensions: true,
      updateWithInstall: true,
      oddBooleans: ["reportHeartbeat", "continueOnUpdateFailure"],
    });
    expect(parse({})).toMatchObject({
      reportHeartbeat: false,
      updateWithInstall: true,
      oddBooleans: [],
    });
    expect(parse({ updateMode: "None" }).updateWithInstall).toBe(false);
    const limits = parseHandlerManifest(
      JSON.stringify([
        {
          handlerManifest: {},
          resourceLimits: {
            cpuQuotaPercentage: 20,
            memoryQuotaInMB: "512",
            services: [{ name: "a.service", cpuQuotaPercentage: 5 }, { name: "../b" }, 7],
          },
        },
      ]),
      "m",
    ).resourceLimits;
    expect(limits).toEqual({
      cpuQuotaPercentage: 20,
      memoryQuotaInMB: 512,
      services: [{ name: "a.service", cpuQuotaPercentage: 5, memoryQuotaInMB: undefined }],
    });
  });

  test("extensions.md EXT-50: a command that is needed and not there names itself", async () => {
    offerBytes(
      buildExtension({
        ...demo,
        manifestText: '[{"handlerManifest": {"installCommand": "bin/run install"}}]',
      }),
    );
    expect(await run()).toMatchObject({
      code: 1003,
      message: `The manifest of ${NAME} 1.0 has no enableCommand`,
    });
  });
});

describe("the disk", () => {
  test("extensions.md DB-10: too little space is said before anything is fetched or unpacked", async () => {
    world.offer({ ...demo, files: [{ name: "big", data: new Uint8Array(30_000_000) }] });
    let bytes = 10_000_000;
    const { files } = world.system;
    world.system.files.freeSpace = () => ({ bytes, inodes: 100_000, capacity: 1e12 });
    expect((await run())?.message).toMatch(
      /There is not enough space in .* to download .*: 47 MiB|There is not enough space/,
    );
    expect(world.fetched).toEqual([`manifest ${NAME}`]);
    bytes = 46_000_000;
    const report = await run();
    expect(report?.message).toContain("There is not enough space");
    expect(files.exists(`${BASE}/bin`)).toBe(false);
    world.system.files.freeSpace = () => ({ bytes: 1e12, inodes: 100, capacity: 1e12 });
    expect((await run())?.message).toContain("There are not enough inodes");
    world.system.files.freeSpace = () => undefined;
    expect(await run()).toMatchObject({ status: "Ready" });
  });

  test("extensions.md DB-11: a new download leaves no stale file, but keeps what is not of the package", async () => {
    world.offer({
      ...demo,
      files: [{ name: "old.txt", data: "x" }],
      script: "#!/bin/sh\n[ $1 = install ] && exit 1\nexit 0\n",
    });
    await run();
    world.system.files.write(`${BASE}/mrseq`, "2");
    world.system.files.write(`${BASE}/status/2.status`, "[]");
    world.offer(demo);
    expect(await run()).toMatchObject({ status: "Ready" });
    const { files } = world.system;
    expect(files.exists(`${BASE}/old.txt`)).toBe(false);
    expect(world.read(`${NAME}-1.0/mrseq`)).toBe("2");
    expect(files.exists(`${BASE}/status/2.status`)).toBe(true);
  });
});
