import { expect, test } from "bun:test";
import { parseExtensionsConfig, parseOnHold } from "../../src/azure/extensions-config.ts";
import { unknownThumbprints } from "../../src/azure/goal-state-client.ts";
import { redactVmSettings } from "../../src/azure/redaction.ts";
import { isSupportedHostPlugin, parseVmSettings } from "../../src/azure/vm-settings.ts";
import { areFixturesThere, listFixtures, readFixture, skipWithoutFixtures } from "./fixtures.ts";
import { goalText } from "./goal-text.ts";

/** What each document means; vmSettings begin with host plugin, source and sequence. See goalText for the notation. */
const DOCUMENTS: Readonly<Record<string, readonly string[]>> = {
  "ext_conf-agent_family_version.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/9.9.9.10/9.9.9.9/y/y/2 Test/9.9.9.10/9.9.9.9/y/y/2",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:1:p-:1",
    "enabled 3 multi 0:on:2:p-:2 0:on:1:p-:1 0:on:0:p-:0",
    "enabled 3 0:on:0:-x:0",
  ],
  "ext_conf-empty_depends_on.xml": [
    "2021-10-08T21:52:23.161652Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/2.5.0.2////2 Test/2.5.0.2////2",
    "enabled 3 0:on:0:p-:0",
  ],
  "ext_conf-invalid_blob_type.xml": [
    "2021-10-08T21:52:23.161652Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/2.5.0.2////2 Test/2.5.0.2////2",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 multi 0:on:0:p-:0 0:on:0:p-:0 0:on:0:p-:0",
  ],
  "ext_conf-no_status_upload_blob.xml": [
    "2021-11-16T13:22:50.620522Z no blob free",
    "Prod/////2",
    "enabled 3 0:on:1:p-:1",
  ],
  "ext_conf-rsm_version_properties_false.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/9.9.9.10//n/n/2 Test/9.9.9.10//n/n/2",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:1:p-:1",
    "enabled 3 multi 0:on:2:p-:2 0:on:1:p-:1 0:on:0:p-:0",
    "enabled 3 0:on:0:-x:0",
  ],
  "ext_conf.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:1:p-:1",
    "enabled 3 multi 0:on:2:p-:2 0:on:1:p-:1 0:on:0:p-:0",
    "enabled 3 0:on:0:-x:0",
  ],
  "vm_settings-agent_family_version.json": [
    "1.0.8.133 FastTrack 1",
    "2021-11-16T14:33:20.000000Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/9.9.9.9/9.9.9.9/y/y/2 Test/9.9.9.9/9.9.9.9/y/y/2",
    "enabled 1 0:on:0:px:0",
    "enabled 1 0:on:0:px:0",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 multi 0:on:0:p-:0 0:on:0:p-:0 0:on:0:p-:0",
  ],
  "vm_settings-empty_depends_on.json": [
    "1.0.8.133 FastTrack 1",
    "2021-10-08T21:52:23.161652Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/2.5.0.2////2 Test/2.5.0.2////2",
    "enabled 3 0:on:0:p-:0",
  ],
  "vm_settings-fabric-no_thumbprints.json": [
    "1.0.8.133 Fabric 1",
    "2021-11-16T13:22:50.620529Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 0:on:1:p-:1",
    "enabled 3 multi 0:on:2:p-:2 0:on:1:p-:1 0:on:0:p-:0",
    "enabled 3",
  ],
  "vm_settings-invalid_blob_type.json": [
    "1.0.8.133 FastTrack 1",
    "2021-10-08T21:52:23.161652Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/2.5.0.2////2 Test/2.5.0.2////2",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 multi 0:on:0:p-:0 0:on:0:p-:0 0:on:0:p-:0",
  ],
  "vm_settings-missing_cert.json": [
    "1.0.8.133 FastTrack 1",
    "2021-11-16T13:22:50.620529Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 0:on:0:-x:0",
  ],
  "vm_settings-no_manifests.json": [
    "1.0.8.133 FastTrack 978",
    "2022-03-15T17:10:57.473969Z PageBlob free",
    "Prod/////0",
    "uninstall 0",
    "uninstall 0",
    "enabled 2 7:on:0:p-:0",
  ],
  "vm_settings-no_status_upload_blob.json": [
    "1.0.8.133 FastTrack 1",
    "2021-11-16T13:22:50.621002Z no blob held +MultipleExtensionsPerHandler",
    "Prod/////2",
    "enabled 3 0:on:1:p-:1",
  ],
  "vm_settings-requested_version_properties_false.json": [
    "1.0.8.133 FastTrack 1",
    "2021-11-16T14:33:20.000000Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/9.9.9.9//n/n/2 Test/9.9.9.9//n/n/2",
    "enabled 1 0:on:0:px:0",
    "enabled 1 0:on:0:px:0",
    "enabled 3 0:on:0:p-:0",
    "enabled 3 multi 0:on:0:p-:0 0:on:0:p-:0 0:on:0:p-:0",
  ],
  "vm_settings-supported_hgap_version_for_signature.json": [
    "1.0.8.159 FastTrack signatures 1",
    "2021-11-16T13:22:50.620529Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 signed 0:on:0:px:0",
    "enabled 3 0:on:0:px:0",
  ],
  "vm_settings-unsupported_hgap_version_for_signature.json": [
    "1.0.8.158 FastTrack 1",
    "2021-11-16T13:22:50.620529Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 0:on:0:px:0",
  ],
  "vm_settings-unsupported_version.json": [
    "1.0.8.116 FastTrack 1",
    "2021-11-16T13:22:50.620522Z BlockBlob held",
    "Prod/////2 Test/////2",
    "enabled 3 0:on:1:p-:1",
  ],
  "vm_settings.json": [
    "1.0.8.133 FastTrack 1",
    "2021-11-16T13:22:50.620529Z BlockBlob held +MultipleExtensionsPerHandler",
    "Prod/////2 Test/////2",
    "enabled 3 signed 0:on:0:px:0",
    "enabled 3 0:on:0:px:0",
    "enabled 3 0:on:1:p-:1",
    "enabled 3 multi 0:on:2:p-:2 0:on:1:p-:1 0:on:0:p-:0",
    "enabled 3 0:on:0:-x:0",
  ],
};

