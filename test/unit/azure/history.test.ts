import { expect, test } from "bun:test";
import { createHistory } from "../../../src/azure/history.ts";
import { listZip } from "../../../src/system/archive.ts";
import { createMachine, LIB } from "./platform.ts";

const HISTORY = `${LIB}/history` as const;

test("wire-protocol.md HIST-01 FILE-16: a folder is named by time and tag, made on the first save, and closed to others", () => {
  using system = createMachine({ now: Date.UTC(2030, 0, 31, 23, 59, 58) });
  const entry = createHistory(system, LIB).begin("7-123");
  expect(system.files.exists(HISTORY)).toBe(false);
  entry.save("GoalState.xml", "<GoalState/>");
  expect(system.files.list(HISTORY)).toEqual(["2030-01-31T23-59-58__7-123"]);
  const folder = `${HISTORY}/2030-01-31T23-59-58__7-123` as const;
  expect(system.files.stat(folder)?.mode).toBe(0o700);
  expect(system.files.readText(`${folder}/GoalState.xml`)).toBe("<GoalState/>");
});

test("wire-protocol.md DB-19: the same tag goes on in the same folder, however often it is begun", async () => {
  using system = createMachine();
  const history = createHistory(system, LIB);
  for (let poll = 0; poll < 5; poll += 1) {
    history.begin("7").save("GoalState.xml", `<x>${poll}</x>`);
    await system.clock.sleep(6000);
  }
  history.begin("8").save("GoalState.xml", "<y/>");
  expect(system.files.list(HISTORY).map((name) => name.split("__")[1])).toEqual(["7", "8"]);
});

test("wire-protocol.md HIST-17 HIST-18 STAT-50: manifests and status go into the folder of the last goal state, overwriting", () => {
  using system = createMachine();
  const history = createHistory(system, LIB);
  expect(history.current()).toBeUndefined();
  history.begin("7").save("GoalState.xml", "<x/>");
  history.current()?.save("Pub.Ext.manifest.xml", "<m/>");
  history.current()?.save("waagent_status.json", "{}");
  history.current()?.save("waagent_status.json", '{"version": "1.1"}');
  const [folder] = system.files.list(HISTORY);
  expect(system.files.list(`${HISTORY}/${folder}`)).toEqual([
    "GoalState.xml",
    "Pub.Ext.manifest.xml",
    "waagent_status.json",
  ]);
  expect(system.files.readText(`${HISTORY}/${folder}/waagent_status.json`)).toBe(
    '{"version": "1.1"}',
  );
});

test("wire-protocol.md HIST-02 VMS-47: a folder aside does not become the one that status goes to", () => {
  using system = createMachine();
  const history = createHistory(system, LIB);
  history.begin("7").save("GoalState.xml", "<x/>");
  history.begin("999", { aside: true }).save("VmSettings.json", "{");
  history.current()?.save("waagent_status.json", "{}");
  const files = Object.fromEntries(
    system.files
      .list(HISTORY)
      .map((name) => [name.split("__")[1], system.files.list(`${HISTORY}/${name}`)]),
  );
  expect(files).toEqual({
    "7": ["GoalState.xml", "waagent_status.json"],
    "999": ["VmSettings.json"],
  });
});

test("wire-protocol.md HIST-03: at most fifty entries stay, the oldest go first", async () => {
  using system = createMachine();
  const history = createHistory(system, LIB);
  for (let incarnation = 1; incarnation <= 60; incarnation += 1) {
    history.begin(String(incarnation)).save("GoalState.xml", "<x/>");
    await system.clock.sleep(1000);
    await new Promise((resolve) => setTimeout(resolve, 2)); // change times must differ
  }
  const tags = system.files.list(HISTORY).map((name) => Number(name.split("__")[1]));
  expect(tags).toHaveLength(50);
  expect(Math.min(...tags)).toBe(11);
});

