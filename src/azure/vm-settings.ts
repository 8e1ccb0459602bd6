import { AgentError } from "../base/error.ts";
import { JsonNumber, JsonReader, parseJson, type Json } from "../base/json.ts";
import { ticksToTimestamp6 } from "../base/time.ts";
import { compareVersions, isVersion } from "../base/version.ts";
import { toStatusBlob } from "./extensions-config.ts";
import {
  ZERO_GUID,
  type AgentFamily,
  type ExtensionsGoalState,
  type HandlerGoal,
  type SettingsGoal,
} from "./goal-state.ts";

/** vmSettings, the goal state as the host plugin carries it (`wire-protocol.md` §10.3). */
export interface VmSettings {
  readonly hostPluginVersion: string;
  /** "UNKNOWN" when the document does not say, or says something else (VMS-34). */
  readonly source: "Fabric" | "FastTrack" | "UNKNOWN";
  readonly goal: ExtensionsGoalState;
  /** What became of dependencies, for telemetry (VMS-44). */
  readonly dependencyNotes: readonly { readonly success: boolean; readonly message: string }[];
}

/** The oldest host plugin whose vmSettings are used, and the oldest that carries signatures (VMS-20, VMS-22). */
export const MINIMUM_HOST_PLUGIN = "1.0.8.133";
const SIGNATURES_SINCE = "1.0.8.159";
const STATES = ["enabled", "disabled", "uninstall"] as const;

/**
 * Keys are compared without case at every depth. Unlike ExtensionsConfig, one malformed extension makes the whole
 * document unusable (VMS-47, `extensions.md` EXT-02, EXT-07). Errors: AgentError "bad-input" with document and path.
 */
export function parseVmSettings(text: string, etag: string): VmSettings {
  const root = parseDocument(text);
  const notes: { success: boolean; message: string }[] = [];
  const hostPluginVersion = textOr(root.getIgnoreCase("hostGAPluginVersion"), "0.0.0.0");
  const sourceText = root.getIgnoreCase("extensionGoalStatesSource").optionalString();
  const source = sourceText === "Fabric" || sourceText === "FastTrack" ? sourceText : "UNKNOWN";
  const blob = root.getIgnoreCase("statusUploadBlob");
  return {
    hostPluginVersion,
    source,
    dependencyNotes: notes,
    goal: {
      id: `etag_${etag}`,
      source: "FastTrack",
      channel: "HostGAPlugin",
      activityId: textOr(root.getIgnoreCase("activityId"), ZERO_GUID),
      correlationId: textOr(root.getIgnoreCase("correlationId"), ZERO_GUID),
      createdAt: ticksToTimestamp6(
        numberText(root.getIgnoreCase("extensionsLastModifiedTickCount")),
      ),
      sequence: sequenceOf(root.getIgnoreCase("inSvdSeqNo")),
      onHold: root.getIgnoreCase("onHold").optionalBoolean() ?? false,
      outdated: false,
      statusBlob: blob.isAbsent
        ? undefined
        : toStatusBlob(
            blob.getIgnoreCase("value").string(),
            blob.getIgnoreCase("statusBlobType").optionalString(),
          ),
      requiredFeatures: list(root.getIgnoreCase("requiredFeatures")).map((feature) =>
        feature.getIgnoreCase("name").string(),
      ),
      agentFamilies: list(root.getIgnoreCase("gaFamilies")).map(parseFamily),
      handlers: list(root.getIgnoreCase("extensionGoalStates")).map((extension) =>
        parseHandler(extension, notes),
      ),
      signatureCapable: supportsSignatures(hostPluginVersion),
    },
  };
}

function parseDocument(text: string): JsonReader {
  if (text.startsWith("\uFEFF"))
    // unlike elsewhere (HTTP-21, VMS-47)
    throw new AgentError("bad-input", "vmSettings begin with a byte order mark");
  const root = JsonReader.parse(text, "vmSettings");
  root.object();
  return root;
}

export function isSupportedHostPlugin(version: string): boolean {
  return isVersion(version) && compareVersions(version, MINIMUM_HOST_PLUGIN) >= 0;
}

function supportsSignatures(version: string): boolean {
  return isVersion(version) && compareVersions(version, SIGNATURES_SINCE) >= 0;
}

/** An absent list is empty; anything but a list is an error. */
function list(reader: JsonReader): readonly JsonReader[] {
  return reader.isMissing ? [] : reader.items();
}

function textOr(reader: JsonReader, fallback: string): string {
  const text = reader.optionalString() ?? "";
  return text === "" ? fallback : text;
}

function numberText(reader: JsonReader): string | undefined {
  if (reader.value instanceof JsonNumber) return reader.value.text;
  return typeof reader.value === "string" ? reader.value : undefined;
}

/** A number, passed on; absent or empty is the text of the empty GUID (VMS-32). */
function sequenceOf(reader: JsonReader): string | number {
  if (reader.isAbsent || reader.value === "") return ZERO_GUID;
  if (typeof reader.value === "string" && /^\d+$/.test(reader.value)) return Number(reader.value);
  return reader.integer();
}

function parseFamily(family: JsonReader): AgentFamily {
  return {
    name: family.getIgnoreCase("name").string(),
    version: family.getIgnoreCase("version").optionalString(),
    fromVersion: family.getIgnoreCase("fromVersion").optionalString(),
    isVersionFromRsm: family.getIgnoreCase("isVersionFromRSM").optionalBoolean(),
    isVmEnabledForRsmUpgrades: family.getIgnoreCase("isVMEnabledForRSMUpgrades").optionalBoolean(),
    uris: list(family.getIgnoreCase("uris")).map((uri) => uri.string().trim()),
  };
}

