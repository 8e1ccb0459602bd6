import { describe, expect, test } from "bun:test";
import { listZip, readZipMember } from "../../../src/system/archive.ts";
import {
  collectLogsCommand,
  SIZE_LIMITS,
  truncatedName,
  type CollectOptions,
} from "../../../src/report/log-collector.ts";
import {
  COLLECT_EXIT,
  COLLECTOR_SLICE,
  exceededLimit,
  findOwnGroup,
  maximum,
  MONITOR_VARIABLE,
  parseOwnGroups,
} from "../../../src/report/log-collector-limits.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const ARCHIVE = "/var/lib/waagent/logcollector/logs.zip";
const RESULTS = "/var/lib/waagent/logcollector/results.txt";

function machine(files: Readonly<Record<string, string>> = {}): FakeSystem {
  const system = createFakeSystem({ now: Date.UTC(2030, 0, 2, 3, 4, 5) });
  system.files.makeDirectory("/var/lib/waagent");
  const all = { "/var/log/waagent.log": "agent\n", "/etc/hostname": "vm\n", ...files };
  for (const [path, text] of Object.entries(all)) put(system, path as SystemPath, text);
  system.programs.set("ls", (argv) => ({
    stdout: `listing of ${argv.at(-1)?.split("/").at(-1)}\n`,
  }));
  return system;
}
function put(system: FakeSystem, path: SystemPath, text: string): void {
  system.files.makeDirectory(path.slice(0, path.lastIndexOf("/")) as SystemPath);
  system.files.write(path, text);
}
const options = (change: Partial<CollectOptions> = {}): CollectOptions => ({
  libDirectory: "/var/lib/waagent",
  logDirectory: "/var/log/azure",
  agentLog: "/var/log/waagent.log",
  full: false,
  monitored: false,
  ...change,
});
const names = (system: FakeSystem): string[] => listZip(system, ARCHIVE).map((entry) => entry.name);
const member = (system: FakeSystem, name: string): string =>
  Buffer.from(readZipMember(system, ARCHIVE, name)).toString();

