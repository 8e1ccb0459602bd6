import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  checkFirewall,
  FIREWALL_PERIOD,
  firewallPause,
  type FirewallState,
  initialFirewallState,
} from "../../../src/machine/firewall-monitor.ts";
import { installFakeIptables } from "../../fakes/iptables.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const config = { ...defaultConfig(), "OS.EnableFirewall": true };
const check = { address: "168.63.129.16", userId: 0 };
const HOUR = 3_600_000;

function plantCounts(system: FakeSystem, owner: number): void {
  plant(system, {
    "/sys/module/xt_owner/refcnt": `${owner}\n`,
    "/sys/module/xt_conntrack/refcnt": `${owner}\n`,
  });
}

const run = (system: FakeSystem, state: FirewallState): Promise<FirewallState> =>
  checkFirewall(system, config, state, check);

test("extensions.md FW-01 FW-09 system.md ENV-03 FW-02 FW-03: the check sets up, then leaves alone, then repairs, every 300 s by default", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  expect(config[FIREWALL_PERIOD]).toBe(300);
  let state = await run(system, initialFirewallState);
  const right = table.chains.get("OUTPUT")!;
  expect(right).toHaveLength(3);
  state = await run(system, state);
  expect(table.history).toHaveLength(1);
  table.chains.set("OUTPUT", right.slice(1));
  await run(system, state);
  expect(table.chains.get("OUTPUT")).toEqual(right);
  expect(system.events.map((event) => [event.operation, event.success])).toEqual([
    ["ResetFirewall", true],
    ["ResetFirewall", false],
  ]);
});

test("extensions.md FW-01: OS.EnableFirewall=n, the default, touches nothing", async () => {
  using system = createFakeSystem();
  installFakeIptables(system);
  expect(defaultConfig()["OS.EnableFirewall"]).toBe(false);
  await checkFirewall(system, defaultConfig(), initialFirewallState, check);
  expect(system.commands).toEqual([]);
});

test("extensions.md FW-09 system.md FW-02: three messages, then silence for 12 h, then one", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  let state = initialFirewallState;
  const wreck = async (): Promise<void> => {
    table.chains.set("OUTPUT", []);
    state = await run(system, state);
  };
  for (let round = 0; round < 6; round += 1) await wreck();
  expect(system.events).toHaveLength(3);
  await system.clock.sleep(12 * HOUR);
  await wreck();
  await wreck();
  expect(system.events).toHaveLength(4);
});

test("an idle check runs no program while the kernel's counts stand still, and lists again when one moves or an hour has passed", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  plantCounts(system, 1);
  let state = await run(system, initialFirewallState);
  system.commands.length = 0;
  for (let round = 0; round < 5; round += 1) state = await run(system, state);
  expect(system.commands).toEqual([]);

  table.chains.set("OUTPUT", []);
  plantCounts(system, 0);
  state = await run(system, state);
  expect(table.chains.get("OUTPUT")).toHaveLength(3);

  plantCounts(system, 1);
  state = await run(system, state);
  system.commands.length = 0;
  await system.clock.sleep(HOUR);
  await run(system, state);
  expect(system.commands.length).toBeGreaterThan(0);
});

/** A kernel without counts, on which `started` starts something; what the agent runs gets a number, too. */
function plantStarts(system: FakeSystem): (options?: { readonly thread?: boolean }) => void {
  let last = 5000;
  const started = (options: { readonly thread?: boolean } = {}): void => {
    last += 1;
    plant(system, { "/proc/loadavg": `0.00 0.01 0.05 1/123 ${last}\n` });
    if (options.thread === true) plant(system, { [`/proc/self/task/${last}/comm`]: "worker\n" });
  };
  started();
  for (const [name, program] of system.programs)
    system.programs.set(name, (argv, stdin) => {
      started();
      return program(argv, stdin);
    });
  return started;
}