function parseHandler(
  extension: JsonReader,
  notes: { success: boolean; message: string }[],
): HandlerGoal {
  const name = extension.getIgnoreCase("name").string();
  const stateReader = extension.getIgnoreCase("state");
  const state = STATES.find((known) => known === stateReader.string());
  if (state === undefined) throw stateReader.expected("enabled, disabled or uninstall");
  const multiConfig = extension.getIgnoreCase("isMultiConfig").optionalBoolean() ?? false;
  const settings = list(extension.getIgnoreCase("settings"));
  const dependsOn = list(extension.getIgnoreCase("dependsOn"));
  return {
    name,
    version: extension.getIgnoreCase("version").string(),
    state,
    manifestUris: [
      extension.getIgnoreCase("location").optionalString() ?? "",
      extension.getIgnoreCase("failoverLocation").optionalString() ?? "",
      ...list(extension.getIgnoreCase("additionalLocations")).map((uri) => uri.string()),
    ]
      .map((uri) => uri.trim())
      .filter((uri) => uri !== ""),
    multiConfig,
    encodedSignature: extension.getIgnoreCase("encodedSignature").optionalString() ?? "",
    settings: multiConfig
      ? parseMulti(name, settings, dependsOn)
      : parseSingle(extension, { name, state, settings, dependsOn, notes }),
    invalid: undefined,
  };
}

function parseSingle(
  extension: JsonReader,
  parts: {
    readonly name: string;
    readonly state: "enabled" | "disabled" | "uninstall";
    readonly settings: readonly JsonReader[];
    readonly dependsOn: readonly JsonReader[];
    readonly notes: { success: boolean; message: string }[];
  },
): readonly SettingsGoal[] {
  const { name, state, settings, dependsOn, notes } = parts;
  if (settings.length > 1)
    throw extension.getIgnoreCase("settings").expected("a list of one, it is no multi-config");
  if (dependsOn.length > 1)
    throw extension.getIgnoreCase("dependsOn").expected("a list of one, it is no multi-config");
  const [only] = settings;
  const [dependency] = dependsOn;
  if (only === undefined) {
    if (dependency !== undefined)
      notes.push({ success: false, message: `${name} depends on others but has no settings` });
    return [];
  }
  if (dependency !== undefined) {
    const targets = dependency.getIgnoreCase("dependsOnExtension");
    notes.push(
      targets.isAbsent
        ? { success: false, message: `dependsOnExtension of ${name} is missing` }
        : { success: true, message: `${name} depends on other extensions` },
    );
  }
  return [
    {
      name,
      sequence: extension.getIgnoreCase("settingsSeqNo").integer(),
      state: state === "enabled" ? "enabled" : "disabled",
      ...parseValues(only, name),
      ...parseDependency(dependency),
    },
  ];
}

function parseMulti(
  handler: string,
  settings: readonly JsonReader[],
  dependsOn: readonly JsonReader[],
): readonly SettingsGoal[] {
  const names = settings.map((entry) => entry.getIgnoreCase("extensionName").string());
  const dependencies = new Map<string, JsonReader>();
  for (const dependency of dependsOn) {
    const nameReader = dependency.getIgnoreCase("name");
    const name = nameReader.string();
    if (!names.includes(name)) throw nameReader.expected(`one of the settings of ${handler}`);
    dependency.getIgnoreCase("dependencyLevel").integer();
    dependencies.set(name, dependency);
  }
  return settings.map((entry, index) => {
    const name = names[index] ?? "";
    const stateReader = entry.getIgnoreCase("extensionState");
    const state = stateReader.string().toLowerCase();
    if (state !== "enabled" && state !== "disabled")
      throw stateReader.expected("enabled or disabled");
    return {
      name,
      sequence: entry.getIgnoreCase("seqNo").integer(),
      state,
      ...parseValues(entry, `${handler}.${name}`),
      ...parseDependency(dependencies.get(name)),
    };
  });
}

/** Nulls stay null (VMS-48); public settings are JSON in a string, protected ones need their thumbprint (VMS-41). */
function parseValues(
  entry: JsonReader,
  label: string,
): Pick<SettingsGoal, "publicSettings" | "protectedSettings" | "thumbprint"> {
  const publicText = entry.getIgnoreCase("publicSettings").optionalString();
  const publicSettings: Json =
    publicText === undefined ? null : parseJson(publicText, `The public settings of ${label}`);
  const protectedSettings = entry.getIgnoreCase("protectedSettings").optionalString() ?? null;
  const thumbprint =
    entry.getIgnoreCase("protectedSettingsCertThumbprint").optionalString() ?? null;
  if (protectedSettings !== null && thumbprint === null)
    throw entry.getIgnoreCase("protectedSettingsCertThumbprint").expected("a thumbprint");
  return { publicSettings, protectedSettings, thumbprint };
}

function parseDependency(
  dependency: JsonReader | undefined,
): Pick<SettingsGoal, "dependencyLevel" | "dependsOn"> {
  if (dependency === undefined) return { dependencyLevel: 0, dependsOn: [] };
  const targets = dependency.getIgnoreCase("dependsOnExtension");
  return {
    dependencyLevel: dependency.getIgnoreCase("dependencyLevel").integer(),
    dependsOn: targets.isAbsent
      ? []
      : targets.items().map((target) => ({
          handler: target.getIgnoreCase("handler").optionalString() ?? "",
          extension: target.getIgnoreCase("extension").optionalString(),
        })),
  };
}
