import * as fs from "node:fs";
import path from "node:path";
import * as zlib from "node:zlib";
import { AgentError, errnoOf } from "../base/error.ts";
import { bad, readDirectory, readFully, type ZipEntry } from "./archive-directory.ts";
import type { Root, SystemPath } from "./root.ts";

/**
 * Reads ZIP archives that may be hostile. Own reader over node:zlib instead of a library, because every check
 * below has to happen before a byte is written, and because the libraries that were looked at either hand out
 * names like `../../x` and inflate in memory (fflate) or refuse names that the platform's contract wants
 * neutralised (yauzl; `extensions.md` EXT-45). The format's part is small; the limits are ours in any case.
 */
export interface ZipLimits {
  /** Default 50,000. */
  readonly maxEntries?: number;
  /** Uncompressed bytes of all entries. Default 4 GiB; callers also bound it by the free space. */
  readonly maxTotalBytes?: number;
  /** Uncompressed bytes for each compressed byte of the whole archive, looked at above 64 MiB. Default 200. */
  readonly maxRatio?: number;
}

export interface ExtractOptions extends ZipLimits {
  /** Mode of all files: permission bits in the archive are ignored (EXT-45). Default 0644. */
  readonly fileMode?: number;
  /** Mode of all directories. Default 0755. */
  readonly directoryMode?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface ExtractResult {
  readonly files: number;
  readonly bytes: number;
  /** Entries that are symbolic links; each became an ordinary file holding the link's text (EXT-45). */
  readonly links: readonly string[];
  /** Entries whose names pointed outside and were moved inside. */
  readonly neutralised: readonly string[];
}

const DEFAULT_MAX_ENTRIES = 50_000;
const DEFAULT_MAX_TOTAL = 4 * 1024 ** 3;
const DEFAULT_MAX_RATIO = 200;
const RATIO_FLOOR = 64 * 1024 * 1024;
const MAX_LINK_TEXT = 4096;
/** Up to here an entry is inflated in one piece; that is much faster for the many small files of a package. */
const IN_MEMORY = 1024 * 1024;
const CHUNK = 256 * 1024;

/** What an archive holds, after all checks that need no inflating. Errors: AgentError "bad-input" or "io". */
export function listZip(
  system: { readonly root: Root },
  archive: SystemPath,
  limits: ZipLimits = {},
): readonly ZipEntry[] {
  return withArchive(system.root, archive, (descriptor, size) =>
    checked(readDirectory(descriptor, size, archive), archive, limits),
  );
}

/** One member as bytes. Errors: AgentError "bad-input" when it is absent, larger than `maxBytes` or damaged. */
export function readZipMember(
  system: { readonly root: Root },
  archive: SystemPath,
  name: string,
  options: { readonly maxBytes?: number } = {},
): Uint8Array {
  return withArchive(system.root, archive, (descriptor, size) => {
    const entries = checked(readDirectory(descriptor, size, archive), archive, {});
    const entry = entries.find((candidate) => candidate.path === name && candidate.kind === "file");
    if (entry === undefined) throw bad(archive, `it has no ${name}`);
    if (entry.size > (options.maxBytes ?? IN_MEMORY))
      throw bad(archive, `${name} has ${entry.size} bytes, more than expected`);
    return inflateWhole(descriptor, entry, archive);
  });
}

/**
 * Unpacks into a directory that is absent or empty; what was written is removed again on failure.
 * Errors: AgentError "bad-input" naming archive and entry, "io" with errno, "cancelled".
 */
export async function extractZip(
  system: { readonly root: Root },
  archive: SystemPath,
  target: SystemPath,
  options: ExtractOptions = {},
): Promise<ExtractResult> {
  const { root } = system;
  const directory = root.real(target);
  const directoryMode = options.directoryMode ?? 0o755;
  const descriptor = openForReading(root, archive);
  try {
    const entries = checked(
      readDirectory(descriptor, fs.fstatSync(descriptor).size, archive),
      archive,
      options,
    );
    makeEmpty(directory, target, directoryMode);
    try {
      const made = new Set<string>(["."]);
      for (const entry of entries) {
        if (options.signal?.aborted === true)
          throw new AgentError("cancelled", `Unpacking ${archive} was cancelled`);
        if (entry.path === "") continue;
        const place = path.join(directory, entry.path);
        if (entry.kind === "directory") {
          makeParents(directory, entry.path, directoryMode, made);
          continue;
        }
        makeParents(directory, path.dirname(entry.path), directoryMode, made);
        await writeEntry(descriptor, entry, place, options.fileMode ?? 0o644, archive);
      }
    } catch (error) {
      fs.rmSync(directory, { recursive: true, force: true });
      throw error;
    }
    const files = entries.filter((entry) => entry.kind !== "directory");
    return {
      files: files.length,
      bytes: files.reduce((sum, entry) => sum + entry.size, 0),
      links: entries.filter((entry) => entry.kind === "link").map((entry) => entry.name),
      neutralised: entries.filter((entry) => entry.neutralised).map((entry) => entry.name),
    };
  } catch (error) {
    throw wrap(error, `Could not unpack ${archive}`);
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Everything that can be judged from the central directory alone (`extensions.md` DB-12). */
function checked(
  entries: readonly ZipEntry[],
  archive: SystemPath,
  limits: ZipLimits,
): readonly ZipEntry[] {
  const maxEntries = limits.maxEntries ?? DEFAULT_MAX_ENTRIES;
  const maxTotal = limits.maxTotalBytes ?? DEFAULT_MAX_TOTAL;
  if (entries.length > maxEntries)
    throw bad(archive, `it has ${entries.length} entries, more than the ${maxEntries} allowed`);
  let total = 0;
  let compressed = 0;
  const kinds = new Map<string, "file" | "directory">();
  for (const entry of entries) {
    if (entry.encrypted) throw bad(archive, `${shown(entry)} is encrypted`);
    if (entry.kind === "other")
      throw bad(archive, `${shown(entry)} is a device, socket or pipe, which no package may hold`);
    if (entry.method !== 0 && entry.method !== 8)
      throw bad(
        archive,
        `${shown(entry)} uses compression method ${entry.method}, only stored and deflated are known`,
      );
    if (entry.method === 0 && entry.size !== entry.compressedSize)
      throw bad(archive, `${shown(entry)} is stored, but its two sizes differ`);
    if (entry.kind === "link" && entry.size > MAX_LINK_TEXT)
      throw bad(archive, `${shown(entry)} is a symbolic link with ${entry.size} bytes of text`);
    total += entry.size;
    compressed += entry.compressedSize;
    if (total > maxTotal)
      throw bad(archive, `unpacked it has more than the ${maxTotal} bytes allowed`);
    claim(kinds, entry, archive);
  }
  const maxRatio = limits.maxRatio ?? DEFAULT_MAX_RATIO;
  if (total > RATIO_FLOOR && total > compressed * maxRatio)
    throw bad(
      archive,
      `it grows from ${compressed} to ${total} bytes, more than ${maxRatio} times: this is no honest package`,
    );
  return entries;
}

/** No two files of one name, no file that is also a directory: readers disagree on which of them counts. */
function claim(
  kinds: Map<string, "file" | "directory">,
  entry: ZipEntry,
  archive: SystemPath,
): void {
  const kind = entry.kind === "directory" ? "directory" : "file";
  if (entry.path === "") {
    if (kind === "file") throw bad(archive, `the name ${shown(entry)} stands for no file`);
    return;
  }
  const parts = entry.path.split("/");
  for (const part of parts) {
    if (Buffer.byteLength(part) > 255)
      throw bad(archive, `${shown(entry)} has a component longer than 255 bytes`);
  }
  for (let length = 1; length < parts.length; length += 1) {
    const parent = parts.slice(0, length).join("/");
    if (kinds.get(parent) === "file")
      throw bad(archive, `${parent} is a file and also the directory of ${shown(entry)}`);
    kinds.set(parent, "directory");
  }
  const known = kinds.get(entry.path);
  if (known !== undefined && (known === "file" || kind === "file"))
    throw bad(archive, `it has two entries for ${entry.path}`);
  kinds.set(entry.path, kind);
}

async function writeEntry(
  descriptor: number,
  entry: ZipEntry,
  place: string,
  mode: number,
  archive: SystemPath,
): Promise<void> {
  // "wx" on a tree that we made ourselves: nothing is followed and nothing overwritten.
  const output = fs.openSync(place, "wx", mode);
  try {
    if (entry.size <= IN_MEMORY && entry.compressedSize <= IN_MEMORY) {
      fs.writeFileSync(output, inflateWhole(descriptor, entry, archive));
    } else await inflateTo(descriptor, entry, output, archive);
    fs.fchmodSync(output, mode);
  } finally {
    fs.closeSync(output);
  }
}

function inflateWhole(descriptor: number, entry: ZipEntry, archive: SystemPath): Uint8Array {
  const raw = Buffer.alloc(entry.compressedSize);
  readFully(descriptor, raw, entry.dataOffset, archive);
  let data: Uint8Array = raw;
  if (entry.method === 8) {
    try {
      data = zlib.inflateRawSync(raw, { maxOutputLength: entry.size + 1 });
    } catch (error) {
      const tooLarge =
        error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE";
      const reason = tooLarge ? "it is larger than it says" : "its compressed data are damaged";
      throw bad(archive, `${shown(entry)}: ${reason}`, error);
    }
  }
  verify(entry, data.length, zlib.crc32(data), archive);
  return data;
}

async function inflateTo(
  descriptor: number,
  entry: ZipEntry,
  output: number,
  archive: SystemPath,
): Promise<void> {
  let size = 0;
  let crc = 0;
  const take = (chunk: Uint8Array): void => {
    size += chunk.length;
    if (size > entry.size) throw bad(archive, `${shown(entry)}: it is larger than it says`);
    crc = zlib.crc32(chunk, crc);
    fs.writeSync(output, chunk);
  };
  if (entry.method === 0) {
    for (const chunk of chunksOf(descriptor, entry, archive)) take(chunk);
  } else {
    const inflate = zlib.createInflateRaw({ chunkSize: CHUNK });
    const feeding = feed(inflate, chunksOf(descriptor, entry, archive));
    try {
      for await (const chunk of inflate as AsyncIterable<Uint8Array>) take(chunk);
      await feeding;
    } catch (error) {
      inflate.destroy();
      await feeding.catch(() => undefined); // the first error is the one that counts
      if (error instanceof AgentError || fileErrno(error) !== undefined) throw error;
      throw bad(archive, `${shown(entry)}: its compressed data are damaged`, error);
    }
  }
  verify(entry, size, crc, archive);
}

async function feed(inflate: zlib.InflateRaw, chunks: Iterable<Uint8Array>): Promise<void> {
  for (const chunk of chunks) {
    if (inflate.destroyed) return;
    if (!inflate.write(chunk)) {
      await new Promise<void>((resolve) => {
        const go = (): void => {
          inflate.off("drain", go);
          inflate.off("close", go);
          resolve();
        };
        inflate.on("drain", go);
        inflate.on("close", go);
      });
    }
  }
  inflate.end();
}

function* chunksOf(
  descriptor: number,
  entry: ZipEntry,
  archive: SystemPath,
): Generator<Uint8Array> {
  for (let at = 0; at < entry.compressedSize; at += CHUNK) {
    const chunk = Buffer.alloc(Math.min(CHUNK, entry.compressedSize - at));
    readFully(descriptor, chunk, entry.dataOffset + at, archive);
    yield chunk;
  }
}

function verify(entry: ZipEntry, size: number, crc: number, archive: SystemPath): void {
  if (size !== entry.size)
    throw bad(archive, `${shown(entry)}: it has ${size} bytes instead of ${entry.size}`);
  if (crc >>> 0 !== entry.crc) throw bad(archive, `${shown(entry)}: its checksum is wrong`);
}

function makeEmpty(directory: string, target: SystemPath, mode: number): void {
  const stat = fs.lstatSync(directory, { throwIfNoEntry: false });
  if (stat === undefined) {
    fs.mkdirSync(directory, { recursive: true });
    fs.chmodSync(directory, mode);
    return;
  }
  if (!stat.isDirectory() || fs.readdirSync(directory).length > 0)
    throw new AgentError("refused", `${target} is not an empty directory to unpack into`);
}

function makeParents(base: string, relative: string, mode: number, made: Set<string>): void {
  if (made.has(relative)) return;
  makeParents(base, path.dirname(relative), mode, made);
  const place = path.join(base, relative);
  fs.mkdirSync(place);
  fs.chmodSync(place, mode);
  made.add(relative);
}

function withArchive<Result>(
  root: Root,
  archive: SystemPath,
  action: (descriptor: number, size: number) => Result,
): Result {
  const descriptor = openForReading(root, archive);
  try {
    return action(descriptor, fs.fstatSync(descriptor).size);
  } catch (error) {
    throw wrap(error, `Could not read ${archive}`);
  } finally {
    fs.closeSync(descriptor);
  }
}

function openForReading(root: Root, archive: SystemPath): number {
  try {
    const descriptor = fs.openSync(
      root.real(archive),
      fs.constants.O_RDONLY | fs.constants.O_NONBLOCK,
    );
    if (fs.fstatSync(descriptor).isFile()) return descriptor;
    fs.closeSync(descriptor);
  } catch (error) {
    throw wrap(error, `Could not read ${archive}`);
  }
  throw bad(archive, "it is not a regular file");
}

function shown(entry: ZipEntry): string {
  return JSON.stringify(entry.name.length <= 120 ? entry.name : `${entry.name.slice(0, 117)}...`);
}

function fileErrno(error: unknown): string | undefined {
  return error instanceof Error && "syscall" in error ? errnoOf(error) : undefined;
}

function wrap(error: unknown, doing: string): AgentError {
  if (error instanceof AgentError) return error;
  return new AgentError("io", doing, { cause: error, errno: errnoOf(error) });
}
