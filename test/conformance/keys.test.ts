import { expect, test } from "bun:test";
import { createHash, createPublicKey, X509Certificate } from "node:crypto";
import { decryptPassword } from "../../src/agent/remote-access-users.ts";
import { thumbprintOf } from "../../src/azure/certificates.ts";
import { readTransport } from "../../src/azure/transport.ts";
import { Secret } from "../../src/base/secret.ts";
import { defaultConfig } from "../../src/config/table.ts";
import {
  parsePublicKeys,
  publicKeyOfCertificate,
  publicKeyOfPrivate,
} from "../../src/provision/public-key.ts";
import { dropInPattern, editSshdConfig, sshdSettings } from "../../src/provision/sshd-settings.ts";
import { createMachine, LIB } from "../unit/azure/platform.ts";
import { areFixturesThere, readFixture, skipWithoutFixtures } from "./fixtures.ts";

// The samples under wire/ that are no messages: keys, an encrypted password and an sshd_config.

const KEY = `${LIB}/TransportPrivate.pem` as const;
const CERTIFICATE = `${LIB}/TransportCert.pem` as const;

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const wire = (name: string): string => readFixture(`wire/${name}`);
  const spkiDigest = (pem: string): string =>
    createHash("sha256")
      .update(createPublicKey(pem).export({ type: "spki", format: "der" }))
      .digest("hex");
  /** The key an OpenSSH line holds, read by somebody else than the one who wrote it. */
  const opensshFields = (blob: string): Buffer[] => {
    const bytes = Buffer.from(blob, "base64");
    const fields: Buffer[] = [];
    for (let at = 0; at < bytes.length;) {
      const length = bytes.readUInt32BE(at);
      fields.push(bytes.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    return fields;
  };

  test("wire-protocol.md CERT-02 WIRE-05: trans_cert and trans_prv are one pair, trans_pub its public half, and the header value is its DER", () => {
    using system = createMachine();
    system.files.write(KEY, wire("trans_prv"), { mode: 0o400 });
    system.files.write(CERTIFICATE, wire("trans_cert"), { mode: 0o400 });
    const transport = readTransport(system, LIB) ?? expect.unreachable();
    expect(transport.certificate).toBe(wire("trans_cert").replace(/-----[^-]*-----|\s/g, ""));
    const ofCertificate = publicKeyOfCertificate(wire("trans_cert"), "trans_cert");
    expect(publicKeyOfPrivate(wire("trans_prv"), "trans_prv")).toEqual(ofCertificate);
    expect(spkiDigest(wire("trans_pub"))).toBe(spkiDigest(wire("trans_prv")));
    expect(thumbprintOf(new X509Certificate(wire("trans_cert")))).toMatch(/^[0-9A-F]{40}$/);
  });

  test("a key that does not belong to the certificate is no transport pair", () => {
    using system = createMachine();
    system.files.write(KEY, wire("sample.pem"), { mode: 0o400 });
    system.files.write(CERTIFICATE, wire("trans_cert"), { mode: 0o400 });
    expect(readTransport(system, LIB)).toBeUndefined();
  });

  test.each([
    ["rsa-key", "ssh-rsa"],
    ["ec-key", "ecdsa-sha2-nistp256"],
  ])("%s.pem has the public half %s.pub.pem says", (name, type) => {
    const line = publicKeyOfPrivate(wire(`${name}.pem`), name);
    expect(line.type).toBe(type);
    expect(parsePublicKeys(line.line)).toEqual([{ ...line, isWellFormed: true }]);
    const jwk = createPublicKey(wire(`${name}.pub.pem`)).export({ format: "jwk" });
    const hex = (text: unknown): string => Buffer.from(String(text), "base64url").toString("hex");
    const [written, second, third] = opensshFields(line.blob);
    expect(written?.toString()).toBe(type);
    if (type === "ssh-rsa") {
      expect(second?.toString("hex")).toBe(hex(jwk["e"]));
      expect(third?.toString("hex").replace(/^00/, "")).toBe(hex(jwk["n"]));
    } else {
      expect(second?.toString()).toBe("nistp256");
      expect(third?.toString("hex")).toBe(`04${hex(jwk["x"])}${hex(jwk["y"])}`);
    }
  });

  test("sample.pem is an RSA key of its own", () => {
    const line = publicKeyOfPrivate(wire("sample.pem"), "sample.pem");
    expect(line.type).toBe("ssh-rsa");
    expect(line.blob).not.toBe(publicKeyOfPrivate(wire("rsa-key.pem"), "rsa-key.pem").blob);
  });

  test("wire-protocol.md JIT-08: encrypted.enc is a password for the owner of sample.pem, and for nobody else", async () => {
    using system = createMachine({ openssl: true });
    const user = { encryptedPassword: new Secret(wire("encrypted.enc")) };
    const options = { config: defaultConfig(), keyFile: () => KEY };
    system.files.write(KEY, wire("sample.pem"), { mode: 0o400 });
    const password = await decryptPassword(system, user, options);
    expect(password.reveal()).toBe("]aPPEv}uNg1FPnl?");
    system.files.remove(KEY);
    system.files.write(KEY, wire("trans_prv"), { mode: 0o400 });
    const failure = await decryptPassword(system, user, options).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "crypt" });
  });

  test("provisioning.md SSH-10 SSH-11: of sshd_config only the three settings change", () => {
    const before = wire("sshd_config");
    const settings = sshdSettings({
      disablePasswordAuthentication: true,
      clientAliveInterval: "180",
      version: undefined,
    });
    expect(dropInPattern(before, settings, "/etc/ssh")).toBeUndefined();
    const after = editSshdConfig(before, settings);
    const active = (text: string) => text.split("\n").filter((line) => !/^\s*(?:#|$)/.test(line));
    const added = active(after).filter((line) => !active(before).includes(line));
    expect(added.toSorted()).toEqual(["ClientAliveInterval 180", "PasswordAuthentication no"]);
    expect(active(after)).toContain("ChallengeResponseAuthentication no");
    const kept = active(before).filter(
      (line) => !/^(?:PasswordAuthentication|ClientAliveInterval)/.test(line),
    );
    expect(active(after).filter((line) => !added.includes(line))).toEqual(kept);
    expect(editSshdConfig(after, settings)).toBe(after);
  });
}
