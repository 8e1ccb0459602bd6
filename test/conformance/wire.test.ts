import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import path from "node:path";
import { createCertificateStore } from "../../src/azure/certificates.ts";
import { parseExtensionsConfig, parseOnHold } from "../../src/azure/extensions-config.ts";
import { parseGoalState, parseVersions } from "../../src/azure/goal-state-document.ts";
import { parseHostingEnvironment } from "../../src/azure/hosting-environment.ts";
import { parseManifest } from "../../src/azure/manifest.ts";
import {
  redactExtensionsConfig,
  redactHostingEnvironment,
  REDACTED,
} from "../../src/azure/redaction.ts";
import { parseRemoteAccess } from "../../src/azure/remote-access.ts";
import { readTransport } from "../../src/azure/transport.ts";
import { createWireClient } from "../../src/azure/wire-client.ts";
import { parseXml } from "../../src/base/xml.ts";
import { createMachine, createPlatform, ENDPOINT, LIB, URLS } from "../unit/azure/platform.ts";
import {
  areFixturesThere,
  fixtures,
  listFixtures,
  readFixture,
  skipWithoutFixtures,
} from "./fixtures.ts";
import { goalText } from "./goal-text.ts";

/** What each ExtensionsConfig means; see goalText for the notation. */
const CONFIGS: Readonly<Record<string, readonly string[]>> = {
  "ext_conf-no_encoded_signature.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf-no_gs_metadata.xml": [
    "0001-01-01T00:00:00.000000Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf-vm_access_with_invalid_signature.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 signed 0:on:0:px:0",
  ],
  "ext_conf-vm_access_with_signature.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 signed 0:on:0:px:0",
  ],
  "ext_conf.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 signed 0:on:0:px:0",
  ],
  "ext_conf_additional_locations.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 4 0:on:0:px:0",
  ],
  "ext_conf_aks_extension.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:p-:0",
    "enabled 2 0:on:0:p-:0",
    "enabled 2 0:on:0:p-:0",
    "enabled 2",
  ],
  "ext_conf_autoupgrade.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Win8/////2 Win7/////2",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_autoupgrade_internalversion.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Win8/////2 Win7/////2",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_dependencies_with_empty_settings.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:1:px:1",
    "enabled 2",
  ],
  "ext_conf_downgrade_rsm_version.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/9.9.9.0/9.9.9.9/y/y/1 Test/9.9.9.0/9.9.9.9/y/y/1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_in_vm_artifacts_profile.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_in_vm_empty_artifacts_profile.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_in_vm_metadata.xml": [
    "2020-11-09T17:48:50.412125Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_internalversion.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Win8/////2 Win7/////2",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_invalid_vm_metadata.xml": [
    "0001-01-01T00:00:00.000000Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_missing_family.xml": ["2021-11-16T13:22:50.620522Z BlockBlob free", "Prod/////0"],
  "ext_conf_multiple_extensions.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
    "enabled 2 0:on:0:px:0",
    "enabled 2 0:on:0:px:0",
    "enabled 2 0:on:0:px:0",
    "enabled 2 0:on:0:p-:0",
  ],
  "ext_conf_no_extensions-block_blob.xml": ["2021-11-16T13:22:50.620522Z BlockBlob free", ""],
  "ext_conf_no_extensions-no_status_blob.xml": ["2021-11-16T13:22:50.620522Z no blob free", ""],
  "ext_conf_no_extensions-page_blob.xml": [
    "2021-11-16T13:22:50.620522Z PageBlob free",
    "Prod/////1 Test/////1",
  ],
  "ext_conf_no_public.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Win8/////11 Win7/////11",
    "enabled 2 0:on:0:-x:0",
  ],
  "ext_conf_no_settings.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Win8/////11 Win7/////11",
    "enabled 2",
  ],
  "ext_conf_required_features.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free +TestRequiredFeature1 +TestRequiredFeature2 +TestRequiredFeature3",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_rsm_version.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/9.9.9.10//y/y/1 Test/9.9.9.10//y/y/1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_sequencing.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:2:px:1",
    "enabled 2 0:on:1:px:0",
  ],
  "ext_conf_upgradeguid.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/////1 Test/////1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_version_missing_in_agent_family.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod///y/y/1 Test///y/y/1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_version_missing_in_manifest.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/9.9.9.999//y/y/1 Test/9.9.9.999//y/y/1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_version_not_from_rsm.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/9.9.9.10//n/y/1 Test/9.9.9.10//n/y/1",
    "enabled 2 0:on:0:px:0",
  ],
  "ext_conf_vm_not_enabled_for_rsm_upgrades.xml": [
    "2021-11-16T13:22:50.620522Z BlockBlob free",
    "Prod/9.9.9.10//n/n/1 Test/9.9.9.10//n/n/1",
    "enabled 2 0:on:0:px:0",
  ],
  "multi-config/ext_conf_mc_disabled_extensions.xml": [
    "2020-11-20T23:49:15.552231Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/////1 Test/////1",
    "enabled 2 multi 1:off:0:p-:0 2:off:0:p-:0 99:on:0:p-:0 101:on:0:p-:0",
    "enabled 2 10:on:0:p-:0",
  ],
  "multi-config/ext_conf_multi_config_no_dependencies.xml": [
    "2020-11-20T23:49:15.552231Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/////1 Test/////1",
    "enabled 2 multi 1:on:0:p-:0 2:on:0:p-:0 3:on:0:p-:0",
    "enabled 2 9:on:0:p-:0",
  ],
  "multi-config/ext_conf_with_disabled_multi_config.xml": [
    "2020-11-21T00:16:08.852150Z PageBlob free +MultipleExtensionsPerHandler",
    "Prod/////1 Test/////1",
    "enabled 2 multi 3:on:0:p-:0 3:on:1:p-:1 1:off:4:p-:4",
    "enabled 2 1:on:0:p-:0",
    "enabled 2 2:on:0:p-:0",
    "enabled 2 3:on:1:p-:1",
    "enabled 2 2:on:2:px:2",
  ],
  "multi-config/ext_conf_with_multi_config.xml": [
    "2020-11-20T23:49:15.552231Z PageBlob free +MultipleExtensionsPerHandler",
    "Prod/////1 Test/////1",
    "enabled 2 multi 2:on:0:p-:0 2:on:3:p-:3 1:on:4:p-:4",
    "enabled 2 1:on:0:p-:0",
    "enabled 2 1:on:0:p-:0",
    "enabled 2 2:on:1:p-:1",
    "enabled 2 1:on:2:px:2",
  ],
  "multi-config/ext_conf_with_multi_config_dependencies.xml": [
    "2020-11-20T23:49:15.552231Z BlockBlob free +MultipleExtensionsPerHandler",
    "Prod/////1 Test/////1",
    "enabled 2 multi 2:on:0:p-:0 2:on:2:p-:2 1:on:3:p-:3",
    "enabled 2 2:on:1:p-:1",
    "enabled 2 1:on:0:p-:0",
  ],
};

