import { describe, expect, test } from "bun:test";
import { createOwnUsage } from "../../../src/agent/own-usage.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

function put(system: FakeSystem, path: string, text: string): void {
  system.files.makeDirectory(path.slice(0, path.lastIndexOf("/")) as SystemPath);
  system.files.write(path as SystemPath, text);
}
const AGENT2 = "/sys/fs/cgroup/azure.slice/waagent.service";

function version2(): FakeSystem {
  const system = createFakeSystem({ automatic: false });
  put(system, "/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
  put(system, "/sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu io memory pids\n");
  put(system, "/proc/self/cgroup", "0::/azure.slice/waagent.service\n");
  put(system, `${AGENT2}/cgroup.procs`, "100\n");
  put(system, `${AGENT2}/cpu.max`, "50000 100000\n");
  put(system, `${AGENT2}/memory.stat`, "anon 1000\nfile 2000\n");
  put(system, `${AGENT2}/memory.events`, "low 0\nhigh 9\n");
  put(system, `${AGENT2}/memory.peak`, "5000\n");
  put(system, `${AGENT2}/memory.swap.current`, "70\n");
  moment2(system, { usedUs: 1_000_000, throttledUs: 0 });
  return system;
}
function moment2(system: FakeSystem, at: { usedUs: number; throttledUs: number }): void {
  put(system, `${AGENT2}/cpu.stat`, `usage_usec ${at.usedUs}\nthrottled_usec ${at.throttledUs}\n`);
}
const shown = (
  metrics: readonly { category: string; counter: string; instance: string; value: number }[],
) => metrics.map((one) => `${one.category}/${one.counter} [${one.instance}] = ${one.value}`);

describe("control groups version 2", () => {
  test("wire-protocol.md TEL-40 TEL-41 TEL-42 TEL-43 TEL-44 TEL-45 TEL-46 TEL-47 system.md MON-12 MON-13: all counters, instance name fixed", async () => {
    using system = version2();
    const usage = createOwnUsage(system, { systemd: false });
    expect(shown(usage.sample())).toEqual([
      "Memory/Total Memory Usage (B) [walinuxagent.service] = 3000",
      "Memory/Anon Memory Usage (B) [walinuxagent.service] = 1000",
      "Memory/Cache Memory Usage (B) [walinuxagent.service] = 2000",
      "Memory/Max Memory Usage (B) [walinuxagent.service] = 5000",
      "Memory/Swap Memory Usage (B) [walinuxagent.service] = 70",
      "Memory/Total Memory Throttled Events [walinuxagent.service] = 9",
    ]);
    moment2(system, { usedUs: 38_037_000, throttledUs: 1_500_000 });
    await system.clock.advance(300_000);
    expect(shown(usage.sample()).slice(0, 3)).toEqual([
      "CPU/% Processor Time [walinuxagent.service] = 12.346",
      "CPU/Throttled Time (s) [walinuxagent.service] = 1.5",
      "Memory/Total Memory Usage (B) [walinuxagent.service] = 3000",
    ]);
  });

  test("system.md DAEMON-23: the memory guard sees total and swap at every look", () => {
    using system = version2();
    const usage = createOwnUsage(system, { systemd: false });
    expect([usage.memoryBytes(), usage.memoryBytes()]).toEqual([3070, 3070]);
    put(system, `${AGENT2}/memory.swap.current`, "100\n");
    expect(usage.memoryBytes()).toBe(3100);
  });

  test("wire-protocol.md TEL-45 TEL-46: peak and swap once an hour", async () => {
    using system = version2();
    const usage = createOwnUsage(system, { systemd: false });
    const hourly = (): number =>
      shown(usage.sample()).filter((line) => /Max|Swap/.test(line)).length;
    const counts = [hourly()];
    for (let poll = 0; poll < 12; poll += 1) {
      await system.clock.advance(300_000);
      counts.push(hourly());
    }
    expect(counts).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
  });

  test("wire-protocol.md TEL-41 system.md MON-12: without a quota there is no throttled time", async () => {
    using system = version2();
    put(system, `${AGENT2}/cpu.max`, "max 100000\n");
    const usage = createOwnUsage(system, { systemd: false });
    usage.sample();
    moment2(system, { usedUs: 31_000_000, throttledUs: 5 });
    await system.clock.advance(300_000);
    expect(shown(usage.sample())[0]).toBe("CPU/% Processor Time [walinuxagent.service] = 10");
    expect(shown(usage.sample()).join()).not.toContain("Throttled Time");
  });

  test("wire-protocol.md TEL-40 system.md MON-13: a counter that runs backwards gives no figure", async () => {
    using system = version2();
    const usage = createOwnUsage(system, { systemd: false });
    usage.sample();
    moment2(system, { usedUs: 10, throttledUs: 0 });
    await system.clock.advance(300_000);
    expect(shown(usage.sample()).join()).not.toContain("% Processor");
  });

  test("system.md MON-14: missing counters and files are left out silently", () => {
    using system = version2();
    for (const file of [
      "memory.stat",
      "memory.events",
      "memory.peak",
      "memory.swap.current",
      "cpu.stat",
    ])
      system.files.remove(`${AGENT2}/${file}` as SystemPath);
    expect(createOwnUsage(system, { systemd: false }).sample()).toEqual([]);
    put(system, `${AGENT2}/memory.stat`, "kernel 5\nfile 7\n");
    expect(shown(createOwnUsage(system, { systemd: false }).sample())).toEqual([
      "Memory/Cache Memory Usage (B) [walinuxagent.service] = 7",
    ]);
  });

  test("extensions.md CG-06: an agent that no service manager has put into a slice is not measured", () => {
    using system = version2();
    for (const path of ["/user.slice/user-0.slice/session-1.scope", "/", "/docker/abc"]) {
      put(system, "/proc/self/cgroup", `0::${path}\n`);
      expect(createOwnUsage(system, { systemd: false }).sample()).toEqual([]);
    }
    expect(system.lines).toEqual([]);
  });

  test("extensions.md CG-35: tracking is told, in the words that tools look for", () => {
    using system = version2();
    createOwnUsage(system, { systemd: false });
    expect(system.lines[0]).toEndWith(
      `[CGI] Started tracking cpu cgroup walinuxagent.service [${AGENT2}]`,
    );
  });
});

describe("control groups version 1", () => {
  test("wire-protocol.md TEL-40 TEL-41 TEL-42 TEL-43 TEL-44 TEL-45 TEL-46 system.md MON-12: other files, the same counters", async () => {
    using system = createFakeSystem({ automatic: false });
    const cpu = "/sys/fs/cgroup/cpu,cpuacct/system.slice/walinuxagent.service";
    const memory = "/sys/fs/cgroup/memory/system.slice/walinuxagent.service";
    put(
      system,
      "/proc/self/cgroup",
      "11:cpu,cpuacct:/system.slice/walinuxagent.service\n8:memory:/system.slice/walinuxagent.service\n",
    );
    for (const controller of ["cpu,cpuacct", "memory"])
      put(system, `/sys/fs/cgroup/${controller}/tasks`, "");
    put(system, `${cpu}/cpu.cfs_quota_us`, "50000\n");
    put(system, `${memory}/memory.stat`, "cache 50000\nrss 100000\nswap 20000\n");
    put(system, `${memory}/memory.max_usage_in_bytes`, "1000000");
    const moment = (user: number, throttledNs: number): void => {
      put(system, `${cpu}/cpuacct.stat`, `user ${user}\nsystem 10\n`);
      put(system, `${cpu}/cpu.stat`, `nr_periods 1\nthrottled_time ${throttledNs}\n`);
    };
    moment(100, 0);
    const usage = createOwnUsage(system, { systemd: false });
    expect(shown(usage.sample())).toEqual([
      "Memory/Total Memory Usage (B) [walinuxagent.service] = 150000",
      "Memory/Anon Memory Usage (B) [walinuxagent.service] = 100000",
      "Memory/Cache Memory Usage (B) [walinuxagent.service] = 50000",
      "Memory/Max Memory Usage (B) [walinuxagent.service] = 1000000",
      "Memory/Swap Memory Usage (B) [walinuxagent.service] = 20000",
    ]);
    moment(1100, 2_500_000_000);
    await system.clock.advance(100_000);
    expect(shown(usage.sample()).slice(0, 2)).toEqual([
      "CPU/% Processor Time [walinuxagent.service] = 10",
      "CPU/Throttled Time (s) [walinuxagent.service] = 2.5",
    ]);
  });
});