describe("a run", () => {
  test("system.md LOGC-12 LOGC-13 LOGC-14 LOGC-17: archive and results, names without the leading slash, results last", async () => {
    using system = machine({
      "/var/log/azure/Pub.Ext/x.log": "ext\n",
      "/etc/fstab": "secret layout",
    });
    const lines: string[] = [];
    expect(
      await collectLogsCommand(system, options({ progress: (line) => lines.push(line) })),
    ).toBe(0);
    expect(names(system)).toEqual([
      "var/log/waagent.log",
      "var/log/azure/Pub.Ext/x.log",
      "etc/hostname",
      "results.txt",
    ]);
    expect(member(system, "var/log/azure/Pub.Ext/x.log")).toBe("ext\n");
    const results = system.files.readText(RESULTS);
    expect(member(system, "results.txt")).toBe(results);
    expect(results).toStartWith(
      "2030-01-02T03:04:05Z INFO Running log collector in normal mode\n2030-01-02T03:04:05Z INFO ### Probing Directories ###\n",
    );
    expect(results).toContain("INFO Output of: ls -alF /var/log\nlisting of log\n");
    expect(results).toContain("INFO Collected /var/log/waagent.log\n");
    expect(lines.at(-1)).toBe(
      `Collected 3 files, 13 bytes uncompressed\nArchive: ${ARCHIVE}\nResults: ${RESULTS}`,
    );
    expect(system.lines.join("\n")).toContain(`Archive: ${ARCHIVE}, results: ${RESULTS}`);
    expect(system.events).toMatchObject([{ operation: "LogCollection", success: true }]);
    expect(system.files.stat(ARCHIVE)?.mode).toBe(0o600);
  });

  test("provisioning.md CLI-30: the mode and both paths are told, and the exit code is the outcome", async () => {
    using system = machine();
    const said = (): string[] =>
      system.lines.splice(0).map((line) => line.replace(/^(\S+) \S+ \S+ /, "$1 "));
    expect(await collectLogsCommand(system, options())).toBe(0);
    expect(said()).toEqual([
      "INFO Running log collector in normal mode",
      `INFO Log collection successfully completed. Collected 2 files, 9 bytes uncompressed. Archive: ${ARCHIVE}, results: ${RESULTS}`,
    ]);
    expect(system.files.exists(ARCHIVE) && system.files.exists(RESULTS)).toBe(true);
    expect(await collectLogsCommand(system, options({ full: true }))).toBe(0);
    expect(said()[0]).toBe("INFO Running log collector in full mode");
    expect(Object.values(COLLECT_EXIT)).toEqual([0, 1, 2, 3, 4]);
    system.files.remove("/var/lib/waagent/logcollector");
    system.files.write("/var/lib/waagent/logcollector", "a file");
    expect(await collectLogsCommand(system, options())).toBe(COLLECT_EXIT.failed);
    expect(said().at(-1)).toStartWith("ERROR Log collection failed: ");
  });

  test("system.md LOGC-12 LOGC-19: -full takes the full manifest", async () => {
    using system = machine({ "/etc/fstab": "x" });
    await collectLogsCommand(system, options({ full: true }));
    expect(names(system)).toContain("etc/fstab");
    expect(system.files.readText(RESULTS)).toContain("### Disk Info ###");
  });

  test("system.md BET-19: secrets are taken out of texts and of the results", async () => {
    using system = machine({ "/var/log/azure/Pub.Ext/x.log": "https://h/f?a=b&sig=SECRET\n" });
    system.programs.set("ls", () => ({ stdout: "odd name https://h/f?sv=1&sig=SECRET\n" }));
    system.programs.set("journalctl", () => ({ stdout: "line https://h/f?sv=1&sig=SECRET\n" }));
    await collectLogsCommand(system, options());
    expect(names(system)).toContain("journal.txt");
    for (const name of names(system)) expect(member(system, name)).not.toContain("SECRET");
  });

  test("system.md BET-19 LOGC-15: an operator's own manifest adds files, its errors are named", async () => {
    using system = machine({
      "/etc/waagent/logs.manifest": "copy,/opt/app/*.log\nbroken\n",
      "/opt/app/a.log": "app",
    });
    await collectLogsCommand(system, options());
    expect(names(system)).toContain("opt/app/a.log");
    expect(system.files.readText(RESULTS)).toContain('ERROR The manifest has an error: "broken"');
  });

  test("system.md LOGC-21: links among logs are not followed, those in /etc are", async () => {
    using system = machine({ "/etc/shadow": "SECRET", "/usr/lib/os-release": "ID=x\n" });
    system.files.makeDirectory("/var/log/azure/Pub.Ext");
    system.files.link(system.files.realPath("/etc/shadow"), "/var/log/azure/Pub.Ext/evil.log");
    system.files.link("../usr/lib/os-release", "/etc/os-release");
    await collectLogsCommand(system, options());
    expect(names(system)).not.toContain("var/log/azure/Pub.Ext/evil.log");
    expect(member(system, "etc/os-release")).toBe("ID=x\n");
  });
});

test("system.md LOGC-19: files beside the folders of handlers are no obstacle", async () => {
  using system = machine({
    "/var/lib/waagent/ABCD.crt": "a file where a handler's folder could be",
    "/var/lib/waagent/Pub.Ext-1.0/status/0.status": "[]",
  });
  expect(await collectLogsCommand(system, options())).toBe(0);
  expect(names(system)).toContain("var/lib/waagent/Pub.Ext-1.0/status/0.status");
});

describe("limits", () => {
  const KIB = 1024;
  const limits = { fileBytes: 30 * KIB, totalBytes: 150 * KIB };

  test("system.md LOGC-16 extensions.md LC-04: 30 MiB of a file, 150 MiB of all", () => {
    expect(SIZE_LIMITS).toEqual({ fileBytes: 31_457_280, totalBytes: 157_286_400 });
  });

  test("system.md LOGC-14 LOGC-16 extensions.md LC-04: long texts keep their end, long archives are dropped", async () => {
    using system = machine({
      "/var/log/syslog.1": `${"x".repeat(31 * KIB)}the end`,
      "/var/log/syslog.2.gz": "x".repeat(31 * KIB),
      "/var/lib/waagent/logcollector/truncated/_old": "left by the Python agent",
    });
    expect(await collectLogsCommand(system, options({ limits }))).toBe(0);
    expect(truncatedName("/var/log/syslog.1")).toBe("truncated__var_log_syslog.1");
    const kept = member(system, "truncated__var_log_syslog.1");
    expect(kept).toHaveLength(30 * KIB);
    expect(kept).toEndWith("xthe end");
    expect(names(system).some((name) => name.endsWith(".gz"))).toBeFalse();
    expect(system.files.readText(RESULTS)).toContain("/var/log/syslog.2.gz has 31744 bytes");
    expect(system.files.exists("/var/lib/waagent/logcollector/truncated")).toBeFalse();
  });

  test("system.md LOGC-16: the first file that would exceed the whole ends the selection", async () => {
    using system = machine({ "/var/log/syslog.9": "small" });
    for (let index = 1; index <= 6; index += 1)
      put(system, `/var/log/syslog.${index}`, "x".repeat(28 * KIB));
    expect(await collectLogsCommand(system, options({ limits }))).toBe(0);
    const found = names(system).filter((name) => name.includes("syslog"));
    expect(found).toEqual([1, 2, 3, 4, 5].map((index) => `var/log/syslog.${index}`));
    expect(system.files.readText(RESULTS)).toContain(
      "/var/log/syslog.6 and what follows is left out",
    );
  });
});

