import { describe, expect, test } from "bun:test";
import type { AgentContext } from "../../../src/agent/context.ts";
import { isOrphan } from "../../../src/agent/orphan.ts";
import {
  markFailure,
  prepareState,
  waitForCloudInit,
  waitForOlderAgents,
} from "../../../src/agent/start-up.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const signal = new AbortController().signal;

function contextOf(system: FakeSystem, changes: Partial<Config> = {}): AgentContext {
  system.files.makeDirectory("/var/lib/waagent", { mode: 0o700 });
  return {
    system,
    config: { ...defaultConfig(), ...changes },
    version: "2.15.0.1",
  } as unknown as AgentContext;
}

describe("start of the goal state role", () => {
  test("wire-protocol.md FILE-20 and system.md DAEMON-20: secrets of older agents are closed", () => {
    using system = createFakeSystem();
    const context = contextOf(system);
    for (const name of [
      "A.crt",
      "A.prv",
      "TransportPrivate.pem",
      "Certificates.p7m",
      "Certificates.xml",
      "ovf-env.xml",
      "SharedConfig.xml",
    ]) {
      system.files.write(`/var/lib/waagent/${name}`, "x", { mode: 0o644 });
    }
    prepareState(system, context);
    const modes = system.files
      .list("/var/lib/waagent")
      .map((name) => [name, system.files.stat(`/var/lib/waagent/${name}`)?.mode]);
    expect(modes.filter(([, mode]) => mode !== 0o400)).toEqual([["SharedConfig.xml", 0o644]]);
  });

  test("system.md DAEMON-19: an unclean end is told once, with the text the last process left", () => {
    using system = createFakeSystem();
    const context = contextOf(system);
    markFailure(system, context, "disk full");
    expect(system.files.readText("/var/lib/waagent/current_version")).toBe(
      "[WALinuxAgent-2.15.0.1] [disk full]",
    );
    prepareState(system, context);
    prepareState(system, context);
    const restarts = system.events.filter(({ operation }) => operation === "Restart");
    expect(restarts.map(({ message }) => message)).toEqual(["[WALinuxAgent-2.15.0.1] [disk full]"]);
    expect(system.files.exists("/var/lib/waagent/current_version")).toBe(false);
  });

  test("extensions.md RUN-12: an older agent is waited for, and its pid file goes when it has ended", async () => {
    using system = createFakeSystem();
    system.files.makeDirectory("/proc/77");
    system.files.write("/proc/77/cmdline", "python3\0/usr/sbin/waagent\0-run-exthandlers\0");
    system.files.makeDirectory("/var/run");
    system.files.write("/var/run/0_waagent.pid", "77");
    const sleep = system.clock.sleep.bind(system.clock);
    system.clock.sleep = async (ms) => {
      await sleep(ms);
      if (system.clock.monotonic() >= 9000) system.files.remove("/proc/77");
    };
    await waitForOlderAgents(system, [{ file: "/var/run/0_waagent.pid", pid: 77 }], signal);
    expect(system.clock.monotonic()).toBe(9000);
    expect(system.commands).toEqual([]);
    expect(system.files.exists("/var/run/0_waagent.pid")).toBe(false);
  });

  test("extensions.md DB-23: one that does not end in 15 minutes gets SIGTERM, then SIGKILL", async () => {
    using system = createFakeSystem();
    system.files.makeDirectory("/proc/77");
    system.files.write("/proc/77/cmdline", "python3\0/usr/sbin/waagent\0-run-exthandlers\0");
    system.programs.set("kill", (argv) => {
      if (argv[1] === "-KILL") system.files.remove("/proc/77");
    });
    await waitForOlderAgents(system, [{ file: "/var/run/0_waagent.pid", pid: 77 }], signal);
    expect(
      system.commands.map(([, how]) => how).filter((how, index, all) => how !== all[index - 1]),
    ).toEqual(["-TERM", "-KILL"]);
    expect(system.clock.monotonic()).toBeGreaterThanOrEqual(900_000);
  });
});

describe("cloud-init", () => {
  test("provisioning.md PROV-38 LOG-08 LOG-09: it is waited for when configured, with the phrases tools look for", async () => {
    using system = createFakeSystem();
    system.programs.set("cloud-init", () => ({ stdout: "status: done\n" }));
    await waitForCloudInit(system, contextOf(system), signal);
    expect(system.commands).toEqual([]);
    await waitForCloudInit(
      system,
      contextOf(system, { "Extensions.WaitForCloudInit": true }),
      signal,
    );
    expect(system.commands).toEqual([["cloud-init", "status", "--wait"]]);
    expect(system.lines.join("\n")).toContain(
      "INFO ExtHandler ExtHandler Waiting for cloud-init to complete",
    );
    expect(system.lines.join("\n")).toContain(
      "INFO ExtHandler ExtHandler cloud-init completed\nstatus: done",
    );
  });

  test("system.md DAEMON-22: a failure is logged and sent, extensions go on", async () => {
    using system = createFakeSystem();
    await waitForCloudInit(
      system,
      contextOf(system, { "Extensions.WaitForCloudInit": true }),
      signal,
    );
    expect(system.events).toMatchObject([{ operation: "CloudInit", success: false }]);
  });
});

describe("orphan", () => {
  test("system.md DAEMON-16: parent 1, no pid file, or one that names somebody else", () => {
    using system = createFakeSystem();
    const config = defaultConfig();
    system.files.makeDirectory("/var/run");
    expect(isOrphan(system, config, 500)).toBe(true);
    system.files.write("/var/run/waagent.pid", "500");
    expect(isOrphan(system, config, 500)).toBe(false);
    expect(isOrphan(system, config, 501)).toBe(true);
    expect(isOrphan(system, config, 1)).toBe(true);
  });
});