/** Version, i for internal, d for "no major upgrade", number of URIs. */
const MANIFESTS = {
  ga: "1.0.0:1 1.1.0:1 1.2.0:1 2.0.0:1 2.1.0:1 2.5.0:1 9.9.9.10:1 99999.0.0.0:1",
  noUpgrade: "1.0.0:1 1.1.0:1 1.2.0:1",
  noUris: "1.0.0:1 1.1.0:1 1.2.0:1 2.0.0:1 2.1.0:1 9.9.9.10:1 99999.0.0.0:0",
  extension:
    "1.0.0:1 1.1.0:1 1.1.1:1 1.2.0:1 2.0.0:1 2.1.0d:1 2.1.1:1 2.2.0:1 3.0:1 3.1:1 4.0.0.0:1 4.0.0.1:1 4.1.0.0:1 1.3.0i:1 2.3.0i:1 2.4.0i:1",
  deletion: "1.0.0:1",
  vmAccess: "1.7.0:1",
};

const wire = (name: string): string => readFixture(`wire/${name}`);

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  test("wire-protocol.md ECFG-01 ECFG-02 ECFG-03 ECFG-05 ECFG-06 ECFG-21 ECFG-22 ECFG-26 ECFG-27 FIX-08 FIX-09 FIX-10 FIX-11 FIX-12 FIX-13 FIX-14: every ExtensionsConfig means what it should", () => {
    const names = [
      ...listFixtures("wire"),
      ...listFixtures("wire/multi-config").map((name) => `multi-config/${name}`),
    ];
    const configs = names.filter((name) => /(?:^|\/)ext_conf.*\.xml$/.test(name));
    expect(configs.toSorted()).toEqual(Object.keys(CONFIGS).toSorted());
    for (const name of configs) {
      const { goal } = parseExtensionsConfig(wire(name), "9");
      expect([name, ...goalText(goal)]).toEqual([name, ...(CONFIGS[name] ?? [])]);
      expect(goal).toMatchObject({
        id: "incarnation_9",
        source: "Fabric",
        channel: "WireServer",
        sequence: "9",
        signatureCapable: true,
      });
    }
  });

  test("wire-protocol.md ECFG-04 FIX-11 FIX-16: artifacts profiles and metadata", () => {
    const profile = (name: string): string | undefined =>
      parseExtensionsConfig(wire(name), "1").artifactsProfileUri;
    expect(profile("ext_conf_in_vm_artifacts_profile.xml")).toMatch(/^https?:\/\/\S+$/);
    expect(profile("ext_conf_in_vm_empty_artifacts_profile.xml")).toBeUndefined();
    expect(profile("ext_conf.xml")).toBeUndefined();
    expect(parseOnHold(wire("in_vm_artifacts_profile.json"))).toBe(true);
    const { goal } = parseExtensionsConfig(wire("ext_conf_in_vm_metadata.xml"), "1");
    expect([goal.activityId, goal.correlationId]).toEqual([
      "555e551c-600e-4fb4-90ba-8ab8ec28eccc",
      "400de90b-522e-491f-9d89-ec944661f531",
    ]);
    const zero = "00000000-0000-0000-0000-000000000000";
    for (const name of ["ext_conf_invalid_vm_metadata.xml", "ext_conf-no_gs_metadata.xml"])
      expect(parseExtensionsConfig(wire(name), "1").goal).toMatchObject({
        activityId: zero,
        correlationId: zero,
      });
  });

  test("wire-protocol.md HIST-20 HIST-22: no ExtensionsConfig keeps the query of its status URL or a protected setting, and nothing else is lost", () => {
    for (const name of Object.keys(CONFIGS)) {
      const text = wire(name);
      const { goal } = parseExtensionsConfig(text, "1");
      const redacted = redactExtensionsConfig(text);
      for (const { protectedSettings } of goal.handlers.flatMap(({ settings }) => settings))
        if (protectedSettings !== null) expect(redacted.includes(protectedSettings)).toBe(false);
      const query = goal.statusBlob?.url.split("?")[1];
      if (query !== undefined) {
        expect(redacted).not.toContain(query.replaceAll("&", "&amp;"));
        expect(redacted).toContain(REDACTED);
      }
      expect(goalText(parseExtensionsConfig(redacted, "1").goal)).toEqual(goalText(goal));
    }
  });

  test("wire-protocol.md GS-01 GS-02 GS-04 FIX-01 FIX-02 FIX-03: goal states", () => {
    const whole = parseGoalState(wire("goal_state.xml"));
    expect(whole).toMatchObject({
      incarnation: "1",
      containerId: "c6d5526c-5ac2-4200-b6e2-56f2b70c5ab2",
      instanceId: "b61f93d0-e1ed-40b2-b067-22c243233448.MachineRole_IN_0",
      remoteAccessUri: undefined,
    });
    expect(whole).toHaveProperty(
      "configName",
      "bc8b9d47-b5ed-4704-85d9-fd74cc967ec2.5.bc8b9d47-b5ed-4704-85d9-fd74cc967ec2.5._canary.1.xml",
    );
    expect(parseGoalState(wire("goal_state_no_certs.xml"))).toMatchObject({
      certificatesUri: undefined,
    });
    expect(parseGoalState(wire("goal_state_no_ext.xml"))).toMatchObject({
      extensionsConfigUri: undefined,
    });
    expect(parseGoalState(wire("goal_state_noop.xml"))).toHaveProperty("incomplete");
    const remote = parseGoalState(wire("goal_state_remote_access.xml"));
    expect("remoteAccessUri" in remote ? remote.remoteAccessUri : "").toMatch(/^http:\/\/\S+$/);
    expect(listFixtures("wire").filter((name) => name.startsWith("goal_state"))).toHaveLength(5);
  });

  test("wire-protocol.md WIRE-02 GS-50 GS-51: versions, environment and shared config", () => {
    expect(parseVersions(wire("version_info.xml"))).toEqual([
      "2012-11-30",
      "2010-12-15",
      "2010-28-10",
    ]);
    expect(parseHostingEnvironment(wire("hosting_env.xml"))).toEqual({
      vmName: "MachineRole_IN_0",
      roleName: "MachineRole",
      tenantName: "db00a7755a5e4e8a8fe4b19bc3b330c3",
    });
    expect(redactHostingEnvironment(wire("hosting_env.xml"))).not.toContain("DNZQ");
    expect(parseXml(wire("shared_config.xml"), "SharedConfig").name).toBe("SharedConfig");
  });

  test("wire-protocol.md FIX-17 JIT-04: users with ISO dates are kept without an expiration", () => {
    const users = (name: string) =>
      parseRemoteAccess(wire(name)).users.map((user) => [user.name, user.expiresAt]);
    expect(users("remote_access_no_accounts.xml")).toEqual([]);
    expect(users("remote_access_single_account.xml")).toHaveLength(1);
    expect(users("remote_access_two_accounts.xml")).toEqual([
      ["testAccount1", undefined],
      ["testAccount2", undefined],
    ]);
    expect(users("remote_access_duplicate_accounts.xml").map(([name]) => name)).toEqual([
      "testAccount",
      "testAccount",
    ]);
  });

  test("wire-protocol.md MAN-01: manifests", () => {
    const summary = (name: string): string =>
      parseManifest(wire(name), name)
        .map(
          (one) =>
            `${one.version}${one.isInternal ? "i" : ""}${one.disallowMajorUpgrade ? "d" : ""}:${one.uris.length}`,
        )
        .join(" ");
    expect({
      ga: summary("ga_manifest.xml"),
      noUpgrade: summary("ga_manifest_no_upgrade.xml"),
      noUris: summary("ga_manifest_no_uris.xml"),
      extension: summary("manifest.xml"),
      deletion: summary("manifest_deletion.xml"),
      vmAccess: summary("manifest_vm_access.xml"),
    }).toEqual(MANIFESTS);
  });

  test("wire-protocol.md CERT-05 CERT-07 CERT-09 CERT-10 CERT-12 CERT-13 CERT-15 FIX-04: certificates as the platform sends them", async () => {
    using system = createMachine({ openssl: true });
    const platform = createPlatform(system);
    system.files.write(`${LIB}/TransportPrivate.pem`, wire("trans_prv"), { mode: 0o400 });
    system.files.write(`${LIB}/TransportCert.pem`, wire("trans_cert"), { mode: 0o400 });
    const transport = readTransport(system, LIB) ?? expect.unreachable();
    const client = createWireClient(system, ENDPOINT);
    const store = createCertificateStore(system, LIB, { openssl: "openssl" });
    const read = (name: string) => {
      platform.answers.set(URLS.certificates, { body: wire(name) });
      return store.read(client, URLS.certificates, transport);
    };
    const expected = [
      { thumbprint: "F6ABAA61098A301EBB8A571C3C7CF77F355F7FA9", hasPrivateKey: true },
      { thumbprint: "8979F1AC8C4215827BF3B5A403E6137B504D02A4", hasPrivateKey: false },
    ];
    for (const name of ["certs.xml", "certs_no_format_specified.xml"])
      expect(await read(name)).toEqual({ summary: expected, failure: undefined });
    const [tenant, issuer] = expected.map(({ thumbprint }) => thumbprint);
    expect(system.files.list(LIB).filter((name) => /^[0-9A-F]{40}\./.test(name))).toEqual(
      [`${tenant}.crt`, `${tenant}.prv`, `${issuer}.crt`].toSorted(),
    );
    expect(await read("certs_format_not_pfx.xml")).toEqual({ summary: [], failure: undefined });
  });

  test("every sample message under wire/ is judged by a test here, keys and sshd_config beside it", () => {
    const judged =
      /^(?:certs|ext_conf|ga_manifest|goal_state|manifest|remote_access|hosting_env|shared_config|version_info|in_vm_artifacts_profile)/;
    // keys.test.ts judges these.
    const keys = [
      ...["ec-key.pem", "ec-key.pub.pem", "encrypted.enc", "rsa-key.pem", "rsa-key.pub.pem"],
      ...["sample.pem", "sshd_config", "trans_cert", "trans_prv", "trans_pub"],
    ];
    expect(listFixtures("wire").filter((name) => !judged.test(name))).toEqual(keys);
    expect(
      readdirSync(path.join(fixtures, "wire/multi-config")).every((name) => judged.test(name)),
    ).toBe(true);
  });
}
