import { createHash, createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import { descendantText, parseXml } from "../base/xml.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { CertificateSummary } from "./goal-state.ts";
import type { Transport } from "./transport.ts";
import type { WireClient } from "./wire-client.ts";

/**
 * The tenant's certificates (`wire-protocol.md` §6): fetched encrypted for the transport certificate, decrypted by two
 * runs of openssl over pipes, and left for the extensions as `<THUMBPRINT>.crt` and `.prv`. Keys are never in any
 * other file (DB-09).
 *
 *     const store = createCertificateStore(system, libDir, { openssl });
 *     const { summary, failure } = await store.read(wire, uri, transport);
 */
export interface CertificateStore {
  /** Never throws but for a cancellation: certificate errors do not stop a goal state (CERT-16). */
  read(
    wire: WireClient,
    uri: string,
    transport: Transport,
    options?: {
      readonly signal?: AbortSignal | undefined;
      /** A failure is only returned, because an earlier one like it was told already. Default false. */
      readonly quiet?: boolean;
    },
  ): Promise<CertificateFetch>;
}

export interface CertificateFetch {
  readonly summary: readonly CertificateSummary[];
  /** What went wrong; then the summary is empty. */
  readonly failure: string | undefined;
}

export interface CertificateStoreOptions {
  /** `OS.OpensslPath`. */
  readonly openssl: string;
}

type Needs = Pick<System, "files" | "exec" | "log" | "emit">;

/** Order of CERT-04; the second is there for old platforms (DB-17). */
const CIPHERS = ["AES128_CBC", "DES_EDE3_CBC"] as const;
export type TransportCipher = (typeof CIPHERS)[number];

const OPERATION = "GoalStateCertificates";
const FILE_MODE = 0o400;

export function createCertificateStore(
  system: Needs,
  libDir: SystemPath,
  options: CertificateStoreOptions,
): CertificateStore {
  let cache: { key: string; summary: readonly CertificateSummary[] } | undefined;

  const warn = (operation: string, message: string): void => {
    system.log.warning(message);
    system.emit({ operation, success: false, message: `[WARNING] ${message}`, log: false });
  };

  const decryptAndStore = async (
    text: string,
    transport: Transport,
    signal: AbortSignal | undefined,
  ): Promise<readonly CertificateSummary[]> => {
    const data = parseCertificatesDocument(text);
    if (data === undefined) return [];
    if ("unsupportedFormat" in data) {
      system.log.warning(
        `The certificates have the format ${data.unsupportedFormat}, which is not known: they are skipped`,
      );
      return [];
    }
    const key = createHash("sha256").update(transport.certificate).update(text).digest("hex");
    if (cache?.key === key && isComplete(system, libDir, cache.summary)) return cache.summary;
    system.files.write(join(libDir, "Certificates.xml"), text, { mode: FILE_MODE });
    system.files.write(join(libDir, "Certificates.p7m"), mimeMessage(libDir, data.base64), {
      mode: FILE_MODE,
    });
    const pfx = await decrypt(system, data.base64, transport, options.openssl, signal);
    const pem = await readPfx(system, pfx, options.openssl, signal);
    const summary = storeCertificates(system, libDir, pem);
    cache = { key, summary };
    return summary;
  };

  return {
    read: async (wire, uri, transport, { signal, quiet = false } = {}) => {
      const failures: string[] = [];
      const complain = (operation: string, message: string): void => {
        if (!quiet) warn(operation, message);
        else system.log.verbose(message);
      };
      for (const cipher of CIPHERS) {
        let text: string;
        try {
          const headers = encryptedPayloadHeaders(transport, cipher);
          text = await wire.get(uri, { what: "the certificates", headers, signal });
        } catch (error) {
          if (isAgentError(error, "cancelled")) throw error;
          failures.push(`${cipher}: ${describe(error)}`);
          complain(
            OPERATION,
            `Could not fetch the certificates with ${cipher}: ${describe(error)}`,
          );
          continue;
        }
        try {
          return { summary: await decryptAndStore(text, transport, signal), failure: undefined };
        } catch (error) {
          if (isAgentError(error, "cancelled")) throw error;
          failures.push(`${cipher}: ${describe(error)}`);
          // The second request also helps against an answer that was damaged on the way.
          complain(
            "GoalState",
            `Could not decrypt the certificates (${cipher}): ${describe(error)}`,
          );
        }
      }
      const failure = `The certificates cannot be used: ${failures.join("; ")}`;
      if (!quiet) system.emit({ operation: OPERATION, success: false, message: failure });
      return { summary: [], failure };
    },
  };
}

/** WIRE-05. */
export function encryptedPayloadHeaders(
  transport: Transport,
  cipher: TransportCipher,
): Readonly<Record<string, string>> {
  return {
    "x-ms-guest-agent-public-x509-cert": transport.certificate,
    "x-ms-cipher-name": cipher,
  };
}

/**
 * Base64 of the CMS message without line breaks; undefined when there is none (CERT-06, CERT-07).
 * Errors: AgentError "bad-input".
 */
export function parseCertificatesDocument(
  text: string,
): { readonly base64: string } | { readonly unsupportedFormat: string } | undefined {
  const root = parseXml(text, "The certificates document");
  const data = descendantText(root, "Data");
  if (data === undefined) return undefined;
  const format = descendantText(root, "Format") ?? "Pkcs7BlobWithPfxContents";
  if (format !== "Pkcs7BlobWithPfxContents") return { unsupportedFormat: format };
  const base64 = data.replace(/\s+/g, "");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64))
    throw new AgentError("bad-input", "The Data of the certificates document is not base64");
  return { base64 };
}

