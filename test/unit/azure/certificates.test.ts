import { expect, test } from "bun:test";
import { createHash, X509Certificate } from "node:crypto";
import {
  createCertificateStore,
  matchCertificates,
  parseCertificatesDocument,
  type CertificateFetch,
} from "../../../src/azure/certificates.ts";
import { readTransport, type Transport } from "../../../src/azure/transport.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import type { HttpRequest } from "../../../src/system/http.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  certificatesXml,
  createMachine,
  createPlatform,
  ENDPOINT,
  LIB,
  makeCertificate,
  URLS,
  withOpenssl,
  type Answer,
  type TestCertificate,
} from "./platform.ts";

const TENANT = makeCertificate("/DC=Windows Azure CRP Certificate Generator");
const EC_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
const ISSUER = makeCertificate("/CN=CRP", EC_KEY);
const EC = makeCertificate("/CN=ec", EC_KEY);

const TRANSPORT_PAIR = makeCertificate("/CN=LinuxTransport");
const TRANSPORT = {
  keyFile: `${LIB}/TransportPrivate.pem`,
  certificateFile: `${LIB}/TransportCert.pem`,
} as const;

const GOOD = certificatesXml(TENANT, { recipient: TRANSPORT_PAIR.certificate });

const thumbprint = ({ certificate }: TestCertificate): string =>
  createHash("sha1").update(new X509Certificate(certificate).raw).digest("hex").toUpperCase();

interface Case {
  readonly system: FakeSystem;
  readonly transport: Transport;
  fetch(answer: (request: HttpRequest) => Answer | Error): Promise<CertificateFetch>;
  [Symbol.dispose](): void;
}

