import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  chooseFirewallTool,
  firewallRules,
  inspectFirewall,
  removeFirewall,
  removeFirewallEverywhere,
  setUpFirewall,
} from "../../../src/machine/firewall.ts";
import { deleteRule } from "../../../src/machine/firewall-iptables.ts";
import { installFakeIptables } from "../../fakes/iptables.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const ADDRESS = "168.63.129.16";
const rules = firewallRules(defaultConfig(), ADDRESS, 0);
const DNS = `-d ${ADDRESS}/32 -p tcp -m tcp --dport 53 -j ACCEPT`;
const OWNER = `-d ${ADDRESS}/32 -p tcp -m owner --uid-owner 0 -j ACCEPT`;
const DROP = `-d ${ADDRESS}/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP`;
const LEGACY = `-d ${ADDRESS}/32 -p tcp -m conntrack --ctstate INVALID,NEW -j ACCEPT`;
const FOREIGN = "-d 10.9.0.0/16 -p tcp -m tcp --dport 25 -j REJECT";

function noRestore(system: FakeSystem): void {
  system.programs.delete("iptables-restore");
}

test("extensions.md FW-01 FW-03 FW-08 system.md FW-01: absent rules are appended in order, once", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  table.chains.set("OUTPUT", [FOREIGN]);
  const tool = await chooseFirewallTool(system);
  expect(tool.kind).toBe("iptables");
  expect(await inspectFirewall(system, tool, rules)).toBe("absent");
  expect(await setUpFirewall(system, tool, rules)).toEqual({ result: "applied", before: "absent" });
  expect(table.chains.get("OUTPUT")).toEqual([FOREIGN, DNS, OWNER, DROP]);
  expect(table.chains.get("FORWARD")).toEqual([]);
  expect(await setUpFirewall(system, tool, rules)).toEqual({ result: "unchanged", before: "ok" });
  expect(table.history).toHaveLength(1);
});

test("extensions.md DB-38 FW-09 FW-13 system.md FW-02: inconsistent rules are replaced in one transaction, never removed first", async () => {
  for (const [name, start] of Object.entries({
    "one is missing": [DNS, DROP],
    "wrong order": [DROP, OWNER, DNS],
    duplicates: [DNS, OWNER, DROP, DNS, OWNER, DROP],
    "legacy rule": [LEGACY, DNS, OWNER, DROP],
  })) {
    using system = createFakeSystem();
    const table = installFakeIptables(system);
    table.chains.set("OUTPUT", [FOREIGN, ...start]);
    const tool = await chooseFirewallTool(system);
    expect(await inspectFirewall(system, tool, rules), name).toBe("inconsistent");
    await setUpFirewall(system, tool, rules);
    expect(table.chains.get("OUTPUT"), name).toEqual([FOREIGN, DNS, OWNER, DROP]);
    expect(table.history, name).toEqual([[FOREIGN, DNS, OWNER, DROP].join(";")]);
    const listing = ["iptables", "-w", "-t", "security", "-t", "security", "-L", "-nxv"];
    expect(system.commands).toContainEqual(listing);
  }
});

test("extensions.md DB-38: a foreign rule that would let connections through is passed by at the head of the chain", async () => {
  for (const [foreign, first] of [
    ["-j ACCEPT", true],
    ["-p tcp -j RETURN", true],
    ["-j MYCHAIN", true],
    ["-d 168.63.0.0/16 -j ACCEPT", true],
    ["-d 10.0.0.0/8 -j ACCEPT", false],
    ["-p udp -j ACCEPT", false],
    ["-o lo -j ACCEPT", false],
    ['-m comment --comment "a b" -j LOG', false],
    ["-j DROP", false],
    // Comments that read like options.
    ["-m comment --comment -d -j ACCEPT", true],
    ["-m comment --comment --comment -j ACCEPT", true],
    ['-m comment --comment "-j DROP" -j ACCEPT', true],
    ["-m comment --comment -p -m comment --comment udp -j ACCEPT", true],
    ["-m comment --comment -j -d 10.0.0.0/8 -j ACCEPT", false],
    ["-d what/24 -j ACCEPT", true],
  ] as const) {
    using system = createFakeSystem();
    const table = installFakeIptables(system);
    table.chains.set("OUTPUT", [foreign]);
    const tool = await chooseFirewallTool(system);
    await setUpFirewall(system, tool, rules);
    const ours = [DNS, OWNER, DROP];
    expect(table.chains.get("OUTPUT"), foreign).toEqual(
      first ? [...ours, foreign] : [foreign, ...ours],
    );
    // Somebody puts the rule before ours later.
    table.chains.set("OUTPUT", [foreign, ...ours]);
    expect(await inspectFirewall(system, tool, rules), foreign).toBe(first ? "inconsistent" : "ok");
  }
});

test("Firewall.CoverForwarded adds rules for forwarded traffic, and takes them away when it is switched off", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  const tool = await chooseFirewallTool(system);
  await setUpFirewall(system, tool, { ...rules, coverForwarded: true });
  expect(table.chains.get("FORWARD")).toEqual([DNS, DROP]);
  expect(await inspectFirewall(system, tool, rules)).toBe("inconsistent");
  await setUpFirewall(system, tool, rules);
  expect(table.chains.get("FORWARD")).toEqual([]);
  expect(table.chains.get("OUTPUT")).toEqual([DNS, OWNER, DROP]);
});

test("extensions.md FW-05 FW-06: removal takes every rule of ours and of old agents, and leaves the others", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  table.chains.set("OUTPUT", [LEGACY, DNS, FOREIGN, OWNER, DROP, DROP]);
  table.chains.set("FORWARD", [DROP, FOREIGN]);
  const tool = await chooseFirewallTool(system);
  await removeFirewall(system, tool, rules);
  expect(table.chains.get("OUTPUT")).toEqual([FOREIGN]);
  expect(table.chains.get("FORWARD")).toEqual([FOREIGN]);
  await removeFirewallEverywhere(system, rules);
});

