import { expect, test } from "bun:test";
import { createCertificateStore } from "../../src/azure/certificates.ts";
import { parseGoalState } from "../../src/azure/goal-state-document.ts";
import { parseManifest } from "../../src/azure/manifest.ts";
import { readTransport } from "../../src/azure/transport.ts";
import { createWireClient } from "../../src/azure/wire-client.ts";
import { isAgentError } from "../../src/base/error.ts";
import { parseJson } from "../../src/base/json.ts";
import { createMachine, createPlatform, ENDPOINT, LIB, URLS } from "../unit/azure/platform.ts";
import { areFixturesThere, listFixtures, readFixture, skipWithoutFixtures } from "./fixtures.ts";

// The samples of the abandoned metadata protocol. This version speaks it no more (provisioning.md PROT-07); what its
// documents are good for is that none of our readers may take them for its own, and one certificate package.
const JSON_FILES = [
  "certificates.json",
  "ext_handler_pkgs.json",
  "ext_handlers.json",
  "ext_handlers_no_ext.json",
  "identity.json",
  "vmagent_manifest1.json",
  "vmagent_manifest2.json",
  "vmagent_manifests.json",
  "vmagent_manifests_invalid1.json",
  "vmagent_manifests_invalid2.json",
];

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const read = (name: string): string => readFixture(`metadata/${name}`);
  const code = (parse: () => unknown): string => {
    try {
      parse();
      return "accepted";
    } catch (error) {
      return isAgentError(error) ? error.code : "another error";
    }
  };

  test("every sample is JSON that no reader of the WireServer's documents accepts", () => {
    expect(listFixtures("metadata")).toEqual(
      [...JSON_FILES, "certificates_data.json", "trans_cert", "trans_prv"].toSorted(),
    );
    for (const name of JSON_FILES) {
      expect([name, code(() => parseJson(read(name), name))]).toEqual([name, "accepted"]);
      expect([name, code(() => parseManifest(read(name), name))]).toEqual([name, "bad-input"]);
      expect([name, code(() => parseGoalState(read(name)))]).toEqual([name, "bad-input"]);
    }
  });

  test("a document with raw line breaks in a string is no JSON, and the error says where", () => {
    expect(() => parseJson(read("certificates_data.json"), "the sample")).toThrow(
      'the sample is not valid JSON: unexpected "\\n" at line 1',
    );
  });

  test("wire-protocol.md CERT-09 CERT-10 CERT-13: the samples' certificate package, whose PFX is encrypted with RC2, is read with openssl's old algorithms", async () => {
    using system = createMachine({ openssl: true });
    const platform = createPlatform(system);
    system.files.write(`${LIB}/TransportPrivate.pem`, read("trans_prv"), { mode: 0o400 });
    system.files.write(`${LIB}/TransportCert.pem`, read("trans_cert"), { mode: 0o400 });
    const transport = readTransport(system, LIB) ?? expect.unreachable();
    const data = /"certificateData":"([^"]*)"/.exec(read("certificates_data.json"))?.[1] ?? "";
    platform.answers.set(URLS.certificates, {
      body: `<CertificateFile><Format>Pkcs7BlobWithPfxContents</Format><Data>${data}</Data></CertificateFile>`,
    });
    const store = createCertificateStore(system, LIB, { openssl: "openssl" });
    const wire = createWireClient(system, ENDPOINT);
    const { summary, failure } = await store.read(wire, URLS.certificates, transport);
    expect(failure).toBeUndefined();
    expect(summary.some(({ hasPrivateKey }) => hasPrivateKey)).toBe(true);
    expect(system.commands.at(-1)).toContain("-legacy");
  });
}
