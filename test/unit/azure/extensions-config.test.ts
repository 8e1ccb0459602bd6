import { expect, test } from "bun:test";
import { formatJson } from "../../../src/base/json.ts";
import {
  emptyExtensions,
  parseExtensionsConfig,
  parseOnHold,
} from "../../../src/azure/extensions-config.ts";
import type { ExtensionsGoalState, HandlerGoal } from "../../../src/azure/goal-state.ts";
import { extensionsXml } from "./platform.ts";

function parse(inner: string, incarnation = "7"): ExtensionsGoalState {
  return parseExtensionsConfig(`<Extensions>${inner}</Extensions>`, incarnation).goal;
}

/** One plugin and the settings element that goes with it. */
function handler(options: { plugin?: string; settings?: string | undefined }): HandlerGoal {
  const { plugin = 'name="Pub.Ext" version="1.0.0" state="enabled" location="https://a/m.xml"' } =
    options;
  const settings =
    options.settings === undefined ? "" : `<PluginSettings>${options.settings}</PluginSettings>`;
  const [only] = parse(`<Plugins><Plugin ${plugin}/></Plugins>${settings}`).handlers;
  return only ?? expect.unreachable();
}

const single = (
  body: string,
  attributes = 'name="Pub.Ext" version="1.0.0"',
  sequence = 'seqNo="3"',
): string =>
  `<Plugin ${attributes}><RuntimeSettings ${sequence}>${body}</RuntimeSettings></Plugin>`;
const SETTINGS = '{"runtimeSettings":[{"handlerSettings":{"publicSettings":{"a":1}}}]}';

test("wire-protocol.md ECFG-01: families keep their order, flags are true, false or absent", () => {
  const family = (inner: string): string => `<GAFamily>${inner}</GAFamily>`;
  const goal = parse(
    `<GuestAgentExtension><GAFamilies>${family("<Name>Prod</Name><Version>9.9.9.10</Version><FromVersion>9.9.9.11</FromVersion><IsVersionFromRSM>True</IsVersionFromRSM><IsVMEnabledForRSMUpgrades>false</IsVMEnabledForRSMUpgrades><Uris><Uri>https://a</Uri><Uri>\n https://b\n</Uri></Uris>")}${family("<Name>Test</Name><IsVersionFromRSM>yes</IsVersionFromRSM><Uris/>")}</GAFamilies></GuestAgentExtension>`,
  );
  expect(goal.agentFamilies).toEqual([
    {
      name: "Prod",
      version: "9.9.9.10",
      fromVersion: "9.9.9.11",
      isVersionFromRsm: true,
      isVmEnabledForRsmUpgrades: false,
      uris: ["https://a", "https://b"],
    },
    {
      name: "Test",
      version: undefined,
      fromVersion: undefined,
      isVersionFromRsm: false,
      isVmEnabledForRsmUpgrades: undefined,
      uris: [],
    },
  ]);
});

test("wire-protocol.md ECFG-02: required features are the names", () => {
  const goal = parse(
    "<RequiredFeatures><RequiredFeature><Name>MultipleExtensionsPerHandler</Name><Value>1.0</Value></RequiredFeature><RequiredFeature><Name>Other</Name></RequiredFeature></RequiredFeatures>",
  );
  expect(goal.requiredFeatures).toEqual(["MultipleExtensionsPerHandler", "Other"]);
});

test("wire-protocol.md ECFG-03 FIX-10 TRAP-06: the status blob is a block blob unless it says page blob, its URL is decoded and trimmed", () => {
  const blob = (element: string) => parse(element).statusBlob;
  const url = "\nhttps://a/s?sv=1&amp;sig=x\n";
  expect(blob(`<StatusUploadBlob statusBlobType="PageBlob">${url}</StatusUploadBlob>`)).toEqual({
    url: "https://a/s?sv=1&sig=x",
    type: "PageBlob",
  });
  for (const attribute of [
    "",
    'statusBlobType="BlockBlob"',
    'statusBlobType="Blob"',
    'statusBlobType=""',
  ])
    expect(blob(`<StatusUploadBlob ${attribute}>${url}</StatusUploadBlob>`)?.type).toBe(
      "BlockBlob",
    );
  expect(blob("")).toBeUndefined();
  expect(blob("<StatusUploadBlob/>")).toBeUndefined();
});

