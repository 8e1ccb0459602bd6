/** What a file is for the kernel that is asked to run it, judged by its first bytes. */
export type Executable =
  | {
      readonly kind: "elf";
      /** As `uname -m` says it, or the number of a machine that we have no name for. */
      readonly architecture: string;
      /** The loader it asks for; undefined for a static program. */
      readonly interpreter: string | undefined;
    }
  | {
      readonly kind: "script";
      readonly interpreter: string;
      /** What stands behind it on the first line, in one piece. */
      readonly argument: string | undefined;
    }
  /** Text without a first line for the kernel: the shell runs it. */
  | { readonly kind: "text" }
  | { readonly kind: "empty" };

/** As many bytes as hold the headers of any program that a linker makes. */
export const HEAD_BYTES = 16 * 1024;

const MACHINES: Readonly<Record<number, string>> = {
  0x03: "i386",
  0x15: "ppc64",
  0x16: "s390x",
  0x28: "arm",
  0x3e: "x86_64",
  0xb7: "aarch64",
  0xf3: "riscv",
};
const PT_INTERP = 3;

export function readExecutable(head: Uint8Array): Executable {
  if (head.length === 0) return { kind: "empty" };
  if (head[0] === 0x7f && text(head, 1, 4) === "ELF" && head.length >= 64) return readElf(head);
  if (text(head, 0, 2) !== "#!") return { kind: "text" };
  const line = text(head, 2, 512).split("\n")[0] ?? "";
  // A carriage return stays: for the kernel it is part of the name.
  const [, interpreter = "", argument] =
    /^[ \t]*(\S*?\r?)(?:[ \t]+(.*?))?[ \t]*$/s.exec(line) ?? [];
  return { kind: "script", interpreter, argument: argument === "" ? undefined : argument };
}

function readElf(head: Uint8Array): Executable {
  const is64 = head[4] === 2;
  const little = head[5] !== 2;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const number = (at: number, size: 2 | 4 | 8): number => {
    if (at + size > head.length) return 0;
    if (size === 2) return view.getUint16(at, little);
    return size === 4 ? view.getUint32(at, little) : Number(view.getBigUint64(at, little));
  };
  const word = is64 ? 8 : 4;
  const machine = number(18, 2);
  const table = number(is64 ? 32 : 28, word);
  const entrySize = number(is64 ? 54 : 42, 2);
  const count = number(is64 ? 56 : 44, 2);
  let interpreter: string | undefined;
  for (let index = 0; index < count; index += 1) {
    const entry = table + index * entrySize;
    if (number(entry, 4) !== PT_INTERP) continue;
    const offset = number(entry + (is64 ? 8 : 4), word);
    const size = number(entry + (is64 ? 32 : 16), word);
    if (offset + size <= head.length)
      interpreter = text(head, offset, offset + size).replace(/\0.*$/s, "");
  }
  const architecture = MACHINES[machine] ?? `machine ${machine}`;
  return { kind: "elf", architecture, interpreter };
}

function text(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.subarray(from, to)).toString("latin1");
}