test("extensions.md FW-05: deleting one rule is repeated until iptables knows it no more, at most 99 times", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  table.chains.set("OUTPUT", [DROP, FOREIGN, DROP]);
  const spec = [
    "-d",
    ADDRESS,
    "-p",
    "tcp",
    "-m",
    "conntrack",
    "--ctstate",
    "INVALID,NEW",
    "-j",
    "DROP",
  ];
  const tool = { wait: true, restore: true };
  await deleteRule(system, tool, "OUTPUT", spec);
  expect(table.chains.get("OUTPUT")).toEqual([FOREIGN]);
  expect(system.commands).toHaveLength(3);

  system.programs.set("iptables", () => ({ code: 2, stderr: "Bad argument" }));
  await expect(deleteRule(system, tool, "OUTPUT", spec)).rejects.toThrow(
    /exit code 2: Bad argument/,
  );

  system.commands.length = 0;
  system.programs.set("iptables", () => undefined);
  await deleteRule(system, tool, "OUTPUT", spec);
  expect(system.commands).toHaveLength(99);
});

test("extensions.md FW-02: -w from 1.4.21 on; single commands where iptables-restore cannot wait", async () => {
  for (const [version, wait, restore] of [
    ["1.4.20", false, false],
    ["1.4.21", true, false],
    ["1.6.1", true, false],
    ["1.6.2", true, true],
  ] as const) {
    using system = createFakeSystem();
    const table = installFakeIptables(system, version);
    const tool = await chooseFirewallTool(system);
    expect(tool).toEqual({ kind: "iptables", iptables: { wait, restore } });
    table.chains.set("OUTPUT", [DROP]);
    await setUpFirewall(system, tool, rules);
    expect(table.chains.get("OUTPUT")).toEqual([DNS, OWNER, DROP]);
    const listings = system.commands.filter((argv) => argv.includes("-S"));
    expect(listings.every((argv) => argv.includes("-w") === wait)).toBe(true);
    expect(system.commands.some((argv) => argv[0] === "iptables-restore")).toBe(restore);
  }
});

test("extensions.md FW-02 DB-39: nft is used without iptables, or without the kernel's security table, with one warning", async () => {
  using system = createFakeSystem();
  await expect(chooseFirewallTool(system)).rejects.toThrow(
    "No firewall can be set up: iptables is not installed; nft is not installed",
  );
  const table = installFakeIptables(system);
  noRestore(system);
  table.problem = {
    code: 3,
    stderr:
      "iptables v1.8.9 (legacy): can't initialize iptables table `security': Table does not exist",
  };
  await expect(chooseFirewallTool(system)).rejects.toThrow(
    /no usable security table here.*nft is not/,
  );
  system.programs.set("nft", () => undefined);
  expect(system.lines).toEqual([]);
  expect(await chooseFirewallTool(system)).toEqual({ kind: "nft" });
  expect(system.lines).toHaveLength(1);
  expect(system.lines[0]).toMatch(/^WARNING .*Using nft for the firewall: .*security table/);
});

test("extensions.md DB-39: a table that is locked just now is no missing table", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  system.programs.set("nft", () => undefined);
  table.problem = {
    code: 4,
    stderr: "Another app is currently holding the xtables lock; still 9s 0us time ahead",
  };
  await expect(chooseFirewallTool(system)).rejects.toThrow(/holding the xtables lock/);
  table.problem = { code: 1, stderr: "iptables: Failed to initialize nft: Protocol not supported" };
  expect((await chooseFirewallTool(system)).kind).toBe("nft");
});

test("rules that cut the agent off are taken back, but only when they are the cause", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  table.chains.set("OUTPUT", [FOREIGN]);
  const tool = await chooseFirewallTool(system);
  const reachable = (): Promise<boolean> =>
    Promise.resolve(!table.chains.get("OUTPUT")!.includes(DROP));
  const cut = await setUpFirewall(system, tool, rules, { probe: reachable });
  expect(cut).toEqual({ result: "rolled-back", before: "absent" });
  expect(table.chains.get("OUTPUT")).toEqual([FOREIGN]);

  const unreachable = (): Promise<boolean> => Promise.resolve(false);
  expect((await setUpFirewall(system, tool, rules, { probe: unreachable })).result).toBe("applied");
  expect(table.chains.get("OUTPUT")).toEqual([FOREIGN, DNS, OWNER, DROP]);
});

test("extensions.md FW-09: a WireServer that swallows the question does not hold up the repair", async () => {
  using system = createFakeSystem();
  const table = installFakeIptables(system);
  table.chains.set("OUTPUT", [DNS, DROP]);
  const tool = await chooseFirewallTool(system);
  const given: AbortSignal[] = [];
  const probe = (signal: AbortSignal): Promise<boolean> => {
    given.push(signal);
    return new Promise(() => undefined);
  };
  expect((await setUpFirewall(system, tool, rules, { probe })).result).toBe("applied");
  expect(table.chains.get("OUTPUT")).toEqual([DNS, OWNER, DROP]);
  expect(given.map(({ aborted }) => aborted)).toEqual([true]);
  expect(system.clock.monotonic()).toBeLessThanOrEqual(4000);
});

test("a text that is no IPv4 address never reaches a firewall program", () => {
  for (const text of ["", "168.63.129.16; reboot", "168.63.129.256", "::1", "1.2.3.4\n-F"])
    expect(() => firewallRules(defaultConfig(), text, 0)).toThrow(/is not an IPv4 address/);
});