test("wire-protocol.md ECFG-04: the artifacts profile's URL is absent when it is blank", () => {
  const uri = (element: string) =>
    parseExtensionsConfig(`<Extensions>${element}</Extensions>`, "1").artifactsProfileUri;
  expect(
    uri(
      "<InVMArtifactsProfileBlob statusBlobType='BlockBlob'>https://a/p?s&amp;t</InVMArtifactsProfileBlob>",
    ),
  ).toBe("https://a/p?s&t");
  expect(uri("<InVMArtifactsProfileBlob> \n </InVMArtifactsProfileBlob>")).toBeUndefined();
  expect(uri("")).toBeUndefined();
});

test("wire-protocol.md ECFG-05 ECFG-06 FIX-11: metadata give ids and time, the sequence is the incarnation and not inSvdSeqNo", () => {
  const goal = parse(
    '<InVMGoalStateMetaData inSvdSeqNo="99" createdOnTicks="637726657706205217" activityId="555e551c-600e-4fb4-90ba-8ab8ec28eccc" correlationId="400de90b-522e-491f-9d89-ec944661f531"/>',
    "12",
  );
  expect(goal).toMatchObject({
    activityId: "555e551c-600e-4fb4-90ba-8ab8ec28eccc",
    correlationId: "400de90b-522e-491f-9d89-ec944661f531",
    createdAt: "2021-11-16T13:22:50.620522Z",
    sequence: "12",
  });
  const bare = parse('<InVMGoalStateMetaData createdOnTicks="0" activityId="" correlationId=" "/>');
  const none = parse("");
  for (const goalState of [bare, none])
    expect(goalState).toMatchObject({
      activityId: "00000000-0000-0000-0000-000000000000",
      correlationId: "00000000-0000-0000-0000-000000000000",
      createdAt: "0001-01-01T00:00:00.000000Z",
    });
});

test("wire-protocol.md ECFG-08: id, source and channel are those of the WireServer", () => {
  expect(parse("", "abc")).toMatchObject({
    id: "incarnation_abc",
    source: "Fabric",
    channel: "WireServer",
    onHold: false,
    outdated: false,
  });
});

test("wire-protocol.md GS-15: the empty goal wants nothing and reports nowhere", () => {
  expect(emptyExtensions("3")).toMatchObject({
    id: "incarnation_3",
    source: "Empty",
    channel: "Empty",
    handlers: [],
    agentFamilies: [],
    statusBlob: undefined,
  });
});

test("wire-protocol.md ECFG-10 ECFG-12 FIX-16: on hold is a boolean or its word in any case, trailing blanks and NULs are cut", () => {
  expect(parseOnHold('{ "onHold": true }')).toBe(true);
  expect(parseOnHold('{ "onHold": "TrUe", "profileId": 1 } \t\r\n\0\0')).toBe(true);
  expect(parseOnHold('{ "onHold": "False" }')).toBe(false);
  const others =
    '"inVMArtifactsProfileBlobSeqNo": 1, "profileId": "p", "certificateThumbprint": "t", "encryptedHealthChecks": "h", "encryptedApplicationProfile": "a"';
  expect(parseOnHold(`{ ${others} }`)).toBe(false);
  expect(parseOnHold(`{ ${others}, "onHold": true }`)).toBe(true);
  expect(parseOnHold("{ }")).toBe(false);
  expect(parseOnHold(" \n\0")).toBe(false);
  for (const bad of [
    '{ "onHold": "maybe" }',
    '{ "onHold": 1 }',
    '{ "onHold": null }',
    "{ onHold: true }",
  ])
    expect(() => parseOnHold(bad)).toThrow("The artifacts profile");
});