describe("failures", () => {
  test("system.md LOGC-18: a file that vanishes is a warning", async () => {
    using system = machine({ "/var/log/syslog": "x" });
    await collectLogsCommand(
      system,
      options({
        progress: (line) =>
          line.startsWith("/var/log/syslog ") && system.files.remove("/var/log/syslog"),
      }),
    );
    expect(system.files.readText(RESULTS)).toContain("WARNING /var/log/syslog is gone");
    expect(names(system)).not.toContain("var/log/syslog");
  });

  test("system.md LOGC-18 LOGC-05 BET-18 extensions.md LC-03: the eighth error aborts, exit 1, and the old archive stays as it was", async () => {
    using system = machine();
    put(system, ARCHIVE, "the archive of the last run");
    for (let index = 0; index < 9; index += 1) put(system, `/var/log/syslog.${index}`, "x");
    const progress = (line: string): void => {
      const [file = ""] = line.split(" (");
      if (!file.startsWith("/var/log/syslog")) return;
      system.files.remove(file as SystemPath);
      system.files.makeDirectory(file as SystemPath);
    };
    expect(await collectLogsCommand(system, options({ progress }))).toBe(1);
    expect(system.files.readText(RESULTS).match(/ERROR/g)).toHaveLength(8);
    expect(system.files.readText(ARCHIVE)).toBe("the archive of the last run");
    expect(system.files.list("/var/lib/waagent/logcollector")).toEqual(["logs.zip", "results.txt"]);
    expect(system.events).toMatchObject([{ operation: "LogCollection", success: false }]);
  });

  test("system.md LOGC-06: without ls and with a directory that cannot be written the exit code says so", async () => {
    using system = machine();
    system.programs.clear();
    expect(await collectLogsCommand(system, options())).toBe(0);
    expect(system.files.readText(RESULTS)).toContain(
      "WARNING Could not list /var/log: The program ls is not installed",
    );
    system.files.remove("/var/lib/waagent/logcollector");
    system.files.write("/var/lib/waagent/logcollector", "a file");
    expect(await collectLogsCommand(system, options())).toBe(1);
  });
});

