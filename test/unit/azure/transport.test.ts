import { expect, test } from "bun:test";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { ensureTransport, readTransport, type Transport } from "../../../src/azure/transport.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { createMachine, LIB, makeCertificate, withOpenssl } from "./platform.ts";

const OPTIONS = { openssl: "openssl", fresh: true, fips: false } as const;
const KEY = `${LIB}/TransportPrivate.pem` as const;
const CERTIFICATE = `${LIB}/TransportCert.pem` as const;

test("wire-protocol.md CERT-01 CERT-02 FILE-04 FILE-05 provisioning.md PROT-05: the pair is RSA 2048, self-signed for 730 days as LinuxTransport, with a key identifier", async () => {
  using system = createMachine({ openssl: true });
  const transport = await ensureTransport(system, LIB, OPTIONS);
  const certificate = new X509Certificate(system.files.readText(CERTIFICATE));
  expect(certificate.subject).toBe("CN=LinuxTransport");
  expect(certificate.issuer).toBe("CN=LinuxTransport");
  expect(certificate.ca).toBe(true);
  const days = (Date.parse(certificate.validTo) - Date.parse(certificate.validFrom)) / 86_400_000;
  expect(days).toBe(730);
  expect(certificate.publicKey.asymmetricKeyType).toBe("rsa");
  expect(certificate.publicKey.asymmetricKeyDetails?.modulusLength).toBe(2048);
  const text = withOpenssl((run) =>
    run("x509", "-noout", "-text", "-in", system.files.realPath(CERTIFICATE)).toString(),
  );
  expect(text).toContain("Subject Key Identifier");
  expect(text).toContain("sha256WithRSAEncryption");
  expect(system.files.readText(KEY)).toStartWith("-----BEGIN PRIVATE KEY-----");
  expect(certificate.checkPrivateKey(createPrivateKey(system.files.readText(KEY)))).toBe(true);
  expect([system.files.stat(KEY)?.mode, system.files.stat(CERTIFICATE)?.mode]).toEqual([
    0o400, 0o400,
  ]);
  expect(transport.certificate).toBe(certificate.raw.toString("base64"));
  expect(system.commands).toEqual([expect.arrayContaining(["req", "-x509", "-key"])]);
  expect(JSON.stringify(system.commands)).not.toContain("PRIVATE KEY");
});

test("wire-protocol.md CERT-01 CERT-02: on a machine held to FIPS openssl makes the key too", async () => {
  using system = createMachine({ openssl: true });
  await ensureTransport(system, LIB, { ...OPTIONS, fips: true });
  expect(system.commands).toEqual([expect.arrayContaining(["req", "-newkey", "rsa:2048"])]);
  const certificate = new X509Certificate(system.files.readText(CERTIFICATE));
  expect(certificate.publicKey.asymmetricKeyDetails?.modulusLength).toBe(2048);
  expect(certificate.checkPrivateKey(createPrivateKey(system.files.readText(KEY)))).toBe(true);
  expect(system.files.stat(KEY)?.mode).toBe(0o400);
});

test("wire-protocol.md DB-26: one pair per boot, a new one after the next boot or near its end", async () => {
  using system = createMachine({ openssl: true });
  system.files.makeDirectory("/proc/sys/kernel/random");
  system.files.write("/proc/sys/kernel/random/boot_id", "boot-1\n");
  const first = await ensureTransport(system, LIB, OPTIONS);
  expect(await ensureTransport(system, LIB, OPTIONS)).toEqual(first);
  system.files.write("/proc/sys/kernel/random/boot_id", "boot-2\n");
  const second = await ensureTransport(system, LIB, OPTIONS);
  expect(second.certificate).not.toBe(first.certificate);
  system.clock.step(701 * 86_400_000);
  const third = await ensureTransport(system, LIB, { ...OPTIONS, fresh: false });
  expect(third.certificate).not.toBe(second.certificate);
});

/** A pair made before the test, as an earlier start left it. */
const EARLIER = makeCertificate("/CN=LinuxTransport");
function plant(system: FakeSystem): Transport {
  system.files.write(KEY, EARLIER.key, { mode: 0o400 });
  system.files.write(CERTIFICATE, EARLIER.certificate, { mode: 0o400 });
  return readTransport(system, LIB) ?? expect.unreachable();
}

test("wire-protocol.md DHCP-01: another process takes the pair that is there", async () => {
  using system = createMachine({ openssl: true, now: Date.now() - 86_400_000 });
  const first = plant(system);
  expect(await ensureTransport(system, LIB, { ...OPTIONS, fresh: false })).toEqual(first);
  expect(system.commands).toEqual([]);
});

test("a pair that does not match, or is damaged, is replaced", async () => {
  using system = createMachine({ openssl: true });
  plant(system);
  system.files.write(KEY, "garbage", { mode: 0o400 });
  expect(readTransport(system, LIB)).toBeUndefined();
  expect(await ensureTransport(system, LIB, { ...OPTIONS, fresh: false })).toBeDefined();
});

test("wire-protocol.md CERT-02: where openssl.cnf asks for no key identifier our own configuration does", async () => {
  using system = createMachine({ openssl: true });
  const real = system.exec.run;
  const directory = system.files.realPath(LIB);
  system.files.write(`${LIB}/bare.cnf`, "[req]\ndistinguished_name = name\n[name]\n");
  const bare = {
    ...system,
    exec: {
      ...system.exec,
      run: (command: Parameters<typeof real>[0]) =>
        real({ ...command, environment: { OPENSSL_CONF: `${directory}/bare.cnf` } }),
    },
  };
  const { certificate } = await ensureTransport(bare, LIB, OPTIONS);
  expect(Buffer.from(certificate, "base64").includes(Buffer.from("0603551d0e", "hex"))).toBe(true);
  expect(system.commands).toHaveLength(2);
  expect(system.files.list(LIB).filter((name) => name.startsWith("."))).toEqual([]);
});

test("when openssl fails, the error says so and nothing is left behind", async () => {
  using system = createMachine();
  system.programs.set("openssl", () => ({ code: 1, stderr: "no entropy" }));
  const error: Error = await ensureTransport(system, LIB, OPTIONS).then(
    () => expect.unreachable(),
    (reason: Error) => reason,
  );
  expect(error.message).toContain("no entropy");
  expect(system.files.list(LIB)).toEqual([]);
});
