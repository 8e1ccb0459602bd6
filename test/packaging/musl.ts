import fs from "node:fs";
import path from "node:path";
import type { Sandbox } from "../e2e/sandbox.ts";
import { missing } from "../support/skip.ts";

/**
 * What a system with musl has and Debian has not: a libstdc++ for musl. Debian's static one, compiled for glibc, does
 * as far as the runtime uses it.
 */

const LOADER = "/lib/ld-musl-x86_64.so.1";

/** What the static library expects of glibc. Nothing throws an exception, so that nobody unwinds. */
const SHIM = `#include <sys/random.h>
char __libc_single_threaded = 0;
unsigned arc4random(void) { unsigned number = 0; getrandom(&number, sizeof number, 0); return number; }
int _dl_find_object(void *address, void *result) { return -1; }
`;

function staticLibrary(name: string): string | undefined {
  const [found] = new Bun.Glob(`/usr/lib/gcc/x86_64-linux-gnu/*/${name}`).scanSync({
    cwd: "/",
    absolute: true,
  });
  return found;
}

/** Why executables for musl cannot be run here. */
export function cannotRunMusl(): string | undefined {
  if (process.arch !== "x64") return "this machine does not run x64";
  const lacking = missing({ programs: ["musl-gcc", "readelf"], files: [LOADER] });
  if (lacking !== undefined) return lacking;
  return staticLibrary("libstdc++.a") === undefined ? "libstdc++.a is missing" : undefined;
}

/** Path of a libstdc++ with what this executable takes from it. Errors: what the linker said. */
export function buildRuntime(executable: string, folder: string): string {
  const read = (...words: string[]) =>
    Bun.spawnSync(["readelf", "--wide", ...words, executable], { env: { LC_ALL: "C" } })
      .stdout.toString()
      .split("\n")
      .map((line) => line.trim().split(/\s+/));
  const names = [
    ...read("--dyn-syms").flatMap((words) => (words[6] === "UND" ? [words[7] ?? ""] : [])),
    ...read("--relocs").flatMap((words) => (words[2]?.endsWith("_COPY") ? [words[4] ?? ""] : [])),
  ].map((name) => name.replace(/@.*/, ""));
  const wanted = names.filter((name) => /^_Z|^__(?:cxa|dynamic|gxx)_/.test(name));
  const shim = path.join(folder, "shim.c");
  const library = path.join(folder, "libstdc++.so.6");
  fs.writeFileSync(shim, SHIM);
  const linked = Bun.spawnSync([
    ...["musl-gcc", "-O1", "-shared", "-fPIC", "-o", library, "-Wl,-soname,libstdc++.so.6"],
    ...["-Wl,-z,defs", shim],
    ...wanted.filter((name) => name !== "__cxa_finalize").map((name) => `-Wl,-u,${name}`),
    ...["libstdc++.a", "libgcc_eh.a"].map((name) => staticLibrary(name) ?? name),
  ]);
  if (linked.exitCode !== 0)
    throw new Error(`The libstdc++ could not be linked:\n${linked.stderr.toString()}`);
  return library;
}

/** Puts it where musl's loader finds it and no program for glibc does. */
export async function installRuntime(sandbox: Sandbox, library: string): Promise<void> {
  const folder = "/opt/musl";
  sandbox.write(`${folder}/libstdc++.so.6`, fs.readFileSync(library), 0o755);
  sandbox.write("/etc/ld-musl-x86_64.path", `${folder}\n`);
  await sandbox.run(["ln", "-sf", LOADER, `${folder}/libc.musl-x86_64.so.1`]);
}
