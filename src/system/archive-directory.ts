import * as fs from "node:fs";
import { AgentError } from "../base/error.ts";
import type { SystemPath } from "./root.ts";

/** One entry of a ZIP archive's central directory, its place checked against the local header. */
export interface ZipEntry {
  /** As written in the archive. */
  readonly name: string;
  /** Relative, without `.`, `..`, empty components or a leading slash (`extensions.md` EXT-45); "" is the top. */
  readonly path: string;
  /** The name pointed out of the archive. */
  readonly neutralised: boolean;
  readonly kind: "file" | "directory" | "link" | "other";
  readonly encrypted: boolean;
  /** 0 stored, 8 deflated. */
  readonly method: number;
  readonly crc: number;
  readonly compressedSize: number;
  readonly size: number;
  /** Unix permission bits, 0 when the archive was made elsewhere. */
  readonly mode: number;
  readonly dataOffset: number;
}

const END_SIGNATURE = 0x06054b50;
const END64_LOCATOR = 0x07064b50;
const END64_SIGNATURE = 0x06064b50;
const CENTRAL_SIGNATURE = 0x02014b50;
const LOCAL_SIGNATURE = 0x04034b50;
const MAX_COMMENT = 0xffff;
/** A central directory larger than this is no package: 64 MiB are some 500,000 entries. */
const MAX_DIRECTORY = 64 * 1024 * 1024;

/** Errors: AgentError "bad-input" naming the archive. Archives behind other data are read, as everywhere. */
export function readDirectory(descriptor: number, size: number, archive: SystemPath): ZipEntry[] {
  const end = findEnd(descriptor, size, archive);
  if (end.directorySize > MAX_DIRECTORY)
    throw bad(archive, `its directory has ${end.directorySize} bytes, more than allowed`);
  // Data in front of the archive shift all offsets by the same amount.
  const start = end.position - end.directorySize;
  const shift = start - end.directoryOffset;
  if (start < 0 || shift < 0) throw bad(archive, "its directory does not lie inside it");

  const directory = Buffer.alloc(end.directorySize);
  readFully(descriptor, directory, start, archive);
  const entries: ZipEntry[] = [];
  const ranges: { from: number; to: number; name: string }[] = [];
  let at = 0;
  while (at < directory.length) {
    if (at + 46 > directory.length || directory.readUInt32LE(at) !== CENTRAL_SIGNATURE)
      throw bad(archive, `its directory is damaged at entry ${entries.length + 1}`);
    const nameLength = directory.readUInt16LE(at + 28);
    const extraLength = directory.readUInt16LE(at + 30);
    const next = at + 46 + nameLength + extraLength + directory.readUInt16LE(at + 32);
    if (next > directory.length)
      throw bad(archive, `its directory is damaged at entry ${entries.length + 1}`);
    const { entry, from } = readEntry(
      descriptor,
      directory.subarray(at, at + 46),
      directory.subarray(at + 46, at + 46 + nameLength),
      directory.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength),
      { shift, limit: start, archive },
    );
    entries.push(entry);
    ranges.push({ from, to: entry.dataOffset + entry.compressedSize, name: entry.name });
    at = next;
  }
  if (entries.length !== end.entries)
    throw bad(
      archive,
      `it says it has ${end.entries} entries, its directory has ${entries.length}`,
    );
  ranges.sort((a, b) => a.from - b.from);
  for (const [index, range] of ranges.entries()) {
    const next = ranges[index + 1];
    if (next !== undefined && next.from < range.to)
      throw bad(archive, `${JSON.stringify(range.name)} and ${JSON.stringify(next.name)} overlap`);
  }
  return entries;
}

interface End {
  readonly position: number;
  readonly entries: number;
  readonly directorySize: number;
  readonly directoryOffset: number;
}

function findEnd(descriptor: number, size: number, archive: SystemPath): End {
  const length = Math.min(size, 22 + MAX_COMMENT);
  const tail = Buffer.alloc(length);
  readFully(descriptor, tail, size - length, archive);
  for (let at = length - 22; at >= 0; at -= 1) {
    if (tail.readUInt32LE(at) !== END_SIGNATURE) continue;
    if (at + 22 + tail.readUInt16LE(at + 20) !== length) continue;
    if (tail.readUInt16LE(at + 4) !== 0 || tail.readUInt16LE(at + 6) !== 0)
      throw bad(archive, "it is one part of several");
    const position = size - length + at;
    const end = {
      position,
      entries: tail.readUInt16LE(at + 10),
      directorySize: tail.readUInt32LE(at + 12),
      directoryOffset: tail.readUInt32LE(at + 16),
    };
    const large =
      end.entries === 0xffff ||
      end.directorySize === 0xffffffff ||
      end.directoryOffset === 0xffffffff;
    return large ? (findEnd64(descriptor, position, archive) ?? end) : end;
  }
  throw bad(archive, "it is not a ZIP archive, or its end is missing");
}

