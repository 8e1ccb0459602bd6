import * as zlib from "node:zlib";
import { describe } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { logFolderOf, type Layout } from "./layout.ts";

/** Bytes of each stream that are looked at, and characters of both that are passed on (`extensions.md` EXT-79). */
const LIMIT = 3200;
const FRAME = "[stdout]\n\n\n[stderr]\n".length;

/** Full output of the last commands of a handler (DB-14); the folder of the Python agent has nothing of this name. */
const FOLDER = "CommandOutput";
const MAX_FILES = 40;
const MAX_TOTAL_BYTES = 64 * 1024 * 1024;
const COMPRESS_FROM = 64 * 1024;
export const MAX_STREAM_BYTES = 16 * 1024 * 1024;

/** `[stdout]`, text, `[stderr]`, text; when both together are too long, the ends of both share the room. */
export function formatOutput(stdout: Uint8Array, stderr: Uint8Array): string {
  let out = decode(stdout.subarray(0, LIMIT));
  let err = decode(stderr.subarray(0, LIMIT));
  if (out.length + err.length >= LIMIT) {
    const half = (LIMIT - FRAME) / 2;
    const forOut = half + Math.max(0, half - err.length);
    const forErr = half + Math.max(0, half - out.length);
    out = out.slice(-forOut);
    err = err.slice(-forErr);
  }
  return `[stdout]\n${out}\n\n[stderr]\n${err}`;
}

/** UTF-8; every byte that is not part of a character becomes `\xNN`. */
export function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // not all of it is UTF-8: the careful way below
  }
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes[at] ?? 0);
    let character: string | undefined;
    if (length > 0 && at + length <= bytes.length) {
      try {
        character = strict.decode(bytes.subarray(at, at + length));
      } catch {
        // a lone or overlong sequence: its first byte is escaped, the rest looked at again
      }
    }
    if (character === undefined) {
      text += `\\x${(bytes[at] ?? 0).toString(16).padStart(2, "0")}`;
      at += 1;
    } else {
      text += character;
      at += length;
    }
  }
  return text;
}

function sequenceLength(first: number): number {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/** The formatted beginning of what a command wrote. A file that cannot be read counts as empty. */
export function readOutput(
  system: Pick<System, "files" | "log">,
  stdout: SystemPath,
  stderr: SystemPath,
): string {
  const head = (file: SystemPath): Uint8Array => {
    try {
      return system.files.readHead(file, LIMIT);
    } catch (error) {
      system.log.verbose(`The output of a command is not there: ${describe(error)}`);
      return new Uint8Array();
    }
  };
  return formatOutput(head(stdout), head(stderr));
}

/** Files for the output of the next command; older ones are compressed, and removed when there are too many. */
export function outputFiles(
  system: Pick<System, "files" | "log">,
  layout: Layout,
  handler: string,
  label: string,
): { readonly stdout: SystemPath; readonly stderr: SystemPath } {
  const folder = join(logFolderOf(layout, handler), FOLDER);
  system.files.makeDirectory(logFolderOf(layout, handler), { mode: 0o755, keepMode: true });
  system.files.makeDirectory(folder, { mode: 0o700 });
  try {
    rotate(system, folder);
  } catch (error) {
    system.log.warning(`Old output of ${handler} could not be rotated: ${describe(error)}`);
  }
  return { stdout: join(folder, `${label}.stdout`), stderr: join(folder, `${label}.stderr`) };
}

function rotate(system: Pick<System, "files">, folder: SystemPath): void {
  const { files } = system;
  let kept = 0;
  let total = 0;
  // Names begin with the time, so the newest come last.
  for (const name of files.list(folder).reverse()) {
    const file = join(folder, name);
    const stat = files.lstat(file);
    if (stat === undefined) continue;
    if (stat.kind !== "file" || kept >= MAX_FILES || total + stat.size > MAX_TOTAL_BYTES) {
      files.remove(file);
      continue;
    }
    kept += 1;
    // Children of the newest commands may still write to their files.
    if (kept > 4 && stat.size > COMPRESS_FROM && !name.endsWith(".gz")) {
      const packed = zlib.gzipSync(files.read(file));
      files.write(join(folder, `${name}.gz`), packed, { mode: 0o600, durable: false });
      files.remove(file);
      total += packed.length;
    } else total += stat.size;
  }
}
