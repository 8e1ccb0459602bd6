import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import {
  applyEdits,
  detectIptables,
  type Iptables,
  listRules,
  planIptables,
  planRemoval,
  showTable,
} from "./firewall-iptables.ts";
import { applyNft, hasNft, inspectNft, removeNft } from "./firewall-nft.ts";
import type { FirewallCondition, FirewallRules } from "./firewall-rules.ts";

/** Which program the rules are kept with; found once, then remembered. */
export type FirewallTool =
  { readonly kind: "iptables"; readonly iptables: Iptables } | { readonly kind: "nft" };

export interface FirewallOptions {
  /**
   * Whether this process reaches the WireServer. With it, rules after which the agent is cut off are taken back at
   * once. Not called when the rules were right already. The signal aborts when it takes too long, which counts as no.
   */
  readonly probe?: ((signal: AbortSignal) => Promise<boolean>) | undefined;
}

export type FirewallOutcome =
  | { readonly result: "unchanged" | "applied"; readonly before: FirewallCondition }
  /** The agent could not reach the WireServer any more; nothing of ours is left. */
  | { readonly result: "rolled-back"; readonly before: FirewallCondition };

type Needs = Pick<System, "exec" | "log" | "clock">;

const PROBE_TRIES = 3;
const PROBE_PAUSE_MS = 1000;
/** Rules that shut out the agent swallow its requests, and the client's own patience is minutes. */
const PROBE_LIMIT_MS = 4000;

export function firewallRules(
  config: Pick<Config, "Firewall.CoverForwarded">,
  address: string,
  userId: number,
): FirewallRules {
  // The address ends up in the input of iptables-restore and nft.
  if (
    !/^(\d{1,3}\.){3}\d{1,3}$/.test(address) ||
    address.split(".").some((part) => Number(part) > 255)
  )
    throw new AgentError("bad-input", `${JSON.stringify(address)} is not an IPv4 address`);
  return { address, userId, coverForwarded: config["Firewall.CoverForwarded"] };
}

/**
 * iptables when it is installed and its security table works, else nft (`extensions.md` FW-02, DB-39).
 * Errors: AgentError "not-supported" with the reason when neither can be used.
 */
export async function chooseFirewallTool(
  system: Pick<System, "exec" | "log">,
): Promise<FirewallTool> {
  const reasons: string[] = [];
  try {
    const iptables = await detectIptables(system);
    if (iptables === undefined) reasons.push("iptables is not installed");
    else {
      await listRules(system, iptables);
      return { kind: "iptables", iptables };
    }
  } catch (error) {
    // A locked table is there, and the next check will find it free.
    if (!isAgentError(error, "not-supported")) throw error;
    reasons.push(describe(error));
  }
  if (!hasNft(system))
    throw new AgentError(
      "not-supported",
      `No firewall can be set up: ${reasons.join("; ")}; nft is not installed`,
    );
  if (system.exec.find("iptables") !== undefined)
    system.log.warning(`Using nft for the firewall: ${reasons.join("; ")}`);
  return { kind: "nft" };
}

/** Looks, changes nothing. */
export async function inspectFirewall(
  system: Pick<System, "exec">,
  tool: FirewallTool,
  rules: FirewallRules,
): Promise<FirewallCondition> {
  if (tool.kind === "nft") return inspectNft(system, rules);
  return planIptables(await listRules(system, tool.iptables), rules).condition;
}

/**
 * Makes the rules right, whatever was there: nothing when they are, otherwise one replacement
 * (`extensions.md` FW-08, FW-09, FW-13). Rules of old agents go, rules of others stay as they are.
 */
export async function setUpFirewall(
  system: Needs,
  tool: FirewallTool,
  rules: FirewallRules,
  options: FirewallOptions = {},
): Promise<FirewallOutcome> {
  const before = await inspectFirewall(system, tool, rules);
  if (before === "ok") return { result: "unchanged", before };
  if (before === "inconsistent" && tool.kind === "iptables")
    system.log.info(
      `The firewall rules are not as they should be:\n${await showTable(system, tool.iptables)}`,
    );

  const { probe } = options;
  const reachedBefore = probe === undefined ? false : await reachesOnce(system, probe);
  await apply(system, tool, rules);
  const after = await inspectFirewall(system, tool, rules);
  if (after !== "ok")
    throw new AgentError(
      "os-utility",
      `The firewall rules for ${rules.address} were set with ${tool.kind}, but are ${after} afterwards`,
    );
  // A WireServer that could not be reached before tells nothing about the rules.
  if (probe !== undefined && reachedBefore && !(await reaches(system, probe))) {
    await removeFirewall(system, tool, rules);
    return { result: "rolled-back", before };
  }
  return { result: "applied", before };
}

/** Takes away everything of ours, and nothing else. Absent rules are fine. */
export async function removeFirewall(
  system: Pick<System, "exec">,
  tool: FirewallTool,
  rules: FirewallRules,
): Promise<void> {
  if (tool.kind === "nft") return removeNft(system);
  const listed = await listRules(system, tool.iptables);
  await applyEdits(system, tool.iptables, planRemoval(listed, rules));
}

/** Removal with every tool that is installed, for an agent that leaves the machine. Errors: the first one, at the end. */
export async function removeFirewallEverywhere(
  system: Pick<System, "exec" | "log">,
  rules: FirewallRules,
): Promise<void> {
  const failures: unknown[] = [];
  const attempt = async (action: () => Promise<void>): Promise<void> => {
    try {
      await action();
    } catch (error) {
      // A kernel without the table has no rules either.
      if (!isAgentError(error, "not-supported")) failures.push(error);
    }
  };
  const iptables = await detectIptables(system).catch((error: unknown) => {
    failures.push(error);
    return undefined;
  });
  if (iptables !== undefined)
    await attempt(() => removeFirewall(system, { kind: "iptables", iptables }, rules));
  if (hasNft(system)) await attempt(() => removeNft(system));
  if (failures.length > 0) throw failures[0];
}

async function apply(
  system: Pick<System, "exec">,
  tool: FirewallTool,
  rules: FirewallRules,
): Promise<void> {
  if (tool.kind === "nft") return applyNft(system, rules);
  const listed = await listRules(system, tool.iptables);
  await applyEdits(system, tool.iptables, planIptables(listed, rules).edits);
}

async function reaches(
  system: Pick<System, "clock">,
  probe: NonNullable<FirewallOptions["probe"]>,
): Promise<boolean> {
  for (let round = 1; ; round += 1) {
    if (await reachesOnce(system, probe)) return true;
    if (round === PROBE_TRIES) return false;
    await system.clock.sleep(PROBE_PAUSE_MS);
  }
}

async function reachesOnce(
  system: Pick<System, "clock">,
  probe: NonNullable<FirewallOptions["probe"]>,
): Promise<boolean> {
  const over = new AbortController();
  const late = system.clock.sleep(PROBE_LIMIT_MS, over.signal).then(
    () => false,
    () => false,
  );
  try {
    return await Promise.race([probe(over.signal), late]);
  } finally {
    over.abort();
  }
}
