import { AgentError, describe, isAgentError } from "../base/error.ts";
import { JsonReader, type Json } from "../base/json.ts";
import { ticksToTimestamp6 } from "../base/time.ts";
import {
  childrenOf,
  child,
  descendant,
  descendantText,
  parseXml,
  type XmlElement,
} from "../base/xml.ts";
import {
  ZERO_GUID,
  type AgentFamily,
  type ExtensionsGoalState,
  type HandlerGoal,
  type SettingsGoal,
  type StatusBlob,
} from "./goal-state.ts";

/** ExtensionsConfig as the goal, and where the artifacts profile with the on-hold flag is (`wire-protocol.md` §9). */
export interface ExtensionsConfig {
  readonly goal: ExtensionsGoalState;
  readonly artifactsProfileUri: string | undefined;
}

/**
 * Whatever is wrong with one plugin or its settings stays with that plugin as its `invalid` text (DB-06, ECFG-29).
 * Errors: AgentError "bad-input" when the document itself cannot be read.
 */
export function parseExtensionsConfig(text: string, incarnation: string): ExtensionsConfig {
  const root = parseXml(text, "ExtensionsConfig");
  const metadata = descendant(root, "InVMGoalStateMetaData");
  const identifier = (name: string): string => {
    const value = metadata?.attributes.get(name)?.trim() ?? "";
    return value === "" ? ZERO_GUID : value;
  };
  const settings = childrenOf(descendant(root, "PluginSettings"), "Plugin");
  const profile = descendant(root, "InVMArtifactsProfileBlob")?.text?.trim() ?? "";
  return {
    artifactsProfileUri: profile === "" ? undefined : profile,
    goal: {
      id: `incarnation_${incarnation}`,
      source: "Fabric",
      channel: "WireServer",
      activityId: identifier("activityId"),
      correlationId: identifier("correlationId"),
      createdAt: ticksToTimestamp6(metadata?.attributes.get("createdOnTicks")),
      sequence: incarnation,
      onHold: false,
      outdated: false,
      statusBlob: parseStatusBlob(descendant(root, "StatusUploadBlob")),
      requiredFeatures: childrenOf(descendant(root, "RequiredFeatures"), "RequiredFeature")
        .map((feature) => descendantText(feature, "Name"))
        .filter((name) => name !== undefined),
      agentFamilies: childrenOf(descendant(root, "GAFamilies"), "GAFamily").map(parseFamily),
      handlers: childrenOf(descendant(root, "Plugins"), "Plugin").map((plugin) =>
        parseHandler(plugin, settings),
      ),
      signatureCapable: true,
    },
  };
}

/** A goal state without ExtensionsConfig: nothing is wanted, and there is nowhere to report to (GS-15). */
export function emptyExtensions(incarnation: string): ExtensionsGoalState {
  return {
    id: `incarnation_${incarnation}`,
    source: "Empty",
    channel: "Empty",
    activityId: ZERO_GUID,
    correlationId: ZERO_GUID,
    createdAt: ticksToTimestamp6(undefined),
    sequence: incarnation,
    onHold: false,
    outdated: false,
    statusBlob: undefined,
    requiredFeatures: [],
    agentFamilies: [],
    handlers: [],
    signatureCapable: true,
  };
}

/** `onHold` of the artifacts profile: a boolean, or its text in any case (ECFG-10). Errors: AgentError "bad-input". */
export function parseOnHold(text: string): boolean {
  const body = text.replace(/[ \t\r\n\0]+$/, "");
  if (body.trim() === "") return false;
  const flag = JsonReader.parse(body, "The artifacts profile").get("onHold");
  if (flag.isMissing) return false;
  if (typeof flag.value === "boolean") return flag.value;
  const word = typeof flag.value === "string" ? flag.value.toLowerCase() : "";
  if (word !== "true" && word !== "false") throw flag.expected("true or false");
  return word === "true";
}

