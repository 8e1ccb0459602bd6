import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createLaunch, isAlive, type LaunchRequest } from "../../../src/system/launch.ts";
import { Root } from "../../../src/system/root.ts";

describe("launch", () => {
  let directory = "";
  let run = 0;
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), "waagent-launch-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const request = (shellCommand: string, more: Partial<LaunchRequest> = {}): LaunchRequest => ({
    shellCommand,
    cwd: "/",
    environment: { PATH: "/usr/bin:/bin", MARK: `mark-${directory}` },
    stdout: "/out",
    stderr: "/err",
    runFile: `/run-${(run += 1)}`,
    timeoutMs: 10_000,
    ...more,
  });
  const read = (name: string): string => readFileSync(path.join(directory, name), "utf8");

  test("extensions.md EXT-70: the command runs through the shell in a session of its own, output goes to files", async () => {
    const launch = createLaunch(new Root(directory));
    const command =
      "echo $MARK > /dev/stdout; echo e >&2; cut -d' ' -f5,6 /proc/$PPID/stat; exit 4";
    const running = launch.start(request(command));
    const result = await running.wait();
    expect(result).toMatchObject({ code: 4, timedOut: false });
    const { pid } = running.identity;
    expect([read("out"), read("err")]).toEqual([`mark-${directory}\n${pid} ${pid}\n`, "e\n"]);
    expect(statSync(path.join(directory, "out")).mode & 0o777).toBe(0o600);
  });

  test("extensions.md EXT-72: children that go on do not delay the command and keep writing", async () => {
    const launch = createLaunch(new Root(directory));
    const running = launch.start(request("(sleep 0.2; echo late; sleep 30) & echo started"));
    const result = await running.wait();
    expect(result.code).toBe(0);
    expect(result.durationMs).toBeLessThan(5000);
    while (!read("out").includes("late")) await Bun.sleep(20);
    running.kill();
  });

  test("extensions.md EXT-73 DB-13: a time-out ends the group, and what left it for a session of its own", async () => {
    const launch = createLaunch(new Root(directory));
    const command = "setsid sh -c 'echo $$ >escaped; exec sleep 31' & sleep 31 & sleep 31";
    const running = launch.start(request(command, { timeoutMs: 300, marker: "MARK", cwd: "/" }));
    expect(await running.wait()).toMatchObject({ code: undefined, timedOut: true });
    expect(isAlive(running.identity)).toBe(false);
    const escaped = Number(read("escaped"));
    for (let tries = 0; tries < 100 && isAlive({ pid: escaped, startTime: "" }); tries += 1)
      await Bun.sleep(10);
    expect(isAlive({ pid: escaped, startTime: "" })).toBe(false);
  });

  test("output is bounded while the command runs, its beginning stays", async () => {
    const launch = createLaunch(new Root(directory));
    const command = "echo begin; head -c 30000000 /dev/zero; sleep 0.6; head -c 1000 /dev/zero";
    await launch.start(request(command, { maxOutputBytes: 1_000_000 })).wait();
    expect(statSync(path.join(directory, "out")).size).toBeLessThan(2_000_001);
    expect(read("out").slice(0, 6)).toBe("begin\n");
  });

  test("a shell that cannot be started is an error, and the run can never start", async () => {
    const launch = createLaunch(new Root(directory));
    const missing = request("echo x", { through: ["/missing/systemd-run"] });
    expect(() => launch.start(missing)).toThrow("Could not start echo x");
    expect(await launch.settle(missing.runFile)).toEqual({ state: "never-started" });
  });
});

describe("extensions.md DB-16: what became of a run is known for certain", () => {
  let directory = "";
  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), "waagent-launch-"));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));
  const request = (shellCommand: string): LaunchRequest => ({
    shellCommand,
    cwd: "/",
    environment: { PATH: "/usr/bin:/bin" },
    stdout: "/out",
    stderr: "/err",
    runFile: "/run",
    timeoutMs: 10_000,
  });

  test("running, then ended with its code, for a process that did not start it", async () => {
    const launch = createLaunch(new Root(directory));
    const { identity } = launch.start(request("sleep 0.5; exit 5"));
    await Bun.sleep(100);
    const found = await launch.settle("/run");
    expect(found).toEqual({ state: "running", identity });
    const attached = launch.attach(identity, {
      runFile: "/run",
      timeoutMs: 5000,
      stdout: "/out",
      stderr: "/err",
    });
    expect(await attached.wait()).toMatchObject({ code: 5, timedOut: false });
    expect(await launch.settle("/run")).toEqual({ state: "ended", code: 5 });
    expect(isAlive({ ...identity, startTime: "1" })).toBe(false);
  });

  test("a run that is settled before its shell got going does not start any more", async () => {
    const launch = createLaunch(new Root(directory));
    expect(await launch.settle("/run")).toEqual({ state: "never-started" });
    const late = await launch.start(request("echo ran >ran")).wait();
    expect(late.code).toBe(125);
    expect(await launch.settle("/run")).toEqual({ state: "never-started" });
    expect(() => readFileSync(path.join(directory, "ran"))).toThrow();
  });

  test("killed without a code, or gone with a reboot, is lost", async () => {
    const launch = createLaunch(new Root(directory));
    const running = launch.start(request("sleep 30"));
    await Bun.sleep(100);
    running.kill();
    await running.wait();
    expect(await launch.settle("/run")).toEqual({ state: "lost" });
    writeFileSync(
      path.join(directory, "other"),
      `${process.pid} ${process.pid} (sh) S ${"1 ".repeat(40)}\n`,
    );
    expect(await launch.settle("/other")).toEqual({ state: "lost" });
  });
});