function machine(): Case {
  const system = createMachine({ openssl: true });
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  const { keyFile, certificateFile } = TRANSPORT;
  system.files.write(keyFile, TRANSPORT_PAIR.key, { mode: 0o400 });
  system.files.write(certificateFile, TRANSPORT_PAIR.certificate, { mode: 0o400 });
  const transport = readTransport(system, LIB) ?? expect.unreachable();
  const store = createCertificateStore(system, LIB, { openssl: "openssl" });
  system.commands.length = 0;
  return {
    system,
    transport,
    fetch: (answer) => {
      platform.answers.set(URLS.certificates, answer);
      return store.read(wire, URLS.certificates, transport);
    },
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}
const ciphers = (system: FakeSystem): (string | undefined)[] =>
  system.requests
    .filter(({ url }) => url === URLS.certificates)
    .map(({ headers }) => headers?.["x-ms-cipher-name"]);

test("wire-protocol.md WIRE-05 CERT-04 CERT-05 CERT-08 CERT-12 CERT-13 CERT-15 FILE-06 FILE-07 FILE-10: certificates are decrypted with two runs of openssl, key before certificate, and only we can read them", async () => {
  using c = machine();
  const text = certificatesXml(TENANT, { others: [ISSUER], recipient: c.transport.certificate });
  expect(await c.fetch(() => ({ body: text }))).toEqual({
    failure: undefined,
    summary: [
      { thumbprint: thumbprint(TENANT), hasPrivateKey: true },
      { thumbprint: thumbprint(ISSUER), hasPrivateKey: false },
    ],
  });
  expect(c.system.requests[0]?.headers).toEqual({
    "x-ms-agent-name": "WALinuxAgent",
    "x-ms-version": "2012-11-30",
    "x-ms-guest-agent-public-x509-cert": c.transport.certificate,
    "x-ms-cipher-name": "AES128_CBC",
  });
  expect(c.system.commands.map(([, verb]) => verb)).toEqual(["cms", "pkcs12"]);
  const names = [
    "Certificates.p7m",
    "Certificates.xml",
    `${thumbprint(TENANT)}.crt`,
    `${thumbprint(TENANT)}.prv`,
    `${thumbprint(ISSUER)}.crt`,
  ];
  for (const name of names) expect(c.system.files.stat(`${LIB}/${name}`)?.mode).toBe(0o400);
  expect(
    c.system.files.list(LIB).filter((name) => !/^Transport|^waagent_transport/.test(name)),
  ).toEqual(names.toSorted());
  expect(c.system.files.readText(`${LIB}/Certificates.xml`)).toBe(text);
  const mime = c.system.files.readText(`${LIB}/Certificates.p7m`);
  expect(mime).toStartWith(
    `MIME-Version:1.0\nContent-Disposition: attachment; filename="${LIB}/Certificates.p7m"\nContent-Type: application/x-pkcs7-mime; name="${LIB}/Certificates.p7m"\nContent-Transfer-Encoding: base64\n\nMI`,
  );
  expect(c.system.files.readText(`${LIB}/${thumbprint(TENANT)}.crt`).trim()).toBe(
    TENANT.certificate.trim(),
  );
  const certificate = new X509Certificate(
    c.system.files.readText(`${LIB}/${thumbprint(TENANT)}.crt`),
  );
  const { createPrivateKey } = await import("node:crypto");
  expect(
    certificate.checkPrivateKey(
      createPrivateKey(c.system.files.readText(`${LIB}/${thumbprint(TENANT)}.prv`)),
    ),
  ).toBe(true);
});

test("wire-protocol.md DB-09 CERT-10 CERT-11: no argument and no other file ever holds a key, the empty password is given and the MAC skipped first", async () => {
  using c = machine();
  await c.fetch(() => ({ body: GOOD }));
  const [cms, pkcs12] = c.system.commands;
  expect(cms?.slice(1, 5)).toEqual(["cms", "-decrypt", "-inform", "DER"]);
  expect(pkcs12).toEqual(["openssl", "pkcs12", "-nodes", "-password", "pass:", "-nomacver"]);
  const withKey = c.system.files
    .list(LIB)
    .filter((name) => c.system.files.readText(`${LIB}/${name}`).includes("PRIVATE KEY"));
  expect(withKey.toSorted()).toEqual(
    [`${thumbprint(TENANT)}.prv`, "TransportPrivate.pem"].toSorted(),
  );
});

test("wire-protocol.md CERT-08: the saved message is what openssl cms decrypts", async () => {
  using c = machine();
  await c.fetch(() => ({ body: GOOD }));
  const real = (name: string): string => c.system.files.realPath(`${LIB}/${name}`);
  const pfx = withOpenssl((run) =>
    run(
      "cms",
      "-decrypt",
      "-in",
      real("Certificates.p7m"),
      "-inkey",
      real("TransportPrivate.pem"),
      "-recip",
      real("TransportCert.pem"),
    ),
  );
  expect(pfx.length).toBeGreaterThan(1000);
});

test("wire-protocol.md CERT-09 TRAP-08: 3DES content addressed by key identifier is decrypted as well, whatever was asked for", async () => {
  using c = machine();
  const result = await c.fetch(() => ({
    body: certificatesXml(TENANT, { recipient: c.transport.certificate, cipher: "-des3" }),
  }));
  expect(result.summary).toEqual([{ thumbprint: thumbprint(TENANT), hasPrivateKey: true }]);
  expect(ciphers(c.system)).toEqual(["AES128_CBC"]);
});

test("wire-protocol.md CERT-13: keys on elliptic curves work", async () => {
  using c = machine();
  const result = await c.fetch(() => ({
    body: certificatesXml(EC, { recipient: c.transport.certificate }),
  }));
  expect(result.summary).toEqual([{ thumbprint: thumbprint(EC), hasPrivateKey: true }]);
  expect(c.system.files.readText(`${LIB}/${thumbprint(EC)}.prv`)).toContain("PRIVATE KEY");
});

test("wire-protocol.md CERT-04: a failed request or decryption moves on to the second cipher", async () => {
  using c = machine();
  const good = GOOD;
  const failed = await c.fetch((request) =>
    request.headers?.["x-ms-cipher-name"] === "AES128_CBC" ? { status: 404 } : { body: good },
  );
  expect(failed.failure).toBeUndefined();
  expect(failed.summary.length).toBe(1);
  expect(ciphers(c.system)).toEqual(["AES128_CBC", "DES_EDE3_CBC"]);
  expect(c.system.events).toContainEqual(
    expect.objectContaining({ operation: "GoalStateCertificates", success: false }),
  );
  c.system.events.length = 0;
  const foreign = certificatesXml(EC, { recipient: ISSUER.certificate });
  const decrypted = await c.fetch((request) =>
    request.headers?.["x-ms-cipher-name"] === "AES128_CBC" ? { body: foreign } : { body: good },
  );
  expect(decrypted.summary.length).toBe(1);
  expect(c.system.events).toContainEqual(
    expect.objectContaining({ operation: "GoalState", success: false }),
  );
});

test("wire-protocol.md CERT-16 FIX-04: when both ciphers fail there is one error event, no summary, and no exception", async () => {
  using c = machine();
  const { summary, failure } = await c.fetch(() => ({
    body: certificatesXml(TENANT, { recipient: ISSUER.certificate }),
  }));
  expect(summary).toEqual([]);
  expect(failure).toContain("AES128_CBC");
  expect(failure).toContain("DES_EDE3_CBC");
  expect(
    c.system.events
      .filter(({ operation }) => operation === "GoalStateCertificates")
      .map(({ success }) => success),
  ).toEqual([false]);
  expect(c.system.events.filter(({ operation }) => operation === "GoalState").length).toBe(2);
});

test("wire-protocol.md CERT-06 CERT-07 FIX-04: no data means no certificates, an empty format is PFX, another one is skipped with a warning", async () => {
  using c = machine();
  const good = certificatesXml(TENANT, { recipient: c.transport.certificate, format: "" });
  expect((await c.fetch(() => ({ body: good }))).summary.length).toBe(1);
  expect(
    (await c.fetch(() => ({ body: good.replace("<Format></Format>", "") }))).summary.length,
  ).toBe(1);
  c.system.commands.length = 0;
  const none =
    "<CertificateFile><Version>1</Version><Incarnation>1</Incarnation><Format>Pkcs7BlobWithPfxContents</Format><Data></Data></CertificateFile>";
  expect(await c.fetch(() => ({ body: none }))).toEqual({ summary: [], failure: undefined });
  expect(
    await c.fetch(() => ({
      body: good.replace("<Format></Format>", "<Format>CertificatesNonPfxPackage</Format>"),
    })),
  ).toEqual({ summary: [], failure: undefined });
  expect(c.system.commands).toEqual([]);
  expect(c.system.lines.at(-1)).toContain("CertificatesNonPfxPackage");
});

test("unchanged content costs no openssl, unless a file is gone", async () => {
  using c = machine();
  const text = GOOD;
  const first = await c.fetch(() => ({ body: text }));
  c.system.commands.length = 0;
  expect(await c.fetch(() => ({ body: text }))).toEqual(first);
  expect(c.system.commands).toEqual([]);
  c.system.files.remove(`${LIB}/${thumbprint(TENANT)}.prv`);
  await c.fetch(() => ({ body: text }));
  expect(c.system.commands.length).toBe(2);
  expect(c.system.files.exists(`${LIB}/${thumbprint(TENANT)}.prv`)).toBe(true);
});

test("wire-protocol.md CERT-18: certificates of earlier goal states stay", async () => {
  using c = machine();
  await c.fetch(() => ({ body: GOOD }));
  await c.fetch(() => ({ body: certificatesXml(EC, { recipient: c.transport.certificate }) }));
  for (const owner of [TENANT, EC])
    for (const extension of ["crt", "prv"])
      expect(c.system.files.exists(`${LIB}/${thumbprint(owner)}.${extension}`)).toBe(true);
});

test("wire-protocol.md CERT-15: of two certificates with one key the last is listed, at the place of the first, and gets the key", () => {
  const again = withOpenssl((run, directory) => {
    const { writeFileSync } = require("node:fs") as typeof import("node:fs");
    writeFileSync(`${directory}/k.pem`, TENANT.key);
    return run("req", "-x509", "-subj", "/CN=again", "-days", "1", "-key", "k.pem").toString();
  });
  const renewed = { certificate: again, key: TENANT.key };
  const { entries, summary, orphans } = matchCertificates(
    TENANT.key + TENANT.certificate + ISSUER.certificate + again,
  );
  expect(summary).toEqual([
    { thumbprint: thumbprint(renewed), hasPrivateKey: true },
    { thumbprint: thumbprint(ISSUER), hasPrivateKey: false },
  ]);
  expect(entries.map((entry) => [entry.thumbprint, entry.keyPem !== undefined])).toEqual([
    [thumbprint(TENANT), false],
    [thumbprint(ISSUER), false],
    [thumbprint(renewed), true],
  ]);
  expect(orphans).toBe(0);
});

test("wire-protocol.md CERT-14: bag attributes around the blocks do not matter, and the files hold plain PEM", () => {
  const pem = `Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n${TENANT.key}Bag Attributes\n    friendlyName: TenantEncryptionCert\nsubject=DC=x\n${TENANT.certificate}`;
  const [entry] = matchCertificates(pem).entries;
  expect(entry?.certificatePem).toStartWith("-----BEGIN CERTIFICATE-----\n");
  expect(entry?.keyPem).toMatch(/^-----BEGIN PRIVATE KEY-----\n[^-]+-----END PRIVATE KEY-----\n$/);
});

test("a key without a certificate is counted and does no harm", () => {
  const { summary, orphans } = matchCertificates(EC.key + TENANT.key + TENANT.certificate);
  expect(summary).toEqual([{ thumbprint: thumbprint(TENANT), hasPrivateKey: true }]);
  expect(orphans).toBe(1);
});

test("damaged certificates and keys are refused without showing them", () => {
  const damaged = TENANT.key.replace(/\n[A-Za-z0-9+/]{64}\n/, "\nAAAA\n");
  let message = "";
  try {
    matchCertificates(damaged + TENANT.certificate);
  } catch (error) {
    message = `${(error as Error).message}${String((error as Error).cause ?? "")}`;
  }
  expect(message).toContain("private key");
  expect(message).not.toContain("AAAA");
  expect(() =>
    matchCertificates("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
  ).toThrow("certificate");
});

test("a certificate whose key is of an unknown kind is kept, without a private key", () => {
  const der = Buffer.from(new X509Certificate(ISSUER.certificate).raw);
  const curve = der.indexOf(Buffer.from("06082a8648ce3d030107", "hex"));
  der[curve + 9] = 0x7f; // no curve has this number
  const odd = `-----BEGIN CERTIFICATE-----\n${der
    .toString("base64")
    .match(/.{1,64}/g)
    ?.join("\n")}\n-----END CERTIFICATE-----\n`;
  const { summary, entries } = matchCertificates(TENANT.key + odd + TENANT.certificate);
  expect(summary.map(({ hasPrivateKey }) => hasPrivateKey)).toEqual([false, true]);
  expect(entries).toHaveLength(2);
});

test("a document that is no certificates document is refused by name", () => {
  for (const text of ["", "<x", "{}"])
    expect(() => parseCertificatesDocument(text)).toThrow("The certificates document");
  expect(() =>
    parseCertificatesDocument("<CertificateFile><Data>***</Data></CertificateFile>"),
  ).toThrow("base64");
});
