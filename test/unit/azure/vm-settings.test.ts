import { expect, test } from "bun:test";
import { formatJson } from "../../../src/base/json.ts";
import { parseVmSettings } from "../../../src/azure/vm-settings.ts";
import type { HandlerGoal } from "../../../src/azure/goal-state.ts";

const parse = (document: object | string) =>
  parseVmSettings(
    typeof document === "string" ? document : JSON.stringify(document),
    "12345678901234567890",
  );

const extension = (members: object): HandlerGoal => {
  const [only] = parse({
    extensionGoalStates: [{ name: "Pub.Ext", version: "1.0.0", state: "enabled", ...members }],
  }).goal.handlers;
  return only ?? expect.unreachable();
};
const rejected = (members: object): void => {
  expect(() => extension(members)).toThrow("vmSettings");
};

test("wire-protocol.md VMS-30 VMS-31 VMS-32 VMS-34 VMS-35 VMS-36: what is absent has its defaults", () => {
  const { hostPluginVersion, source, goal } = parse("{}");
  expect(hostPluginVersion).toBe("0.0.0.0");
  expect(source).toBe("UNKNOWN");
  expect(goal).toMatchObject({
    id: "etag_12345678901234567890",
    source: "FastTrack",
    channel: "HostGAPlugin",
    activityId: "00000000-0000-0000-0000-000000000000",
    correlationId: "00000000-0000-0000-0000-000000000000",
    createdAt: "0001-01-01T00:00:00.000000Z",
    sequence: "00000000-0000-0000-0000-000000000000",
    onHold: false,
    statusBlob: undefined,
    requiredFeatures: [],
    agentFamilies: [],
    handlers: [],
  });
});

test("wire-protocol.md VMS-32 VMS-33 VMS-34 TRAP-03: sequence and ticks are taken, ticks beyond 2^53 as the reference rounds them", () => {
  const { source, goal } = parse(
    '{"inSvdSeqNo": 4, "extensionsLastModifiedTickCount": 637726657706205299, "extensionGoalStatesSource": "FastTrack", "onHold": true, "activityId": "a", "correlationId": "c"}',
  );
  expect(source).toBe("FastTrack");
  expect(goal).toMatchObject({
    sequence: 4,
    createdAt: "2021-11-16T13:22:50.620529Z",
    onHold: true,
    activityId: "a",
    correlationId: "c",
  });
  expect(parse({ extensionGoalStatesSource: "Fabric" }).source).toBe("Fabric");
  expect(parse({ extensionGoalStatesSource: "Somewhere" }).source).toBe("UNKNOWN");
});

test("wire-protocol.md VMS-36: a status blob needs its value, another type is a block blob", () => {
  const blob = (value: object) => parse({ StatusUploadBlob: value }).goal.statusBlob;
  expect(blob({ statusBlobType: "PageBlob", Value: " https://a?s " })).toEqual({
    url: "https://a?s",
    type: "PageBlob",
  });
  expect(blob({ statusBlobType: "Odd", value: "https://a" })?.type).toBe("BlockBlob");
  expect(() => blob({ statusBlobType: "BlockBlob" })).toThrow("/StatusUploadBlob/value");
});

test("wire-protocol.md VMS-37 VMS-38 VMS-39 VMS-40: lists must be lists, and have their required members", () => {
  for (const key of ["requiredFeatures", "gaFamilies", "extensionGoalStates"]) {
    expect(() => parse({ [key]: {} })).toThrow(key);
    expect(() => parse({ [key]: null })).toThrow(key);
    expect(() => parse({ [key]: [{}] })).toThrow(`/${key}/0/name`);
  }
  expect(parse({ requiredFeatures: [{ name: "A" }, { Name: "B" }] }).goal.requiredFeatures).toEqual(
    ["A", "B"],
  );
  for (const missing of ["name", "version", "state"]) rejected({ [missing]: undefined });
  rejected({ additionalLocations: "https://a" });
  rejected({ settings: {} });
});

test("wire-protocol.md VMS-38 FIX-12: a family may have only a name; flags are JSON booleans", () => {
  const { goal } = parse({
    gaFamilies: [
      {
        Name: "Prod",
        Version: "9.9.9.10",
        fromVersion: "9.9.9.9",
        isVersionFromRSM: true,
        isVMEnabledForRSMUpgrades: false,
        Uris: ["https://a", "https://b"],
      },
      { name: "Win7", version: null },
    ],
  });
  expect(goal.agentFamilies).toEqual([
    {
      name: "Prod",
      version: "9.9.9.10",
      fromVersion: "9.9.9.9",
      isVersionFromRsm: true,
      isVmEnabledForRsmUpgrades: false,
      uris: ["https://a", "https://b"],
    },
    {
      name: "Win7",
      version: undefined,
      fromVersion: undefined,
      isVersionFromRsm: undefined,
      isVmEnabledForRsmUpgrades: undefined,
      uris: [],
    },
  ]);
  expect(() => parse({ gaFamilies: [{ name: "P", isVersionFromRSM: "true" }] })).toThrow(
    "isVersionFromRSM",
  );
});

test("wire-protocol.md VMS-39 extensions.md EXT-02: an unknown state, also by case, makes the document unusable", () => {
  for (const state of ["enabled", "disabled", "uninstall"] as const)
    expect(extension({ state }).state).toBe(state);
  rejected({ state: "Enabled" });
  rejected({ state: "paused" });
  rejected({ state: null });
});

test("wire-protocol.md VMS-40: manifests in order, keys in any case, none for an uninstall", () => {
  expect(
    extension({
      Location: "https://a",
      failoverlocation: "https://b",
      AdditionalLocations: ["https://c", ""],
    }).manifestUris,
  ).toEqual(["https://a", "https://b", "https://c"]);
  expect(extension({ state: "uninstall" }).manifestUris).toEqual([]);
});

