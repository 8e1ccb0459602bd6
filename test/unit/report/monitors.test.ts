import { describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { createHttpErrorCounts } from "../../../src/azure/retry.ts";
import type { Metric } from "../../../src/report/event-parameters.ts";
import { heartbeatText, sendHeartbeat } from "../../../src/report/heartbeat.ts";
import type { Observation } from "../../../src/report/health-service.ts";
import {
  createMonitors,
  memoryMetrics,
  type ImdsHealth,
  type MonitorDependencies,
} from "../../../src/report/monitors.ts";
import { createFakeSystem } from "../../fakes/system.ts";

function world(change: Partial<MonitorDependencies> = {}) {
  const system = createFakeSystem({ automatic: false });
  const observations: Observation[] = [];
  const metrics: Metric[] = [];
  const httpErrors = createHttpErrorCounts();
  const state = {
    hostPlugin: undefined as string | Error | undefined,
    imds: { healthy: true, detail: "" } as ImdsHealth | Error,
  };
  let reports = 0;
  const monitors = createMonitors(system, {
    hostPlugin: {
      ensureAvailable: async () => {
        if (state.hostPlugin instanceof Error) throw state.hostPlugin;
      },
      health: async () => (state.hostPlugin instanceof Error ? undefined : state.hostPlugin),
    },
    healthService: {
      observe: (observation) => void observations.push(observation),
      report: async () => void (reports += 1),
    },
    httpErrors,
    imdsHealth: async () => {
      if (state.imds instanceof Error) throw state.imds;
      return state.imds;
    },
    emitMetric: (metric) => void metrics.push(metric),
    resourcePeriodMs: 300_000,
    logMetrics: false,
    networkChanges: false,
    ...change,
  });
  const run = (name: string) => {
    const monitor = monitors.find((one) => one.name === name);
    if (monitor === undefined) throw new Error(`no monitor ${name}`);
    return monitor.run(new AbortController().signal);
  };
  return {
    system,
    observations,
    metrics,
    httpErrors,
    state,
    monitors,
    run,
    reports: () => reports,
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

test("system.md MON-01 MON-02 MON-03 MON-04 MON-05 MON-06 MON-07 MON-08: names, order and periods", () => {
  using w = world({ networkChanges: true });
  expect(w.monitors.map((one) => [one.name, one.periodMs / 60_000])).toEqual([
    ["ResetPeriodicLogMessages", 720],
    ["ReportNetworkErrors", 30],
    ["PollResourceUsage", 5],
    ["PollSystemWideResourceUsage", 60],
    ["SendHostPluginHeartbeat", 1],
    ["SendImdsHeartbeat", 1],
    ["ReportNetworkConfigurationChanges", 1],
  ]);
});

test("wire-protocol.md MON-01 system.md MON-03: the memory of periodic messages is forgotten", async () => {
  using w = world();
  const log = () => w.system.log.periodically("INFO", 99_999_999, "again");
  log();
  log();
  await w.run("ResetPeriodicLogMessages");
  log();
  expect(w.system.lines).toHaveLength(2);
});

test("wire-protocol.md MON-03 HTTP-17 system.md MON-04: network errors are reported once, only if there are any", async () => {
  using w = world();
  await w.run("ReportNetworkErrors");
  expect(w.system.events).toEqual([]);
  Object.assign(w.httpErrors, { hostplugin: 2, other: 1 });
  await w.run("ReportNetworkErrors");
  await w.run("ReportNetworkErrors");
  expect(w.system.events).toMatchObject([
    {
      operation: "HttpErrors",
      success: true,
      message: "hostplugin:2;protocol:0;other:1",
      task: "MonitorHandler",
    },
  ]);
});

test("wire-protocol.md MON-02 system.md MON-01: control group samples become metrics, logged on request", async () => {
  const sample = {
    category: "CPU",
    counter: "% Processor Time",
    instance: "walinuxagent.service",
    value: 1.5,
  };
  using w = world({ resourceUsage: async () => [sample], logMetrics: true });
  await w.run("PollResourceUsage");
  expect(w.metrics).toEqual([sample]);
  expect(w.system.lines).toEqual([
    "INFO ExtHandler ExtHandler Metric CPU/% Processor Time [walinuxagent.service] = 1.5",
  ]);
});

test("wire-protocol.md MON-04 TEL-48 system.md MON-02 MON-12: memory of the machine, without a program", async () => {
  using w = world();
  w.system.files.makeDirectory("/proc");
  w.system.files.write(
    "/proc/meminfo",
    "MemTotal:        4096000 kB\nMemFree:          100000 kB\nMemAvailable:    1024000 kB\n",
  );
  await w.run("PollSystemWideResourceUsage");
  expect(w.metrics).toEqual([
    { category: "Memory", counter: "Used Memory (MB)", instance: "", value: 3000 },
    { category: "Memory", counter: "Available Memory (MB)", instance: "", value: 1000 },
  ]);
  expect(w.system.commands).toEqual([]);
  expect(
    memoryMetrics("MemTotal: 1024 kB\nMemFree: 256 kB\nBuffers: 128 kB\nCached: 128 kB\n").map(
      (one) => one.value,
    ),
  ).toEqual([0.5, 0.5]);
  expect(memoryMetrics("nonsense")).toEqual([]);
});

describe("host plugin heartbeat", () => {
  test("wire-protocol.md MON-05 HSVC-10 system.md MON-05 MON-11: healthy until failures have lasted five minutes", async () => {
    using w = world();
    w.state.hostPlugin = "no answer";
    for (let minute = 0; minute <= 6; minute += 1) {
      await w.run("SendHostPluginHeartbeat");
      await w.system.clock.advance(60_000);
    }
    w.state.hostPlugin = undefined;
    await w.run("SendHostPluginHeartbeat");
    expect(w.observations.map((one) => one.healthy)).toEqual([
      true,
      true,
      true,
      true,
      true,
      false,
      false,
      true,
    ]);
    expect(w.observations[0]).toEqual({ name: "GuestAgentPluginHeartbeat", healthy: true });
    expect(w.system.events.map((event) => [event.operation, event.success, event.message])).toEqual(
      [
        ["HostPluginHeartbeatExtended", false, "5.0 min since successful heartbeat"],
        ["HostPluginHeartbeatExtended", false, "6.0 min since successful heartbeat"],
      ],
    );
    expect(w.reports()).toBe(8);
  });

  test("wire-protocol.md MON-05 system.md MON-11: an exception is an event and no observation", async () => {
    using w = world();
    w.state.hostPlugin = new AgentError("protocol", "no goal state");
    await w.run("SendHostPluginHeartbeat");
    expect(w.observations).toEqual([]);
    expect(w.system.events).toMatchObject([
      { operation: "HostPluginHeartbeat", success: false, message: "no goal state" },
    ]);
  });

  test("wire-protocol.md MON-05: a plugin that does not speak our version counts as failing", async () => {
    using w = world();
    w.state.hostPlugin = new AgentError("not-supported", "too old");
    await w.run("SendHostPluginHeartbeat");
    await w.system.clock.advance(5 * 60_000);
    await w.run("SendHostPluginHeartbeat");
    expect(w.observations.map((one) => one.healthy)).toEqual([true, false]);
  });
});

test("wire-protocol.md MON-06 HSVC-14 system.md MON-06 MON-10: IMDS is unhealthy after three minutes, with the reason", async () => {
  using w = world();
  w.state.imds = { healthy: false, detail: "Missing field: [macAddress]" };
  for (let minute = 0; minute <= 3; minute += 1) {
    await w.run("SendImdsHeartbeat");
    await w.system.clock.advance(60_000);
  }
  expect(w.observations.map((one) => one.healthy)).toEqual([true, true, true, false]);
  expect(w.observations[3]).toEqual({
    name: "InstanceMetadataHeartbeat",
    healthy: false,
    value: "Missing field: [macAddress]",
  });
  w.state.imds = new Error("broken");
  await w.run("SendImdsHeartbeat");
  expect(w.observations).toHaveLength(4);
  expect(w.system.events).toMatchObject([
    { operation: "ImdsHeartbeat", success: false, message: "broken" },
  ]);
});

test("system.md MON-07 wire-protocol.md MON-07: routes and interfaces are logged once, and on change when asked for", async () => {
  const header =
    "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
  const route = (gateway: string) =>
    `${header}eth0\t00000000\t${gateway}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n`;
  for (const networkChanges of [false, true]) {
    using w = world({ networkChanges });
    w.system.files.makeDirectory("/proc/net");
    for (const gateway of ["0100000A", "0100000A", "0200000A"]) {
      w.system.files.write("/proc/net/route", route(gateway));
      await w.run("ReportNetworkConfigurationChanges");
    }
    const lines = w.system.lines.filter((line) => line.includes("Network"));
    expect(lines).toHaveLength(networkChanges ? 2 : 1);
    expect(lines[0]).toContain("10.0.0.1");
    if (networkChanges) expect(lines[1]).toContain("10.0.0.2");
  }
});

describe("the agent's heartbeat", () => {
  const heartbeat = {
    counter: 3,
    id: "0ab4e0c4-7d4c-4d5e-9a3f-1f2e3d4c5b6a",
    failedUpdates: 2,
    autoUpdate: true,
    updateMode: "SelfUpdate",
  } as const;

  test("wire-protocol.md TEL-50 system.md DAEMON-18: the text, with its last semicolon", () => {
    expect(heartbeatText(heartbeat)).toBe(
      "HeartbeatCounter: 3;HeartbeatId: 0AB4E0C4-7D4C-4D5E-9A3F-1F2E3D4C5B6A;UpdateGSErrors: 2;AutoUpdate: 1;UpdateMode: SelfUpdate;",
    );
  });

  test("system.md DAEMON-18 provisioning.md LOG-13: the line that support tools look for", () => {
    using system = createFakeSystem();
    sendHeartbeat(system, "WALinuxAgent-2.15.0.1", {
      ...heartbeat,
      autoUpdate: false,
      updateMode: "RSM",
    });
    expect(system.lines[0]).toStartWith(
      "INFO ExtHandler ExtHandler [HEARTBEAT] Agent WALinuxAgent-2.15.0.1 is running as the goal state agent",
    );
    expect(system.events).toMatchObject([{ operation: "HeartBeat", success: true }]);
    expect(system.events[0]?.message).toEndWith("AutoUpdate: 0;UpdateMode: RSM;");
  });
});
