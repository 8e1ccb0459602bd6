import * as fs from "node:fs";
import * as zlib from "node:zlib";
import { AgentError, errnoOf } from "../base/error.ts";
import type { Root, SystemPath } from "./root.ts";
import { temporaryBeside } from "./temporary.ts";

/** Writes a ZIP archive member by member with little memory; the file appears under its name when it is complete. */
export interface ZipWriter {
  /**
   * Adds a file as it is now: not more bytes than it had when it was opened. `tailBytes` keeps only its end.
   * Resolves to the uncompressed bytes. Errors: AgentError "io"; then the archive still is as it was before.
   */
  addFile(name: string, source: SystemPath, options?: AddFileOptions): Promise<number>;
  addBytes(
    name: string,
    data: string | Uint8Array,
    options?: { readonly modifiedMs?: number },
  ): Promise<number>;
  /** Bytes of the archive so far, without its directory. */
  readonly bytes: number;
  /** Writes the directory, syncs, and gives the file its name. */
  close(): void;
  /** Removes what was written. Safe to call twice and after close. */
  abort(): void;
}

export interface AddFileOptions {
  readonly tailBytes?: number;
  readonly modifiedMs?: number;
  /** Changes the content on its way, e.g. takes secrets out; must not need the whole of it. */
  readonly transform?: (chunks: Iterable<Uint8Array>) => Iterable<Uint8Array>;
}

interface Written {
  readonly name: Buffer;
  readonly crc: number;
  readonly size: number;
  readonly compressedSize: number;
  readonly offset: number;
  readonly time: number;
  readonly date: number;
}

const CHUNK = 256 * 1024;
const LIMIT = 0xfffffffe;
/** Version 2.0, flag "names are UTF-8", method deflate. */
const VERSION = 20;
const UTF8 = 0x800;
/**
 * The chunks of a long file are garbage that the runtime lets pile up; the log collector runs under a limit of 25 MiB
 * (`system.md` LOGC-10). A collection takes some milliseconds.
 */
const COLLECT_GARBAGE_AFTER = 1 * 1024 * 1024;

/** Errors: AgentError "io" when the file cannot be created. Default mode 0600. */
export function createZip(
  system: { readonly root: Root },
  file: SystemPath,
  options: { readonly mode?: number; readonly level?: number } = {},
): ZipWriter {
  const target = system.root.real(file);
  const temporary = temporaryBeside(target);
  let descriptor: number | undefined;
  try {
    descriptor = fs.openSync(temporary, "wx", options.mode ?? 0o600);
  } catch (error) {
    throw new AgentError("io", `Could not create the archive ${file}`, {
      cause: error,
      errno: errnoOf(error),
    });
  }
  const members: Written[] = [];
  let pressure = 0;
  let position = 0;

  const fileDescriptor = (): number => {
    if (descriptor === undefined)
      throw new AgentError("refused", `The archive ${file} is closed already`);
    return descriptor;
  };

  const add = async (
    name: string,
    chunks: Iterable<Uint8Array>,
    modifiedMs: number,
  ): Promise<number> => {
    const output = fileDescriptor();
    const encoded = Buffer.from(name.replace(/^\/+/, ""));
    if (members.length >= 0xfffe || encoded.length > 0xffff)
      throw new AgentError("refused", `The archive ${file} cannot take the member ${name}`);
    const start = position;
    try {
      position += put(output, localHeader(encoded, dosTime(modifiedMs)), position);
      position += put(output, encoded, position);
      const deflate = zlib.createDeflateRaw({ level: options.level ?? 6, chunkSize: CHUNK });
      let size = 0;
      let crc = 0;
      const feeding = (async (): Promise<void> => {
        for (const chunk of chunks) {
          size += chunk.length;
          pressure += chunk.length;
          if (pressure >= COLLECT_GARBAGE_AFTER) {
            Bun.gc(true);
            pressure = 0;
          }
          crc = zlib.crc32(chunk, crc);
          if (!deflate.write(chunk))
            await new Promise<void>((resolve) => deflate.once("drain", resolve));
        }
        deflate.end();
      })();
      feeding.catch((error: unknown) => deflate.destroy(error as Error));
      const dataStart = position;
      for await (const chunk of deflate as AsyncIterable<Uint8Array>)
        position += put(output, chunk, position);
      await feeding;
      const member: Written = {
        name: encoded,
        crc: crc >>> 0,
        size,
        compressedSize: position - dataStart,
        offset: start,
        ...dosTime(modifiedMs),
      };
      if (position > LIMIT || size > LIMIT)
        throw new AgentError("refused", `The archive ${file} would be larger than 4 GiB`);
      put(output, localHeader(encoded, member, member), start);
      members.push(member);
      return size;
    } catch (error) {
      fs.ftruncateSync(output, start);
      position = start;
      if (error instanceof AgentError) throw error;
      throw new AgentError("io", `Could not add ${name} to the archive ${file}`, {
        cause: error,
        errno: errnoOf(error),
      });
    }
  };

  const abort = (): void => {
    if (descriptor === undefined) return;
    fs.closeSync(descriptor);
    descriptor = undefined;
    fs.rmSync(temporary, { force: true });
  };

  return {
    get bytes() {
      return position;
    },
    addFile: async (name, source, addOptions = {}) => {
      let input: number;
      try {
        input = fs.openSync(
          system.root.real(source),
          fs.constants.O_RDONLY | fs.constants.O_NONBLOCK,
        );
      } catch (error) {
        throw new AgentError("io", `Could not read ${source}`, {
          cause: error,
          errno: errnoOf(error),
        });
      }
      try {
        const stat = fs.fstatSync(input);
        if (!stat.isFile()) throw new AgentError("bad-input", `${source} is not a regular file`);
        const from = Math.max(0, stat.size - (addOptions.tailBytes ?? stat.size));
        const chunks = chunksOf(input, from, stat.size);
        return await add(
          name,
          addOptions.transform === undefined ? chunks : addOptions.transform(chunks),
          addOptions.modifiedMs ?? stat.mtimeMs,
        );
      } finally {
        fs.closeSync(input);
      }
    },
    addBytes: (name, data, addOptions = {}) =>
      add(
        name,
        [typeof data === "string" ? new TextEncoder().encode(data) : data],
        addOptions.modifiedMs ?? Date.UTC(1980, 0, 1),
      ),
    close: () => {
      const output = fileDescriptor();
      try {
        const start = position;
        for (const member of members)
          position += put(output, Buffer.concat([centralHeader(member), member.name]), position);
        put(output, endRecord(members.length, position - start, start), position);
        fs.fsyncSync(output);
        fs.closeSync(output);
        descriptor = undefined;
        fs.renameSync(temporary, target);
      } catch (error) {
        abort();
        fs.rmSync(temporary, { force: true });
        throw new AgentError("io", `Could not complete the archive ${file}`, {
          cause: error,
          errno: errnoOf(error),
        });
      }
    },
    abort,
  };
}

