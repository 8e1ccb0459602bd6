import { createHash } from "node:crypto";

/**
 * crypt(3) for the methods that are made of plain hashes: SHA-512 (`6`), SHA-256 (`5`) and MD5 (`1`), with their
 * default number of rounds. Vectors: `provisioning.md` USER-14. Other methods need the system's own crypt library.
 */
export type NativeCryptId = "6" | "5" | "1";

/** crypt(3) of libxcrypt and PAM's response buffer stop here: a longer password could never be typed again. */
export const MAX_PASSWORD_BYTES = 511;

const ITOA64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

export function isNativeCryptId(id: string): id is NativeCryptId {
  return id === "6" || id === "5" || id === "1";
}

/** The salt as the method sees it: 16 characters for the SHA-2 methods, 8 for MD5 (USER-11). */
export function effectiveSalt(id: NativeCryptId, salt: string): string {
  return salt.slice(0, id === "1" ? 8 : 16);
}

/** `$<id>$<salt>$<hash>` of the UTF-8 bytes of the password. */
export function crypt(id: NativeCryptId, password: string, salt: string): string {
  const key = Buffer.from(password, "utf8");
  const used = Buffer.from(effectiveSalt(id, salt), "utf8");
  const digest = id === "1" ? md5Crypt(key, used) : shaCrypt(SHA[id], key, used);
  return `$${id}$${used.toString()}$${digest}`;
}

interface ShaMethod {
  readonly hash: "sha512" | "sha256";
  readonly size: number;
  /** Bytes of the digest in output order, three to a group; the last group is shorter. */
  readonly order: readonly (readonly number[])[];
}

const ROUNDS = 5000;

const SHA: Readonly<Record<"6" | "5", ShaMethod>> = {
  "6": {
    hash: "sha512",
    size: 64,
    order: [...groupsOf(21, ([a, b, c]) => [b + 1, c + 1, a + 1], [0, 21, 42]), [63]],
  },
  "5": {
    hash: "sha256",
    size: 32,
    order: [...groupsOf(10, ([a, b, c]) => [c + 1, a + 1, b + 1], [0, 10, 20]), [31, 30]],
  },
};

type Group = readonly [number, number, number];

/** Drepper's "Unix crypt using SHA-256 and SHA-512" lists the groups; each follows from the one before. */
function groupsOf(count: number, next: (group: Group) => Group, first: Group): Group[] {
  const groups = [first];
  while (groups.length < count) groups.push(next(groups.at(-1) ?? first));
  return groups;
}

function shaCrypt(method: ShaMethod, key: Buffer, salt: Buffer): string {
  const { hash, size } = method;
  const digestOf = (...parts: readonly Uint8Array[]): Buffer => {
    const digest = createHash(hash);
    for (const part of parts) digest.update(part);
    return digest.digest();
  };
  const repeat = (block: Buffer, length: number): Buffer => {
    const result = Buffer.alloc(length);
    for (let at = 0; at < length; at += size)
      block.copy(result, at, 0, Math.min(size, length - at));
    return result;
  };

  const b = digestOf(key, salt, key);
  const a = createHash(hash).update(key).update(salt).update(repeat(b, key.length));
  for (let bits = key.length; bits > 0; bits >>= 1) a.update(bits & 1 ? b : key);
  let state = a.digest();

  const keyHash = createHash(hash);
  for (let index = 0; index < key.length; index += 1) keyHash.update(key);
  const p = repeat(keyHash.digest(), key.length);

  const saltHash = createHash(hash);
  for (let index = 0; index < 16 + (state[0] ?? 0); index += 1) saltHash.update(salt);
  const s = repeat(saltHash.digest(), salt.length);

  for (let round = 0; round < ROUNDS; round += 1) {
    const digest = createHash(hash).update(round & 1 ? p : state);
    if (round % 3 !== 0) digest.update(s);
    if (round % 7 !== 0) digest.update(p);
    state = digest.update(round & 1 ? state : p).digest();
  }
  return encode(state, method.order);
}

function md5Crypt(key: Buffer, salt: Buffer): string {
  const md5 = () => createHash("md5");
  const b = md5().update(key).update(salt).update(key).digest();
  const a = md5().update(key).update("$1$").update(salt);
  for (let left = key.length; left > 0; left -= 16) a.update(b.subarray(0, Math.min(16, left)));
  for (let bits = key.length; bits > 0; bits >>= 1)
    a.update(bits & 1 ? Buffer.from([0]) : key.subarray(0, 1));
  let state = a.digest();
  for (let round = 0; round < 1000; round += 1) {
    const digest = md5().update(round & 1 ? key : state);
    if (round % 3 !== 0) digest.update(salt);
    if (round % 7 !== 0) digest.update(key);
    state = digest.update(round & 1 ? state : key).digest();
  }
  return encode(state, MD5_ORDER);
}

const MD5_ORDER = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5], [11]] as const;

/** Groups of bytes, most significant first, written as base 64 digits, least significant first. */
function encode(digest: Buffer, order: readonly (readonly number[])[]): string {
  let text = "";
  for (const group of order) {
    let value = 0;
    for (const index of group) value = (value << 8) | (digest[index] ?? 0);
    for (let digit = 0; digit < group.length + 1; digit += 1) {
      text += ITOA64[value & 0x3f] ?? "";
      value >>= 6;
    }
  }
  return text;
}
