import { descendant, parseXml } from "../base/xml.ts";

/** Names the telemetry carries (`wire-protocol.md` GS-50); the rest of HostingEnvironmentConfig is ignored. */
export interface HostingEnvironment {
  readonly vmName: string | undefined;
  readonly roleName: string | undefined;
  readonly tenantName: string | undefined;
}

/** Errors: AgentError "bad-input". */
export function parseHostingEnvironment(text: string): HostingEnvironment {
  const root = parseXml(text, "HostingEnvironmentConfig");
  const attribute = (element: string, name: string): string | undefined =>
    descendant(root, element)?.attributes.get(name);
  return {
    vmName: attribute("Incarnation", "instance"),
    roleName: attribute("Role", "name"),
    tenantName: attribute("Deployment", "name"),
  };
}
