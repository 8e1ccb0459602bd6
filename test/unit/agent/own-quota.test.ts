import { expect, test } from "bun:test";
import { createOwnQuota, type OwnPlace } from "../../../src/agent/own-quota.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const UNIT = "waagent.service";
const GROUP = `/sys/fs/cgroup/azure.slice/${UNIT}` as const;
const DROP_IN = `/run/systemd/system.control/${UNIT}.d/50-CPUQuota.conf` as const;
const ENABLE = `systemctl set-property ${UNIT} CPUAccounting=yes MemoryAccounting=yes CPUQuota=50% --runtime`;
const RESET = `systemctl set-property ${UNIT} CPUQuota= --runtime`;
const SELF = { pid: 100, parentPid: 50 };

function put(system: FakeSystem, path: SystemPath, text: string): void {
  system.files.makeDirectory(path.slice(0, path.lastIndexOf("/")) as SystemPath);
  system.files.write(path, text);
}

interface Process {
  readonly name?: string;
  readonly state?: string;
  readonly parent?: number;
  readonly words?: readonly string[];
  readonly environment?: readonly string[];
}

/** The agent as a service on a machine with version 2, and a systemctl that does what the real one does. */
function createMachine(
  options: { config?: Partial<Config>; isolates?: () => boolean; isSettled?: () => boolean } = {},
) {
  const system = createFakeSystem();
  put(system, `${GROUP}/cpu.max`, "max 100000\n");
  const processes = new Map<number, Process>();
  const live = (more: Readonly<Record<number, Process>>): void => {
    processes.clear();
    const all: Readonly<Record<number, Process>> = { 100: { name: "waagent", parent: 1 }, ...more };
    for (const [pid, process] of Object.entries(all)) {
      const { name = "other", state = "S", parent = 1, words = [name], environment = [] } = process;
      put(system, `/proc/${pid}/stat` as SystemPath, `${pid} (${name}) ${state} ${parent} 1 1\n`);
      put(system, `/proc/${pid}/cmdline` as SystemPath, `${words.join("\0")}\0`);
      put(system, `/proc/${pid}/environ` as SystemPath, `${environment.join("\0")}\0`);
    }
    put(system, `${GROUP}/cgroup.procs`, `${Object.keys(all).join("\n")}\n`);
  };
  live({});
  system.programs.set("systemctl", (argv) => {
    const quota = argv.find((word) => word.startsWith("CPUQuota="))?.slice(9) ?? "";
    put(system, `${GROUP}/cpu.max`, `${quota === "" ? "max" : parseInt(quota) * 1000} 100000\n`);
    put(system, DROP_IN, `[Service]\nCPUQuota=${quota}\n`);
  });
  const place: OwnPlace = { unit: UNIT, version: 2, cpu: GROUP };
  const create = () =>
    createOwnQuota(
      system,
      { ...defaultConfig(), ...options.config },
      { place, self: SELF, isolates: () => true, isSettled: () => true, ...options },
    );
  return {
    system,
    live,
    create,
    commands: () => system.commands.splice(0).map((argv) => argv.join(" ")),
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

test("extensions.md CG-12: the service gets half a core once extensions have settled, with one program, and later checks run none", async () => {
  let settled = false;
  using machine = createMachine({ isSettled: () => settled });
  const quota = machine.create();
  await quota.check(undefined);
  expect(machine.commands()).toEqual([]);
  settled = true;
  await quota.check(undefined);
  expect(machine.commands()).toEqual([ENABLE]);
  expect(machine.system.lines.at(-1)).toContain("[CGI] Agent cgroups enabled: True");
  for (let check = 0; check < 5; check += 1) await quota.check(119.9);
  expect(machine.commands()).toEqual([]);
  // An agent that is started again finds it in force.
  await machine.create().check(undefined);
  expect(machine.commands()).toEqual([]);
});

test("extensions.md CG-12: a machine that never settles gets its quota with the second check; another quota is set where the operator says so", async () => {
  using machine = createMachine({
    isSettled: () => false,
    config: { "Debug.AgentCpuQuota": 25 },
  });
  const quota = machine.create();
  await quota.check(undefined);
  await quota.check(undefined);
  expect(machine.commands()).toEqual([ENABLE.replace("50%", "25%")]);
  using other = createMachine({ config: { "Debug.AgentCpuQuota": 75 } });
  put(other.system, DROP_IN, "[Service]\nCPUQuota=50%\n");
  put(other.system, `${GROUP}/cpu.max`, "50000 100000\n");
  await other.create().check(undefined);
  expect(other.commands()).toEqual([ENABLE.replace("50%", "75%")]);
});

test("extensions.md CG-12 CG-42: an operator's own quota, a machine without the controller, extensions without groups: nothing is done; a systemctl that fails is told once", async () => {
  using own = createMachine();
  put(own.system, `${GROUP}/cpu.max`, "10000 100000\n");
  using plain = createMachine({ isolates: () => false });
  for (const machine of [own, plain]) {
    const quota = machine.create();
    await quota.check(500);
    await quota.check(500);
    expect(machine.commands()).toEqual([]);
    const said = machine.system.lines.filter((line) =>
      line.includes("Agent cgroups enabled: False"),
    );
    expect(said).toHaveLength(1);
  }
  for (const place of [undefined, { unit: UNIT, version: 2, cpu: undefined }] as const) {
    using bare = createMachine();
    const options = { place, self: SELF, isolates: () => true, isSettled: () => true };
    await createOwnQuota(bare.system, defaultConfig(), options).check(undefined);
    expect(bare.commands()).toEqual([]);
  }
  using broken = createMachine();
  broken.system.programs.set("systemctl", () => ({ code: 1, stderr: "Failed to connect to bus" }));
  const quota = broken.create();
  await quota.check(undefined);
  await quota.check(undefined);
  expect(broken.commands()).toEqual([ENABLE]);
  expect(broken.system.lines.at(-1)).toMatch(/WARNING.*could not be changed.*connect to bus/);
});

test("extensions.md CG-40: throttled for more than 120 s in one period it loses the quota for good, and says why", async () => {
  using machine = createMachine();
  const quota = machine.create();
  await quota.check(undefined);
  machine.commands();
  await quota.check(120);
  expect(machine.commands()).toEqual([]);
  await quota.check(120.1);
  expect(machine.commands()).toEqual([RESET]);
  expect(machine.system.events).toMatchObject([
    {
      operation: "CGroupsDisabled",
      success: false,
      message:
        "Disabling resource usage monitoring. Reason: The agent was throttled for 120.1 s, more than 120 s",
    },
  ]);
  await quota.check(undefined);
  expect(machine.commands()).toEqual([]);

  using patient = createMachine({ config: { "Debug.CgroupDisableOnQuotaCheckFailure": false } });
  const kept = patient.create();
  await kept.check(undefined);
  await kept.check(900);
  expect(patient.commands()).toEqual([ENABLE]);
});

const OURS: Readonly<Record<number, Process>> = {
  50: { name: "daemon of another agent" },
  101: { name: "openssl", parent: 100 },
  102: { name: "sh (odd) name", parent: 101 },
  103: { name: "gone", state: "Z" },
  104: {
    name: "left over",
    environment: ["A=1", "AZURE_GUEST_AGENT_PARENT_PROCESS_NAME=AZURE_GUEST_AGENT"],
  },
  105: { name: "sh", words: ["/bin/sh", "-c", "x", "sh", "/usr/bin/systemd-run", "--scope"] },
};

test("extensions.md CG-41: what the agent is, started or marked may live in its group; anything else that is seen twice in a row ends the quota", async () => {
  using machine = createMachine();
  const quota = machine.create();
  machine.live(OURS);
  for (let check = 0; check < 4; check += 1) await quota.check(0);
  expect(machine.commands()).toEqual([ENABLE]);
  machine.live({ ...OURS, 200: { name: "passing by" } });
  await quota.check(0);
  machine.live(OURS);
  await quota.check(0);
  machine.live({ 201: { name: "cuckoo" } });
  await quota.check(0);
  expect(machine.commands()).toEqual([]);
  machine.live(Object.fromEntries([1, 2, 3, 4, 5, 6, 7].map((n) => [300 + n, { name: "cuckoo" }])));
  await quota.check(0);
  expect(machine.commands()).toEqual([RESET]);
  expect(machine.system.events.at(-1)?.message).toBe(
    "Disabling resource usage monitoring. Reason: The agent's cgroup includes unexpected processes: [301 cuckoo, 302 cuckoo, 303 cuckoo, 304 cuckoo, 305 cuckoo] and 2 more",
  );
});

test("extensions.md CG-07 CG-41: before the quota is set one look is enough, and one of an earlier start is taken away", async () => {
  using machine = createMachine();
  machine.live({ 201: { name: "cuckoo", environment: ["HOME=/"] } });
  await machine.create().check(undefined);
  expect(machine.commands()).toEqual([]);
  expect(machine.system.events[0]?.message).toBe(
    "Found unexpected processes in the agent cgroup before agent enable cgroups: [201 cuckoo]",
  );
  put(machine.system, `${GROUP}/cpu.max`, "50000 100000\n");
  put(machine.system, DROP_IN, "[Service]\nCPUQuota=50%\n");
  await machine.create().check(undefined);
  expect(machine.commands()).toEqual([RESET]);

  using tolerant = createMachine({ config: { "Debug.CgroupDisableOnProcessCheckFailure": false } });
  tolerant.live({ 201: { name: "cuckoo" } });
  const quota = tolerant.create();
  for (let check = 0; check < 3; check += 1) await quota.check(0);
  expect(tolerant.commands()).toEqual([ENABLE]);
});

test("extensions.md CG-12: when commands of extensions have to share the agent's group the quota goes", async () => {
  let isolates = true;
  using machine = createMachine({ isolates: () => isolates });
  const quota = machine.create();
  await quota.check(undefined);
  isolates = false;
  await quota.check(0);
  isolates = true;
  await quota.check(0);
  expect(machine.commands()).toEqual([ENABLE, RESET]);
});

test("extensions.md CG-12: control groups of version 1 are read as what they say", async () => {
  using machine = createMachine();
  const cpu = "/sys/fs/cgroup/cpu,cpuacct/azure.slice/waagent.service";
  put(machine.system, `${cpu}/cpu.cfs_quota_us`, "-1\n");
  put(machine.system, `${cpu}/cpu.cfs_period_us`, "100000\n");
  const place: OwnPlace = { unit: UNIT, version: 1, cpu };
  const options = { place, self: SELF, isolates: () => true, isSettled: () => true };
  await createOwnQuota(machine.system, defaultConfig(), options).check(undefined);
  expect(machine.commands()).toEqual([ENABLE]);
  put(machine.system, `${cpu}/cpu.cfs_quota_us`, "5000\n");
  put(machine.system, `${cpu}/cpu.cfs_period_us`, "10000\n");
  await createOwnQuota(machine.system, defaultConfig(), options).check(undefined);
  expect(machine.commands()).toEqual([]);
});
