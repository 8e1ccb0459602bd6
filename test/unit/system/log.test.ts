import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createLog } from "../../../src/system/log.ts";
import { Root } from "../../../src/system/root.ts";
import { FakeClock } from "../../fakes/clock.ts";

const directory = mkdtempSync(path.join(tmpdir(), "waagent-log-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function setUp(level: "INFO" | "VERBOSE" = "INFO") {
  const lines: string[] = [];
  const clock = new FakeClock({ now: Date.UTC(2024, 4, 1, 10, 20, 30) });
  const log = createLog({
    root: new Root(directory),
    clock,
    identity: { thread: "Daemon", prefix: "Daemon" },
    stdout: { level, write: (line) => lines.push(line) },
    file: { level: "INFO", path: "/waagent.log" },
    console: { level: "INFO", path: "/console" },
  });
  return { log, lines, clock };
}

describe("log", () => {
  test("system.md LOG-01 LOG-02: time, level, thread, prefix, message", () => {
    const { log, lines } = setUp();
    log.info("Run daemon");
    log.named({ thread: "ExtHandler", prefix: "[Pub.Ext-1.0]" }).warning("careful");
    log.named({ thread: "MainThread", prefix: undefined }).error("bad");
    log.verbose("not shown");
    expect(lines).toEqual([
      "2024-05-01T10:20:30.000000Z INFO Daemon Daemon Run daemon\n",
      "2024-05-01T10:20:30.000000Z WARNING ExtHandler [Pub.Ext-1.0] careful\n",
      "2024-05-01T10:20:30.000000Z ERROR MainThread bad\n",
    ]);
  });

  test("system.md DAEMON-02: a process that enters another role changes all lines that do not name their own", () => {
    const { log, lines } = setUp();
    const monitor = log.named({ thread: "MonitorHandler" });
    log.become({ thread: "ExtHandler", prefix: "ExtHandler" });
    log.info("one");
    monitor.info("two");
    expect(lines.map((line) => line.split(" ").slice(2).join(" "))).toEqual([
      "ExtHandler ExtHandler one\n",
      "MonitorHandler ExtHandler two\n",
    ]);
  });

  test("system.md LOG-03: characters outside ASCII are backslash escapes, multi-line messages are raw", () => {
    const { log, lines } = setUp();
    log.info("caf\u00e9 \u4e2d \u{1f600}\nsecond\tline");
    expect(lines[0]).toEndWith("Daemon caf\\xe9 \\u4e2d \\U0001f600\nsecond\tline\n");
  });

  test("system.md BET-22: SAS tokens never reach a line", () => {
    const { log, lines } = setUp();
    log.info("PUT https://h/x?comp=page&sig=SECRET failed");
    expect(lines.join("")).not.toContain("SECRET");
  });

  test("system.md LOG-07 BET-23: after a rename by logrotate the next line goes to a new file of mode 0640", () => {
    const { log } = setUp();
    const file = path.join(directory, "waagent.log");
    rmSync(file, { force: true });
    log.info("before");
    renameSync(file, `${file}.1`);
    log.info("after");
    expect(readFileSync(file, "utf8")).toContain("after");
    expect(readFileSync(file, "utf8")).not.toContain("before");
    expect(statSync(file).mode & 0o777).toBe(0o640);
  });

  test("system.md LOG-08: identical lines are all written; periodic ones only once per interval, until reset", () => {
    const { log, lines, clock } = setUp();
    log.info("same");
    log.info("same");
    log.periodically("INFO", 60_000, "now and then");
    log.periodically("INFO", 60_000, "now and then");
    void clock.sleep(60_000);
    log.periodically("INFO", 60_000, "now and then");
    log.resetPeriodic();
    log.periodically("INFO", 60_000, "now and then");
    expect(lines.filter((line) => line.includes("same"))).toHaveLength(2);
    expect(lines.filter((line) => line.includes("now and then"))).toHaveLength(3);
  });

  test("system.md BET-23: what goes to the journal tells its priority, line by line; the file does not", () => {
    const lines: string[] = [];
    const log = createLog({
      root: new Root(directory),
      clock: new FakeClock({ now: Date.UTC(2024, 4, 1, 10, 20, 30) }),
      identity: { thread: "Daemon" },
      stdout: { level: "VERBOSE", write: (line) => lines.push(line), isJournal: true },
      file: { level: "VERBOSE", path: "/journal.log" },
      console: undefined,
    });
    log.error("broken\nin two lines");
    log.warning("odd");
    log.info("fine");
    log.verbose("detail");
    const time = "2024-05-01T10:20:30.000000Z";
    expect(lines).toEqual([
      `<3>${time} ERROR Daemon broken\n<3>in two lines\n`,
      `<4>${time} WARNING Daemon odd\n`,
      `<6>${time} INFO Daemon fine\n`,
      `<7>${time} VERBOSE Daemon detail\n`,
    ]);
    expect(readFileSync(path.join(directory, "journal.log"), "utf8")).not.toContain("<");
  });

  test("system.md LOG-12: two processes write into one file, each line is whole", async () => {
    const program = `
      import { createLog } from ${JSON.stringify(path.resolve(import.meta.dir, "../../../src/system/log.ts"))};
      import { Root } from ${JSON.stringify(path.resolve(import.meta.dir, "../../../src/system/root.ts"))};
      const log = createLog({ root: new Root(${JSON.stringify(directory)}), clock: { now: () => 0, monotonic: () => 0 },
        identity: { thread: process.argv.at(-1) }, stdout: undefined, file: { level: "INFO", path: "/shared.log" }, console: undefined });
      for (let index = 0; index < 300; index += 1) log.info(process.argv.at(-1).repeat(900));`;
    const script = path.join(directory, "writer.ts");
    writeFileSync(script, program);
    const writers = ["a", "b"].map((name) => Bun.spawn([process.execPath, script, name]));
    expect(await Promise.all(writers.map((writer) => writer.exited))).toEqual([0, 0]);
    const lines = readFileSync(path.join(directory, "shared.log"), "utf8").trimEnd().split("\n");
    expect(lines).toHaveLength(600);
    for (const line of lines) expect(line).toMatch(/ INFO (a a{900}|b b{900})$/);
  });

  test("extensions.md EXT-85: lines of one handler also go to its own file at INFO and above", () => {
    const { log } = setUp("VERBOSE");
    const handler = log.named({ prefix: "[Pub.Ext-1.0]", also: "/CommandExecution.log" });
    handler.info("Enable extension");
    handler.verbose("detail");
    const text = readFileSync(path.join(directory, "CommandExecution.log"), "utf8");
    expect(text).toContain("INFO Daemon [Pub.Ext-1.0] Enable extension\n");
    expect(text).not.toContain("detail");
  });

  test("system.md LOG-06: the console is only written while it is on, and only when it exists", () => {
    const { log } = setUp();
    const file = path.join(directory, "console");
    log.info("no console there");
    Bun.spawnSync(["touch", file]);
    log.info("hello");
    log.stopConsole();
    log.info("silent");
    expect(readFileSync(file, "utf8")).toContain("hello");
    expect(readFileSync(file, "utf8")).not.toContain("silent");
  });
});
