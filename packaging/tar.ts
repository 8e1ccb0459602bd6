import { createHash } from "node:crypto";
import path from "node:path";
import { DATE_OF_RELEASE } from "./product.ts";
import type { Entry } from "./tree.ts";

const BLOCK = 512;

/**
 * A tar archive with the date of the release on everything and root as its owner; folders come before what they hold.
 * Each file has its SHA-1 in an extended header, as apk wants it. Without the two empty blocks at its end, so that
 * another archive can follow.
 */
export function tarOf(entries: readonly Entry[]): Buffer {
  const members = new Map<string, Entry | undefined>(entries.map((entry) => [entry.path, entry]));
  for (const folder of foldersOf(entries)) members.set(`${folder}/`, undefined);
  const names = [...members.keys()].sort();
  return Buffer.concat(
    names.flatMap((name) => {
      const entry = members.get(name);
      const relative = name.slice(1);
      if (entry === undefined) return header(relative, 0o755, 0, "5");
      const content = Buffer.from(entry.content);
      const sum = createHash("sha1").update(content).digest("hex");
      const extended = Buffer.from(record("APK-TOOLS.checksum.SHA1", sum));
      return [
        ...[header(relative, 0o644, extended.length, "x"), padded(extended)],
        ...[header(relative, entry.mode, content.length, "0"), padded(content)],
      ];
    }),
  );
}

/** The two empty blocks. */
export const END_OF_TAR = Buffer.alloc(2 * BLOCK);

function foldersOf(entries: readonly Entry[]): ReadonlySet<string> {
  const folders = new Set<string>();
  for (const entry of entries)
    for (let at = path.dirname(entry.path); at !== "/"; at = path.dirname(at)) folders.add(at);
  return folders;
}

/** One record of a pax header: its own length counts. */
function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return `${length}${rest}`;
}

/** Errors: a name that ustar cannot hold in one field. */
function header(name: string, mode: number, size: number, type: "0" | "5" | "x"): Buffer {
  if (Buffer.byteLength(name) > 100) throw new Error(`${name} is too long for the archive`);
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");
  const fields: readonly (readonly [number, string])[] = [
    [0, name],
    [100, octal(mode, 7)],
    [108, octal(0, 7)],
    [116, octal(0, 7)],
    [124, octal(size, 11)],
    [136, octal(DATE_OF_RELEASE, 11)],
    // Blanks while the sum is made.
    [148, " ".repeat(8)],
    [156, type],
    [257, "ustar\0" + "00"],
    [265, "root"],
    [297, "root"],
  ];
  for (const [offset, text] of fields) block.write(text, offset, "latin1");
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${octal(sum, 6)}\0 `, 148, "latin1");
  return block;
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)]);
}
