import { isAgentError } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { System } from "../system/system.ts";
import type { FirewallCondition, FirewallRules } from "./firewall-rules.ts";

/**
 * The same rules in nftables: a table of our own with one rule (`extensions.md` FW-07), so that the Python agent
 * recognises it, and a second table for forwarded traffic where that is wanted. Other tables are never looked at:
 * a drop is final whatever they say.
 */
const TABLE = "walinuxagent";
const FORWARD_TABLE = "walinuxagent_forward";
const TIMEOUT_MS = 30_000;
const DNS_PORT = 53;

type Hook = "output" | "forward";

export function hasNft(system: Pick<System, "exec">): boolean {
  return system.exec.find("nft") !== undefined;
}

/** Errors: AgentError "exec" when nft cannot list tables at all. */
export async function inspectNft(
  system: Pick<System, "exec">,
  rules: FirewallRules,
): Promise<FirewallCondition> {
  const output = await inspectTable(system, TABLE, "output", rules);
  const forward = await inspectTable(system, FORWARD_TABLE, "forward", rules);
  const forwardRight = forward === (rules.coverForwarded ? "ok" : "absent");
  if (output === "ok" && forwardRight) return "ok";
  return output === "absent" && forward === "absent" ? "absent" : "inconsistent";
}

/** Replaces both tables in one transaction, so that there is no moment without rules (DB-38). */
export async function applyNft(system: Pick<System, "exec">, rules: FirewallRules): Promise<void> {
  await load(system, nftScript(rules));
}

/** Takes away both tables; absent ones are fine. */
export async function removeNft(system: Pick<System, "exec">): Promise<void> {
  await load(system, [TABLE, FORWARD_TABLE].flatMap(withoutTable).join("\n"));
}

/** Input of `nft -f -`. */
export function nftScript(rules: FirewallRules): string {
  return [
    ...withoutTable(TABLE),
    ...tableText(TABLE, "output", rules),
    ...withoutTable(FORWARD_TABLE),
    ...(rules.coverForwarded ? tableText(FORWARD_TABLE, "forward", rules) : []),
    "",
  ].join("\n");
}

/** Adding first makes the deletion succeed also when there was no table. */
function withoutTable(table: string): string[] {
  return [`add table ip ${table}`, `delete table ip ${table}`];
}

function tableText(table: string, hook: Hook, rules: FirewallRules): string[] {
  const owner = hook === "output" ? ` meta skuid != ${rules.userId}` : "";
  return [
    `add table ip ${table}`,
    `add chain ip ${table} ${hook} { type filter hook ${hook} priority 0; policy accept; }`,
    `add rule ip ${table} ${hook} ip daddr ${rules.address} tcp dport != ${DNS_PORT}${owner} ct state invalid,new counter drop`,
  ];
}

async function load(system: Pick<System, "exec">, script: string): Promise<void> {
  await system.exec.run({ argv: ["nft", "-f", "-"], stdin: script, timeoutMs: TIMEOUT_MS });
}

async function inspectTable(
  system: Pick<System, "exec">,
  table: string,
  hook: Hook,
  rules: FirewallRules,
): Promise<FirewallCondition> {
  const argv = ["nft", "--json", "list", "table", "ip", table];
  try {
    const listing = await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
    return judgeTable(listing.stdout, hook, rules) ? "ok" : "inconsistent";
  } catch (error) {
    if (isAgentError(error, "exec") && error.message.includes("No such file or directory"))
      return "absent";
    throw error;
  }
}

/** Whether `nft --json list table` shows one chain on the hook, with exactly our rule in it. */
export function judgeTable(listing: string, hook: Hook, rules: FirewallRules): boolean {
  const items = JsonReader.parse(listing, "The output of nft --json list table")
    .get("nftables")
    .items();
  const chains = items.map((item) => item.get("chain")).filter((item) => !item.isMissing);
  const found = items.map((item) => item.get("rule")).filter((item) => !item.isMissing);
  const [chain] = chains;
  const [rule] = found;
  if (chains.length !== 1 || found.length !== 1 || chain === undefined || rule === undefined)
    return false;
  if (chain.get("hook").value !== hook || chain.get("policy").value !== "accept") return false;

  const expressions = rule.get("expr").items();
  const matches = expressions
    .map((expression) => expression.get("match"))
    .filter((match) => !match.isMissing);
  const has = (operator: string, left: (side: JsonReader) => boolean, right: string): boolean =>
    matches.some(
      (match) =>
        match.get("op").value === operator &&
        left(match.get("left")) &&
        valueText(match.get("right")) === right,
    );
  const payload = (protocol: string, field: string) => (side: JsonReader) =>
    side.get("payload").get("protocol").value === protocol &&
    side.get("payload").get("field").value === field;
  const meta = (side: JsonReader): boolean => side.get("meta").get("key").value === "skuid";
  const conntrack = (side: JsonReader): boolean => side.get("ct").get("key").value === "state";
  const ownerRight =
    hook === "output"
      ? has("!=", meta, `${rules.userId}`) || (rules.userId === 0 && has("!=", meta, "root"))
      : !matches.some((match) => meta(match.get("left")));
  return (
    has("==", payload("ip", "daddr"), rules.address) &&
    has("!=", payload("tcp", "dport"), `${DNS_PORT}`) &&
    ownerRight &&
    (has("in", conntrack, "invalid,new") || has("==", conntrack, "invalid,new")) &&
    expressions.some((expression) => !expression.get("drop").isMissing)
  );
}

/** A right side as text; sets sorted and joined with commas. */
function valueText(side: JsonReader): string {
  const set = side.get("set");
  const list = set.isMissing ? side : set;
  if (Array.isArray(list.value))
    return list
      .items()
      .map((item) => valueText(item))
      .toSorted()
      .join(",");
  return typeof side.value === "string" ? side.value : `${side.number()}`;
}
