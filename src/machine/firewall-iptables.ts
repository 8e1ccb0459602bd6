import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { System } from "../system/system.ts";
import {
  type Chain,
  type FirewallCondition,
  type FirewallRules,
  ownRules,
  type RuleSpec,
  wantedRules,
} from "./firewall-rules.ts";

/** What the installed iptables can do. */
export interface Iptables {
  /** `-w`, since 1.4.21 (`extensions.md` FW-02). */
  readonly wait: boolean;
  /** `iptables-restore -w`, since 1.6.2: changes are one transaction. */
  readonly restore: boolean;
}

/** One appended rule of `iptables -S`. */
export interface ListedRule {
  readonly chain: string;
  readonly words: RuleSpec;
}

/** How the table must be changed, and how it looked. */
export interface IptablesPlan {
  readonly condition: FirewallCondition;
  /** In this order; `-D`, `-A` and `-I` of one chain each. Empty when all is well. */
  readonly edits: readonly RuleSpec[];
}

const TABLE = "security";
const CHAINS: readonly Chain[] = ["OUTPUT", "FORWARD"];
const TIMEOUT_MS = 30_000;
const MAX_DELETIONS = 99;
/** Another program changes the table just now: it is there. */
const LOCKED = /xtables lock|Resource temporarily unavailable/;

/** undefined when iptables is not installed. Errors: AgentError when it is there and does not run. */
export async function detectIptables(system: Pick<System, "exec">): Promise<Iptables | undefined> {
  if (system.exec.find("iptables") === undefined) return undefined;
  const result = await system.exec.run({ argv: ["iptables", "--version"], timeoutMs: TIMEOUT_MS });
  const version = /v(\d+(?:\.\d+)+)/.exec(result.stdout)?.[1] ?? "0";
  return {
    wait: isAtLeast(version, "1.4.21"),
    restore: isAtLeast(version, "1.6.2") && system.exec.find("iptables-restore") !== undefined,
  };
}

/**
 * The rules of the security table. Errors: AgentError "not-supported" when the kernel has no such table
 * (`extensions.md` DB-39), or iptables cannot list it for another lasting reason; "exec" when the table is locked.
 */
export async function listRules(
  system: Pick<System, "exec">,
  tool: Iptables,
): Promise<ListedRule[]> {
  try {
    const result = await run(system, tool, ["-S"]);
    return parseRules(result.stdout);
  } catch (error) {
    if (!isAgentError(error, "exec") || LOCKED.test(error.message)) throw error;
    throw new AgentError("not-supported", "iptables has no usable security table here", {
      cause: error,
    });
  }
}

/** Lines of `iptables -S`; policies and empty chains are left out. */
export function parseRules(text: string): ListedRule[] {
  return text.split("\n").flatMap((line) => {
    const [append, chain, ...words] = splitWords(line);
    return append === "-A" && chain !== undefined ? [{ chain, words }] : [];
  });
}

/** iptables quotes words with blanks in them, comments above all. */
function splitWords(line: string): string[] {
  return (line.match(/"(?:\\.|[^"\\])*"|\S+/g) ?? []).map((word) =>
    word.startsWith('"') ? word.slice(1, -1).replace(/\\(.)/g, "$1") : word,
  );
}

/**
 * Compares the table with the wanted rules. They are in order when each stands there once, in the right order, and
 * no foreign rule before them lets connections to the address pass. Rules of others are never edited; where one
 * stands in the way ours go to the head of the chain, otherwise to its end.
 */
export function planIptables(listed: readonly ListedRule[], rules: FirewallRules): IptablesPlan {
  let condition: FirewallCondition | undefined;
  const edits: RuleSpec[] = [];
  for (const chain of CHAINS) {
    const own = ownRules(rules, chain).map(canonical);
    const wanted = wantedRules(rules, chain);
    const present = listed.filter((rule) => rule.chain === chain);
    const ours = present.filter((rule) => own.includes(canonical(rule.words)));
    const last = present.findLastIndex((rule) => ours.includes(rule));
    const bypass = (until: number): boolean =>
      present
        .slice(0, until)
        .some((rule) => !ours.includes(rule) && mayBypass(rule.words, rules.address));
    const right =
      ours.map((rule) => canonical(rule.words)).join("\n") === wanted.map(canonical).join("\n") &&
      !bypass(last + 1);
    if (right) {
      if (wanted.length > 0) condition ??= "ok";
      continue;
    }
    condition =
      ours.length === 0 && (condition === undefined || condition === "absent")
        ? "absent"
        : "inconsistent";
    for (const rule of ours) edits.push(["-D", chain, ...specOf(rule, rules, chain)]);
    const atHead = bypass(present.length);
    wanted.forEach((spec, index) =>
      edits.push(atHead ? ["-I", chain, `${index + 1}`, ...spec] : ["-A", chain, ...spec]),
    );
  }
  return { condition: condition ?? "absent", edits };
}

/** Edits that take away everything of ours. */
export function planRemoval(listed: readonly ListedRule[], rules: FirewallRules): RuleSpec[] {
  return CHAINS.flatMap((chain) => {
    const own = ownRules(rules, chain).map(canonical);
    return listed
      .filter((rule) => rule.chain === chain && own.includes(canonical(rule.words)))
      .map((rule) => ["-D", chain, ...specOf(rule, rules, chain)]);
  });
}