describe("self-checks", () => {
  const inside = `0::/azure.slice/${COLLECTOR_SLICE}/collect-logs.scope`;
  const directory = `/sys/fs/cgroup/azure.slice/${COLLECTOR_SLICE}/collect-logs.scope` as const;
  function grouped(
    membership: string,
    stat = "anon 1000000\nfile 2000000\n",
    high = 0,
  ): FakeSystem {
    const system = machine();
    put(system, "/proc/self/cgroup", `${membership}\n`);
    put(system, `${directory}/cgroup.controllers`, "cpuset cpu io memory pids\n");
    put(system, `${directory}/memory.stat`, stat);
    put(system, `${directory}/memory.swap.current`, "5000\n");
    put(system, `${directory}/memory.events`, `low 0\nhigh ${high}\nmax 0\n`);
    return system;
  }

  test("system.md LOGC-10 LOGC-11: inside the slice it works and tells its maxima", async () => {
    using system = grouped(inside);
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(0);
    expect(system.events[0]?.message).toBe(
      '{"files": 2, "totalUncompressedBytes": 9, "anonymousAndSwapBytes": 1005000, "cacheBytes": 2000000, "throttledEvents": 0}',
    );
    expect(system.lines.join()).toContain('"totalUncompressedBytes": 9');
  });

  test("provisioning.md LOG-12: where it runs and that it succeeded, in the order and words that tools look for", async () => {
    using system = grouped(inside);
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(0);
    const scope = inside.slice("0::".length);
    const said = system.lines.map((line) => line.replace(/^INFO \S+ \S+ /, ""));
    const expected = [
      "Using cgroup v2 for resource enforcement and monitoring",
      `cpu controller for cgroup: ${scope}`,
      `memory controller for cgroup: ${scope}`,
      "Log collection successfully completed",
    ];
    const places = expected.map((text) => said.findIndex((line) => line.startsWith(text)));
    expect(places).not.toContain(-1);
    expect(places).toEqual(places.toSorted((a, b) => a - b));
  });

  test("provisioning.md CLI-31: the agent's own run looks three times, 5 s apart, and ends with 4; a person's run checks and watches nothing", async () => {
    expect(MONITOR_VARIABLE).toBe("_AZURE_GUEST_AGENT_LOG_COLLECTOR_MONITOR_CGROUPS_");
    using system = grouped("0::/user.slice/session-1.scope", "anon 999999999\nfile 0\n");
    put(system, "/sys/fs/cgroup/user.slice/session-1.scope/cgroup.controllers", "cpu memory\n");
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(4);
    expect(system.clock.monotonic()).toBe(10_000);
    expect(await collectLogsCommand(system, options({ monitored: false }))).toBe(0);
    expect(system.clock.monotonic()).toBe(10_000);
  });

  test("system.md LOGC-05 LOGC-10 extensions.md LC-03: elsewhere it ends with 4 after three looks, 5 s apart", async () => {
    using system = grouped("0::/azure.slice/walinuxagent.service");
    put(
      system,
      "/sys/fs/cgroup/azure.slice/walinuxagent.service/cgroup.controllers",
      "cpu memory\n",
    );
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(4);
    expect(system.clock.monotonic()).toBe(10_000);
    expect(system.files.exists(ARCHIVE)).toBeFalse();
  });

  test("system.md LOGC-05 LOGC-10: without cpu or memory controller it ends with 2", async () => {
    using system = grouped(inside);
    put(system, `${directory}/cgroup.controllers`, "cpu io\n");
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(2);
    put(system, "/proc/self/cgroup", "");
    expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(2);
  });

  test("system.md LOGC-05 LOGC-10 extensions.md LC-05: above a limit it ends with 3", async () => {
    for (const [stat, high] of [
      [`anon ${25 * 1024 * 1024}\nfile 0\n`, 0],
      [`anon 0\nfile ${155 * 1024 * 1024 + 1}\n`, 0],
      ["anon 0\nfile 0\n", 11],
    ] as const) {
      using system = grouped(inside, stat, high);
      expect(await collectLogsCommand(system, options({ monitored: true }))).toBe(3);
      expect(system.lines.join()).toContain("uses too much");
    }
  });

  test("system.md LOGC-10: the limits themselves", () => {
    const use = {
      anonymousAndSwapBytes: 25 * 1024 * 1024,
      cacheBytes: 155 * 1024 * 1024,
      throttledEvents: 10,
    };
    expect(exceededLimit(use)).toBeUndefined();
    expect(
      exceededLimit({ ...use, anonymousAndSwapBytes: use.anonymousAndSwapBytes + 1 }),
    ).toStartWith("anonymous and swap memory");
    expect(exceededLimit({ ...use, cacheBytes: use.cacheBytes + 1 })).toStartWith("page cache");
    expect(exceededLimit({ ...use, throttledEvents: 11 })).toStartWith("memory throttle events");
    expect(
      maximum(use, { anonymousAndSwapBytes: 0, cacheBytes: 2 ** 40, throttledEvents: 3 }),
    ).toEqual({ ...use, cacheBytes: 2 ** 40 });
  });

  test("system.md LOGC-10: control groups version 1", async () => {
    using system = machine();
    const path = `/${COLLECTOR_SLICE}/collect-logs.scope`;
    put(
      system,
      "/proc/self/cgroup",
      `5:cpu,cpuacct:${path}\n4:memory:${path}\n1:name=systemd:${path}\n`,
    );
    put(
      system,
      `/sys/fs/cgroup/memory${path}/memory.stat` as SystemPath,
      "cache 7\nrss 5\nswap 3\n",
    );
    const group = await findOwnGroup(system);
    expect(group.version).toBe(1);
    expect(group.use()).toEqual({ anonymousAndSwapBytes: 8, cacheBytes: 7, throttledEvents: 0 });
    expect([...parseOwnGroups("0::/a\n12:cpu,cpuacct:/b:c\nnonsense\n")]).toEqual([
      ["", "/a"],
      ["cpu", "/b:c"],
      ["cpuacct", "/b:c"],
    ]);
  });
});
