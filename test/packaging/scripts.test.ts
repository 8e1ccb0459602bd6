import { afterAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { testWith } from "../support/skip.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-scripts-"));
const files = path.resolve(import.meta.dir, "../../packaging/files");
const pidFile = path.join(work, "waagent.pid");
afterAll(() => {
  service("stop");
  fs.rmSync(work, { recursive: true, force: true });
});

/** An agent as far as init scripts go: -start puts a daemon into the background, which has a pid file. */
const agent = path.join(work, "waagent");
fs.writeFileSync(
  agent,
  `#!/bin/sh
echo "$@" >>${work}/calls
env >${work}/environment
case $1 in
-start) "$0" -daemon >/dev/null 2>&1 & ;;
-daemon) printf %s $$ >${pidFile}; trap 'echo TERM >>${work}/calls; exit 0' TERM; while :; do sleep 0.1; done ;;
esac
`,
  { mode: 0o755 },
);
const configuration = path.join(work, "waagent.conf");
fs.writeFileSync(configuration, "");

function service(verb: string, more: Readonly<Record<string, string>> = {}) {
  const done = Bun.spawnSync(["sh", path.join(files, "waagent.sysv"), verb], {
    env: {
      PATH: process.env["PATH"] ?? "",
      BUN_OPTIONS: "--preload /evil",
      WAAGENT_BINARY: agent,
      WAAGENT_CONFIGURATION: configuration,
      WAAGENT_PID_FILE: pidFile,
      ...more,
    },
    stdout: "pipe",
    stderr: "pipe",
  });
  return { code: done.exitCode, said: `${done.stdout}${done.stderr}` };
}

describe("the SysV script", () => {
  test("system.md INIT-08: start runs -start in a clean environment, stop ends the process of the pid file", async () => {
    expect(service("status").code).toBe(3);
    expect(service("start").code).toBe(0);
    while (!fs.existsSync(pidFile)) await Bun.sleep(5);
    const pid = Number(fs.readFileSync(pidFile, "utf8"));
    expect(service("status")).toEqual({ code: 0, said: `waagent is running (pid ${pid})\n` });
    expect(service("start").said).toContain("is running");
    expect(fs.readFileSync(path.join(work, "environment"), "utf8")).not.toContain("BUN_OPTIONS");
    expect(service("reload").code).toBe(0);
    expect(service("stop").code).toBe(0);
    expect(fs.existsSync(`/proc/${pid}`)).toBe(false);
    expect(fs.existsSync(pidFile)).toBe(false);
    expect(fs.readFileSync(path.join(work, "calls"), "utf8").split("\n").filter(Boolean)).toEqual([
      `-start -configuration-path:${configuration}`,
      "-daemon",
      "TERM",
    ]);
  });

  test("system.md INIT-08: exit code 5 without the executable, 6 without configuration", () => {
    expect(service("start", { WAAGENT_BINARY: "/no/such" })).toMatchObject({ code: 5 });
    expect(service("start", { WAAGENT_CONFIGURATION: "/no/such" })).toMatchObject({ code: 6 });
    expect(service("bogus")).toMatchObject({ code: 2 });
  });

  test("a pid file of another process stops nobody", () => {
    fs.writeFileSync(pidFile, String(process.pid));
    expect(service("status")).toMatchObject({ code: 1 });
    expect(service("stop").said).toContain("not running");
    fs.writeFileSync(pidFile, "12; rm -rf /");
    expect(service("stop").said).toContain("not running");
    fs.rmSync(pidFile);
  });

  test("system.md INIT-08: it is started in levels 2 to 5 at 60 and stopped at 80", () => {
    const text = fs.readFileSync(path.join(files, "waagent.sysv"), "utf8");
    expect(text).toContain("# chkconfig: 2345 60 80");
    expect(text).toContain("# Default-Start:     2 3 4 5");
  });
});

test("system.md INIT-08: OpenRC starts it after sshd, supervised and with a clean environment", () => {
  const text = fs.readFileSync(path.join(files, "waagent.openrc"), "utf8");
  expect(text).toContain('supervisor="supervise-daemon"');
  expect(text).toMatch(/command_args="-i PATH=\S+ \S+ -daemon"/);
  expect(text).toMatch(/after sshd/);
  expect(text).toContain("provide waagent");
});

testWith({ programs: ["logrotate"], root: true })(
  "provisioning.md PKG-32 system.md LOG-09: logrotate moves a log above 20 MB to a dated, compressed file and creates no new one",
  () => {
    const folder = path.join(work, "logs");
    fs.mkdirSync(folder, { mode: 0o755 });
    const rules = fs
      .readFileSync(path.join(files, "waagent.logrotate"), "utf8")
      .replace("/var/log/waagent.log", `${folder}/waagent.log`);
    fs.writeFileSync(path.join(work, "rules"), rules, { mode: 0o644 });
    const rotate = () => {
      const done = Bun.spawnSync(
        ["logrotate", "--state", path.join(work, "state"), path.join(work, "rules")],
        { stdout: "pipe", stderr: "pipe" },
      );
      expect(`${done.stdout}${done.stderr}`).toBe("");
      expect(done.exitCode).toBe(0);
      return fs.readdirSync(folder).sort();
    };
    expect(rotate()).toEqual([]);
    fs.writeFileSync(path.join(folder, "waagent.log"), Buffer.alloc(19 * 1024 * 1024));
    expect(rotate()).toEqual(["waagent.log"]);
    fs.writeFileSync(path.join(folder, "waagent.log"), Buffer.alloc(21 * 1024 * 1024));
    const [rotated, ...rest] = rotate();
    expect(rest).toEqual([]);
    expect(rotated).toMatch(/^waagent\.log-\d{4}-\d\d-\d\d-\d+\.gz$/);
    expect(rules).toContain("rotate 50");
  },
);
