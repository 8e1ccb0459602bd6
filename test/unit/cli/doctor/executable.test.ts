import { expect, test } from "bun:test";
import { inspectCommand } from "../../../../src/cli/doctor/command-file.ts";
import { readExecutable } from "../../../../src/cli/doctor/executable.ts";
import { createFakeSystem, type FakeSystem } from "../../../fakes/system.ts";

interface Elf {
  readonly machine: number;
  readonly interpreter?: string;
  readonly is64?: boolean;
  readonly bigEndian?: boolean;
}

/** A program's headers: one PT_LOAD, and a PT_INTERP where it has a loader. */
function elf({ machine, interpreter, is64 = true, bigEndian = false }: Elf): Uint8Array {
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number): void =>
    is64 ? view.setBigUint64(at, BigInt(value), !bigEndian) : view.setUint32(at, value, !bigEndian);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, is64 ? 2 : 1, bigEndian ? 2 : 1, 1]);
  view.setUint16(18, machine, !bigEndian);
  const table = is64 ? 64 : 52;
  const size = is64 ? 56 : 32;
  word(is64 ? 32 : 28, table);
  view.setUint16(is64 ? 54 : 42, size, !bigEndian);
  view.setUint16(is64 ? 56 : 44, interpreter === undefined ? 1 : 2, !bigEndian);
  view.setUint32(table, 1, !bigEndian);
  if (interpreter !== undefined) {
    view.setUint32(table + size, 3, !bigEndian);
    word(table + size + (is64 ? 8 : 4), 512);
    word(table + size + (is64 ? 32 : 16), interpreter.length + 1);
    bytes.set(Buffer.from(`${interpreter}\0`), 512);
  }
  return bytes;
}

test("programs are known by machine and loader, in both sizes and byte orders", () => {
  const loader = "/lib64/ld-linux-x86-64.so.2";
  const program = (architecture: string, interpreter: string | undefined) =>
    ({ kind: "elf", architecture, interpreter }) as const;
  expect(readExecutable(elf({ machine: 0x3e, interpreter: loader }))).toEqual(
    program("x86_64", loader),
  );
  expect(readExecutable(elf({ machine: 0xb7 }))).toEqual(program("aarch64", undefined));
  expect(readExecutable(elf({ machine: 3, is64: false, interpreter: "/lib/ld.so" }))).toEqual(
    program("i386", "/lib/ld.so"),
  );
  expect(readExecutable(elf({ machine: 0x16, bigEndian: true, interpreter: "/l" }))).toEqual(
    program("s390x", "/l"),
  );
  expect(readExecutable(elf({ machine: 77 }))).toEqual(program("machine 77", undefined));
});

test("the first line of a script is read as the kernel reads it", () => {
  const of = (text: string) => readExecutable(Buffer.from(text));
  const script = (interpreter: string, argument?: string) =>
    ({ kind: "script", interpreter, argument }) as const;
  expect(of("#!/bin/sh\necho")).toEqual(script("/bin/sh"));
  expect(of("#! /usr/bin/env  python3 -u \nx")).toEqual(script("/usr/bin/env", "python3 -u"));
  expect(of("#!/bin/sh\r\n")).toEqual(script("/bin/sh\r"));
  expect(of("#!")).toEqual(script(""));
  expect(of("echo hello")).toEqual({ kind: "text" });
  expect(of("")).toEqual({ kind: "empty" });
});

test("headers of any content are read or passed over", () => {
  const whole = elf({ machine: 0x3e, interpreter: "/lib/ld.so" });
  for (let round = 0; round < 500; round += 1) {
    const bytes = Uint8Array.from(whole.subarray(0, 4 + ((round * 37) % 1020)));
    for (let at = 4; at < bytes.length; at += 1 + (round % 13)) bytes[at] = (at * round) & 0xff;
    expect(["elf", "text"]).toContain(readExecutable(bytes).kind);
  }
});

const BASE = "/var/lib/waagent/A-1";

function inspect(system: FakeSystem, content: string | Uint8Array, command = "bin/run") {
  system.files.makeDirectory(`${BASE}/bin`);
  system.files.write(`${BASE}/bin/run`, content, { mode: 0o755 });
  return inspectCommand(system, BASE, command, "x86_64");
}

test("a command is judged by its file, its interpreter and the interpreter's own", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/bin");
  system.files.makeDirectory("/usr/bin");
  system.files.write("/bin/sh", elf({ machine: 0x3e }), { mode: 0o755 });
  system.files.write("/usr/bin/env", elf({ machine: 0x3e }), { mode: 0o755 });
  system.files.write("/bin/alien", elf({ machine: 0xb7 }), { mode: 0o755 });

  for (const fine of [
    "#!/bin/sh\n",
    "#!/usr/bin/env sh\n",
    "#!/usr/bin/env -S A=b sh -x\n",
    "echo",
  ])
    expect(inspect(system, fine, "bin/run --with 'arguments'")).toBeUndefined();
  expect(inspect(system, "#!/bin/python\n")).toEqual({
    id: "missing-interpreter",
    file: `${BASE}/bin/run`,
    reason: "its interpreter /bin/python does not exist",
  });
  expect(inspect(system, "#!/usr/bin/env python\n")?.reason).toStartWith(
    "its interpreter python is not in /usr/local/sbin:",
  );
  expect(inspect(system, "#!sh\n")?.reason).toBe("its interpreter sh is not an absolute path");
  expect(inspect(system, "#!/bin/alien\n")).toMatchObject({
    id: "wrong-architecture",
    reason:
      "its interpreter /bin/alien cannot be run: it is a program for aarch64, this machine is x86_64",
  });
  expect(
    inspect(system, elf({ machine: 3, is64: false, interpreter: "/lib/ld.so" })),
  ).toMatchObject({
    id: "missing-interpreter",
    reason: "its loader /lib/ld.so does not exist",
  });
  expect(inspect(system, "")).toMatchObject({ id: "not-executable", reason: "the file is empty" });
  expect(inspect(system, "x", "bin/other")?.reason).toBe("the file does not exist");
  expect(inspect(system, "x", "bin")?.reason).toBe("it is not a file");
  expect(inspect(system, "x", "../../../bin/alien")).toBeUndefined();
  system.files.chmod(`${BASE}/bin/run`, 0o644);
  expect(inspectCommand(system, BASE, "bin/run", "x86_64")?.reason).toBe(
    "it has no execute permission",
  );
});

test("scripts that name each other end the look", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/bin");
  system.files.write("/bin/loop", "#!/bin/loop\n", { mode: 0o755 });
  expect(inspect(system, "#!/bin/loop\n")).toBeUndefined();
});
