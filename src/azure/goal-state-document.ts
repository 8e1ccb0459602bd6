import { AgentError } from "../base/error.ts";
import { childrenOf, descendant, descendantText, parseXml } from "../base/xml.ts";

/** The WireServer's goal state: ids, and where everything else is (`wire-protocol.md` GS-01..07). */
export interface GoalStateDocument {
  readonly incarnation: string;
  readonly containerId: string;
  readonly instanceId: string;
  readonly configName: string;
  readonly hostingEnvironmentUri: string | undefined;
  readonly sharedConfigUri: string | undefined;
  readonly extensionsConfigUri: string | undefined;
  readonly certificatesUri: string | undefined;
  readonly remoteAccessUri: string | undefined;
}

/**
 * A document without RoleInstance is not complete yet: the platform answers so for a moment while it prepares
 * the next goal state (GS-10). Errors: AgentError "bad-input".
 */
export function parseGoalState(text: string): GoalStateDocument | { readonly incomplete: string } {
  const root = parseXml(text, "The goal state");
  const incarnation = descendantText(root, "Incarnation");
  if (incarnation === undefined)
    throw new AgentError("bad-input", "The goal state has no Incarnation");
  const instance = descendant(root, "RoleInstance");
  if (instance === undefined) return { incomplete: incarnation };
  const container = descendant(root, "Container");
  const configuration = descendant(instance, "Configuration");
  const required = (name: string, value: string | undefined): string => {
    if (value !== undefined) return value;
    throw new AgentError("bad-input", `The goal state ${incarnation} has no ${name}`);
  };
  return {
    incarnation,
    containerId: required("ContainerId", descendantText(container, "ContainerId")),
    instanceId: required("InstanceId", descendantText(instance, "InstanceId")),
    configName: childrenOf(configuration, "ConfigName")[0]?.text?.trim() ?? "",
    hostingEnvironmentUri: descendantText(configuration, "HostingEnvironmentConfig"),
    sharedConfigUri: descendantText(configuration, "SharedConfig"),
    extensionsConfigUri: descendantText(configuration, "ExtensionsConfig"),
    certificatesUri: descendantText(configuration, "Certificates"),
    remoteAccessUri: descendantText(container, "RemoteAccessInfo"),
  };
}

/** `Versions/{Preferred,Supported}/Version*` (WIRE-02). */
export function parseVersions(text: string): readonly string[] {
  const root = parseXml(text, "The version document");
  return ["Preferred", "Supported"].flatMap((name) =>
    childrenOf(descendant(root, name), "Version").map((version) => version.text?.trim() ?? ""),
  );
}
