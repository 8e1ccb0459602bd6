import fs from "node:fs";

/** What an executable asks of the machine it is started on. */
export interface Elf {
  readonly machine: "x86-64" | "aarch64";
  /** The loader. */
  readonly interpreter: string;
  /** Names of shared libraries, sorted. */
  readonly needed: readonly string[];
  /** Versions of symbols that libraries must have, such as "GLIBC_2.17", sorted. */
  readonly symbolVersions: readonly string[];
}

/** `e_machine`, `p_type` and `d_tag` of the ELF specification and its supplements. */
const MACHINES: Readonly<Record<number, Elf["machine"]>> = { 62: "x86-64", 183: "aarch64" };
const LOAD = 1;
const DYNAMIC = 2;
const INTERPRETER = 3;
const NEEDED = 1;
const STRING_TABLE = 5;
const STRING_TABLE_SIZE = 10;

/** Errors: a file that is no 64-bit little-endian ELF program with a loader. */
export function readElf(file: string): Elf {
  const bytes = fs.readFileSync(file);
  // The magic, 64 bits, little-endian.
  if (!bytes.subarray(0, 6).equals(Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1])))
    throw new Error(`${file} is no 64-bit little-endian ELF file`);
  const number = (offset: number) => Number(bytes.readBigUInt64LE(offset));
  const text = (offset: number) => bytes.toString("latin1", offset, bytes.indexOf(0, offset));
  const machine = MACHINES[bytes.readUInt16LE(18)];
  if (machine === undefined) throw new Error(`${file} is for another kind of machine`);

  const headers = Array.from({ length: bytes.readUInt16LE(56) }, (_, index) => {
    const at = number(32) + index * bytes.readUInt16LE(54);
    return {
      type: bytes.readUInt32LE(at),
      offset: number(at + 8),
      address: number(at + 16),
      size: number(at + 32),
    };
  });
  const header = (type: number) => {
    const found = headers.find((one) => one.type === type);
    if (found === undefined) throw new Error(`${file} has no program header of type ${type}`);
    return found;
  };
  const dynamic = header(DYNAMIC);
  const entries = Array.from({ length: dynamic.size / 16 }, (_, index) => ({
    tag: number(dynamic.offset + index * 16),
    value: number(dynamic.offset + index * 16 + 8),
  }));
  const valueOf = (tag: number) => entries.find((entry) => entry.tag === tag)?.value ?? 0;
  const address = valueOf(STRING_TABLE);
  const segment = headers.find(
    (one) => one.type === LOAD && address >= one.address && address < one.address + one.size,
  );
  if (segment === undefined) throw new Error(`${file} has no table of names`);
  const names = address - segment.address + segment.offset;
  const table = bytes.toString("latin1", names, names + valueOf(STRING_TABLE_SIZE)).split("\0");
  return {
    machine,
    interpreter: text(header(INTERPRETER).offset),
    needed: entries
      .filter((entry) => entry.tag === NEEDED)
      .map(({ value }) => text(names + value))
      .sort(),
    symbolVersions: table.filter((name) => /^[A-Z]+_[\d.]+$/.test(name)).sort(),
  };
}
