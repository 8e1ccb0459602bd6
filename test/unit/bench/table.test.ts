import { describe, expect, test } from "bun:test";
import {
  agentProcesses,
  cpuSeconds,
  memoryOf,
  processTree,
  readEffects,
} from "../../bench/process.ts";
import { type Figure, median, ratioOf, renderTable, slope, verdictOf } from "../../bench/table.ts";

const figure = (values: Figure["values"], limit?: Figure["limit"]): Figure => ({
  id: "x",
  label: "start → Ready",
  unit: "s",
  values,
  ...(limit === undefined ? {} : { limit }),
});

describe("the bench's table", () => {
  test("a ratio and an absolute limit are reached or missed; without a measurement there is no verdict", () => {
    const limit = { ratio: 0.5 };
    expect(verdictOf(figure({ ours: 1, reference: 2 }, limit))).toBe("reached");
    expect(verdictOf(figure({ ours: 1.1, reference: 2 }, limit))).toBe("missed");
    expect(verdictOf(figure({ ours: 1 }, limit))).toBeUndefined();
    expect(verdictOf(figure({ ours: 0, reference: 9 }, { absolute: 0 }))).toBe("reached");
    expect(verdictOf(figure({ ours: 1, reference: 9 }, { absolute: 0 }))).toBe("missed");
    expect(verdictOf(figure({ ours: 1, reference: 9 }))).toBeUndefined();
    expect(ratioOf(figure({ ours: 1, reference: 0 }))).toBeUndefined();
  });

  test("columns line up and numbers keep three digits", () => {
    const table = renderTable([
      figure({ ours: 0.01234, reference: 1.5 }, { ratio: 0.5 }),
      { ...figure({ ours: 0, reference: 123.4 }, { absolute: 0 }), label: "writes" },
    ]).split("\n");
    expect(table[2]).toBe("start → Ready  s     0.0123          1.50  0.0082×  ≤ 0.5×   reached");
    expect(table[3]).toContain("0×");
    expect(table[3]).toEndWith("≤ 0      reached");
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
  });
});

test("the slope of a line with noise, and none without two places", () => {
  const line = [
    [0, 1],
    [1, 3.5],
    [2, 4.5],
    [3, 7],
  ] as const;
  expect(slope(line)).toBeCloseTo(1.9, 10);
  expect(slope([])).toBe(0);
  expect(slope([[5, 2]])).toBe(0);
});

describe("reading what strace saw", () => {
  test("programs and writes to files count, failures, sockets and pseudo file systems do not", () => {
    const effects = readEffects(
      [
        `100 execve("/usr/bin/ip", ["ip", "route"], 0x1 /* 2 vars */) = 0`,
        `100 execve("/usr/local/bin/ip", ["ip"], 0x1 /* 2 vars */) = -1 ENOENT (No such file or directory)`,
        `99  write(4</var/log/waagent.log>, "line\\n", 5) = 5`,
        `99  write(7<socket:[123]>, "GET /", 5) = 5`,
        `99  write(8</proc/1/oom_score_adj>, "0", 1) = 1`,
        `99  pwrite64(9</var/lib/waagent/a.tmp>, "xx", 2, 0) = 2`,
        `99  renameat2(AT_FDCWD</>, "/var/lib/waagent/a.tmp", AT_FDCWD</>, "/var/lib/waagent/a", 0) = 0`,
        `99  unlink("/var/lib/waagent/gone") = -1 ENOENT (No such file or directory)`,
        `99  write(5<anon_inode:[eventfd]>, "\\1\\0\\0\\0\\0\\0\\0\\0", 8) = 8`,
      ].join("\n"),
    );
    expect(effects).toEqual({
      programs: 1,
      started: [`"ip", "route"`],
      writes: 3,
      bytes: 7,
      paths: ["/var/lib/waagent/a.tmp", "/var/log/waagent.log"],
    });
  });
});

test("a process tree, its CPU time and its memory are read from /proc", async () => {
  const child = Bun.spawn(["sh", "-c", "sleep 5 & wait"], { stdout: "ignore" });
  while (processTree(child.pid).length < 2) await Bun.sleep(5);
  expect(agentProcesses(child.pid)).toHaveLength(1);
  expect(cpuSeconds([process.pid])).toBeGreaterThan(0.001);
  expect(memoryOf([process.pid]).pss).toBeGreaterThan(1);
  expect(memoryOf([process.pid]).anonymous).toBeGreaterThan(0.5);
  for (const pid of processTree(child.pid).reverse()) process.kill(pid, "SIGKILL");
  await child.exited;
});
