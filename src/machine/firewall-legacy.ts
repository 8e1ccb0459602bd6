import { describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { deleteRule, detectIptables } from "./firewall-iptables.ts";
import { acceptDns, acceptOwner, dropOthers, legacyAccept } from "./firewall-rules.ts";

/** Address of the metadata service, which an old protocol of the agent used instead of the WireServer. */
const METADATA = "169.254.169.254";
const FILES = ["V2TransportPrivate.pem", "V2TransportCert.pem", "Certificates.p7b"] as const;
const MARKER = "V2TransportCert.pem";

/**
 * Removes what agents with the metadata protocol left: three files and their firewall rules
 * (`wire-protocol.md` DHCP-07). Only where the certificate of that protocol is there; to be called after the endpoint
 * was found. A failure is a WARNING.
 */
export async function removeMetadataProtocol(
  system: Pick<System, "exec" | "files" | "log">,
  config: Pick<Config, "Lib.Dir">,
  userId: number,
): Promise<void> {
  if (!system.files.exists(join(config["Lib.Dir"], MARKER))) return;
  try {
    const iptables = await detectIptables(system);
    if (iptables !== undefined) {
      const rules = [legacyAccept, acceptDns, acceptOwner, dropOthers];
      for (const rule of rules)
        await deleteRule(system, iptables, "OUTPUT", rule(METADATA, userId));
    }
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    system.log.warning(`Could not remove old firewall rules for ${METADATA}: ${describe(error)}`);
  }
  // The marker goes last, so that an interrupted clean-up is done again.
  for (const name of FILES.toSorted((a, b) => Number(a === MARKER) - Number(b === MARKER)))
    system.files.remove(join(config["Lib.Dir"], name));
  system.log.info("Removed what an agent with the metadata protocol left behind");
}