/** An unknown type is a BlockBlob (ECFG-03). */
export function toStatusBlob(
  url: string | undefined,
  type: string | undefined,
): StatusBlob | undefined {
  const trimmed = url?.trim() ?? "";
  if (trimmed === "") return undefined;
  return { url: trimmed, type: type === "PageBlob" ? "PageBlob" : "BlockBlob" };
}

function parseStatusBlob(element: XmlElement | undefined): StatusBlob | undefined {
  return toStatusBlob(element?.text, element?.attributes.get("statusBlobType"));
}

function parseFamily(element: XmlElement): AgentFamily {
  const flag = (name: string): boolean | undefined => {
    const text = descendantText(element, name);
    return text === undefined ? undefined : text.toLowerCase() === "true";
  };
  return {
    name: descendantText(element, "Name") ?? "",
    version: descendantText(element, "Version"),
    fromVersion: descendantText(element, "FromVersion"),
    isVersionFromRsm: flag("IsVersionFromRSM"),
    isVmEnabledForRsmUpgrades: flag("IsVMEnabledForRSMUpgrades"),
    uris: texts(childrenOf(descendant(element, "Uris"), "Uri")),
  };
}

function texts(elements: readonly XmlElement[]): readonly string[] {
  return elements.map((element) => element.text?.trim() ?? "").filter((text) => text !== "");
}

/** Why a plugin cannot be processed; it becomes the plugin's `invalid` text and goes no further. */
function invalid(reason: string): AgentError {
  return new AgentError("bad-input", reason);
}

const STATES = ["enabled", "disabled", "uninstall"] as const;

function parseHandler(plugin: XmlElement, allSettings: readonly XmlElement[]): HandlerGoal {
  const attribute = (name: string): string => plugin.attributes.get(name)?.trim() ?? "";
  const name = attribute("name");
  const version = attribute("version");
  const stateText = attribute("state").toLowerCase();
  const state = STATES.find((known) => known === stateText);
  const handler = {
    name,
    version,
    state,
    manifestUris: [
      attribute("location"),
      attribute("failoverlocation"),
      ...texts(childrenOf(child(plugin, "additionalLocations"), "additionalLocation")),
    ].filter((uri) => uri !== ""),
    encodedSignature: attribute("encodedSignature"),
  };
  try {
    if (name === "") throw invalid("A plugin of ExtensionsConfig has no name");
    if (version === "") throw invalid(`Plugin ${name} has no version`);
    if (stateText === "") throw invalid(`Plugin ${name} has no state`);
    if (state === undefined)
      throw invalid(`Plugin ${name} has the unknown state ${JSON.stringify(stateText)}`);
    return { ...handler, ...parseSettings(name, version, allSettings), invalid: undefined };
  } catch (error) {
    if (!isAgentError(error, "bad-input")) throw error;
    return { ...handler, multiConfig: false, settings: [], invalid: describe(error) };
  }
}

function parseSettings(
  name: string,
  version: string,
  allSettings: readonly XmlElement[],
): Pick<HandlerGoal, "multiConfig" | "settings"> {
  const attribute = (element: XmlElement, key: string): string =>
    element.attributes.get(key)?.trim() ?? "";
  const sameName = allSettings.filter(
    (element) => attribute(element, "name").toLowerCase() === name.toLowerCase(),
  );
  const otherVersion = sameName.find((element) => attribute(element, "version") !== version);
  if (otherVersion !== undefined) {
    throw invalid(
      `PluginSettings version ${JSON.stringify(attribute(otherVersion, "version"))} of ${name} differs from the plugin's version ${version}`,
    );
  }
  const [entry, second] = sameName;
  if (entry === undefined) return { multiConfig: false, settings: [] };
  if (second !== undefined) throw invalid(`${name} ${version} has more than one PluginSettings`);
  const single = childrenOf(entry, "RuntimeSettings");
  const multi = childrenOf(entry, "ExtensionRuntimeSettings");
  if (single.length > 0 && multi.length > 0)
    throw invalid(`${name} has both RuntimeSettings and ExtensionRuntimeSettings`);
  if (single.length > 1) throw invalid(`${name} has more than one RuntimeSettings`);
  if (multi.length > 0)
    return { multiConfig: true, settings: parseMultiConfig(name, entry, multi) };
  const [only] = single;
  if (only === undefined) return { multiConfig: false, settings: [] };
  const dependsOn = childrenOf(entry, "DependsOn");
  if (dependsOn.length > 1) throw invalid(`${name} has more than one DependsOn`);
  const dependency = parseDependency(dependsOn[0]);
  return {
    multiConfig: false,
    settings: parseBody(only, name, { name, state: "enabled", ...dependency }),
  };
}