/** All edits in one transaction where iptables can do that, so that there is no moment without rules (DB-38). */
export async function applyEdits(
  system: Pick<System, "exec">,
  tool: Iptables,
  edits: readonly RuleSpec[],
): Promise<void> {
  if (edits.length === 0) return;
  if (tool.restore) {
    const lines = [`*${TABLE}`, ...edits.map((edit) => edit.join(" ")), "COMMIT", ""];
    await system.exec.run({
      argv: ["iptables-restore", "--noflush", "-w", "10"],
      stdin: lines.join("\n"),
      timeoutMs: TIMEOUT_MS,
    });
    return;
  }
  for (const edit of edits) {
    // A rule that somebody else removed meanwhile is as good as one that we removed.
    await run(system, tool, edit, edit[0] === "-D" ? [0, 1] : [0]);
  }
}

/**
 * Repeats the deletion of a rule until iptables says that there is none (exit code 1), at most 99 times
 * (`extensions.md` FW-05). Errors: AgentError "exec" for any other exit code.
 */
export async function deleteRule(
  system: Pick<System, "exec">,
  tool: Iptables,
  chain: Chain,
  spec: RuleSpec,
): Promise<void> {
  for (let round = 0; round < MAX_DELETIONS; round += 1) {
    const result = await run(system, tool, ["-D", chain, ...spec], [0, 1]);
    if (result.code === 1) return;
  }
}

/** Packet counters and all, for the log when something was wrong (`extensions.md` FW-03). Errors: never. */
export async function showTable(system: Pick<System, "exec">, tool: Iptables): Promise<string> {
  try {
    return (await run(system, tool, ["-t", TABLE, "-L", "-nxv"])).stdout.trimEnd();
  } catch (error) {
    return `The firewall could not be listed: ${describe(error)}`;
  }
}

function run(
  system: Pick<System, "exec">,
  tool: Iptables,
  words: RuleSpec,
  okCodes: readonly number[] = [0],
) {
  const argv = ["iptables", ...(tool.wait ? ["-w"] : []), "-t", TABLE, ...words];
  return system.exec.run({ argv, okCodes, timeoutMs: TIMEOUT_MS });
}

/** The words we would have used for a rule that iptables lists in its own words. */
function specOf(rule: ListedRule, rules: FirewallRules, chain: Chain): RuleSpec {
  const listed = canonical(rule.words);
  return ownRules(rules, chain).find((spec) => canonical(spec) === listed) ?? rule.words;
}

/**
 * One text for all ways of writing the same rule: options sorted, long names, host addresses without mask, and
 * without `-m`, which only loads what the other options need.
 */
function canonical(words: RuleSpec): string {
  const options: string[] = [];
  for (let index = 0; index < words.length; index += 1) {
    let name = words[index] ?? "";
    let sign = "";
    if (name === "!") {
      sign = "! ";
      index += 1;
      name = words[index] ?? "";
    }
    if (!name.startsWith("-")) {
      options.push(`${sign}${name}`);
      continue;
    }
    const next = words[index + 1];
    const value = next === undefined || next.startsWith("-") || next === "!" ? undefined : next;
    if (value !== undefined) index += 1;
    if (name === "-m" || name === "--match") continue;
    options.push(
      `${sign}${LONG_NAMES[name] ?? name} ${(value ?? "").replace(/\/32$/, "").split(",").toSorted().join(",")}`,
    );
  }
  return options.toSorted().join(" ");
}

const LONG_NAMES: Readonly<Record<string, string>> = {
  "--destination-port": "--dport",
  "--destination": "-d",
  "--protocol": "-p",
  "--jump": "-j",
};

/** Targets after which a packet goes on to the next rule, or dies. */
const HARMLESS = new Set([
  "",
  "AUDIT",
  "CONNMARK",
  "CONNSECMARK",
  "DROP",
  "LOG",
  "MARK",
  "NFLOG",
  "REJECT",
  "SECMARK",
  "TRACE",
  "ULOG",
]);

/** Whether a foreign rule could let a connection to the address pass before our rules see it. */
function mayBypass(listed: RuleSpec, address: string): boolean {
  const words = withoutComment(listed);
  const value = (...names: string[]): string | undefined => {
    const index = words.findIndex((word) => names.includes(word));
    return index < 0 || words[index - 1] === "!" ? undefined : words[index + 1];
  };
  const target = value("-j", "--jump") ?? (words.includes("-g") ? "goto" : "");
  if (HARMLESS.has(target)) return false;
  const protocol = value("-p", "--protocol");
  if (protocol !== undefined && !["tcp", "all", "6"].includes(protocol)) return false;
  if (value("-o", "--out-interface") === "lo") return false;
  const destination = value("-d", "--destination");
  return destination === undefined || contains(destination, address);
}

/** The text of a comment is anybody's, and may read like an option. */
function withoutComment(words: RuleSpec): RuleSpec {
  const index = words.indexOf("--comment");
  return index < 0 ? words : [...words.slice(0, index), ...withoutComment(words.slice(index + 2))];
}

/** `network` is an address, or an address with prefix length or dotted mask. */
function contains(network: string, address: string): boolean {
  const [base = "", mask = "32"] = network.split("/");
  const number = (text: string): number =>
    text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  // A network that we cannot read may be any.
  if (!/^[\d.]+(?:\/[\d.]+)?$/.test(network)) return true;
  const bits = mask.includes(".")
    ? number(mask)
    : Number(mask) === 0
      ? 0
      : (0xffffffff << (32 - Number(mask))) >>> 0;
  return (number(base) & bits) >>> 0 === (number(address) & bits) >>> 0;
}

function isAtLeast(version: string, minimum: string): boolean {
  const [have, want] = [version, minimum].map((text) => text.split(".").map(Number));
  for (let index = 0; index < 4; index += 1) {
    const difference = (have?.[index] ?? 0) - (want?.[index] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