test("wire-protocol.md ECFG-20 extensions.md EXT-02: states are enabled, disabled and uninstall; a missing or unknown one only fails its own extension", () => {
  const state = (text: string) => handler({ plugin: `name="P.E" version="1" ${text}` });
  expect(state('state="enabled"').state).toBe("enabled");
  expect(state('state="disabled"').state).toBe("disabled");
  expect(state('state="uninstall"').state).toBe("uninstall");
  expect(state("").invalid).toBe("Plugin P.E has no state");
  expect(state('state=""').invalid).toBe("Plugin P.E has no state");
  expect(state('state="paused"')).toMatchObject({
    state: undefined,
    invalid: 'Plugin P.E has the unknown state "paused"',
  });
  const goal = parse(
    '<Plugins><Plugin name="A.B" version="1" state="odd"/><Plugin name="C.D" version="1" state="enabled"/></Plugins>',
  );
  expect(goal.handlers.map(({ invalid }) => invalid === undefined)).toEqual([false, true]);
});

test("wire-protocol.md ECFG-20: a plugin without name or version is kept with the reason", () => {
  expect(handler({ plugin: 'version="1" state="enabled"' }).invalid).toContain("no name");
  expect(handler({ plugin: 'name="P.E" state="enabled"' }).invalid).toContain("no version");
});

test("wire-protocol.md ECFG-21: manifests are location, failover and additional ones, empty ones skipped", () => {
  const goal = parse(
    '<Plugins><Plugin name="P.E" version="1" state="enabled" location="https://a" failoverlocation="https://b"><additionalLocations><additionalLocation>\nhttps://c\n</additionalLocation><additionalLocation/><additionalLocation>https://d</additionalLocation></additionalLocations></Plugin><Plugin name="Q.E" version="1" state="enabled" location="" failoverlocation="https://f" failoverLocation="https://not-this"/></Plugins>',
  );
  expect(goal.handlers.map(({ manifestUris }) => manifestUris)).toEqual([
    ["https://a", "https://b", "https://c", "https://d"],
    ["https://f"],
  ]);
});

test("wire-protocol.md ECFG-22: a missing signature is empty text, and the goal counts as capable of carrying them", () => {
  expect(handler({}).encodedSignature).toBe("");
  expect(
    handler({ plugin: 'name="P.E" version="1" state="enabled" encodedSignature="MII"' })
      .encodedSignature,
  ).toBe("MII");
  expect(parse("").signatureCapable).toBe(true);
});

test("wire-protocol.md ECFG-07 extensions.md EXT-04: attributes nobody reads change nothing", () => {
  const extra =
    'config="x" autoUpgrade="true" runAsStartupTask="true" isJson="false" useExactVersion="false" upgradeGuid="g" upgradePolicy="p"';
  const plain = 'name="P.E" version="1" state="enabled" location="https://a"';
  expect(handler({ plugin: `${plain} ${extra}` })).toEqual(handler({ plugin: plain }));
});

test("wire-protocol.md ECFG-23 FIX-06 FIX-09 extensions.md EXT-06: settings match by name without case and by version; none means no settings", () => {
  const matched = handler({ settings: single(SETTINGS, 'name="pub.EXT" version="1.0.0"') });
  expect(matched.settings.length).toBe(1);
  expect(matched.settings[0]?.name).toBe("Pub.Ext");
  expect(handler({}).settings).toEqual([]);
  expect(
    handler({ settings: single(SETTINGS, 'name="Other.Ext" version="1.0.0"') }).settings,
  ).toEqual([]);
});