test("where the kernel shows no counts, a check lists only after some program was started, and once in an hour", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  const started = plantStarts(system);
  let state = await run(system, initialFirewallState);
  system.commands.length = 0;
  for (let round = 0; round < 5; round += 1) {
    // Threads of the agent itself are no programs.
    started({ thread: true });
    state = await run(system, state);
  }
  expect(system.commands).toEqual([]);

  // Somebody removes the rules: that takes a program.
  table.chains.set("OUTPUT", []);
  started();
  state = await run(system, state);
  expect(table.chains.get("OUTPUT")).toHaveLength(3);
  system.commands.length = 0;
  state = await run(system, state);
  expect(system.commands).toEqual([]);

  // One that is started while we list may have its say after us: the next check lists again.
  started();
  const iptables = system.programs.get("iptables")!;
  system.programs.set("iptables", (argv, stdin) => {
    started();
    return iptables(argv, stdin);
  });
  state = await run(system, state);
  system.programs.set("iptables", iptables);
  for (const listings of [1, 0, 0]) {
    system.commands.length = 0;
    state = await run(system, state);
    expect(system.commands).toHaveLength(listings);
  }

  await system.clock.sleep(HOUR);
  await run(system, state);
  expect(system.commands).toHaveLength(1);
});

test("another WireServer gets its rules at once, whatever stands for those of the last one", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  plantStarts(system);
  const often = { ...check, periodMs: 30_000 };
  const state = await checkFirewall(system, config, initialFirewallState, often);
  const other = { ...often, address: "10.1.2.3" };
  await checkFirewall(system, config, state, other);
  expect(table.chains.get("OUTPUT")!.filter((rule) => rule.includes("10.1.2.3"))).toHaveLength(3);
});

test("between two checks it only looks at what is started, often enough to know its own threads", async () => {
  using system = createFakeSystem();
  installFakeIptables(system);
  const started = plantStarts(system);
  const often = (state: FirewallState): Promise<FirewallState> =>
    checkFirewall(system, config, state, { ...check, periodMs: 30_000 });
  let state = await often(initialFirewallState);
  expect(firewallPause(state, 30_000)).toBe(5000);
  expect(firewallPause(state, 1000)).toBe(1000);
  system.commands.length = 0;
  started();
  for (let waited = 5000; waited < 30_000; waited += 5000) {
    await system.clock.sleep(5000);
    state = await often(state);
    expect(system.commands).toEqual([]);
  }
  await system.clock.sleep(5000);
  state = await often(state);
  expect(system.commands).toHaveLength(1);
  // With counts there is nothing to look at in between.
  plantCounts(system, 1);
  started();
  await system.clock.sleep(30_000);
  state = await often(state);
  expect(firewallPause(state, 30_000)).toBe(30_000);
});

test("without any firewall program there is one error event, and the next check tries again", async () => {
  using system = createFakeSystem();
  let state = await run(system, initialFirewallState);
  expect(system.events.map((event) => event.message)).toEqual([
    "Could not check the firewall: No firewall can be set up: iptables is not installed; nft is not installed",
  ]);
  expect(state.trouble).toContain("No firewall can be set up");
  const table = installFakeIptables(system);
  state = await run(system, state);
  expect(state.trouble).toBeUndefined();
  expect(table.chains.get("OUTPUT")).toHaveLength(3);
});

test("after a roll-back nothing is tried for an hour", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  const probe = (): Promise<boolean> => Promise.resolve(table.chains.get("OUTPUT")!.length === 0);
  const state = await checkFirewall(system, config, initialFirewallState, { ...check, probe });
  expect(table.chains.get("OUTPUT")).toEqual([]);
  expect(system.events.at(-1)?.success).toBe(false);
  expect(state.trouble).toContain("the agent itself could not reach 168.63.129.16");
  const changes = table.history.length;
  const held = await checkFirewall(system, config, state, { ...check, probe });
  expect(table.history).toHaveLength(changes);
  await system.clock.sleep(2 * HOUR);
  await checkFirewall(system, config, held, { ...check, probe });
  expect(table.history.length).toBeGreaterThan(changes);
});
