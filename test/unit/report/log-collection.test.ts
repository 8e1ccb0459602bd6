import { describe, expect, test } from "bun:test";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import {
  chooseLimits,
  collectorCommand,
  createLogCollection,
} from "../../../src/report/log-collection.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const ARCHIVE = "/var/lib/waagent/logcollector/logs.zip";
const command = ["/usr/sbin/waagent", "-collect-logs"];

function world(change: Partial<Config> = {}, codes: (number | "no-archive")[] = []) {
  const system = createFakeSystem();
  const uploads: string[] = [];
  const state = { refuse: false };
  system.programs.set("waagent", () => {
    const code = codes.shift() ?? 0;
    if (code === 0) {
      system.files.makeDirectory("/var/lib/waagent/logcollector");
      system.files.write(ARCHIVE, "zip");
    }
    return { code: code === "no-archive" ? 0 : code };
  });
  const collection = createLogCollection(system, {
    config: { ...defaultConfig(), ...change },
    systemd: false,
    command,
    hostPlugin: {
      ensureAvailable: async () => undefined,
      putLog: async (file) => {
        if (state.refuse) throw new Error("no host");
        uploads.push(file);
      },
    },
    agentVersion: "2.15.0.1",
  });
  const run = () => collection?.run(new AbortController().signal) ?? Promise.resolve();
  return {
    system,
    uploads,
    state,
    collection,
    run,
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}
const outcomes = (system: FakeSystem) =>
  system.events.map((event) => [event.operation, event.success, event.message]);

describe("decision", () => {
  test("system.md LOGC-01 extensions.md LC-01: Logs.Collect=n means none; the decision is logged and sent", () => {
    using w = world({ "Logs.Collect": false });
    expect(w.collection).toBeUndefined();
    expect(outcomes(w.system)).toEqual([
      ["LogCollection", true, "Log collection is off: Logs.Collect=n"],
    ]);
    expect(w.system.lines).toEqual([
      "INFO ExtHandler ExtHandler Log collection is off: Logs.Collect=n",
    ]);
  });

  test("system.md LOGC-03 extensions.md LC-01: first after 300 s, then every hour", () => {
    using w = world();
    expect([w.collection?.delayMs, w.collection?.periodMs]).toEqual([300_000, 3_600_000]);
  });

  test("system.md BET-20 LOGC-02 extensions.md DB-17: limits by what the machine can do, not by its name", () => {
    using system = createFakeSystem();
    const choose = (systemd: boolean, enabled = true) =>
      chooseLimits(system, {
        systemd,
        config: { ...defaultConfig(), "Debug.EnableCgroupV2ResourceLimiting": enabled },
      });
    expect(choose(true)).toBe("nice");
    system.programs.set("systemd-run", () => ({}));
    expect(choose(true)).toBe("nice");
    system.files.makeDirectory("/sys/fs/cgroup/memory");
    expect(choose(true)).toBe("nice");
    system.files.makeDirectory("/sys/fs/cgroup/cpu,cpuacct");
    expect(choose(true)).toBe("scope-v1");
    expect(choose(false)).toBe("nice");
    system.files.write("/sys/fs/cgroup/cgroup.controllers", "cpu io memory\n");
    expect(choose(true)).toBe("scope-v2");
    expect(choose(true, false)).toBe("nice");
    system.files.write("/sys/fs/cgroup/cgroup.controllers", "io\n");
    expect(choose(true)).toBe("nice");
  });

  test("system.md LOGC-04 extensions.md LC-02: the command lines", () => {
    using system = createFakeSystem();
    const scope =
      "systemd-run --unit=collect-logs.scope --slice=azure-walinuxagent-logcollector.slice --scope --property=CPUAccounting=yes --property=MemoryAccounting=yes --property=CPUQuota=5%";
    expect(collectorCommand(system, "scope-v1", command).join(" ")).toBe(
      `${scope} /usr/sbin/waagent -collect-logs`,
    );
    expect(collectorCommand(system, "scope-v2", command).join(" ")).toBe(
      `${scope} --property=MemoryHigh=170M /usr/sbin/waagent -collect-logs`,
    );
    expect(collectorCommand(system, "nice", command)).toEqual(command);
    for (const program of ["nice", "ionice"]) system.programs.set(program, () => ({}));
    expect(collectorCommand(system, "nice", command).join(" ")).toBe(
      "nice -n 19 ionice -c 3 /usr/sbin/waagent -collect-logs",
    );
  });

  test("system.md LOGC-04: the self-checks are switched on for a scope", async () => {
    using system = createFakeSystem();
    system.files.makeDirectory("/sys/fs/cgroup");
    system.files.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
    system.programs.set("systemd-run", () => ({ code: 1 }));
    const seen: unknown[] = [];
    const spied = {
      ...system,
      exec: {
        ...system.exec,
        run: (one: Parameters<typeof system.exec.run>[0]) => (
          seen.push(one.environment),
          system.exec.run(one)
        ),
      },
    };
    await createLogCollection(spied, {
      config: defaultConfig(),
      systemd: true,
      command,
      agentVersion: "1",
      hostPlugin: { ensureAvailable: async () => undefined, putLog: async () => undefined },
    })?.run(new AbortController().signal);
    expect(seen).toEqual([{ _AZURE_GUEST_AGENT_LOG_COLLECTOR_MONITOR_CGROUPS_: "1" }]);
  });
});

describe("a run", () => {
  test("system.md LOGC-07 extensions.md LC-04 provisioning.md LOG-12: collected, then uploaded, both told, in the words that tools look for", async () => {
    using w = world();
    await w.run();
    expect(w.uploads).toEqual([ARCHIVE]);
    expect(
      w.system.lines.map((line) => line.replace(/^INFO ExtHandler ExtHandler /, "")).slice(1),
    ).toEqual([
      "Starting log collection...",
      "Successfully collected logs.",
      "Successfully uploaded logs.",
    ]);
    expect(outcomes(w.system).slice(1)).toEqual([
      ["LogCollection", true, "Successfully collected logs. Archive size: 3 bytes"],
      ["LogCollection", true, "Successfully uploaded logs."],
    ]);
  });

  test("system.md LOGC-07: an upload that fails is a warning, the next period tries again", async () => {
    using w = world();
    w.state.refuse = true;
    await w.run();
    w.state.refuse = false;
    await w.run();
    expect(w.uploads).toHaveLength(1);
    expect(w.system.lines.join()).toContain(
      "WARNING ExtHandler ExtHandler The logs could not be uploaded: no host",
    );
  });

  test("system.md BET-18 LOGC-06: an archive of an earlier run is never uploaded as a new one", async () => {
    using w = world({}, [0, "no-archive"]);
    await w.run();
    await w.run();
    expect(w.uploads).toHaveLength(1);
    expect(outcomes(w.system).at(-1)).toEqual([
      "LogCollection",
      false,
      `The log collector left no new ${ARCHIVE}`,
    ]);
  });

  test("system.md LOGC-05 extensions.md LC-03: 2 and 3 end it until the next start, 1 does not", async () => {
    for (const [code, active] of [
      [1, true],
      [2, false],
      [3, false],
    ] as const) {
      using w = world({}, [code]);
      await w.run();
      expect(w.collection?.isActive()).toBe(active);
      await w.run();
      expect(w.uploads).toHaveLength(active ? 1 : 0);
    }
  });

  test("system.md LOGC-05 extensions.md LC-03: the third 4 ends it; only a success between them resets the count", async () => {
    using w = world({}, [4, 4, 0, 4, 1, 4, 4]);
    for (let index = 0; index < 6; index += 1) await w.run();
    expect(w.collection?.isActive()).toBeTrue();
    await w.run();
    expect(w.collection?.isActive()).toBeFalse();
  });

  test("system.md LOGC-07: a collector that cannot be started is a warning", async () => {
    using w = world();
    w.system.programs.delete("waagent");
    await w.run();
    expect(w.system.lines.join()).toContain(
      "Log collection failed with exit code 1: it could not be run: The program /usr/sbin/waagent is not installed",
    );
    expect(w.collection?.isActive()).toBeTrue();
  });
});
