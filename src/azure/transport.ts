import { createPrivateKey, generateKeyPair, X509Certificate } from "node:crypto";
import { promisify } from "node:util";
import { AgentError } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * The key pair the platform encrypts certificates and passwords for (`wire-protocol.md` CERT-01..03, DB-26).
 *
 *     const transport = await ensureTransport(system, libDir, { openssl, fresh: true });
 */
export interface Transport {
  readonly keyFile: SystemPath;
  readonly certificateFile: SystemPath;
  /** Base64 of the DER, one line: the header value of WIRE-05. */
  readonly certificate: string;
  /** ms since the epoch. */
  readonly validUntil: number;
}

export interface TransportOptions {
  /** `OS.OpensslPath`. */
  readonly openssl: string;
  /** A new pair, unless one was made since this boot; false: the pair on disk is taken until it is nearly worn out. */
  readonly fresh: boolean;
  /** Only openssl may make the key: it has the validated module, the runtime has not. */
  readonly fips: boolean;
  readonly signal?: AbortSignal | undefined;
}

const SUBJECT_KEY_IDENTIFIER = Buffer.from("0603551d0e", "hex");
const RENEW_BEFORE_MS = 30 * 24 * 3600 * 1000;
const DAYS = "730";
const KEY_BITS = 2048;
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/** What `openssl req` needs where the system has no usable openssl.cnf. */
const OWN_CONFIGURATION = `[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always
basicConstraints = critical,CA:TRUE
`;

/** Errors: AgentError "crypt" or those of exec and files. */
export async function ensureTransport(
  system: Pick<System, "files" | "exec" | "clock" | "log">,
  libDir: SystemPath,
  options: TransportOptions,
): Promise<Transport> {
  const existing = readTransport(system, libDir);
  const isWorn =
    existing === undefined || existing.validUntil - system.clock.now() < RENEW_BEFORE_MS;
  if (!isWorn && (!options.fresh || madeSinceBoot(system, libDir))) return existing;
  const made = await generate(system, libDir, options);
  const bootId = readBootId(system);
  if (bootId !== undefined) {
    const state = JSON.stringify({ version: 1, bootId });
    system.files.write(stateFile(libDir), state, { mode: 0o600 });
  }
  return made;
}

/** The pair on disk; undefined when it is absent, damaged or without key identifier. */
export function readTransport(
  system: Pick<System, "files">,
  libDir: SystemPath,
): Transport | undefined {
  const keyFile = join(libDir, "TransportPrivate.pem");
  const certificateFile = join(libDir, "TransportCert.pem");
  try {
    const certificate = new X509Certificate(system.files.readText(certificateFile));
    const key = createPrivateKey(system.files.readText(keyFile));
    const isUsable =
      certificate.checkPrivateKey(key) && certificate.raw.includes(SUBJECT_KEY_IDENTIFIER);
    if (!isUsable) return undefined;
    return {
      keyFile,
      certificateFile,
      certificate: certificate.raw.toString("base64"),
      validUntil: Date.parse(certificate.validTo),
    };
  } catch {
    return undefined; // absent or damaged: a new pair takes its place
  }
}

async function generate(
  system: Pick<System, "files" | "exec" | "clock" | "log">,
  libDir: SystemPath,
  options: TransportOptions,
): Promise<Transport> {
  const keyFile = join(libDir, ".TransportPrivate.pem.new");
  const certificateFile = join(libDir, ".TransportCert.pem.new");
  const configuration = join(libDir, ".transport.cnf");
  const realKeyFile = system.files.realPath(keyFile);
  const key = options.fips
    ? ["-newkey", `rsa:${KEY_BITS}`, "-keyout", realKeyFile]
    : ["-key", realKeyFile];
  const run = (...extra: string[]): Promise<unknown> =>
    system.exec.run({
      argv: [
        options.openssl,
        ...["req", "-x509", "-nodes", "-subj", "/CN=LinuxTransport", "-days", DAYS],
        ...[...key, ...extra, "-out", system.files.realPath(certificateFile)],
      ],
      signal: options.signal,
    });
  try {
    // The key must never be readable by others, not even before openssl has set the mode.
    const text = options.fips ? "" : await makeKey();
    system.files.write(keyFile, text, { mode: 0o600, durable: false });
    let reason: unknown;
    try {
      await run();
    } catch (error) {
      reason = error;
    }
    if (reason !== undefined || !hasKeyIdentifier(system, certificateFile)) {
      // CERT-02: the platform addresses us by key identifier, and not every openssl.cnf asks for one.
      system.log.verbose("The system's openssl.cnf makes no usable certificate, using our own");
      system.files.write(configuration, OWN_CONFIGURATION, { mode: 0o600, durable: false });
      await run("-config", system.files.realPath(configuration));
      if (!hasKeyIdentifier(system, certificateFile))
        throw new AgentError("crypt", "openssl made no certificate with a key identifier", {
          cause: reason,
        });
    }
    system.files.chmod(keyFile, 0o400);
    system.files.chmod(certificateFile, 0o400);
    system.files.rename(keyFile, join(libDir, "TransportPrivate.pem"));
    system.files.rename(certificateFile, join(libDir, "TransportCert.pem"));
  } finally {
    for (const file of [keyFile, certificateFile, configuration]) system.files.remove(file);
  }
  const made = readTransport(system, libDir);
  if (made === undefined)
    throw new AgentError("crypt", `The transport certificate in ${libDir} cannot be used`);
  return made;
}

/** PKCS #8 in PEM. The runtime's library takes a third of the time of openssl's, and a boot waits for it. */
async function makeKey(): Promise<string> {
  const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: KEY_BITS });
  return privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}

function hasKeyIdentifier(system: Pick<System, "files">, file: SystemPath): boolean {
  const text = system.files.readTextIfExists(file);
  if (text === undefined || !text.includes("-----BEGIN CERTIFICATE-----")) return false;
  return new X509Certificate(text).raw.includes(SUBJECT_KEY_IDENTIFIER);
}

function stateFile(libDir: SystemPath): SystemPath {
  return join(libDir, "waagent_transport.json");
}

function readBootId(system: Pick<System, "files">): string | undefined {
  return system.files.readTextIfExists(BOOT_ID)?.trim();
}

function madeSinceBoot(system: Pick<System, "files">, libDir: SystemPath): boolean {
  const bootId = readBootId(system);
  const text = system.files.readTextIfExists(stateFile(libDir));
  if (bootId === undefined || text === undefined) return false;
  try {
    return JsonReader.parse(text, stateFile(libDir)).get("bootId").string() === bootId;
  } catch {
    return false; // a damaged note only costs a new pair
  }
}
