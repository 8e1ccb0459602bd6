import { createHash, createPublicKey, X509Certificate, type KeyObject } from "node:crypto";
import { AgentError } from "../base/error.ts";

/** OpenSSH public keys as text, and the forms other keys take there (`provisioning.md` SSH-05, SSH-20, DB-10). */

/** ssh-rsa, ssh-ed25519, ecdsa-sha2-*, sk-*, and their certificates. */
const KEY_TYPE = /^(?:ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9-]+)(?:@openssh\.com)?$/;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

export interface PublicKeyLine {
  readonly type: string;
  /** Base64. */
  readonly blob: string;
  /** Type, key and comment in one line. */
  readonly line: string;
  /** Whether the key's own bytes say the same type; sshd passes over one that does not. */
  readonly isWellFormed: boolean;
}

/**
 * The keys in a value. Several lines are several keys; a key that was broken into lines is put together again.
 * Errors: AgentError "os-utility" that says what is wrong, without the key.
 */
export function parsePublicKeys(value: string): PublicKeyLine[] {
  const lines = value.split(/[\r\n]+/).map((line) => line.trim());
  const filled = lines.filter((line) => line !== "");
  const allKeys = filled.every((line) => KEY_TYPE.test(line.split(/\s+/)[0] ?? ""));
  return (allKeys ? filled : [filled.join("")]).map(parsePublicKey);
}

function parsePublicKey(text: string): PublicKeyLine {
  const [type = "", blob = "", ...comment] = text.split(/\s+/);
  if (!KEY_TYPE.test(type))
    throw new AgentError(
      "os-utility",
      `Bad public key: it begins with ${JSON.stringify(type.slice(0, 24))}, which is no key type of OpenSSH`,
    );
  if (!BASE64.test(blob))
    throw new AgentError("os-utility", `Bad public key: what follows ${type} is not base64`);
  return {
    type,
    blob,
    line: [type, blob, ...comment].join(" "),
    isWellFormed: typeOfBlob(blob) === type,
  };
}

function typeOfBlob(blob: string): string | undefined {
  const bytes = Buffer.from(blob, "base64");
  if (bytes.length < 4) return undefined;
  const length = bytes.readUInt32BE(0);
  return length > 64 || bytes.length <= 4 + length
    ? undefined
    : bytes.toString("latin1", 4, 4 + length);
}

/** Adds the lines that are not there yet; a key counts by type and bytes, whatever its comment or options. */
export function mergeKeys(existing: string, keys: readonly PublicKeyLine[]): string {
  const present = new Set(
    existing.split("\n").flatMap((line) => {
      if (line.trimStart().startsWith("#")) return [];
      const words = line.trim().split(/\s+/);
      return words.flatMap((word, index) =>
        KEY_TYPE.test(word) ? [`${word} ${words[index + 1] ?? ""}`] : [],
      );
    }),
  );
  let text = existing === "" || existing.endsWith("\n") ? existing : `${existing}\n`;
  for (const key of keys) {
    const identity = `${key.type} ${key.blob}`;
    if (present.has(identity)) continue;
    present.add(identity);
    text += `${key.line}\n`;
  }
  return text;
}

/** `SHA256:` and unpadded base64 of a public key file's content, as ssh-keygen -l prints it. */
export function fingerprintOf(publicKeyFile: string): string {
  const [key] = parsePublicKeys(publicKeyFile);
  if (key === undefined || !key.isWellFormed)
    throw new AgentError("provision", "The public key file does not hold a public key");
  const digest = createHash("sha256").update(Buffer.from(key.blob, "base64")).digest("base64");
  return `SHA256:${digest.replace(/=+$/, "")}`;
}

/** The key of an X.509 certificate in PEM. Errors: AgentError "os-utility". */
export function publicKeyOfCertificate(pem: string, what: string): PublicKeyLine {
  try {
    return opensshKey(new X509Certificate(pem).publicKey);
  } catch (error) {
    throw new AgentError("os-utility", `${what} is not a certificate with a usable key`, {
      cause: error,
    });
  }
}

/** The public half of a private key in PEM. Errors: AgentError "os-utility"; the key is never part of it. */
export function publicKeyOfPrivate(pem: string, what: string): PublicKeyLine {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    // The cause could quote the key.
    throw new AgentError("os-utility", `${what} is not a private key`);
  }
  return opensshKey(key);
}

const CURVES: Readonly<Record<string, { name: string; bytes: number }>> = {
  "P-256": { name: "nistp256", bytes: 32 },
  "P-384": { name: "nistp384", bytes: 48 },
  "P-521": { name: "nistp521", bytes: 66 },
};

/** RFC 4253 §6.6, RFC 5656 §3.1, RFC 8709 §4. */
function opensshKey(key: KeyObject): PublicKeyLine {
  const jwk = key.export({ format: "jwk" });
  const bytes = (text: unknown): Buffer => Buffer.from(String(text), "base64url");
  let type: string;
  let fields: Buffer[];
  if (jwk.kty === "RSA") {
    type = "ssh-rsa";
    fields = [positive(bytes(jwk["e"])), positive(bytes(jwk["n"]))];
  } else if (jwk.kty === "OKP" && jwk.crv === "Ed25519") {
    type = "ssh-ed25519";
    fields = [bytes(jwk["x"])];
  } else if (jwk.kty === "EC" && CURVES[String(jwk.crv)] !== undefined) {
    const curve = CURVES[String(jwk.crv)]!;
    type = `ecdsa-sha2-${curve.name}`;
    const point = Buffer.concat([
      Buffer.from([4]),
      leftPadded(bytes(jwk["x"]), curve.bytes),
      leftPadded(bytes(jwk["y"]), curve.bytes),
    ]);
    fields = [Buffer.from(curve.name), point];
  } else {
    throw new AgentError("os-utility", `OpenSSH has no keys of the type ${jwk.kty ?? "unknown"}`);
  }
  const blob = Buffer.concat([Buffer.from(type), ...fields].flatMap(withLength)).toString("base64");
  return { type, blob, line: `${type} ${blob}`, isWellFormed: true };
}

function withLength(data: Buffer): Buffer[] {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  return [length, data];
}

/** An mpint must not look negative. */
function positive(bytes: Buffer): Buffer {
  return (bytes[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes;
}

function leftPadded(bytes: Buffer, size: number): Buffer {
  return bytes.length >= size ? bytes : Buffer.concat([Buffer.alloc(size - bytes.length), bytes]);
}