/** SHA-1 of the DER in upper-case hex (CERT-13). */
export function thumbprintOf(certificate: X509Certificate): string {
  return createHash("sha1").update(certificate.raw).digest("hex").toUpperCase();
}

export interface CertificateEntry {
  readonly thumbprint: string;
  readonly certificatePem: string;
  /** PEM of the key that belongs to it; only on the last certificate with that public key. */
  readonly keyPem: string | undefined;
}

/**
 * Certificates and keys of a PEM text, matched by public key (CERT-13, CERT-15, CERT-17). The summary lists each
 * distinct public key once, in order of first appearance, under the last certificate that has it.
 * Errors: AgentError "bad-input".
 */
export function matchCertificates(pem: string): {
  readonly entries: readonly CertificateEntry[];
  readonly summary: readonly CertificateSummary[];
  /** Private keys without a certificate. */
  readonly orphans: number;
} {
  const keys = new Map<string, string>();
  for (const block of blocks(pem, /(?:RSA |EC )?PRIVATE KEY/)) {
    keys.set(publicKeyId(createPublicKeyOf(block)), block);
  }
  const certificates = blocks(pem, /CERTIFICATE/).map((block) => {
    const certificate = toCertificate(block);
    return {
      block,
      thumbprint: thumbprintOf(certificate),
      publicKey: publicKeyIdOf(certificate),
    };
  });
  const lastFor = new Map<string, string>();
  for (const { publicKey, thumbprint } of certificates) lastFor.set(publicKey, thumbprint);
  return {
    entries: certificates.map(({ block, thumbprint, publicKey }) => ({
      thumbprint,
      certificatePem: `${block}\n`,
      keyPem: lastFor.get(publicKey) === thumbprint ? withNewline(keys.get(publicKey)) : undefined,
    })),
    summary: [...lastFor].map(([publicKey, thumbprint]) => ({
      thumbprint,
      hasPrivateKey: keys.has(publicKey),
    })),
    orphans: [...keys.keys()].filter((id) => !lastFor.has(id)).length,
  };
}

function storeCertificates(
  system: Pick<System, "files" | "log">,
  libDir: SystemPath,
  pem: string,
): readonly CertificateSummary[] {
  const { entries, summary, orphans } = matchCertificates(pem);
  if (orphans > 0)
    system.log.warning(`${orphans} private key(s) of the goal state have no certificate`);
  const write = (name: string, text: string): void => {
    const file = join(libDir, name);
    if (system.files.readTextIfExists(file) === text && system.files.stat(file)?.mode === FILE_MODE)
      return;
    system.files.write(file, text, { mode: FILE_MODE });
  };
  for (const entry of entries) {
    if (entry.keyPem !== undefined) write(`${entry.thumbprint}.prv`, entry.keyPem);
    write(`${entry.thumbprint}.crt`, entry.certificatePem);
  }
  return summary;
}

