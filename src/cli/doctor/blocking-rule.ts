import { parseRules, type ListedRule } from "../../machine/firewall-iptables.ts";
import type { System } from "../../system/system.ts";

/** Tables with an OUTPUT chain that may drop, in the order in which a packet meets them. */
const TABLES = ["raw", "mangle", "filter", "security"] as const;
const TIMEOUT_MS = 3000;
const MAX_DEPTH = 8;

/** The rule that keeps root's connections from an address, as text; undefined when none is found. For root only. */
export async function blockingRule(
  system: Pick<System, "exec">,
  address: string,
): Promise<string | undefined> {
  const listings = await Promise.all(
    TABLES.map((table) => output(system, ["iptables", "-w", "2", "-t", table, "-S"])),
  );
  for (const [index, listing] of listings.entries()) {
    const found = blockingIptablesRule(listing, address);
    if (found !== undefined) return `iptables -t ${TABLES[index]}: ${found}`;
  }
  const found = blockingNftRule(await output(system, ["nft", "list", "ruleset"]), address);
  return found === undefined ? undefined : `nft: ${found}`;
}

/** "" where the program or the table is not there. */
async function output(system: Pick<System, "exec">, argv: readonly string[]): Promise<string> {
  try {
    return (await system.exec.run({ argv, timeoutMs: TIMEOUT_MS, okCodes: "any" })).stdout;
  } catch {
    return ""; // without the tool there are no rules that it has made
  }
}

/**
 * Follows `iptables -S` as a new connection of root to port 80 of the address would. A rule with a match that we do
 * not know counts as one that applies only where it drops nothing.
 */
export function blockingIptablesRule(listing: string, address: string): string | undefined {
  const rules = parseRules(listing);
  const walk = (chain: string, depth: number): string | "accept" | undefined => {
    for (const rule of rules.filter((one) => one.chain === chain)) {
      if (!applies(rule, address)) continue;
      const target =
        valueAfter(rule.words, "-j", "--jump") ?? valueAfter(rule.words, "-g", "--goto");
      if (target === "ACCEPT") return "accept";
      if (target === "RETURN") return undefined;
      if (target === "DROP" || target === "REJECT") return `-A ${chain} ${rule.words.join(" ")}`;
      if (target === undefined || depth >= MAX_DEPTH) continue;
      const inner = walk(target, depth + 1);
      if (inner !== undefined) return inner;
    }
    return undefined;
  };
  const found = walk("OUTPUT", 0);
  if (found !== undefined) return found === "accept" ? undefined : found;
  return /^-P OUTPUT DROP$/m.test(listing) ? "-P OUTPUT DROP" : undefined;
}

const KNOWN_MATCHES = new Set(["owner", "conntrack", "state", "tcp", "comment"]);

function applies({ words }: ListedRule, address: string): boolean {
  const matches = words.flatMap((word, index) => (words[index - 1] === "-m" ? [word] : []));
  if (matches.some((match) => !KNOWN_MATCHES.has(match))) return false;
  if (words.some((word) => ["-s", "-o", "--sport", "--source-port"].includes(word))) return false;
  const protocol = valueAfter(words, "-p");
  if (protocol !== undefined && protocol !== "tcp" && protocol !== "all") return false;
  const port = valueAfter(words, "--dport", "--destination-port");
  if (port !== undefined && port !== "80" && !isNegated(words, "--dport", "--destination-port"))
    return false;
  const states = valueAfter(words, "--ctstate", "--state");
  if (states !== undefined && !states.split(",").includes("NEW")) return false;
  const owner = valueAfter(words, "--uid-owner");
  if (owner !== undefined) {
    const isRoot = owner === "0" || owner === "root" || owner.startsWith("0-");
    if (isRoot === isNegated(words, "--uid-owner")) return false;
  }
  const destination = valueAfter(words, "-d", "--destination");
  if (destination === undefined) return true;
  return covers(destination, address) !== isNegated(words, "-d", "--destination");
}

function valueAfter(words: readonly string[], ...names: readonly string[]): string | undefined {
  const index = words.findIndex((word) => names.includes(word));
  return index < 0 ? undefined : words[index + 1];
}

function isNegated(words: readonly string[], ...names: readonly string[]): boolean {
  const index = words.findIndex((word) => names.includes(word));
  return index > 0 && words[index - 1] === "!";
}

/** Whether "10.0.0.0/8", or an address alone, covers an address. */
function covers(network: string, address: string): boolean {
  const [base = "", bits = "32"] = network.split("/");
  const number = (text: string): number =>
    text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - Number(bits));
  return Math.floor(number(base) / size) === Math.floor(number(address) / size);
}

/** A rule of `nft list ruleset` that names the address and drops or rejects, and not only what others send. */
export function blockingNftRule(listing: string, address: string): string | undefined {
  for (const line of listing.split("\n").map((one) => one.trim())) {
    if (!/\b(?:drop|reject)\b/.test(line)) continue;
    if (!new RegExp(`\\bip daddr ${address.replaceAll(".", "\\.")}\\b`).test(line)) continue;
    if (/skuid (?:!= (?:0|"?root"?)|[1-9])/.test(line)) continue;
    if (/tcp dport 53\b/.test(line)) continue;
    return line;
  }
  return undefined;
}
