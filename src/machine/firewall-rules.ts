/**
 * The rules that keep everybody but root away from the WireServer, as data (`extensions.md` FW-01, FW-03, FW-07).
 * They name the address, so they cannot be mistaken for anybody else's.
 */
export interface FirewallRules {
  /** IPv4 address of the WireServer. */
  readonly address: string;
  /** Who may talk to it: the agent's own user, 0. */
  readonly userId: number;
  /** Connections that are only forwarded (containers, routed namespaces) are dropped too; DNS is not. */
  readonly coverForwarded: boolean;
}

/** How what is there compares with what must be there (`extensions.md` FW-04). */
export type FirewallCondition = "ok" | "absent" | "inconsistent";

/** Matches and target of one rule, in the words of the iptables command line. */
export type RuleSpec = readonly string[];

export type Chain = "OUTPUT" | "FORWARD";

/** Everybody may ask for names, also over TCP. */
export function acceptDns(address: string): RuleSpec {
  return ["-d", address, "-p", "tcp", "--destination-port", "53", "-j", "ACCEPT"];
}

export function acceptOwner(address: string, userId: number): RuleSpec {
  return ["-d", address, "-p", "tcp", "-m", "owner", "--uid-owner", `${userId}`, "-j", "ACCEPT"];
}

export function dropOthers(address: string): RuleSpec {
  return [...newConnections(address), "-j", "DROP"];
}

/** What agents up to 2.2.25 left behind (`extensions.md` FW-06). */
export function legacyAccept(address: string): RuleSpec {
  return [...newConnections(address), "-j", "ACCEPT"];
}

function newConnections(address: string): RuleSpec {
  return ["-d", address, "-p", "tcp", "-m", "conntrack", "--ctstate", "INVALID,NEW"];
}

/** The rules of a chain in the order in which they must stand. */
export function wantedRules(rules: FirewallRules, chain: Chain): readonly RuleSpec[] {
  if (chain === "FORWARD") {
    return rules.coverForwarded ? [acceptDns(rules.address), dropOthers(rules.address)] : [];
  }
  return [
    acceptDns(rules.address),
    acceptOwner(rules.address, rules.userId),
    dropOthers(rules.address),
  ];
}

/** Every rule in a chain that only this agent, or an older one, can have put there. */
export function ownRules(rules: FirewallRules, chain: Chain): readonly RuleSpec[] {
  const always = wantedRules({ ...rules, coverForwarded: true }, chain);
  return chain === "OUTPUT" ? [...always, legacyAccept(rules.address)] : always;
}
