import { describe, expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { rowOf } from "../../../src/distro/rows.ts";
import {
  memoryMiB,
  processorCount,
  readEventFacts,
  reportConfigurationChanges,
  reportOpenSsl,
  reportOsInfo,
  reportRestart,
} from "../../../src/report/os-info.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const distro = {
  ...rowOf("Ubuntu18"),
  release: {
    name: "ubuntu",
    version: "22.04",
    codeName: "jammy",
    fullName: "Ubuntu",
    like: ["debian"],
  },
};

test("system.md MON-16 wire-protocol.md TEL-06: facts come from /proc", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/proc/sys/kernel");
  system.files.write("/proc/sys/kernel/osrelease", "6.8.0-azure\n");
  system.files.write("/proc/meminfo", "MemTotal:        4006912 kB\n");
  system.files.write("/proc/cpuinfo", "processor\t: 0\nmodel name: x\n\nprocessor\t: 1\n");
  expect(readEventFacts(system, distro, "2.15.0.1")).toMatchObject({
    agentVersion: "2.15.0.1",
    osVersion: "Linux:ubuntu-22.04-jammy:6.8.0-azure",
    ramMiB: 3913,
    processors: 2,
  });
  expect([memoryMiB("MemTotal: 2047 kB"), memoryMiB(""), processorCount("")]).toEqual([1, 0, 1]);
});

test("system.md MON-16: a machine without /proc is described with less", () => {
  using system = createFakeSystem();
  expect(readEventFacts(system, distro, "1").osVersion).toBe("Linux:ubuntu-22.04-jammy:unknown");
});

describe("at start", () => {
  test("system.md DAEMON-21 wire-protocol.md TEL-51: one line and event OSInfo", async () => {
    using system = createFakeSystem();
    system.programs.set("systemctl", () => ({ stdout: "systemd 249 (249.11)\n+PAM\n" }));
    system.programs.set("modinfo", () => ({ code: 1, stderr: "not found" }));
    await reportOsInfo(system, { ...distro, capabilities: { systemd: true } });
    const text = system.events[0]?.message ?? "";
    expect(text).toMatch(
      /^Distro: ubuntu-22\.04; OSUtil: Ubuntu18; AgentService: \S+; Python: Bun [\d.]+; Arch: \w+; systemd: True; systemd_version: systemd 249 \(249\.11\); LISDrivers: Failed; logrotate: Absent;$/,
    );
    expect(system.events).toMatchObject([{ operation: "OSInfo", success: true }]);
    expect(system.lines).toEqual([`INFO ExtHandler ExtHandler ${text}`]);
  });

  test("system.md DAEMON-21: without systemd its version is unknown and nothing is asked", async () => {
    using system = createFakeSystem();
    await reportOsInfo(system, { ...distro, capabilities: { systemd: false } });
    expect(system.events[0]?.message).toContain(
      "systemd: False; systemd_version: unknown; LISDrivers: Absent;",
    );
    expect(system.commands.map(([program]) => program)).not.toContain("systemctl");
  });

  test("system.md DAEMON-21 wire-protocol.md TEL-51: OpenSsl, with and without the program", async () => {
    using system = createFakeSystem();
    await reportOpenSsl(system, "/usr/bin/openssl");
    system.programs.set("openssl", (argv) => ({
      stdout: argv[1] === "version" ? "OpenSSL 3.0.2 15 Mar 2022\n" : "Usage: pkey",
    }));
    await reportOpenSsl(system, "/usr/bin/openssl");
    expect(system.events).toMatchObject([
      { operation: "OpenSsl", success: false, message: "OpenSSL version: Absent" },
      {
        operation: "OpenSsl",
        success: true,
        message: "OpenSSL version: OpenSSL 3.0.2 15 Mar 2022",
      },
    ]);
    expect(system.lines.at(-1)).toEndWith("OpenSSL has the pkey command");
  });

  test("wire-protocol.md TEL-51: ConfigurationChange for each setting that is not the default, without credentials", () => {
    using system = createFakeSystem();
    reportConfigurationChanges(system, defaultConfig());
    expect(system.events).toEqual([]);
    reportConfigurationChanges(system, {
      ...defaultConfig(),
      "Extensions.GoalStatePeriod": 30,
      "Extensions.InitialGoalStatePeriod": 30,
      "HttpProxy.Host": "http://user:hunter2@proxy",
    });
    expect(system.events.map((event) => [event.operation, event.message])).toEqual([
      [
        "ConfigurationChange",
        "Extensions.GoalStatePeriod changed from its default: 6. New value: 30",
      ],
      [
        "ConfigurationChange",
        "HttpProxy.Host changed from its default: None. New value: http://***@proxy",
      ],
    ]);
  });

  test("system.md DAEMON-19 wire-protocol.md TEL-51: Restart when the last run left its sentinel", () => {
    using system = createFakeSystem();
    system.files.makeDirectory("/lib");
    reportRestart(system, "/lib/current_version");
    expect(system.events).toEqual([]);
    system.files.write("/lib/current_version", "[WALinuxAgent-2.15.0.1] [it broke]");
    reportRestart(system, "/lib/current_version");
    expect(system.events).toMatchObject([
      { operation: "Restart", success: false, message: "[WALinuxAgent-2.15.0.1] [it broke]" },
    ]);
  });
});
