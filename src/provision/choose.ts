import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { detectCloudInit } from "./cloud-init.ts";

/** Who provisions this machine; "agent-unasked" is an order that did not look whether cloud-init is enabled too. */
export type Provisioner = "agent" | "agent-unasked" | "cloud-init" | "disabled";

/**
 * `auto` asks the machine, `waagent` and `cloud-init` are orders, and every other text means that nobody provisions
 * (PROV-01, PROV-05). Case counts. One line in the log says what was chosen and why (PROV-03).
 */
export async function chooseProvisioner(
  system: Pick<System, "exec" | "files" | "log">,
  config: Pick<Config, "Provisioning.Agent">,
): Promise<Provisioner> {
  const wanted = config["Provisioning.Agent"];
  if (wanted === "cloud-init") {
    system.log.info("Using cloud-init for provisioning: Provisioning.Agent says so");
    return "cloud-init";
  }
  if (wanted === "auto") {
    const found = await detectCloudInit(system);
    system.log.info(
      `Using ${found.enabled ? "cloud-init" : "waagent"} for provisioning: cloud-init is ${found.enabled ? "enabled" : "not enabled"}, ${found.because}`,
    );
    return found.enabled ? "cloud-init" : "agent";
  }
  const agent = wanted === "waagent" ? "agent-unasked" : "disabled";
  system.log.info(
    agent === "agent-unasked"
      ? "Using waagent for provisioning: Provisioning.Agent says so"
      : `Using waagent for provisioning, disabled: Provisioning.Agent is ${JSON.stringify(wanted)}`,
  );
  return agent;
}
