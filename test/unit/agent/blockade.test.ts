import { expect, test } from "bun:test";
import { throughBlockade } from "../../../src/agent/blockade.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { checkFirewall, initialFirewallState } from "../../../src/machine/firewall-monitor.ts";
import { installFakeIptables } from "../../fakes/iptables.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const config = { ...defaultConfig(), "OS.EnableFirewall": true };
const signal = new AbortController().signal;

/** A machine with our three rules, of which the given one is then taken away. */
async function machineWithout(index: number | undefined) {
  const system = createFakeSystem();
  const table = installFakeIptables(system);
  const check = { address: "168.63.129.16", userId: 0 };
  await checkFirewall(system, config, initialFirewallState, check);
  const right = table.chains.get("OUTPUT")!;
  if (index !== undefined) table.chains.set("OUTPUT", right.toSpliced(index, 1));
  system.commands.length = 0;
  system.clock.automatic = false;
  return { system, table, right };
}

test("extensions.md FW-08: an agent that its own broken rules shut out mends them after three seconds, and gets through", async () => {
  const { system, table, right } = await machineWithout(1);
  using _ = system;
  const { promise: opening, resolve } = Promise.withResolvers<string>();
  const result = throughBlockade(system, config, opening, signal);
  await system.clock.advance(2999);
  expect(system.commands).toEqual([]);
  await system.clock.advance(1);
  expect(table.chains.get("OUTPUT")).toEqual(right);
  resolve("open");
  expect(await result).toBe("open");
  expect(system.events.at(-1)).toMatchObject({ operation: "ResetFirewall", success: false });
});

test("a platform that answers in time costs no program", async () => {
  const { system } = await machineWithout(1);
  using _ = system;
  expect(await throughBlockade(system, config, Promise.resolve("open"), signal)).toBe("open");
  await system.clock.advance(10_000);
  expect(system.commands).toEqual([]);
});

test("right rules are left alone when the platform is silent, and so is a machine without the firewall", async () => {
  const { system, table, right } = await machineWithout(undefined);
  using _ = system;
  const refused = Promise.withResolvers<string>();
  const result = throughBlockade(system, config, refused.promise, signal);
  await system.clock.advance(5000);
  refused.reject(new Error("nobody there"));
  await expect(result).rejects.toThrow("nobody there");
  expect(table.history).toHaveLength(1);
  expect(table.chains.get("OUTPUT")).toEqual(right);
  system.commands.length = 0;
  await throughBlockade(system, defaultConfig(), Promise.resolve(), signal);
  expect(system.commands).toEqual([]);
});
