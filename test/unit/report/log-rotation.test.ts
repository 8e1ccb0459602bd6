import { expect, test } from "bun:test";
import { logRotation, rotateLog, ROTATE_AT_BYTES } from "../../../src/report/log-rotation.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const FILE = "/var/log/waagent.log";

test("system.md LOG-09 BET-23: a log that logrotate leaves alone is rotated by ourselves, three are kept", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/var/log");
  for (let generation = 1; generation <= 5; generation += 1) {
    system.files.write(FILE, `${generation}${"x".repeat(100)}`);
    rotateLog(system, FILE, 100);
  }
  expect(system.files.list("/var/log")).toEqual([
    "waagent.log.1",
    "waagent.log.2",
    "waagent.log.3",
  ]);
  expect([1, 2, 3].map((number) => system.files.readText(`${FILE}.${number}`)[0])).toEqual([
    "5",
    "4",
    "3",
  ]);
  expect(system.lines[0]).toContain("was moved to /var/log/waagent.log.1");
});

test("system.md BET-23: on a small disk a log and the three kept ones have a quarter of it at most", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/var/log");
  system.files.freeSpace = () => ({ bytes: 1, inodes: 1, capacity: 1600 });
  system.files.write(FILE, "x".repeat(99));
  rotateLog(system, FILE);
  expect(system.files.list("/var/log")).toEqual(["waagent.log"]);
  system.files.write(FILE, "x".repeat(100));
  rotateLog(system, FILE);
  expect(system.files.list("/var/log")).toEqual(["waagent.log.1"]);
});

test("system.md BET-23: shorter logs, links and absent ones are left alone", async () => {
  using system = createFakeSystem();
  expect(ROTATE_AT_BYTES).toBe(41_943_040);
  const monitor = logRotation(system, FILE);
  await monitor.run(new AbortController().signal);
  system.files.makeDirectory("/var/log");
  system.files.write("/var/log/other", "x".repeat(200));
  system.files.link("other", FILE);
  rotateLog(system, FILE, 100);
  expect(system.files.list("/var/log")).toEqual(["other", "waagent.log"]);
  system.files.remove(FILE);
  system.files.write(FILE, "short");
  await monitor.run(new AbortController().signal);
  expect(system.files.list("/var/log")).toEqual(["other", "waagent.log"]);
  expect(system.lines).toEqual([]);
});
