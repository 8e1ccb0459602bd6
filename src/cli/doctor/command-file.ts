import path from "node:path";
import { describe } from "../../base/error.ts";
import { join, type SystemPath } from "../../system/root.ts";
import type { System } from "../../system/system.ts";
import { HEAD_BYTES, readExecutable } from "./executable.ts";

/** Why a program of an extension cannot be run on this machine. */
export interface CommandProblem {
  readonly id: "wrong-architecture" | "missing-interpreter" | "not-executable";
  readonly file: SystemPath;
  readonly reason: string;
}

const SEARCHED: readonly SystemPath[] = [
  "/usr/local/sbin",
  "/usr/local/bin",
  "/usr/sbin",
  "/usr/bin",
  "/sbin",
  "/bin",
];
/** What a kernel of the one can also run, given the loader. */
const ALSO: Readonly<Record<string, readonly string[]>> = {
  x86_64: ["i386"],
  aarch64: ["arm"],
};
/** A script may name a script; no kernel follows them for ever either. */
const MAX_DEPTH = 4;

/** Looks at the file behind a command line of a manifest. undefined: nothing speaks against running it. */
export function inspectCommand(
  system: Pick<System, "files">,
  base: SystemPath,
  command: string,
  architecture: string,
): CommandProblem | undefined {
  const word = /^(?:"([^"]*)"|'([^']*)'|(\S+))/.exec(command);
  const name = word?.[1] ?? word?.[2] ?? word?.[3] ?? "";
  const file = join(base, name);
  // Arguments of a package's command may hold anything, but the program is one of the package's own.
  if (name === "" || !file.startsWith(`${base}/`)) return undefined;
  return inspectProgram(system, file, architecture, 0);
}

function inspectProgram(
  system: Pick<System, "files">,
  file: SystemPath,
  architecture: string,
  depth: number,
): CommandProblem | undefined {
  const problem = (id: CommandProblem["id"], reason: string): CommandProblem => ({
    id,
    file,
    reason,
  });
  const info = system.files.stat(file);
  if (info === undefined) return problem("not-executable", "the file does not exist");
  if (info.kind !== "file") return problem("not-executable", "it is not a file");
  if ((info.mode & 0o111) === 0) return problem("not-executable", "it has no execute permission");
  let head: Uint8Array;
  try {
    head = system.files.readHead(file, HEAD_BYTES);
  } catch (error) {
    return problem("not-executable", describe(error));
  }
  const found = readExecutable(head);
  if (found.kind === "empty") return problem("not-executable", "the file is empty");
  if (found.kind === "text") return undefined;
  if (found.kind === "elf") {
    const runs = [architecture, ...(ALSO[architecture] ?? [])];
    if (!runs.includes(found.architecture))
      return problem(
        "wrong-architecture",
        `it is a program for ${found.architecture}, this machine is ${architecture}`,
      );
    const { interpreter } = found;
    if (interpreter === undefined || exists(system, interpreter)) return undefined;
    return problem("missing-interpreter", `its loader ${interpreter} does not exist`);
  }
  const missing = missingInterpreter(system, found.interpreter, found.argument);
  if (missing !== undefined) return problem("missing-interpreter", missing);
  const real = system.files.stat(found.interpreter as SystemPath);
  if (real === undefined || depth >= MAX_DEPTH) return undefined;
  const inner = inspectProgram(system, found.interpreter as SystemPath, architecture, depth + 1);
  return inner === undefined
    ? undefined
    : problem(inner.id, `its interpreter ${inner.file} cannot be run: ${inner.reason}`);
}

/** What is missing of the first line of a script; undefined when it is all there. */
function missingInterpreter(
  system: Pick<System, "files">,
  interpreter: string,
  argument: string | undefined,
): string | undefined {
  if (interpreter.endsWith("\r") || argument?.endsWith("\r") === true)
    return "its first line ends with a carriage return (it was edited on Windows), which the kernel takes for a part of the interpreter's name";
  if (interpreter === "") return "its first line names no interpreter";
  if (!interpreter.startsWith("/")) return `its interpreter ${interpreter} is not an absolute path`;
  if (!exists(system, interpreter)) return `its interpreter ${interpreter} does not exist`;
  if (path.posix.basename(interpreter) !== "env" || argument === undefined) return undefined;
  const wanted = argument.split(/\s+/).find((word) => !/^-|=/.test(word));
  if (wanted === undefined || wanted.includes("/")) return undefined;
  const isThere = SEARCHED.some((folder) => exists(system, `${folder}/${wanted}`));
  return isThere ? undefined : `its interpreter ${wanted} is not in ${SEARCHED.join(":")}`;
}

function exists(system: Pick<System, "files">, file: string): boolean {
  return file.startsWith("/") && system.files.stat(file as SystemPath) !== undefined;
}
