import { expect, test } from "bun:test";
import { parseExtensionsConfig } from "../../../src/azure/extensions-config.ts";
import { parseVmSettings } from "../../../src/azure/vm-settings.ts";
import { plan, printPlan } from "../../../src/extensions/plan.ts";
import { settingsText } from "../../../src/extensions/settings-file.ts";

const SETTINGS = '{"b": 9223372036854775808, "a": [1.0, null]}';
const THUMBPRINT = "0123456789ABCDEF0123456789ABCDEF01234567";
const runtime = (publicSettings: string, protectedSettings: string): string =>
  `{"runtimeSettings": [{"handlerSettings": {"publicSettings": ${publicSettings}${protectedSettings}}}]}`;
const PROTECTED = `, "protectedSettings": "MIIB", "protectedSettingsCertThumbprint": "${THUMBPRINT}"`;

const XML = `<Extensions version="1.0.0.0" goalStateIncarnation="1">
<Plugins>
  <Plugin name="A.Single" version="1.2.3" location="https://s/a1" failoverlocation="https://s/a2" state="enabled" encodedSignature="c2ln"><additionalLocations><additionalLocation>https://s/a3</additionalLocation></additionalLocations></Plugin>
  <Plugin name="A.Multi" version="2.0" location="https://s/m1" failoverlocation="https://s/m2" state="enabled"/>
  <Plugin name="A.Gone" version="3.0" location="https://s/g1" failoverlocation="https://s/g2" state="uninstall"/>
</Plugins>
<PluginSettings>
  <Plugin name="A.Single" version="1.2.3"><DependsOn dependencyLevel="1"><DependsOnExtension extension="x" handler="A.Multi"/></DependsOn><RuntimeSettings seqNo="4">${runtime(SETTINGS, PROTECTED)}</RuntimeSettings></Plugin>
  <Plugin name="A.Multi" version="2.0"><ExtensionRuntimeSettings seqNo="0" name="x" state="enabled">${runtime("{}", "")}</ExtensionRuntimeSettings><ExtensionRuntimeSettings seqNo="7" name="y" state="disabled">${runtime("{}", "")}</ExtensionRuntimeSettings></Plugin>
</PluginSettings></Extensions>`;

const quoted = JSON.stringify(SETTINGS);
const JSON_TEXT = `{"hostGAPluginVersion": "1.0.8.159", "vmSettingsSchemaVersion": "0.0", "activityId": "11111111-1111-4111-8111-111111111111", "correlationId": "22222222-2222-4222-8222-222222222222", "inSvdSeqNo": 1, "extensionsLastModifiedTickCount": 637726657706205299, "extensionGoalStatesSource": "FastTrack", "extensionGoalStates": [
  {"name": "A.Single", "version": "1.2.3", "location": "https://s/a1", "failoverLocation": "https://s/a2", "additionalLocations": ["https://s/a3"], "state": "enabled", "encodedSignature": "c2ln", "settingsSeqNo": 4, "isMultiConfig": false, "settings": [{"protectedSettingsCertThumbprint": "${THUMBPRINT}", "protectedSettings": "MIIB", "publicSettings": ${quoted}}], "dependsOn": [{"DependsOnExtension": [{"handler": "A.Multi", "extension": "x"}], "dependencyLevel": 1}]},
  {"name": "A.Multi", "version": "2.0", "location": "https://s/m1", "failoverLocation": "https://s/m2", "additionalLocations": [], "state": "enabled", "isMultiConfig": true, "settings": [{"extensionName": "x", "seqNo": 0, "extensionState": "enabled", "publicSettings": "{}"}, {"extensionName": "y", "seqNo": 7, "extensionState": "disabled", "publicSettings": "{}"}]},
  {"name": "A.Gone", "version": "3.0", "location": "https://s/g1", "failoverLocation": "https://s/g2", "additionalLocations": [], "state": "uninstall", "isMultiConfig": false, "settings": []}
]}`;

test("extensions.md EXT-01: both documents of the platform say the same about handlers, down to the settings file and the plan", () => {
  const fabric = parseExtensionsConfig(XML, "1").goal;
  const fast = parseVmSettings(JSON_TEXT, "1").goal;
  expect(fast.handlers).toEqual(fabric.handlers);
  const [single, multi, gone] = fabric.handlers;
  expect(single).toMatchObject({
    name: "A.Single",
    version: "1.2.3",
    state: "enabled",
    multiConfig: false,
    encodedSignature: "c2ln",
    manifestUris: ["https://s/a1", "https://s/a2", "https://s/a3"],
    settings: [
      { sequence: 4, protectedSettings: "MIIB", thumbprint: THUMBPRINT, dependencyLevel: 1 },
    ],
  });
  expect(multi).toMatchObject({
    multiConfig: true,
    encodedSignature: "",
    settings: [
      { name: "x", sequence: 0, state: "enabled" },
      { name: "y", sequence: 7, state: "disabled" },
    ],
  });
  expect(gone).toMatchObject({ state: "uninstall", settings: [] });
  for (const goal of [fabric, fast]) {
    const entry = goal.handlers[0]?.settings[0];
    if (entry === undefined) throw new Error("no settings");
    expect(settingsText(entry)).toBe(
      `{"runtimeSettings": [{"handlerSettings": {"publicSettings": ${SETTINGS}, "protectedSettings": "MIIB", "protectedSettingsCertThumbprint": "${THUMBPRINT}"}}]}`,
    );
    expect(printPlan(plan(goal, { honourOnHold: true, features: [] }))).toBe(
      `0 disable-extension A.Multi.y level -1
1 uninstall A.Gone level -1
2 enable A.Multi.x level 0 after 0,1
3 enable A.Single level 1 after 0,1 needs 2`,
    );
  }
});