function findEnd64(descriptor: number, position: number, archive: SystemPath): End | undefined {
  if (position < 20) return undefined;
  const locator = Buffer.alloc(20);
  readFully(descriptor, locator, position - 20, archive);
  if (locator.readUInt32LE(0) !== END64_LOCATOR) return undefined;
  const at = Number(locator.readBigUInt64LE(8));
  if (!Number.isSafeInteger(at) || at + 56 > position - 20)
    throw bad(archive, "its ZIP64 end record does not lie inside it");
  const record = Buffer.alloc(56);
  readFully(descriptor, record, at, archive);
  if (record.readUInt32LE(0) !== END64_SIGNATURE)
    throw bad(archive, "its ZIP64 end record is damaged");
  return {
    position: at,
    entries: safe(record.readBigUInt64LE(32), archive),
    directorySize: safe(record.readBigUInt64LE(40), archive),
    directoryOffset: safe(record.readBigUInt64LE(48), archive),
  };
}

function readEntry(
  descriptor: number,
  header: Buffer,
  nameBytes: Buffer,
  extra: Buffer,
  place: { readonly shift: number; readonly limit: number; readonly archive: SystemPath },
): { entry: ZipEntry; from: number } {
  const { archive } = place;
  const flags = header.readUInt16LE(8);
  const name = decodeName(nameBytes, (flags & 0x800) !== 0, archive);
  const sizes = withZip64(header, extra, archive);
  const from = sizes.offset + place.shift;
  if (from + 30 > place.limit) throw bad(archive, `${JSON.stringify(name)} does not lie inside it`);

  const local = Buffer.alloc(30);
  readFully(descriptor, local, from, archive);
  if (local.readUInt32LE(0) !== LOCAL_SIGNATURE)
    throw bad(archive, `${JSON.stringify(name)} has no header where it should be`);
  const localName = Buffer.alloc(local.readUInt16LE(26));
  readFully(descriptor, localName, from + 30, archive);
  if (!localName.equals(nameBytes))
    throw bad(archive, `${JSON.stringify(name)} has another name in its own header`);
  const dataOffset = from + 30 + localName.length + local.readUInt16LE(28);
  if (dataOffset + sizes.compressedSize > place.limit)
    throw bad(archive, `${JSON.stringify(name)} does not lie inside it`);

  const madeByUnix = header.readUInt8(5) === 3;
  const unixMode = madeByUnix ? header.readUInt32LE(38) >>> 16 : 0;
  const relative = neutralise(name);
  return {
    from,
    entry: {
      name,
      path: relative,
      neutralised: relative !== name.replace(/\/+$/, ""),
      kind: kindOf(unixMode, name),
      encrypted: (flags & 1) !== 0,
      method: header.readUInt16LE(10),
      crc: header.readUInt32LE(16),
      compressedSize: sizes.compressedSize,
      size: sizes.size,
      mode: unixMode & 0o7777,
      dataOffset,
    },
  };
}

function withZip64(
  header: Buffer,
  extra: Buffer,
  archive: SystemPath,
): { size: number; compressedSize: number; offset: number } {
  let size = header.readUInt32LE(24);
  let compressedSize = header.readUInt32LE(20);
  let offset = header.readUInt32LE(42);
  for (let at = 0; at + 4 <= extra.length;) {
    const id = extra.readUInt16LE(at);
    const length = extra.readUInt16LE(at + 2);
    const body = extra.subarray(at + 4, at + 4 + length);
    at += 4 + length;
    if (id !== 1) continue;
    let used = 0;
    const take = (): number => {
      if (used + 8 > body.length) throw bad(archive, "a ZIP64 field is too short");
      used += 8;
      return safe(body.readBigUInt64LE(used - 8), archive);
    };
    if (size === 0xffffffff) size = take();
    if (compressedSize === 0xffffffff) compressedSize = take();
    if (offset === 0xffffffff) offset = take();
  }
  return { size, compressedSize, offset };
}

function safe(value: bigint, archive: SystemPath): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(archive, "a size or offset is absurd");
  return Number(value);
}

function kindOf(unixMode: number, name: string): ZipEntry["kind"] {
  const type = unixMode & 0o170000;
  if (name.endsWith("/") || type === 0o040000) return "directory";
  if (type === 0o120000) return "link";
  return type === 0 || type === 0o100000 ? "file" : "other";
}

/** EXT-45: absolute names and `..` are moved inside by dropping what points out. A backslash is an ordinary character. */
function neutralise(name: string): string {
  return name
    .split("/")
    .filter((part) => part !== "" && part !== "." && part !== "..")
    .join("/");
}

const CP437 =
  "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00A0";

function decodeName(bytes: Buffer, isUtf8: boolean, archive: SystemPath): string {
  let name: string;
  if (isUtf8) {
    try {
      name = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (error) {
      throw bad(archive, "it has a name that is not UTF-8", error);
    }
  } else {
    name = Array.from(bytes, (byte) =>
      byte < 0x80 ? String.fromCharCode(byte) : (CP437[byte - 0x80] ?? ""),
    ).join("");
  }
  if (name === "" || /[\0-\x1f\x7f]/.test(name))
    throw bad(archive, `it has the name ${JSON.stringify(name)}`);
  return name;
}

/** Reads exactly `buffer.length` bytes at `position`. */
export function readFully(
  descriptor: number,
  buffer: Uint8Array,
  position: number,
  archive: SystemPath,
): void {
  let done = 0;
  while (done < buffer.length) {
    const count = fs.readSync(descriptor, buffer, done, buffer.length - done, position + done);
    if (count === 0) throw bad(archive, "it ends too early");
    done += count;
  }
}

export function bad(archive: SystemPath, reason: string, cause?: unknown): AgentError {
  return new AgentError("bad-input", `The archive ${archive} is refused: ${reason}`, { cause });
}
