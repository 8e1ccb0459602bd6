import { createHash } from "node:crypto";
import { DER, objectIdentifier, readDer, type DerElement } from "../base/der.ts";
import { AgentError } from "../base/error.ts";

/**
 * RFC 3161 time stamps in package signatures (`extensions.md` DB-28), as far as they are structure: `openssl ts` refuses
 * the tokens of Microsoft, because attribute certificates are among their certificates, so signature and chain of a token
 * are left to `openssl cms`, and what the token says is read here.
 */
export interface TimeStamped {
  /** Of the only signer: what the stamp is for. */
  readonly signature: Uint8Array;
  /** The token, a CMS document; undefined without a stamp. */
  readonly token: Uint8Array | undefined;
}

const TIME_STAMP_TOKEN = "1.2.840.113549.1.9.16.2.14";
const TIME_STAMP_INFO = "1.2.840.113549.1.9.16.1.4";
const UNSIGNED_ATTRIBUTES = 0xa1;
const HASHES: Readonly<Record<string, string>> = {
  "2.16.840.1.101.3.4.2.1": "sha256",
  "2.16.840.1.101.3.4.2.2": "sha384",
  "2.16.840.1.101.3.4.2.3": "sha512",
};

/** Signature value and time stamp of a CMS document. Errors: AgentError "bad-input". */
export function readTimeStamped(cms: Uint8Array): TimeStamped {
  const signers = inside(signedData(cms, "the signature").at(-1), DER.set, "the signers");
  const [signer] = signers;
  if (signer === undefined || signers.length !== 1)
    throw new AgentError("bad-input", `The signature has ${signers.length} signers instead of one`);
  const parts = inside(signer, DER.sequence, "the signer");
  const signature = parts.find(({ tag }) => tag === DER.octetString);
  if (signature === undefined) throw new AgentError("bad-input", "The signer has no signature");
  const attributes = parts.find(({ tag }) => tag === UNSIGNED_ATTRIBUTES);
  const tokens = (attributes === undefined ? [] : readDer(attributes.content, "the attributes"))
    .map((attribute) => inside(attribute, DER.sequence, "an attribute"))
    .filter(([type]) => type !== undefined && objectIdentifier(type.content) === TIME_STAMP_TOKEN)
    .flatMap(([, values]) => inside(values, DER.set, "the time stamps"));
  return { signature: signature.content, token: tokens[0]?.encoding };
}

/**
 * When the token says that it was made, ms since the epoch. It is worth as much as the token's own signature.
 * Errors: AgentError "bad-input" also when the stamp is for something else than the signature.
 */
export function readStampTime(token: Uint8Array, signature: Uint8Array): number {
  const [type, wrapped] = inside(
    signedData(token, "the time stamp")[2],
    DER.sequence,
    "its content",
  );
  if (type === undefined || objectIdentifier(type.content) !== TIME_STAMP_INFO)
    throw new AgentError("bad-input", "The time stamp has another content than a time");
  const [octets] = readDer(wrapped?.content ?? new Uint8Array(), "the time stamp's content");
  const [document] = readDer(octets?.content ?? new Uint8Array(), "the time stamp's content");
  const fields = inside(document, DER.sequence, "the time stamp's content");
  const [algorithm, digest] = inside(fields[2], DER.sequence, "the time stamp's imprint");
  const [name] = inside(algorithm, DER.sequence, "the time stamp's digest algorithm");
  const hash = HASHES[objectIdentifier(name?.content ?? new Uint8Array())];
  if (hash === undefined)
    throw new AgentError("bad-input", "The time stamp's digest is of a kind that is not accepted");
  if (
    !createHash(hash)
      .update(signature)
      .digest()
      .equals(digest?.content ?? new Uint8Array())
  )
    throw new AgentError("bad-input", "The time stamp is for another signature");
  const time = fields.find(({ tag }) => tag === DER.generalizedTime);
  const text = Buffer.from(time?.content ?? []).toString("latin1");
  const [, year, month, day, hour, minute, second] =
    /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?Z$/.exec(text) ?? [];
  const at = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  if (Number.isNaN(at)) throw new AgentError("bad-input", "The time stamp has no time");
  return at;
}

/** Fields of SignedData in a ContentInfo. */
function signedData(cms: Uint8Array, what: string): readonly DerElement[] {
  const [, wrapped] = inside(readDer(cms, what)[0], DER.sequence, what);
  const [data] = readDer(wrapped?.content ?? new Uint8Array(), what);
  return inside(data, DER.sequence, what);
}

function inside(element: DerElement | undefined, tag: number, what: string): readonly DerElement[] {
  if (element?.tag !== tag) throw new AgentError("bad-input", `${what} is not where it should be`);
  return readDer(element.content, what);
}
