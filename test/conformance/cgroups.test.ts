import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createOwnUsage } from "../../src/agent/own-usage.ts";
import type { SystemPath } from "../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../fakes/system.ts";
import { areFixturesThere, fixtures, skipWithoutFixtures } from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const put = (system: FakeSystem, target: string, source: string | { text: string }): void => {
    system.files.makeDirectory(target.slice(0, target.lastIndexOf("/")) as SystemPath);
    const data =
      typeof source === "string"
        ? readFileSync(path.join(fixtures, "cgroups", source))
        : source.text;
    system.files.write(target as SystemPath, data);
  };
  /** Figures of recorded moments, a hundred seconds apart. */
  const figures = async (
    system: FakeSystem,
    moments: readonly (() => void)[],
  ): Promise<Record<string, number>[]> => {
    const usage = createOwnUsage(system, { systemd: false });
    const found: Record<string, number>[] = [];
    for (const moment of moments) {
      moment();
      found.push(Object.fromEntries(usage.sample().map((one) => [one.counter, one.value])));
      await system.clock.advance(100_000);
    }
    return found;
  };

  test("wire-protocol.md TEL-40 TEL-41 TEL-42 TEL-43 TEL-44 TEL-45 TEL-46 TEL-47 system.md MON-12: recorded groups, version 2", async () => {
    using system = createFakeSystem({ automatic: false });
    const group = "/sys/fs/cgroup/system.slice/walinuxagent.service";
    put(system, "/sys/fs/cgroup/cgroup.controllers", "v2/sys_fs_cgroup_cgroup.subtree_control");
    put(system, "/proc/self/cgroup", "v2/proc_self_cgroup");
    put(system, `${group}/cpu.max`, { text: "5000 100000\n" });
    for (const name of ["memory.stat", "memory.events", "memory.peak", "memory.swap.current"])
      put(system, `${group}/${name}`, `v2/${name}`);
    const at = (moment: number) => () => put(system, `${group}/cpu.stat`, `v2/cpu.stat_t${moment}`);
    const [first, second, third] = await figures(system, [at(0), at(1), at(2)]);
    expect(first).toEqual({
      "Total Memory Usage (B)": 17_589_300 + 134_553_600,
      "Anon Memory Usage (B)": 17_589_300,
      "Cache Memory Usage (B)": 134_553_600,
      "Total Memory Throttled Events": 9,
      "Max Memory Usage (B)": 194_494_464,
      "Swap Memory Usage (B)": 20_000,
    });
    expect(second).toMatchObject({ "% Processor Time": 2.579, "Throttled Time (s)": 61.365 });
    expect(third).toMatchObject({ "% Processor Time": 2.428, "Throttled Time (s)": 56.45 });

    put(system, `${group}/memory.stat`, "v2/memory.stat_missing");
    put(system, `${group}/memory.events`, "v2/memory.events_missing");
    const [missing] = await figures(system, [at(0)]);
    expect(Object.keys(missing ?? {})).toEqual(["Max Memory Usage (B)", "Swap Memory Usage (B)"]);
  });

  test("wire-protocol.md TEL-40 TEL-41 TEL-42 TEL-43 TEL-44 TEL-45 TEL-46 system.md MON-12: recorded groups, version 1", async () => {
    using system = createFakeSystem({ automatic: false });
    const cpu = "/sys/fs/cgroup/cpu,cpuacct/system.slice/walinuxagent.service";
    const memory = "/sys/fs/cgroup/memory/system.slice/walinuxagent.service";
    put(system, "/proc/self/cgroup", "v1/proc_self_cgroup");
    for (const controller of ["cpu,cpuacct", "memory"])
      put(system, `/sys/fs/cgroup/${controller}/tasks`, { text: "" });
    put(system, `${cpu}/cpu.cfs_quota_us`, { text: "5000\n" });
    for (const name of ["memory.stat", "memory.max_usage_in_bytes"])
      put(system, `${memory}/${name}`, `v1/${name}`);
    const at = (moment: number) => () => {
      put(system, `${cpu}/cpuacct.stat`, `v1/cpuacct.stat_t${moment}`);
      put(system, `${cpu}/cpu.stat`, `v1/cpu.stat_t${Math.min(moment, 1)}`);
    };
    const [first, second, third] = await figures(system, [at(0), at(1), at(2)]);
    expect(first).toMatchObject({
      "Total Memory Usage (B)": 150_000,
      "Max Memory Usage (B)": 1_000_000,
      "Swap Memory Usage (B)": 20_000,
    });
    // 17 and 65 ticks of 10 ms in a hundred seconds.
    expect(second).toMatchObject({ "% Processor Time": 0.17, "Throttled Time (s)": 2075.541 });
    expect(third).toMatchObject({ "% Processor Time": 0.65, "Throttled Time (s)": 0 });

    put(system, `${memory}/memory.stat`, "v1/memory.stat_missing");
    expect(await figures(system, [at(0)])).toEqual([
      { "Cache Memory Usage (B)": 50_000, "Max Memory Usage (B)": 1_000_000 },
    ]);
  });
}