test("wire-protocol.md ECFG-24 ECFG-25 ECFG-26 ECFG-29 FIX-07 extensions.md EXT-06: contradicting settings make their extension invalid and no other", () => {
  const reasons = {
    "another version": single(SETTINGS, 'name="Pub.Ext" version="1.0.1"'),
    "also another version": single(SETTINGS) + single(SETTINGS, 'name="PUB.EXT" version="2.0"'),
    "twice the same": single(SETTINGS) + single(SETTINGS),
    "both kinds": `<Plugin name="Pub.Ext" version="1.0.0"><RuntimeSettings seqNo="1">${SETTINGS}</RuntimeSettings><ExtensionRuntimeSettings name="x" seqNo="1">${SETTINGS}</ExtensionRuntimeSettings></Plugin>`,
    "two RuntimeSettings": `<Plugin name="Pub.Ext" version="1.0.0"><RuntimeSettings seqNo="1">${SETTINGS}</RuntimeSettings><RuntimeSettings seqNo="2">${SETTINGS}</RuntimeSettings></Plugin>`,
    "two DependsOn": `<Plugin name="Pub.Ext" version="1.0.0"><DependsOn dependencyLevel="1"/><DependsOn dependencyLevel="2"/><RuntimeSettings seqNo="1">${SETTINGS}</RuntimeSettings></Plugin>`,
  };
  for (const settings of Object.values(reasons)) {
    const goal = parse(
      `<Plugins><Plugin name="Pub.Ext" version="1.0.0" state="enabled"/><Plugin name="Good.Ext" version="1" state="enabled"/></Plugins><PluginSettings>${settings}${single(SETTINGS, 'name="Good.Ext" version="1"')}</PluginSettings>`,
    );
    expect(goal.handlers[0]?.invalid).toBeString();
    expect(goal.handlers[0]?.settings).toEqual([]);
    expect(goal.handlers[1]).toMatchObject({ invalid: undefined, settings: [{ sequence: 3 }] });
  }
});

test("wire-protocol.md ECFG-25: a settings entry of neither kind is no settings", () => {
  const found = handler({ settings: '<Plugin name="Pub.Ext" version="1.0.0"><Other/></Plugin>' });
  expect(found).toMatchObject({ settings: [], invalid: undefined, multiConfig: false });
});

test("wire-protocol.md ECFG-26 extensions.md EXT-07: single config takes handler name, level and targets; a bad level is 0", () => {
  const level = (text: string): HandlerGoal =>
    handler({
      settings: `<Plugin name="Pub.Ext" version="1.0.0"><DependsOn ${text}><DependsOnExtension handler="A.B"/><DependsOnExtension handler="C.D" extension="e"/></DependsOn><RuntimeSettings seqNo="1">${SETTINGS}</RuntimeSettings></Plugin>`,
    });
  expect(level('dependencyLevel="2"').settings[0]).toMatchObject({
    name: "Pub.Ext",
    state: "enabled",
    dependencyLevel: 2,
    dependsOn: [
      { handler: "A.B", extension: undefined },
      { handler: "C.D", extension: "e" },
    ],
  });
  for (const text of ["", 'dependencyLevel=""', 'dependencyLevel="high"'])
    expect(level(text).settings[0]?.dependencyLevel).toBe(0);
  expect(handler({ settings: single(SETTINGS) }).settings[0]).toMatchObject({
    dependencyLevel: 0,
    dependsOn: [],
  });
});

test("wire-protocol.md ECFG-27 FIX-14 extensions.md EXT-06: multi-config entries have name, state and their own dependency", () => {
  const entry = (attributes: string): string =>
    `<ExtensionRuntimeSettings ${attributes}>${SETTINGS}</ExtensionRuntimeSettings>`;
  const wrap = (inner: string): HandlerGoal =>
    handler({ settings: `<Plugin name="Pub.Ext" version="1.0.0">${inner}</Plugin>` });
  const found = wrap(
    `<DependsOn dependencyLevel="4" name="two"><DependsOnExtension handler="Pub.Ext" extension="one"/></DependsOn>${entry('name="one" seqNo="5" state="Disabled"')}${entry('name="two" seqNo="6"')}`,
  );
  expect(found.multiConfig).toBe(true);
  expect(
    found.settings.map(({ name, sequence, state, dependencyLevel }) => [
      name,
      sequence,
      state,
      dependencyLevel,
    ]),
  ).toEqual([
    ["one", 5, "disabled", 0],
    ["two", 6, "enabled", 4],
  ]);
  expect(wrap(entry('seqNo="1"')).invalid).toContain("has no name");
  expect(
    wrap(`<DependsOn dependencyLevel="1"/>${entry('name="one" seqNo="1"')}`).invalid,
  ).toContain("has no name");
  expect(wrap(entry('name="one" state="odd" seqNo="1"')).invalid).toContain("unknown state");
});

