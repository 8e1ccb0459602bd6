import { reportHealth, reportRoleProperties, type Health } from "../azure/health.ts";
import { isAgentError } from "../base/error.ts";
import { AGENT_NAME } from "../base/identity.ts";
import { publishHostName } from "../machine/publish-hostname.ts";
import type { ProvisioningPlatform } from "../provision/platform.ts";
import type { ProvisionOutcome } from "../provision/outcome.ts";
import { provision } from "../provision/provision.ts";
import { withCancelledWaits } from "../system/cancelled-waits.ts";
import type { System } from "../system/system.ts";
import type { Connection } from "./connection.ts";
import type { AgentContext } from "./context.ts";

const REPORT_RETRY_MS = 60_000;

/**
 * Provisions the machine, with the connection as its way to the platform. A failed provisioning does not stop the
 * agent (LIFE-07); a report that did not get through is repeated in the background until it does (DB-23).
 * Errors: AgentError "cancelled".
 */
export async function provisionMachine(
  system: System,
  context: AgentContext,
  connection: Connection,
  signal: AbortSignal,
): Promise<ProvisionOutcome> {
  const { config, distro, version } = context;
  const outcome = await provision(withCancelledWaits(system, signal), config, {
    distro,
    platform: createProvisioningPlatform(system, connection, signal),
    agent: `${AGENT_NAME}/${version}`,
    // The first lease was got under the image's name; the new one is announced without touching link or address.
    publishHostName: (name) => publishHostName(system, config, distro, name),
  });
  if (outcome.unreported !== undefined) void repeat(system, outcome.unreported, signal);
  return outcome;
}

function createProvisioningPlatform(
  system: System,
  connection: Connection,
  signal: AbortSignal,
): ProvisioningPlatform {
  const report = async (health: Health): Promise<boolean> => {
    const { wire, target } = await connection.identify(signal);
    return reportHealth(system, wire, target, { health, signal });
  };
  return {
    identify: async () => void (await connection.identify(signal)),
    detect: async () => void (await connection.open(signal)),
    reportNotReady: (subStatus, description) =>
      report({ state: "NotReady", subStatus, description }),
    reportReady: () => report({ state: "Ready" }),
    reportFingerprint: async (fingerprint) => {
      const { wire, target } = await connection.identify(signal);
      const properties = { CertificateThumbprint: fingerprint };
      await reportRoleProperties(wire, target, properties, { signal });
    },
  };
}

async function repeat(
  system: System,
  tell: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  try {
    do await system.clock.sleep(REPORT_RETRY_MS, signal);
    while (!(await tell()));
    system.log.info("The platform now knows that the machine is provisioned");
  } catch (error) {
    if (!isAgentError(error, "cancelled")) throw error; // the agent is ending
  }
}
