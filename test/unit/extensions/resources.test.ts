import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { sliceOf } from "../../../src/extensions/cgroup-tree.ts";
import { createResources, type ResourcesOptions } from "../../../src/extensions/resources.ts";
import { createExtensionsRunner } from "../../../src/extensions/runner.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext-Demo";
const SLICE = "azure-vmextensions-Contoso.Ext_Demo.slice";
const GROUP = "/sys/fs/cgroup";

let world: World;
beforeEach(() => {
  world = createWorld();
  world.system.files.makeDirectory(GROUP);
  world.system.files.write(`${GROUP}/cgroup.controllers`, "cpu memory\n");
  world.system.files.makeDirectory("/unit");
  world.system.programs.set("systemctl", (argv) =>
    argv.includes("LoadState")
      ? { stdout: "loaded\n" }
      : argv.includes("ControlGroup")
        ? { stdout: `/system.slice/${argv[2]}\n` }
        : {},
  );
});
afterEach(() => world[Symbol.dispose]());

/** A program in the place of systemd-run. */
function installSystemdRun(body: string): void {
  world.system.files.write("/systemd-run", `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  const real = world.system.files.realPath("/systemd-run");
  world.system.exec.find = (program) => (program === "systemd-run" ? real : undefined);
}
const PLACING = `echo "$*" >>"\${0%/*}/placed"
while [ "\${1#--}" != "$1" ]; do shift; done
exec "$@"`;

function runnerWith(resources: ReturnType<typeof createResources>) {
  return createExtensionsRunner(world.system, world.config, {
    source: {
      versions: () => Promise.resolve({ packages: [{ version: "1.0", uris: ["x"] }] }),
      download: async ({ file, accept }) => {
        world.system.files.write(file, world.packages.get(`${NAME} 1.0`) ?? new Uint8Array());
        await accept(file);
        world.system.files.remove(file);
      },
    },
    wireServerAddress: "",
    environment: {},
    isolation: resources.isolation,
    limits: resources.limits,
  });
}
const create = (systemd = true, more: Partial<ResourcesOptions> = {}) =>
  createResources(world.system, { systemd, unitDirectory: "/unit", ...more });
const wanted = (more: Parameters<typeof handler>[2] = {}) =>
  goal([handler(NAME, "1.0", { settings: [settings(0)], ...more })]);
const properties = (): string[] =>
  world.system.commands
    .filter((argv) => argv[1] === "set-property")
    .map((argv) => argv.slice(2).join(" "));

describe("placing commands", () => {
  test("extensions.md CG-10: slices are named without version, dashes and odd characters escaped", () => {
    expect(sliceOf({ name: NAME, version: "1.0" })).toBe(SLICE);
    expect(sliceOf({ name: "A.B", version: "2" }, "my ext/ü")).toBe(
      "azure-vmextensions-A.B.my\\x20ext\\x2f\\xc3\\xbc.slice",
    );
  });

  test("extensions.md CG-30: every command goes through systemd-run, into a scope of the extension's slice", async () => {
    installSystemdRun(PLACING);
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT });
    await runnerWith(create()).process(wanted());
    const placed = world.system.files.readText("/placed").trim().split("\n");
    expect(placed.length).toBeGreaterThan(1);
    expect(placed[0]).toMatch(
      new RegExp(
        `^--property=CPUAccounting=no --property=MemoryAccounting=no --unit=install_[0-9a-f-]{36} --scope --slice=${SLICE} /bin/sh -c `,
      ),
    );
    expect(world.calls(NAME)).toEqual(["1.0 install seq=0", "1.0 enable seq=0"]);
  });

  test("extensions.md CG-42 DB-16: when the scope cannot be made the command runs once, directly, and scopes are tried again later", async () => {
    installSystemdRun(
      'echo "Failed to start transient scope unit" >&2; echo x >>"${0%/*}/placed"; exit 1',
    );
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT });
    const runner = runnerWith(create());
    await runner.process(wanted());
    expect(world.calls(NAME)).toEqual(["1.0 install seq=0", "1.0 enable seq=0"]);
    expect(world.system.files.readText("/placed")).toBe("x\n");
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "CGroupsDisabled" }),
    );
    await world.system.clock.sleep(11 * 60_000);
    await runner.process(wanted());
    expect(world.system.files.readText("/placed")).toBe("x\nx\n");
    expect(world.calls(NAME).length).toBe(3);
  });

  test("whether commands have groups of their own is known: not without systemd, and not while scopes are paused", async () => {
    expect(create().isolates()).toBe(false);
    installSystemdRun(PLACING);
    expect(create(false).isolates()).toBe(false);
    const resources = create();
    expect(resources.isolates()).toBe(true);
    resources.isolation.failed("no bus");
    expect(resources.isolates()).toBe(false);
    world.system.clock.automatic = false;
    await world.system.clock.advance(600_000);
    expect(resources.isolates()).toBe(true);
  });

  test("extensions.md DB-16: a command that fails by itself is never taken for a failure of the scope", async () => {
    installSystemdRun(PLACING);
    const script = RECORDING_SCRIPT.replace("exit 0", "echo 'Unit not found.' >&2; exit 1");
    world.offer({ name: NAME, version: "1.0", script });
    const runner = runnerWith(create());
    const failing = wanted();
    await runner.process(failing);
    expect(world.calls(NAME)).toEqual(["1.0 install seq=0"]);
    expect(runner.reports(failing)).toMatchObject([{ code: 1007 }]);
  });

  test("extensions.md DB-17: without systemd a group is a directory, where the tree can be written", async () => {
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT });
    const resources = create(false);
    const place = await resources.isolation.place({
      ...{
        handler: { name: NAME, version: "1.0" },
        extension: undefined,
        operation: "enable",
        id: "7",
      },
    });
    expect(place).toEqual({
      cgroup: `${GROUP}/azure.slice/azure-vmextensions.slice/${SLICE}/run-7`,
    });
    expect(world.system.files.exists(place.cgroup as SystemPath)).toBe(true);
    using bare = createWorld();
    const none = createResources(bare.system, { systemd: true, unitDirectory: "/unit" });
    expect(
      await none.isolation.place({
        handler: { name: NAME, version: "1.0" },
        extension: "x",
        operation: "enable",
        id: "7",
      }),
    ).toEqual({});
  });
});

describe("limits", () => {
  const manifest = {
    resourceLimits: {
      cpuQuotaPercentage: 20,
      memoryQuotaInMB: 100,
      services: [{ name: "demo.service", cpuQuotaPercentage: 10 }, { name: "plain.service" }],
    },
  };

  test("extensions.md CG-20 CG-21 CG-22 CG-24 DB-20: accounting always, quotas when asked for, each set once, memory only told", async () => {
    installSystemdRun(PLACING);
    world.system.files.makeDirectory("/unit/demo.service.d");
    world.system.files.write("/unit/demo.service.d/12-CPUQuota.conf", "");
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT, top: manifest });
    const runner = runnerWith(create());
    await runner.process(wanted());
    await runner.process(wanted());
    expect(properties()).toEqual([
      `${SLICE} CPUAccounting=yes MemoryAccounting=yes CPUQuota=20% --runtime`,
      "demo.service CPUAccounting=yes MemoryAccounting=yes CPUQuota=10% --runtime",
      "plain.service CPUAccounting=yes MemoryAccounting=yes --runtime",
    ]);
    expect(world.system.files.exists("/unit/demo.service.d/12-CPUQuota.conf")).toBe(false);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "ExtensionResourceGovernance" }),
    );
    const lines = world.system.lines.join("\n");
    expect(lines).toContain(
      "Started tracking cpu cgroup demo.service [/sys/fs/cgroup/system.slice/demo.service]",
    );
    expect(lines).toContain(
      `Started tracking memory cgroup ${NAME} [${GROUP}/azure.slice/azure-vmextensions.slice/${SLICE}]`,
    );
  });

  test("extensions.md DB-18: with enforcement a package is held to the memory that it asks for, and an uninstall lifts it", async () => {
    installSystemdRun(PLACING);
    const top = { resourceLimits: { memoryQuotaInMB: 100, services: [{ name: "plain.service" }] } };
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT, top });
    const runner = runnerWith(create(true, { enforceMemory: true }));
    await runner.process(wanted());
    expect(properties()).toEqual([
      `${SLICE} CPUAccounting=yes MemoryAccounting=yes MemoryHigh=94371840 MemoryMax=104857600 --runtime`,
      "plain.service CPUAccounting=yes MemoryAccounting=yes --runtime",
    ]);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({
        operation: "ExtensionResourceGovernance",
        message: `${NAME} asks for 100 MiB of memory, which is enforced on its slice`,
      }),
    );
    world.system.commands.length = 0;
    await runner.process(wanted({ state: "uninstall" }));
    expect(properties()).toContain(`${SLICE} MemoryHigh=infinity MemoryMax=infinity --runtime`);
  });

  test("extensions.md DB-18: switched off again, only a limit of ours is lifted; version 1 enforces nothing and says so", async () => {
    installSystemdRun(PLACING);
    const top = { resourceLimits: { memoryQuotaInMB: 100 } };
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT, top });
    const { files } = world.system;
    const dropIn = `/run/systemd/system.control/${SLICE}.d` as const;
    files.makeDirectory(dropIn);
    files.write(`${dropIn}/50-MemoryMax.conf`, "[Slice]\nMemoryMax=104857600\n");
    await runnerWith(create()).process(wanted());
    const accounting = `${SLICE} CPUAccounting=yes MemoryAccounting=yes`;
    expect(properties()).toEqual([
      `${accounting} MemoryHigh=infinity MemoryMax=infinity --runtime`,
    ]);

    world.system.commands.length = 0;
    files.write(`${dropIn}/50-MemoryMax.conf`, "[Slice]\nMemoryMax=5000000000\n");
    await runnerWith(create()).process(wanted());
    expect(properties()).toEqual([`${accounting} --runtime`]);

    world.system.commands.length = 0;
    files.remove(`${GROUP}/cgroup.controllers`);
    files.makeDirectory(`${GROUP}/cpu`);
    files.write(`${GROUP}/cpu/tasks`, "");
    await runnerWith(create(true, { enforceMemory: true })).process(wanted());
    expect(properties()).toEqual([`${accounting} --runtime`]);
    const told = world.system.events.findLast(
      ({ operation }) => operation === "ExtensionResourceGovernance",
    );
    expect(told?.message).toBe(`${NAME} asks for 100 MiB of memory, which is not enforced`);
  });

  test("Extensions.TasksMax bounds what an extension may start, and is lifted with it", async () => {
    installSystemdRun(PLACING);
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT });
    const runner = runnerWith(create(true, { tasksMax: 500 }));
    await runner.process(wanted());
    expect(properties()).toEqual([
      `${SLICE} CPUAccounting=yes MemoryAccounting=yes TasksMax=500 --runtime`,
    ]);
    await runner.process(wanted({ state: "uninstall" }));
    expect(properties().at(-1)).toBe(`${SLICE} TasksMax=infinity --runtime`);
  });

  test("extensions.md CG-23: an uninstall resets quotas and ends tracking", async () => {
    installSystemdRun(PLACING);
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT, top: manifest });
    const runner = runnerWith(create());
    await runner.process(wanted());
    world.system.commands.length = 0;
    await runner.process(wanted({ state: "uninstall" }));
    expect(properties()).toEqual([
      "demo.service CPUQuota= --runtime",
      "plain.service CPUQuota= --runtime",
      `${SLICE} CPUQuota= --runtime`,
    ]);
    expect(world.system.lines.join("\n")).toContain(`Stopped tracking cgroup ${NAME}`);
  });

  test("extensions.md CG-42: a systemctl that fails fails nothing else", async () => {
    installSystemdRun(PLACING);
    world.system.programs.set("systemctl", () => ({ code: 1, stderr: "no bus" }));
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT, top: manifest });
    const runner = runnerWith(create());
    const one = wanted();
    await runner.process(one);
    expect(runner.reports(one)).toMatchObject([{ status: "Ready" }]);
    expect(world.system.lines.some((line) => line.includes("[CGW]"))).toBe(true);
  });

  test("extensions.md CG-11: units that must be there are made once, those of old agents go", () => {
    installSystemdRun(PLACING);
    world.system.files.write("/unit/azure-walinuxagent-logcollector.slice", "");
    world.system.files.write("/unit/azure.slice", "own\n");
    const dropIns = "/unit/waagent.service.d";
    world.system.files.makeDirectory(dropIns);
    for (const name of [
      ...["11-CPUAccounting.conf", "12-CPUQuota.conf", "13-MemoryAccounting.conf"],
      ...["10-Slice.conf", "override.conf"],
    ])
      world.system.files.write(`${dropIns}/${name}`, "");
    create(true, { agentService: "waagent" }).prepare();
    expect(world.system.files.list(dropIns)).toEqual(["10-Slice.conf", "override.conf"]);
    world.system.files.remove(dropIns);
    expect(world.system.files.list("/unit")).toEqual(["azure-vmextensions.slice", "azure.slice"]);
    expect(world.system.files.readText("/unit/azure.slice")).toBe("own\n");
    expect(world.system.files.readText("/unit/azure-vmextensions.slice")).toContain(
      "CPUAccounting=yes\nMemoryAccounting=yes",
    );
  });
});

describe("usage", () => {
  test("extensions.md CG-35: version 2, deltas, hourly values, and groups without processes are dropped", async () => {
    installSystemdRun(PLACING);
    world.offer({
      name: NAME,
      version: "1.0",
      script: RECORDING_SCRIPT,
      top: { resourceLimits: { cpuQuotaPercentage: 5 } },
    });
    const resources = create();
    await runnerWith(resources).process(wanted());
    const directory = `${GROUP}/azure.slice/azure-vmextensions.slice/${SLICE}` as const;
    const { files, clock } = world.system;
    files.makeDirectory(`${directory}/enable_x.scope`);
    const write = (name: string, text: string): void => files.write(`${directory}/${name}`, text);
    write("cgroup.procs", "");
    files.write(`${directory}/enable_x.scope/cgroup.procs`, "12\n");
    write("cpu.stat", "usage_usec 1000000\nthrottled_usec 500000\n");
    write("memory.stat", "anon 100\nfile 50\n");
    write("memory.peak", "900\n");
    write("memory.swap.current", "7\n");
    write("memory.events", "low 0\nhigh 3\n");
    const values = async () =>
      Object.fromEntries((await resources.sample()).map((one) => [one.counter, one.value]));
    expect(await values()).toEqual({
      "Total Memory Usage (B)": 150,
      "Anon Memory Usage (B)": 100,
      "Cache Memory Usage (B)": 50,
      "Max Memory Usage (B)": 900,
      "Swap Memory Usage (B)": 7,
      "Total Memory Throttled Events": 3,
    });
    await clock.sleep(10_000);
    write("cpu.stat", "usage_usec 3000000\nthrottled_usec 750000\n");
    const second = await values();
    expect(second).toMatchObject({ "% Processor Time": 20, "Throttled Time (s)": 0.25 });
    expect(second["Max Memory Usage (B)"]).toBeUndefined();
    files.write(`${directory}/enable_x.scope/cgroup.procs`, "");
    expect(await values()).toEqual({});
    expect(world.system.lines.join("\n")).toContain(`Stopped tracking cgroup ${NAME}`);
  });

  test("extensions.md CG-35: version 1 reads its own files", async () => {
    const { files, clock } = world.system;
    files.remove(`${GROUP}/cgroup.controllers`);
    for (const controller of ["cpu,cpuacct", "memory"]) {
      files.makeDirectory(`${GROUP}/${controller}/azure.slice/azure-vmextensions.slice/${SLICE}`);
      files.write(`${GROUP}/${controller}/tasks`, "");
    }
    installSystemdRun(PLACING);
    world.offer({ name: NAME, version: "1.0", script: RECORDING_SCRIPT });
    const resources = create();
    await runnerWith(resources).process(wanted());
    const cpu = `${GROUP}/cpu,cpuacct/azure.slice/azure-vmextensions.slice/${SLICE}` as const;
    const memory = `${GROUP}/memory/azure.slice/azure-vmextensions.slice/${SLICE}` as const;
    files.write(`${cpu}/cgroup.procs`, "1\n");
    files.write(`${cpu}/cpuacct.stat`, "user 100\nsystem 100\n");
    files.write(`${memory}/memory.stat`, "cache 5\nrss 6\nswap 7\n");
    files.write(`${memory}/memory.max_usage_in_bytes`, "99\n");
    await resources.sample();
    await clock.sleep(2000);
    files.write(`${cpu}/cpuacct.stat`, "user 150\nsystem 150\n");
    expect((await resources.sample()).map((one) => [one.category, one.counter, one.value])).toEqual(
      [
        ["CPU", "% Processor Time", 50],
        ["Memory", "Total Memory Usage (B)", 11],
        ["Memory", "Anon Memory Usage (B)", 6],
        ["Memory", "Cache Memory Usage (B)", 5],
      ],
    );
  });
});
