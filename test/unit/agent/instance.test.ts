import { describe, expect, test } from "bun:test";
import { claimHandlerPidFile, runningDaemon, writePidFile } from "../../../src/agent/instance.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const config = defaultConfig();

function process(system: FakeSystem, pid: number, commandLine: string): void {
  system.files.makeDirectory(`/proc/${pid}`);
  system.files.write(`/proc/${pid}/cmdline`, commandLine);
}

describe("pid files", () => {
  test("system.md DAEMON-05: the pid file holds the decimal pid without a newline", () => {
    using system = createFakeSystem();
    writePidFile(system, config, 4711);
    expect(system.files.readText("/var/run/waagent.pid")).toBe("4711");
  });

  test("provisioning.md LIFE-04: a live agent in the pid file is found, also a Python one", () => {
    using system = createFakeSystem();
    expect(runningDaemon(system, config, 1)).toBeUndefined();
    writePidFile(system, config, 50);
    expect(runningDaemon(system, config, 1)).toBeUndefined();
    process(system, 50, "/usr/bin/python3\0-u\0/usr/sbin/waagent\0-daemon\0");
    expect(runningDaemon(system, config, 1)).toBe(50);
    expect(runningDaemon(system, config, 50)).toBeUndefined();
  });

  test("system.md BET-15: a pid that another program got does not keep the agent from starting", () => {
    using system = createFakeSystem();
    writePidFile(system, config, 50);
    process(system, 50, "/usr/sbin/cron\0-f\0");
    expect(runningDaemon(system, config, 1)).toBeUndefined();
    system.files.write("/var/run/waagent.pid", "not a pid");
    expect(runningDaemon(system, config, 1)).toBeUndefined();
  });

  test("system.md DAEMON-15: the next numbered pid file is written, those of dead processes go", () => {
    using system = createFakeSystem();
    writePidFile(system, config, 9);
    system.files.write("/var/run/0_waagent.pid", "100");
    system.files.write("/var/run/4_waagent.pid", "104");
    process(system, 104, "python3\0bin/WALinuxAgent-2.9.1.1-py3.8.egg\0-run-exthandlers\0");
    expect(claimHandlerPidFile(system, config, 9)).toEqual([
      { file: "/var/run/4_waagent.pid", pid: 104 },
    ]);
    expect(system.files.list("/var/run")).toEqual([
      "4_waagent.pid",
      "5_waagent.pid",
      "waagent.pid",
    ]);
    expect(system.files.readText("/var/run/5_waagent.pid")).toBe("9");
  });
});
