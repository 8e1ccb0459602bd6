import { afterAll, beforeAll, expect, test } from "bun:test";
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { VERSION } from "../../src/base/identity.ts";
import { binary } from "../support/binary.ts";

/** The compiled daemon on a scratch root without a platform: what its command line, pid file and log promise. */
let program = "";
let scratch = "";
const running: Daemon[] = [];

beforeAll(async () => {
  program = await binary();
  scratch = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-daemon-"));
});

afterAll(async () => {
  for (const daemon of running) await daemon.stop("SIGKILL");
  fs.rmSync(scratch, { recursive: true, force: true });
});

interface Daemon {
  readonly pid: number;
  /** Log lines so far, without time. */
  lines(): readonly string[];
  /** Resolves when a line contains the text. */
  says(text: string): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
  readonly ended: Promise<number | null>;
}

function machine(files: Readonly<Record<string, string>> = {}): string {
  const directory = fs.mkdtempSync(path.join(scratch, "root-"));
  const all = {
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "/etc/waagent.conf": "Logs.Console=n\nProvisioning.Agent=disabled\n",
    "/var/log/.keep": "",
    "/bin/.keep": "",
    "/tmp/.keep": "",
    ...files,
  };
  for (const [name, text] of Object.entries(all)) {
    const file = path.join(directory, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
  return directory;
}

function start(directory: string, ...args: readonly string[]): Daemon {
  const child: ChildProcess = spawn(program, [`--root=${directory}`, ...args], {
    cwd: scratch,
    env: { PATH: "/usr/bin:/bin" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const lines = (): readonly string[] =>
    output
      .trimEnd()
      .split("\n")
      .map((line) => line.replace(/^\S+Z /, ""));
  const daemon: Daemon = {
    pid: child.pid ?? 0,
    lines,
    says: async (text) => {
      for (let attempt = 0; attempt < 400; attempt += 1) {
        if (lines().some((line) => line.includes(text))) return;
        await Bun.sleep(25);
      }
      throw new Error(`The daemon did not say ${JSON.stringify(text)} but:\n${output}`);
    },
    stop: (signal = "SIGTERM") => {
      if (child.exitCode === null) child.kill(signal);
      return ended;
    },
    ended,
  };
  running.push(daemon);
  return daemon;
}

const read = (directory: string, file: string): string =>
  fs.readFileSync(path.join(directory, file), "utf8");

test("provisioning.md LIFE-01 CLI-24; system.md DAEMON-02 DAEMON-04 DAEMON-06 INIT-09: three lines at first, state directory 0700, nothing left after SIGTERM", async () => {
  const directory = machine();
  const daemon = start(directory, "-daemon");
  await daemon.says("Provisioning");
  expect(daemon.lines().slice(0, 3)).toEqual([
    expect.stringMatching(new RegExp(`^INFO Daemon Daemon .*Agent Version:${VERSION}$`)),
    "INFO Daemon Daemon OS: debian 12",
    `INFO Daemon Daemon Bun: ${Bun.version}`,
  ]);
  expect(fs.statSync(path.join(directory, "var/lib/waagent")).mode & 0o777).toBe(0o700);
  expect(await daemon.stop()).toBe(0);
  expect(read(directory, "var/log/waagent.log").split("\n").length).toBeGreaterThan(3);
  const left = fs.readdirSync("/proc").filter((name) => {
    try {
      return fs.readFileSync(`/proc/${name}/cmdline`, "utf8").includes(directory);
    } catch {
      return false; // no process, or ended meanwhile
    }
  });
  expect(left).toEqual([]);
});

test("provisioning.md LIFE-04 CLI-24; extensions.md RUN-02: one daemon at a time; the second one says so and exits 0", async () => {
  const directory = machine({ "/etc/waagent.conf": "Pid.File=/run/own.pid\nLogs.Console=n\n" });
  const first = start(directory, "-daemon");
  await first.says("Bun: ");
  await waitFor(() => fs.existsSync(path.join(directory, "run/own.pid")));
  expect(read(directory, "run/own.pid")).toBe(String(first.pid));
  const second = start(directory, "-daemon");
  expect(await second.ended).toBe(0);
  expect(second.lines().at(-1)).toStartWith("INFO Daemon Daemon Daemon is already running: ");
  expect(read(directory, "run/own.pid")).toBe(String(first.pid));
  expect(await first.stop()).toBe(0);
  expect(read(directory, "run/own.pid")).toBe(String(first.pid));
});

test("provisioning.md LIFE-04: the pid of a process that is gone is overwritten", async () => {
  const directory = machine({ "/var/run/waagent.pid": "4194304" });
  const daemon = start(directory, "-daemon");
  await waitFor(() => read(directory, "var/run/waagent.pid") === String(daemon.pid));
  expect(await daemon.stop()).toBe(0);
});

test("provisioning.md CLI-04 CLI-24: the configuration file of the command line is the one that counts", async () => {
  const directory = machine({
    "/etc/own.conf": "Lib.Dir=/state\nLogs.Console=n\nProvisioning.Agent=disabled\n",
  });
  const daemon = start(directory, "-configuration-path:/etc/own.conf", "-daemon");
  await waitFor(() => fs.existsSync(path.join(directory, "state")));
  expect(await daemon.stop()).toBe(0);
  expect(fs.existsSync(path.join(directory, "var/lib/waagent"))).toBe(false);
});

test("provisioning.md CLI-25 CLI-07; system.md DAEMON-02 DAEMON-16: -run-exthandlers ends when its daemon is gone", async () => {
  const orphan = start(machine(), "-run-exthandlers");
  expect(await orphan.ended).toBe(0);
  expect(orphan.lines().every((line) => /^[A-Z]+ ExtHandler ExtHandler /.test(line))).toBe(true);
  const wanted = start(machine(), "-run-exthandlers", "-debug");
  await wanted.says("Goal State Agent");
  expect(await wanted.stop()).toBe(0);
});

test("extensions.md RUN-14; system.md DAEMON-16: whoever is not named by Pid.File is no daemon of ours, and -debug does not ask", async () => {
  const pidFile = (text: string) => machine({ "/var/run/waagent.pid": text });
  for (const text of ["4194304", "", `${process.pid}0`]) {
    const orphan = start(pidFile(text), "-run-exthandlers");
    expect(await orphan.ended).toBe(0);
    expect(orphan.lines().at(-1)).toContain("The daemon that started this process is gone, ending");
  }
  for (const [text, ...flags] of [[String(process.pid)], ["4194304", "-debug"]] as const) {
    const child = start(pidFile(text), "-run-exthandlers", ...flags);
    await child.says("Goal State Agent");
    expect(await child.stop()).toBe(0);
  }
});

test("extensions.md RUN-19; system.md DAEMON-19: an error that nobody took care of is exit 1, with its text for the next start", async () => {
  const directory = machine({
    // No pid file can be made below a file.
    "/etc/waagent.conf": "Logs.Console=n\nPid.File=/etc/os-release/waagent.pid\n",
  });
  const daemon = start(directory, "-run-exthandlers", "-debug");
  expect(await daemon.ended).toBe(1);
  expect(daemon.lines().at(-1)).toMatch(
    /^ERROR ExtHandler ExtHandler The agent ends: .*os-release/,
  );
  expect(read(directory, "var/lib/waagent/current_version")).toMatch(
    new RegExp(`^\\[WALinuxAgent-${VERSION}\\] \\[.*os-release.*\\]$`),
  );
});

test("provisioning.md LIFE-05 LOG-05; system.md DAEMON-10: with disable_agent the daemon warns twice, lives on and serves nothing", async () => {
  const directory = machine({
    "/etc/waagent.conf": "Logs.Console=n\nAgent.Profile=extensions-only\n",
    "/var/lib/waagent/disable_agent": "",
  });
  const daemon = start(directory, "-daemon");
  await daemon.says("osProfile.allowExtensionOperations property is set to true.");
  expect(daemon.lines()).toContain(
    "WARNING Daemon Daemon Disabling the guest agent by sleeping forever; to re-enable, remove /var/lib/waagent/disable_agent and restart",
  );
  const said = daemon.lines().length;
  fs.rmSync(path.join(directory, "var/lib/waagent/disable_agent"));
  await Bun.sleep(1000);
  expect(daemon.lines().slice(said)).toEqual([]);
  expect(fs.existsSync(path.join(directory, "var/run/0_waagent.pid"))).toBe(false);
  expect(await daemon.stop()).toBe(0);
});

test("waagent status shows the daemon's own account, and exit 3 when none runs", async () => {
  const directory = machine();
  const ask = () => start(directory, "status");
  const before = ask();
  expect(await before.ended).toBe(3);
  const daemon = start(directory, "-daemon");
  await daemon.says("Provisioning is disabled");
  await waitFor(() => fs.existsSync(path.join(directory, "run/waagent/status.json")));
  const status = ask();
  await status.ended;
  expect(status.lines().join("\n")).toContain(`Agent ${VERSION}, pid ${daemon.pid}, running since`);
  expect(await daemon.stop()).toBe(0);
});

test("a machine without a single program or a platform keeps the daemon alive and quiet", async () => {
  const daemon = start(machine(), "-daemon");
  await daemon.says("Bun: ");
  await Bun.sleep(1500);
  expect(daemon.lines().length).toBeLessThan(30);
  expect(await daemon.stop()).toBe(0);
});

async function waitFor(condition: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt += 1) {
    if (condition()) return;
    await Bun.sleep(25);
  }
  throw new Error("The condition did not come true");
}