const read = (name: string): string => readFixture(`hostgaplugin/${name}`);

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  test("every sample message of the host plugin is judged here", () => {
    expect(listFixtures("hostgaplugin")).toEqual(
      [...Object.keys(DOCUMENTS), "in_vm_artifacts_profile.json"].toSorted(),
    );
    expect(parseOnHold(read("in_vm_artifacts_profile.json"))).toBe(true);
  });

  for (const [name, expected] of Object.entries(DOCUMENTS).filter(([file]) =>
    file.endsWith(".xml"),
  ))
    test(`wire-protocol.md ECFG-01 ECFG-03 ECFG-21 ECFG-26 ECFG-27: ${name}`, () => {
      expect(goalText(parseExtensionsConfig(read(name), "10").goal)).toEqual([...expected]);
    });

  for (const [name, expected] of Object.entries(DOCUMENTS).filter(([file]) =>
    file.endsWith(".json"),
  ))
    test(`wire-protocol.md VMS-30 VMS-32 VMS-33 VMS-34 VMS-36 VMS-38 VMS-40 VMS-42 VMS-43 FIX-15: ${name}`, () => {
      const { hostPluginVersion, source, goal } = parseVmSettings(read(name), "1");
      const first = `${hostPluginVersion} ${source}${goal.signatureCapable ? " signatures" : ""} ${goal.sequence}`;
      expect([first, ...goalText(goal)]).toEqual([...expected]);
      const redacted = redactVmSettings(read(name));
      for (const { protectedSettings } of goal.handlers.flatMap(({ settings }) => settings))
        if (protectedSettings !== null) expect(redacted.includes(protectedSettings)).toBe(false);
      const query = goal.statusBlob?.url.split("?")[1];
      if (query !== undefined) expect(redacted).not.toContain(query);
      expect(goalText(parseVmSettings(redacted, "1").goal)).toEqual(goalText(goal));
    });

  test("wire-protocol.md VMS-10 FIX-15: the old host plugin is not used, the others are", () => {
    const version = (name: string): string => parseVmSettings(read(name), "1").hostPluginVersion;
    expect(isSupportedHostPlugin(version("vm_settings-unsupported_version.json"))).toBe(false);
    expect(isSupportedHostPlugin(version("vm_settings.json"))).toBe(true);
  });

  test("wire-protocol.md GS-40 FIX-15: the settings with a missing certificate are the only ones that name an unknown thumbprint", () => {
    const known = [{ thumbprint: "F6ABAA61098A301EBB8A571C3C7CF77F355F7FA9", hasPrivateKey: true }];
    const unknown = (name: string): readonly string[] =>
      unknownThumbprints({
        incarnation: "1",
        vm: { containerId: "c", instanceId: "i", configName: "n" },
        extensions: parseVmSettings(read(name), "1").goal,
        certificates: known,
        remoteAccess: undefined,
      });
    expect(unknown("vm_settings-missing_cert.json")).toHaveLength(1);
    expect(unknown("vm_settings.json")).toEqual([]);
  });
}
