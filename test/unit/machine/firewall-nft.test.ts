import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { firewallRules, removeFirewall, setUpFirewall } from "../../../src/machine/firewall.ts";
import { judgeTable, nftScript } from "../../../src/machine/firewall-nft.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const ADDRESS = "168.63.129.16";
const rules = firewallRules(defaultConfig(), ADDRESS, 0);

interface Listing {
  readonly expr?: readonly unknown[];
  readonly policy?: string;
  readonly rules?: number;
}

const match = (op: string, left: unknown, right: unknown): unknown => ({
  match: { op, left, right },
});
const address = match("==", { payload: { protocol: "ip", field: "daddr" } }, ADDRESS);
const port = match("!=", { payload: { protocol: "tcp", field: "dport" } }, 53);
const owner = match("!=", { meta: { key: "skuid" } }, 0);
const state = match("in", { ct: { key: "state" } }, ["invalid", "new"]);
const counter = { counter: { packets: 4, bytes: 240 } };
const drop = { drop: null };

/** As nft 1.0.6 prints it. */
function listing(options: Listing = {}): string {
  const rule = {
    rule: {
      family: "ip",
      table: "walinuxagent",
      chain: "output",
      handle: 2,
      expr: options.expr ?? [address, port, owner, state, counter, drop],
    },
  };
  return JSON.stringify({
    nftables: [
      { metainfo: { version: "1.0.6", json_schema_version: 1 } },
      { table: { family: "ip", name: "walinuxagent", handle: 1 } },
      {
        chain: {
          family: "ip",
          table: "walinuxagent",
          name: "output",
          type: "filter",
          hook: "output",
          prio: 0,
          policy: options.policy ?? "accept",
        },
      },
      ...Array.from({ length: options.rules ?? 1 }, () => rule),
    ],
  });
}

test("extensions.md FW-07: the table is replaced in one transaction and holds one rule", () => {
  expect(nftScript(rules)).toBe(`add table ip walinuxagent
delete table ip walinuxagent
add table ip walinuxagent
add chain ip walinuxagent output { type filter hook output priority 0; policy accept; }
add rule ip walinuxagent output ip daddr 168.63.129.16 tcp dport != 53 meta skuid != 0 ct state invalid,new counter drop
add table ip walinuxagent_forward
delete table ip walinuxagent_forward
`);
  expect(nftScript({ ...rules, coverForwarded: true })).toContain(
    "add rule ip walinuxagent_forward forward ip daddr 168.63.129.16 tcp dport != 53 ct state invalid,new counter drop",
  );
});

test("extensions.md FW-07: only one rule with all expressions is right", () => {
  expect(judgeTable(listing(), "output", rules)).toBe(true);
  const named = match("!=", { meta: { key: "skuid" } }, "root");
  expect(judgeTable(listing({ expr: [address, port, named, state, drop] }), "output", rules)).toBe(
    true,
  );
  const all = [address, port, owner, state, drop];
  for (const missing of all)
    expect(
      judgeTable(listing({ expr: all.filter((one) => one !== missing) }), "output", rules),
    ).toBe(false);
  expect(judgeTable(listing({ rules: 2 }), "output", rules)).toBe(false);
  expect(judgeTable(listing({ rules: 0 }), "output", rules)).toBe(false);
  expect(judgeTable(listing({ policy: "drop" }), "output", rules)).toBe(false);
  expect(judgeTable(listing(), "output", { ...rules, address: "10.0.0.1" })).toBe(false);
  expect(() => judgeTable("Error: syntax", "output", rules)).toThrow(/nft --json list table/);
});

test("extensions.md FW-07 FW-09: an absent or wrong table is set up, a right one left alone, removal deletes it", async () => {
  using system = createFakeSystem();
  const scripts: string[] = [];
  let table: string | undefined;
  system.programs.set("nft", (argv, stdin) => {
    if (argv.includes("list")) {
      if (argv.at(-1) !== "walinuxagent" || table === undefined)
        return { code: 1, stderr: "Error: No such file or directory" };
      return { stdout: table };
    }
    scripts.push(stdin);
    table = stdin.includes("add rule ip walinuxagent ") ? listing() : undefined;
    return {};
  });
  const tool = { kind: "nft" } as const;
  expect(await setUpFirewall(system, tool, rules)).toEqual({ result: "applied", before: "absent" });
  expect(await setUpFirewall(system, tool, rules)).toEqual({ result: "unchanged", before: "ok" });
  expect(scripts).toEqual([nftScript(rules)]);
  table = listing({ rules: 2 });
  expect((await setUpFirewall(system, tool, rules)).before).toBe("inconsistent");
  await removeFirewall(system, tool, rules);
  expect(scripts.at(-1)).toBe(`add table ip walinuxagent
delete table ip walinuxagent
add table ip walinuxagent_forward
delete table ip walinuxagent_forward`);
});
