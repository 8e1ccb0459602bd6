import { escapeXml, toXmlCharacters } from "../base/xml.ts";
import type { System } from "../system/system.ts";
import { AGENT_NAME, type WireClient } from "./wire-client.ts";
import { describe, isAgentError } from "../base/error.ts";

/** What the platform is told about provisioning (`wire-protocol.md` WIRE-20..24, `provisioning.md` HLTH-01..08). */
export type Health =
  | { readonly state: "Ready" }
  | { readonly state: "NotReady"; readonly subStatus: string; readonly description: string };

/** Ids of the current goal state (HLTH-04). */
export interface HealthTarget {
  readonly incarnation: string;
  readonly containerId: string;
  readonly instanceId: string;
}

/** The server's limit is 4096 bytes for the whole field (WIRE-21). */
const MAX_DESCRIPTION = 3686;
/** Python's waits grow to months; ours do not, and provisioning is never held up for longer (DB-13). */
const RETRY = { attempts: 30, delayMs: 15_000, maxDelayMs: 60_000, totalMs: 10 * 60_000 };

/**
 * Tells the platform; a failure is logged and reported as an event, and provisioning goes on (WIRE-23, HLTH-07).
 * Resolves to whether the platform knows. Errors: only AgentError "cancelled".
 */
export async function reportHealth(
  system: Pick<System, "log" | "emit">,
  wire: WireClient,
  target: HealthTarget,
  options: { readonly health: Health; readonly signal?: AbortSignal | undefined },
): Promise<boolean> {
  const what = `the health report "${options.health.state}"`;
  try {
    await wire.post("/machine?comp=health", buildHealthReport(target, options.health), {
      what,
      signal: options.signal,
      ...RETRY,
    });
    return true;
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    const message = `Could not report health to the platform: ${describe(error)}`;
    system.log.error(message);
    system.emit({ operation: "Provision", success: false, message, name: AGENT_NAME, log: false });
    return false;
  }
}

/** The document of WIRE-21, in one line. */
export function buildHealthReport(target: HealthTarget, health: Health): string {
  const text = (value: string): string => escapeXml(toXmlCharacters(value));
  const details =
    health.state === "Ready"
      ? ""
      : `<Details><SubStatus>${text(health.subStatus)}</SubStatus>` +
        `<Description>${text(health.description.slice(0, MAX_DESCRIPTION))}</Description></Details>`;
  return (
    '<?xml version="1.0" encoding="utf-8"?>' +
    '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">' +
    `<GoalStateIncarnation>${text(target.incarnation)}</GoalStateIncarnation>` +
    `<Container><ContainerId>${text(target.containerId)}</ContainerId><RoleInstanceList><Role>` +
    `<InstanceId>${text(target.instanceId)}</InstanceId><Health><State>${health.state}</State>${details}` +
    "</Health></Role></RoleInstanceList></Container></Health>"
  );
}

/** Properties of the role; only 202 is success (WIRE-24). Errors: AgentError "gone" or "protocol". */
export async function reportRoleProperties(
  wire: WireClient,
  target: Omit<HealthTarget, "incarnation">,
  properties: Readonly<Record<string, string>>,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const attribute = (value: string): string =>
    escapeXml(toXmlCharacters(value)).replaceAll('"', "&quot;");
  const list = Object.entries(properties).map(
    ([name, value]) => `<Property name="${attribute(name)}" value="${attribute(value)}" />`,
  );
  const body =
    '<?xml version="1.0" encoding="utf-8"?><RoleProperties><Container>' +
    `<ContainerId>${escapeXml(target.containerId)}</ContainerId><RoleInstances><RoleInstance>` +
    `<Id>${escapeXml(target.instanceId)}</Id><Properties>${list.join("")}</Properties>` +
    "</RoleInstance></RoleInstances></Container></RoleProperties>";
  await wire.post("/machine?comp=roleProperties", body, {
    what: "the role properties",
    okStatuses: [202],
    signal: options.signal,
  });
}