test("wire-protocol.md ECFG-28 extensions.md EXT-05 EXT-06: a missing seqNo is invalid, a body that is no JSON still reports its seqNo", () => {
  expect(handler({ settings: single(SETTINGS, undefined, "") }).invalid).toContain("no seqNo");
  expect(handler({ settings: single("{not json", undefined, 'seqNo="8"') })).toMatchObject({
    invalid: undefined,
    settings: [{ sequence: 8, publicSettings: null, protectedSettings: null, thumbprint: null }],
  });
  const several =
    '{"runtimeSettings":[{"handlerSettings":{"publicSettings":{"a":1}}},{"handlerSettings":{"publicSettings":{"a":2}}}]}';
  const { settings } = handler({ settings: single(several) });
  expect(
    settings.map(({ sequence, publicSettings }) => [sequence, formatJson(publicSettings)]),
  ).toEqual([
    [3, '{"a": 1}'],
    [3, '{"a": 2}'],
  ]);
});

test("wire-protocol.md ECFG-28 FIX-08 extensions.md EXT-09: settings that are absent or null are null", () => {
  const values = (body: string) =>
    handler({ settings: single(`{"runtimeSettings":[{"handlerSettings":${body}}]}`) }).settings[0];
  const none = { publicSettings: null, protectedSettings: null, thumbprint: null };
  expect(values("{}")).toMatchObject(none);
  expect(
    values(
      '{"publicSettings":null,"protectedSettings":null,"protectedSettingsCertThumbprint":null}',
    ),
  ).toMatchObject(none);
  expect(
    values('{"protectedSettings":"MII","protectedSettingsCertThumbprint":"AB"}'),
  ).toMatchObject({
    publicSettings: null,
    protectedSettings: "MII",
    thumbprint: "AB",
  });
});

test("extensions.md EXT-10: public settings keep numbers, order and escapes as they were written", () => {
  const body = '{"z":9223372036854775808,"10":1.0,"2":1e2,"text":"\\u00e9 &amp; &lt;"}';
  const { settings } = handler({
    settings: single(`{"runtimeSettings":[{"handlerSettings":{"publicSettings":${body}}}]}`),
  });
  expect(formatJson(settings[0]?.publicSettings ?? null)).toBe(
    '{"z": 9223372036854775808, "10": 1.0, "2": 1e2, "text": "\\u00e9 & <"}',
  );
});

test("wire-protocol.md DB-06: what fails the whole document elsewhere fails one plugin here, and CDATA is read", () => {
  for (const settings of [
    single(""),
    single("{}"),
    single('{"runtimeSettings":{}}'),
    single('{"runtimeSettings":[{}]}'),
    single('{"runtimeSettings":[{"handlerSettings":[]}]}'),
    single(SETTINGS, undefined, 'seqNo="three"'),
    single(SETTINGS, undefined, 'seqNo="-1"'),
    single('{"runtimeSettings":[{"handlerSettings":{"protectedSettings":5}}]}'),
  ])
    expect(handler({ settings }).invalid).toContain("Pub.Ext");
  const cdata = handler({ settings: single(`<![CDATA[${SETTINGS}]]>`) });
  expect(cdata).toMatchObject({ invalid: undefined, settings: [{ sequence: 3 }] });
});

test("a document that is no XML, or has a DOCTYPE, is refused by name", () => {
  for (const text of ["", "{}", "<Extensions>", "<!DOCTYPE a><Extensions/>"])
    expect(() => parseExtensionsConfig(text, "1")).toThrow("ExtensionsConfig");
  expect(parseExtensionsConfig(extensionsXml(), "1").goal.statusBlob?.url).toContain("sig=");
});