test("wire-protocol.md VMS-41 VMS-42 VMS-48 extensions.md EXT-07 EXT-10: single config has one settings entry, public settings are JSON in a string", () => {
  const found = extension({
    settingsSeqNo: 3,
    settings: [
      {
        publicSettings: '{"b":9223372036854775808,"1":1.0}',
        protectedSettings: "MII",
        protectedSettingsCertThumbprint: "AB",
      },
    ],
  });
  expect(found.multiConfig).toBe(false);
  const [settings] = found.settings;
  expect(settings).toMatchObject({
    name: "Pub.Ext",
    sequence: 3,
    state: "enabled",
    protectedSettings: "MII",
    thumbprint: "AB",
  });
  expect(formatJson(settings?.publicSettings ?? null)).toBe('{"b": 9223372036854775808, "1": 1.0}');
  expect(
    extension({
      settingsSeqNo: 0,
      settings: [
        { publicSettings: null, protectedSettings: null, protectedSettingsCertThumbprint: null },
      ],
    }).settings[0],
  ).toMatchObject({ publicSettings: null, protectedSettings: null, thumbprint: null });
  rejected({ settingsSeqNo: 0, settings: [{}, {}] });
  rejected({ settings: [{}] });
  rejected({ settingsSeqNo: 0, settings: [{ protectedSettings: "MII" }] });
  expect(() => extension({ settingsSeqNo: 0, settings: [{ publicSettings: "{" }] })).toThrow(
    "The public settings of Pub.Ext",
  );
});

test("wire-protocol.md VMS-43: multi-config entries carry name, sequence and state", () => {
  const entry = { extensionName: "one", seqNo: 2, extensionState: "disabled" };
  const found = extension({
    isMultiConfig: true,
    settings: [entry, { ...entry, extensionName: "two", extensionState: "enabled" }],
  });
  expect(found.multiConfig).toBe(true);
  expect(found.settings.map(({ name, sequence, state }) => [name, sequence, state])).toEqual([
    ["one", 2, "disabled"],
    ["two", 2, "enabled"],
  ]);
  for (const missing of ["extensionName", "seqNo", "extensionState"])
    rejected({ isMultiConfig: true, settings: [{ ...entry, [missing]: undefined }] });
});

test("wire-protocol.md VMS-44 extensions.md EXT-07 EXT-08: single config depends on at most one list, without settings on nothing", () => {
  const dependsOn = [{ dependencyLevel: 2, DependsOnExtension: [{ handler: "A.B" }] }];
  const settings = { settingsSeqNo: 0, settings: [{}] };
  expect(extension({ ...settings, dependsOn }).settings[0]).toMatchObject({
    dependencyLevel: 2,
    dependsOn: [{ handler: "A.B" }],
  });
  expect(extension({ ...settings, dependsOn: [] }).settings[0]?.dependencyLevel).toBe(0);
  expect(extension({ dependsOn }).settings).toEqual([]);
  rejected({ ...settings, dependsOn: [...dependsOn, ...dependsOn] });
  const notes = (members: object) =>
    parse({
      extensionGoalStates: [{ name: "P.E", version: "1", state: "enabled", ...members }],
    }).dependencyNotes.map(({ success }) => success);
  expect(notes({ ...settings, dependsOn })).toEqual([true]);
  expect(notes({ ...settings, dependsOn: [{ dependencyLevel: 1 }] })).toEqual([false]);
  expect(notes({ dependsOn })).toEqual([false]);
  expect(notes(settings)).toEqual([]);
});

test("wire-protocol.md VMS-45 extensions.md EXT-07: a multi-config dependency names one of the settings and has a level", () => {
  const settings = [{ extensionName: "one", seqNo: 0, extensionState: "enabled" }];
  const dependency = {
    name: "one",
    dependencyLevel: 3,
    dependsOnExtension: [{ handler: "A.B", extension: "x" }],
  };
  const found = extension({ isMultiConfig: true, settings, dependsOn: [dependency] });
  expect(found.settings[0]).toMatchObject({
    dependencyLevel: 3,
    dependsOn: [{ handler: "A.B", extension: "x" }],
  });
  rejected({ isMultiConfig: true, settings, dependsOn: [{ ...dependency, name: "other" }] });
  rejected({
    isMultiConfig: true,
    settings,
    dependsOn: [{ ...dependency, dependencyLevel: undefined }],
  });
});

test("wire-protocol.md VMS-46: members nobody reads change nothing", () => {
  const extra = { inVMMetadata: { vmName: "x" }, vmSettingsSchemaVersion: "0.0" };
  expect(parse(extra).goal).toEqual(parse({}).goal);
  expect(
    extension({ autoUpgrade: true, runAsStartupTask: 1, isJson: false, useExactVersion: "no" }),
  ).toEqual(extension({}));
});

test("wire-protocol.md VMS-20 VMS-22: signatures are carried from host plugin 1.0.8.159 on, compared by number", () => {
  const capable = (version: string) =>
    parse({ hostGAPluginVersion: version }).goal.signatureCapable;
  expect(["1.0.8.158", "1.0.8.159", "1.0.8.1000", "1.0.9", "1.0", "garbage"].map(capable)).toEqual([
    false,
    true,
    true,
    true,
    false,
    false,
  ]);
});

test("wire-protocol.md VMS-47 HTTP-21: what is no JSON object, or has a byte order mark, is refused", () => {
  for (const text of ["", "[]", "null", '{"a":', "\uFEFF{}", "<html/>"])
    expect(() => parse(text)).toThrow("vmSettings");
});
