import type { AgentContext } from "../agent/context.ts";
import { describe } from "../base/error.ts";
import { chooseFirewallTool, firewallRules, setUpFirewall } from "../machine/firewall.ts";
import { EXIT } from "./exit-codes.ts";

/**
 * `-setup-firewall=<ip>` (`provisioning.md` CLI-29, `extensions.md` FW-13): run at boot before the network is up, so
 * nothing is probed. Rules that are right already stay. A failure is an event and exit code 1.
 */
export async function setupFirewall(
  context: Pick<AgentContext, "system" | "config">,
  address: string,
  userId: number,
): Promise<number> {
  const { system, config } = context;
  try {
    const rules = firewallRules(config, address, userId);
    const tool = await chooseFirewallTool(system);
    const { result } = await setUpFirewall(system, tool, rules);
    system.log.info(
      result === "unchanged"
        ? `The firewall rules for ${address} are in place already`
        : `The firewall rules for ${address} are set up`,
    );
    return EXIT.ok;
  } catch (error) {
    system.emit({
      operation: "Firewall",
      success: false,
      message: `Setting up the firewall for ${address} failed: ${describe(error)}`,
    });
    return EXIT.failure;
  }
}