function isComplete(
  system: Pick<System, "files">,
  libDir: SystemPath,
  summary: readonly CertificateSummary[],
): boolean {
  return summary.every(
    ({ thumbprint, hasPrivateKey }) =>
      system.files.exists(join(libDir, `${thumbprint}.crt`)) &&
      (!hasPrivateKey || system.files.exists(join(libDir, `${thumbprint}.prv`))),
  );
}

async function decrypt(
  system: Pick<System, "files" | "exec">,
  base64: string,
  transport: Transport,
  openssl: string,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  try {
    const { stdoutBytes } = await system.exec.run({
      argv: [
        ...[openssl, "cms", "-decrypt", "-inform", "DER"],
        ...["-inkey", system.files.realPath(transport.keyFile)],
        ...["-recip", system.files.realPath(transport.certificateFile)],
      ],
      stdin: Buffer.from(base64, "base64"),
      signal,
    });
    return stdoutBytes;
  } catch (error) {
    throw toCryptError(error, "openssl could not decrypt the certificates");
  }
}

/** The empty password and the skipped MAC come first: that is what works on FIPS machines (CERT-10, CERT-11). */
async function readPfx(
  system: Pick<System, "exec">,
  pfx: Uint8Array,
  openssl: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  let failure: unknown;
  for (const extra of [["-nomacver"], [], ["-legacy"]]) {
    try {
      const { stdout } = await system.exec.run({
        argv: [openssl, "pkcs12", "-nodes", "-password", "pass:", ...extra],
        stdin: pfx,
        signal,
      });
      if (stdout.includes("-----BEGIN ")) return stdout;
      failure ??= new AgentError("crypt", "openssl found neither key nor certificate in the PFX");
    } catch (error) {
      failure ??= error;
    }
  }
  throw toCryptError(failure, "openssl could not read the certificates' PFX");
}

function toCryptError(error: unknown, doing: string): AgentError {
  if (isAgentError(error, "cancelled")) return error;
  return new AgentError("crypt", doing, { cause: error });
}

/** FILE-07, CERT-08: the message as other tools and an older agent expect it beside Certificates.xml. */
function mimeMessage(libDir: SystemPath, base64: string): string {
  const name = join(libDir, "Certificates.p7m");
  return [
    "MIME-Version:1.0",
    `Content-Disposition: attachment; filename="${name}"`,
    `Content-Type: application/x-pkcs7-mime; name="${name}"`,
    "Content-Transfer-Encoding: base64",
    "",
    ...(base64.match(/.{1,64}/g) ?? []),
    "",
  ].join("\n");
}

function blocks(pem: string, label: RegExp): readonly string[] {
  const source = `-----BEGIN (${label.source})-----[^-]+-----END \\1-----`;
  return pem.match(new RegExp(source, "g")) ?? [];
}

function withNewline(text: string | undefined): string | undefined {
  return text === undefined ? undefined : `${text}\n`;
}

function toCertificate(pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw new AgentError("bad-input", "A certificate of the goal state cannot be read", {
      cause: error,
    });
  }
}

function createPublicKeyOf(keyPem: string): ReturnType<typeof createPublicKey> {
  try {
    return createPublicKey(createPrivateKey(keyPem));
  } catch {
    // The cause could quote key material.
    throw new AgentError("bad-input", "A private key of the goal state cannot be read");
  }
}

/** A key of a kind that this openssl cannot read still makes its certificate distinct from the others. */
function publicKeyIdOf(certificate: X509Certificate): string {
  try {
    return publicKeyId(certificate.publicKey);
  } catch {
    return thumbprintOf(certificate);
  }
}

function publicKeyId(key: ReturnType<typeof createPublicKey>): string {
  return createHash("sha256")
    .update(key.export({ type: "spki", format: "der" }))
    .digest("hex");
}
