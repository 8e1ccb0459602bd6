import { X509Certificate, createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** A key and a certificate, PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
  /** Upper-case SHA-1 of the certificate (`wire-protocol.md` CERT-13). */
  readonly thumbprint: string;
}

/** Keys for openssl req: what the platform's certificates have, and what is quick to make. */
const RSA = ["-newkey", "rsa:2048"];
const EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/** Certificates of one run, made by the openssl program in a scratch folder of their own. */
export class CertificateAuthority implements Disposable {
  readonly #directory = mkdtempSync(path.join(tmpdir(), "fabric-certificates-"));
  readonly #tenants = new Map<string, KeyPair>();
  readonly #packages = new Map<string, string>();
  #counter = 0;
  #root: KeyPair | undefined;
  #unused: KeyPair | undefined;

  /** The root that signs the storage accounts' TLS certificate. */
  get root(): KeyPair {
    return (this.#root ??= this.#selfSigned("/CN=Fabric Test Root", EC));
  }

  /** The tenant certificate of that name, made on first use. */
  tenant(name: string): KeyPair {
    const known = this.#tenants.get(name);
    if (known !== undefined) return known;
    const made = this.#selfSigned(
      `/DC=Fabric Tenant Certificate ${name}`,
      name.startsWith("ec") ? EC : RSA,
    );
    this.#tenants.set(name, made);
    return made;
  }

  /** Makes the keys that answers will need, so that no answer has to wait for one: a real host has had them for long. */
  prepare(names: readonly string[]): void {
    this.#unused ??= this.#selfSigned("/CN=CRP/OU=AzureRT/O=Fabric Tests");
    for (const name of names) this.tenant(name);
  }

  /** TLS key and certificate (chain) for the given host names and addresses. */
  server(names: readonly string[]): { readonly key: string; readonly cert: string } {
    const base = this.#file();
    writeFileSync(`${base}.ca.key`, this.root.key);
    writeFileSync(`${base}.ca.crt`, this.root.certificate);
    const alternatives = names
      .map((name) => `${/^[\d.]+$/.test(name) ? "IP" : "DNS"}:${name}`)
      .join(",");
    openssl([
      "req",
      "-new",
      "-nodes",
      ...EC,
      "-keyout",
      `${base}.key`,
      "-out",
      `${base}.csr`,
      "-subj",
      "/CN=fabric storage",
    ]);
    writeFileSync(`${base}.ext`, `subjectAltName=${alternatives}\nextendedKeyUsage=serverAuth\n`);
    openssl([
      "x509",
      "-req",
      "-in",
      `${base}.csr`,
      "-CA",
      `${base}.ca.crt`,
      "-CAkey",
      `${base}.ca.key`,
      "-CAcreateserial",
      "-days",
      "30",
      "-extfile",
      `${base}.ext`,
      "-out",
      `${base}.crt`,
    ]);
    return { key: readFileSync(`${base}.key`, "utf8"), cert: readFileSync(`${base}.crt`, "utf8") };
  }

  /** Protected settings as the platform makes them: base64 CMS envelope for a tenant certificate. */
  encryptFor(certificate: string, plaintext: string | Uint8Array, cipher = "-aes256"): string {
    const base = this.#file();
    writeFileSync(`${base}.crt`, certificate);
    return openssl(
      ["cms", "-encrypt", "-binary", "-outform", "DER", cipher, `${base}.crt`],
      plaintext,
    ).toString("base64");
  }

  /**
   * The certificates package: a PFX with empty password that holds the key, the tenant certificates and one
   * certificate without key, in a CMS envelope for the transport certificate, addressed by its key identifier
   * (CERT-09, CERT-10, CERT-12).
   */
  package(
    names: readonly string[],
    transportCertificate: string,
    cipher: "AES128_CBC" | "DES_EDE3_CBC",
  ): string {
    const cacheKey = `${names.join()}|${cipher}|${transportCertificate}`;
    const known = this.#packages.get(cacheKey);
    if (known !== undefined) return known;
    this.#unused ??= this.#selfSigned("/CN=CRP/OU=AzureRT/O=Fabric Tests");
    const base = this.#file();
    const pairs = names.map((name) => this.tenant(name));
    writeFileSync(`${base}.key`, pairs.map((pair) => pair.key).join(""));
    const [first, ...others] = pairs;
    writeFileSync(`${base}.crt`, first?.certificate ?? this.#unused.certificate);
    writeFileSync(
      `${base}.more`,
      [
        ...others.map((pair) => pair.certificate),
        ...(first === undefined ? [] : [this.#unused.certificate]),
      ].join(""),
    );
    openssl([
      "pkcs12",
      "-export",
      ...(first === undefined ? ["-nokeys"] : ["-inkey", `${base}.key`]),
      "-in",
      `${base}.crt`,
      "-certfile",
      `${base}.more`,
      "-name",
      "TenantEncryptionCert",
      "-passout",
      "pass:",
      "-certpbe",
      "PBE-SHA1-3DES",
      "-keypbe",
      "PBE-SHA1-3DES",
      "-macalg",
      "sha1",
      "-iter",
      "2000",
      "-out",
      `${base}.pfx`,
    ]);
    writeFileSync(`${base}.transport`, transportCertificate);
    const data = openssl([
      "cms",
      "-encrypt",
      "-binary",
      "-outform",
      "DER",
      "-keyid",
      cipher === "AES128_CBC" ? "-aes128" : "-des3",
      "-in",
      `${base}.pfx`,
      `${base}.transport`,
    ]).toString("base64");
    this.#packages.set(cacheKey, data);
    return data;
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #file(): string {
    this.#counter += 1;
    return path.join(this.#directory, String(this.#counter));
  }

  #selfSigned(subject: string, algorithm: readonly string[] = RSA): KeyPair {
    const base = this.#file();
    openssl([
      "req",
      "-x509",
      "-nodes",
      "-subj",
      subject,
      "-days",
      "365",
      ...algorithm,
      "-keyout",
      `${base}.key`,
      "-out",
      `${base}.crt`,
    ]);
    const certificate = readFileSync(`${base}.crt`, "utf8");
    return {
      certificate,
      key: readFileSync(`${base}.key`, "utf8"),
      thumbprint: thumbprintOf(certificate),
    };
  }
}

export function thumbprintOf(certificate: string): string {
  return createHash("sha1")
    .update(new X509Certificate(certificate).raw)
    .digest("hex")
    .toUpperCase();
}

/** PEM of the bare base64 that the agent sends in a header (WIRE-05). Undefined when it is no certificate. */
export function certificateFromHeader(header: string): string | undefined {
  const pem = `-----BEGIN CERTIFICATE-----\n${header.replace(/(.{64})(?=.)/g, "$1\n")}\n-----END CERTIFICATE-----\n`;
  try {
    return new X509Certificate(pem).toString();
  } catch {
    return undefined; // not base64, or not a certificate: the caller reports it
  }
}

function openssl(argv: readonly string[], stdin?: string | Uint8Array): Buffer {
  const result = Bun.spawnSync(["openssl", ...argv], {
    stdin: stdin === undefined ? "ignore" : Buffer.from(stdin as string),
    stdout: "pipe",
    stderr: "pipe",
  });
  if (result.exitCode !== 0)
    throw new Error(`openssl ${argv[0]} failed: ${result.stderr.toString().trim()}`);
  return result.stdout;
}