function parseMultiConfig(
  handler: string,
  entry: XmlElement,
  elements: readonly XmlElement[],
): readonly SettingsGoal[] {
  const dependencies = new Map<string, XmlElement>();
  for (const element of childrenOf(entry, "DependsOn")) {
    const name = element.attributes.get("name")?.trim() ?? "";
    if (name === "") throw invalid(`A DependsOn of ${handler} has no name`);
    if (dependencies.has(name)) throw invalid(`${handler} has more than one DependsOn for ${name}`);
    dependencies.set(name, element);
  }
  return elements.flatMap((element) => {
    const name = element.attributes.get("name")?.trim() ?? "";
    if (name === "") throw invalid(`An ExtensionRuntimeSettings of ${handler} has no name`);
    const stateText = (element.attributes.get("state")?.trim() ?? "").toLowerCase();
    const state = stateText === "" ? "enabled" : stateText;
    if (state !== "enabled" && state !== "disabled")
      throw invalid(`${handler}.${name} has the unknown state ${JSON.stringify(stateText)}`);
    const dependency = parseDependency(dependencies.get(name));
    return parseBody(element, `${handler}.${name}`, { name, state, ...dependency });
  });
}

function parseDependency(
  element: XmlElement | undefined,
): Pick<SettingsGoal, "dependencyLevel" | "dependsOn"> {
  const level = element?.attributes.get("dependencyLevel")?.trim() ?? "";
  return {
    dependencyLevel: /^-?\d+$/.test(level) ? Number(level) : 0,
    dependsOn: childrenOf(element, "DependsOnExtension").flatMap((target) => {
      const handler = target.attributes.get("handler")?.trim() ?? "";
      const extension = target.attributes.get("extension")?.trim();
      return handler === ""
        ? []
        : [{ handler, extension: extension === "" ? undefined : extension }];
    }),
  };
}

function parseBody(
  element: XmlElement,
  label: string,
  common: Pick<SettingsGoal, "name" | "state" | "dependencyLevel" | "dependsOn">,
): readonly SettingsGoal[] {
  const sequenceText = element.attributes.get("seqNo")?.trim() ?? "";
  if (sequenceText === "") throw invalid(`The settings of ${label} have no seqNo`);
  const sequence = Number(sequenceText);
  if (!/^\d+$/.test(sequenceText) || !Number.isSafeInteger(sequence))
    throw invalid(`The seqNo of ${label} is not a number: ${JSON.stringify(sequenceText)}`);
  const what = `The settings of ${label}`;
  const text = element.text ?? "";
  if (text.trim() === "") throw invalid(`${what} are empty`);
  const none = { publicSettings: null, protectedSettings: null, thumbprint: null };
  let document: JsonReader;
  try {
    document = JsonReader.parse(text, what);
  } catch {
    return [{ ...common, sequence, ...none }]; // the sequence number is still reported (ECFG-28)
  }
  return document
    .get("runtimeSettings")
    .items()
    .map((item) => {
      const settings = item.get("handlerSettings");
      settings.object();
      return {
        ...common,
        sequence,
        publicSettings: (settings.get("publicSettings").value ?? null) satisfies Json,
        protectedSettings: settings.get("protectedSettings").optionalString() ?? null,
        thumbprint: settings.get("protectedSettingsCertThumbprint").optionalString() ?? null,
      };
    });
}
