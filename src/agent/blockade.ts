import { DEFAULT_ENDPOINT } from "../azure/wire-client.ts";
import { describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import {
  chooseFirewallTool,
  firewallRules,
  inspectFirewall,
  setUpFirewall,
} from "../machine/firewall.ts";
import type { System } from "../system/system.ts";

/** Longer than a platform takes that is there. */
const PATIENCE_MS = 3000;
const ROOT = 0;

/**
 * Resolves as `opening` does. A firewall of ours that has lost the rule for root shuts out the agent itself, and the
 * check that mends it only runs once the platform was reached; so when that takes long the rules are looked at, once
 * (`extensions.md` FW-08, E2E-09). Rules that are all there, or all absent, are left to that check.
 */
export async function throughBlockade<Result>(
  system: Pick<System, "exec" | "log" | "clock" | "emit">,
  config: Pick<Config, "OS.EnableFirewall" | "Firewall.CoverForwarded">,
  opening: Promise<Result>,
  signal: AbortSignal,
): Promise<Result> {
  if (!config["OS.EnableFirewall"]) return await opening;
  const over = new AbortController();
  const watching = watch(system, config, AbortSignal.any([signal, over.signal]));
  try {
    return await opening;
  } finally {
    over.abort();
    await watching;
  }
}

async function watch(
  system: Pick<System, "exec" | "log" | "clock" | "emit">,
  config: Pick<Config, "Firewall.CoverForwarded">,
  signal: AbortSignal,
): Promise<void> {
  try {
    await system.clock.sleep(PATIENCE_MS, signal);
    const rules = firewallRules(config, DEFAULT_ENDPOINT, ROOT);
    const tool = await chooseFirewallTool(system);
    if ((await inspectFirewall(system, tool, rules)) !== "inconsistent") return;
    await setUpFirewall(system, tool, rules);
    const message = `The platform did not answer, and the firewall rules for ${rules.address} were inconsistent; they have been replaced`;
    system.log.warning(message);
    system.emit({ operation: "ResetFirewall", success: false, message, log: false });
  } catch (error) {
    if (isAgentError(error, "cancelled")) return; // the platform was reached
    system.log.warning(`Could not look whether the firewall is in the way: ${describe(error)}`);
  }
}