test("bytes are capped when they are written, and one document that is too large is left out", async () => {
  using system = createMachine();
  const history = createHistory(system, LIB, { bytes: 10_000 });
  const total = (): number =>
    system.files
      .list(HISTORY)
      .flatMap((folder) =>
        system.files
          .list(`${HISTORY}/${folder}`)
          .map((name) => system.files.stat(`${HISTORY}/${folder}/${name}`)?.size ?? 0),
      )
      .reduce((sum, size) => sum + size, 0);
  for (let incarnation = 1; incarnation <= 12; incarnation += 1) {
    history.begin(String(incarnation)).save("SharedConfig.xml", "x".repeat(3000));
    expect(total()).toBeLessThanOrEqual(10_000);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(system.files.list(HISTORY)).toHaveLength(3);
  history.current()?.save("Huge.xml", "x".repeat(6000));
  expect(total()).toBeLessThanOrEqual(10_000);
  expect(system.files.glob(`${HISTORY}/*/Huge.xml`)).toEqual([]);
});

test("old entries go, but never the newest five", async () => {
  using system = createMachine();
  const history = createHistory(system, LIB, { ageMs: 3600_000 });
  for (let incarnation = 1; incarnation <= 8; incarnation += 1) {
    history.begin(String(incarnation)).save("GoalState.xml", "<x/>");
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  system.clock.step(10 * 3600_000);
  history.begin("9").save("GoalState.xml", "<x/>");
  expect(system.files.list(HISTORY).map((name) => name.split("__")[1])).toEqual(
    ["4", "5", "6", "7", "8", "9"].slice(-system.files.list(HISTORY).length),
  );
  expect(system.files.list(HISTORY).length).toBeLessThanOrEqual(6);
  expect(system.files.list(HISTORY).length).toBeGreaterThanOrEqual(5);
});

test("wire-protocol.md HIST-04 HIST-05: all folders but the newest become zips with bare names; names of others are left alone", async () => {
  using system = createMachine({ now: Date.UTC(2030, 0, 1) });
  const history = createHistory(system, LIB);
  for (const tag of ["1", "2-99", "3"]) {
    history.begin(tag).save("GoalState.xml", `<x>${tag}</x>`);
    await system.clock.sleep(1000);
  }
  system.files.makeDirectory(`${HISTORY}/2029-01-01T00-00-00__my-notes`);
  system.files.makeDirectory(`${HISTORY}/2029-01-01T00:00:00.123_incarnation_5`);
  await history.archive();
  expect(system.files.list(HISTORY)).toEqual([
    "2029-01-01T00-00-00__my-notes",
    "2029-01-01T00:00:00.123_incarnation_5.zip",
    "2030-01-01T00-00-00__1.zip",
    "2030-01-01T00-00-01__2-99.zip",
    "2030-01-01T00-00-02__3",
  ]);
  expect(
    listZip(system, `${HISTORY}/2030-01-01T00-00-01__2-99.zip`).map(({ name }) => name),
  ).toEqual(["GoalState.xml"]);
});

test("wire-protocol.md HIST-04: the folder in use is never archived, also when another of the same second sorts behind it", async () => {
  using system = createMachine();
  const history = createHistory(system, LIB);
  for (const tag of ["99", "100"]) history.begin(tag).save("GoalState.xml", `<x>${tag}</x>`);
  await history.archive();
  history.current()?.save("waagent_status.json", "{}");
  const [archived, used] = system.files.list(HISTORY).toSorted((a, b) => b.length - a.length);
  expect(archived).toEndWith("__99.zip");
  expect(used).toEndWith("__100");
  expect(system.files.list(`${HISTORY}/${used}`)).toEqual(["GoalState.xml", "waagent_status.json"]);
});

test("wire-protocol.md HIST-20 HIST-11 HIST-12 HIST-13: documents with secrets are kept without them", () => {
  using system = createMachine();
  const entry = createHistory(system, LIB).begin("1");
  entry.save("VmSettings.json", '{"protectedSettings":"TOPSECRET"}');
  entry.save(
    "ExtensionsConfig.xml",
    "<StatusUploadBlob>https://a/b?sig=TOPSECRET</StatusUploadBlob>",
  );
  entry.save("HostingEnvironmentConfig.xml", '<Setting name="x" value="AccountKey=TOPSECRET;"/>');
  const [folder] = system.files.list(HISTORY);
  for (const name of system.files.list(`${HISTORY}/${folder}`))
    expect(system.files.readText(`${HISTORY}/${folder}/${name}`)).not.toContain("TOPSECRET");
});

test("wire-protocol.md HIST-23: a folder that cannot be written is one warning and no error", () => {
  using system = createMachine();
  system.files.write(HISTORY, "a file in the way");
  const entry = createHistory(system, LIB).begin("1");
  entry.save("a.xml", "x");
  entry.save("b.xml", "x");
  expect(system.lines.filter((line) => line.startsWith("WARNING"))).toHaveLength(1);
});

test("wire-protocol.md HIST-03: errors of pruning are logged four times, then once more", async () => {
  using system = createMachine();
  const broken = {
    ...system,
    files: {
      ...system.files,
      list: () => {
        throw new Error("no such disk");
      },
    },
  };
  const history = createHistory(broken as typeof system, LIB);
  for (let round = 0; round < 4; round += 1) await history.archive();
  for (let round = 0; round < 4; round += 1) history.begin(String(round)).save("a.xml", "x");
  const warnings = system.lines.filter((line) => line.startsWith("WARNING"));
  expect(warnings).toHaveLength(5);
  expect(warnings.at(-1)).toContain("will not be logged");
});

test("names from outside cannot leave the folder", () => {
  using system = createMachine();
  const entry = createHistory(system, LIB).begin('../../evil"/x');
  entry.save("../../etc/passwd", "x");
  const [folder] = system.files.list(HISTORY);
  expect(folder).not.toContain("/");
  expect(system.files.list(`${HISTORY}/${folder}`)).toHaveLength(1);
  expect(system.files.exists("/etc/passwd")).toBe(false);
});