function* chunksOf(input: number, from: number, to: number): Generator<Uint8Array> {
  for (let at = from; at < to;) {
    const chunk = Buffer.alloc(Math.min(CHUNK, to - at));
    const count = fs.readSync(input, chunk, 0, chunk.length, at);
    if (count === 0) return; // it was cut meanwhile, as logs are
    yield chunk.subarray(0, count);
    at += count;
  }
}

function put(output: number, data: Uint8Array, position: number): number {
  let done = 0;
  while (done < data.length)
    done += fs.writeSync(output, data, done, data.length - done, position + done);
  return data.length;
}

function localHeader(
  name: Buffer,
  when: { readonly time: number; readonly date: number },
  sizes?: { readonly crc: number; readonly size: number; readonly compressedSize: number },
): Buffer {
  const header = Buffer.alloc(30);
  header.writeUInt32LE(0x04034b50, 0);
  header.writeUInt16LE(VERSION, 4);
  header.writeUInt16LE(UTF8, 6);
  header.writeUInt16LE(8, 8);
  header.writeUInt16LE(when.time, 10);
  header.writeUInt16LE(when.date, 12);
  header.writeUInt32LE(sizes?.crc ?? 0, 14);
  header.writeUInt32LE(sizes?.compressedSize ?? 0, 18);
  header.writeUInt32LE(sizes?.size ?? 0, 22);
  header.writeUInt16LE(name.length, 26);
  return header;
}

function centralHeader(member: Written): Buffer {
  const header = Buffer.alloc(46);
  header.writeUInt32LE(0x02014b50, 0);
  header.writeUInt16LE((3 << 8) | VERSION, 4);
  header.writeUInt16LE(VERSION, 6);
  header.writeUInt16LE(UTF8, 8);
  header.writeUInt16LE(8, 10);
  header.writeUInt16LE(member.time, 12);
  header.writeUInt16LE(member.date, 14);
  header.writeUInt32LE(member.crc, 16);
  header.writeUInt32LE(member.compressedSize, 20);
  header.writeUInt32LE(member.size, 24);
  header.writeUInt16LE(member.name.length, 28);
  header.writeUInt32LE((0o100600 << 16) >>> 0, 38);
  header.writeUInt32LE(member.offset, 42);
  return header;
}

function endRecord(entries: number, directorySize: number, directoryOffset: number): Buffer {
  const record = Buffer.alloc(22);
  record.writeUInt32LE(0x06054b50, 0);
  record.writeUInt16LE(entries, 8);
  record.writeUInt16LE(entries, 10);
  record.writeUInt32LE(directorySize, 12);
  record.writeUInt32LE(directoryOffset, 16);
  return record;
}

/** MS-DOS date and time, UTC, two-second steps, 1980 to 2107. */
function dosTime(modifiedMs: number): { time: number; date: number } {
  const when = new Date(
    Math.min(Math.max(modifiedMs, Date.UTC(1980, 0, 1)), Date.UTC(2107, 11, 31)),
  );
  return {
    time: (when.getUTCHours() << 11) | (when.getUTCMinutes() << 5) | (when.getUTCSeconds() >> 1),
    date:
      ((when.getUTCFullYear() - 1980) << 9) | ((when.getUTCMonth() + 1) << 5) | when.getUTCDate(),
  };
}
