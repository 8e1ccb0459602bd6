import * as fs from "node:fs";
import path from "node:path";
import { AgentError, errnoOf } from "../base/error.ts";
import { Secret } from "../base/secret.ts";
import type { Root, SystemPath } from "./root.ts";

/** One run of a program of the machine: arguments as an array, never a shell string. */
export interface Command {
  readonly argv: readonly string[];
  /** Default: empty. The only way a secret may reach a program. */
  readonly stdin?: string | Uint8Array | Secret | undefined;
  /** Default 60 s. On expiry the process group gets SIGTERM, 2 s later SIGKILL. */
  readonly timeoutMs?: number;
  /** Exit codes that are no error. Default [0]. "any" accepts all. */
  readonly okCodes?: readonly number[] | "any";
  readonly signal?: AbortSignal | undefined;
  readonly cwd?: SystemPath;
  /** Added to the fixed environment. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Output beyond this is dropped and the program ended. Default 8 MiB for each stream. */
  readonly maxOutputBytes?: number;
}

export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly stdoutBytes: Uint8Array;
}

export interface Exec {
  /**
   * Errors: AgentError "program-missing", "exec-timeout", "cancelled", or "exec" with program, exit code and
   * the end of its output. Arguments are part of the message, standard input never is.
   */
  run(command: Command): Promise<CommandResult>;
  /** Absolute real path of a program, or undefined. */
  find(program: string): string | undefined;
}

export interface ExecOptions {
  /** Variables every program gets besides PATH, LC_ALL and the agent's marker (e.g. OPENSSL_FIPS). */
  readonly environment?: Readonly<Record<string, string>>;
}

/** `system.md` THR-05: older agents tell our helpers by this variable. */
const PARENT_MARKER = { AZURE_GUEST_AGENT_PARENT_PROCESS_NAME: "AZURE_GUEST_AGENT" };
const GRACE_MS = 2000;

export function createExec(root: Root, options: ExecOptions = {}): Exec {
  const find = (program: string): string | undefined => {
    if (program.includes("/")) {
      return isExecutable(program) ? program : undefined;
    }
    for (const directory of root.programPath.split(":")) {
      const candidate = path.join(directory, program);
      if (isExecutable(candidate)) return candidate;
    }
    return undefined;
  };

  const run = async (command: Command): Promise<CommandResult> => {
    const [program, ...rest] = command.argv;
    if (program === undefined)
      throw new AgentError("bad-input", "A command needs at least the program's name");
    // Under a scratch root an absolute program is looked up by name in its bin folder: nothing of the machine runs.
    const wanted = root.isMachine ? program : path.basename(program);
    const executable = find(wanted);
    if (executable === undefined)
      throw new AgentError("program-missing", `The program ${program} is not installed`);
    if (command.signal?.aborted === true)
      throw new AgentError("cancelled", `${program} was not started: cancelled`);

    let child: ReturnType<typeof spawn>;
    try {
      child = spawn(
        [executable, ...rest],
        command,
        {
          PATH: root.programPath,
          LC_ALL: "C",
          ...PARENT_MARKER,
          ...options.environment,
          ...command.environment,
        },
        root,
      );
    } catch (error) {
      throw new AgentError("exec", `Could not start ${program}`, {
        cause: error,
        errno: errnoOf(error),
      });
    }

    let ended: "timeout" | "cancelled" | "output" | undefined;
    const stop = (why: typeof ended): void => {
      if (ended !== undefined) return;
      ended = why;
      killGroup(child.pid, "SIGTERM");
      killTimer = setTimeout(() => killGroup(child.pid, "SIGKILL"), GRACE_MS);
    };
    let killTimer: ReturnType<typeof setTimeout> | undefined;
    const limit = setTimeout(() => stop("timeout"), command.timeoutMs ?? 60_000);
    const onAbort = (): void => stop("cancelled");
    command.signal?.addEventListener("abort", onAbort, { once: true });

    const max = command.maxOutputBytes ?? 8 * 1024 * 1024;
    try {
      const reading = Promise.all([
        collect(child.stdout, max, () => stop("output")),
        collect(child.stderr, max, () => stop("output")),
      ]);
      const code = await child.exited;
      // A grandchild may hold the pipes; it does not delay us longer than the grace period.
      const [stdoutBytes, stderrBytes] = await Promise.race([
        reading,
        afterGrace(child.pid, reading),
      ]);
      const result: CommandResult = {
        code,
        stdoutBytes,
        stdout: new TextDecoder().decode(stdoutBytes),
        stderr: new TextDecoder().decode(stderrBytes),
      };
      if (ended === "timeout") {
        throw new AgentError(
          "exec-timeout",
          `${shown(command.argv)} did not end within ${(command.timeoutMs ?? 60_000) / 1000} s and was killed`,
        );
      }
      if (ended === "cancelled")
        throw new AgentError("cancelled", `${shown(command.argv)} was cancelled`);
      if (ended === "output")
        throw new AgentError(
          "exec",
          `${shown(command.argv)} wrote more than ${max} bytes and was killed`,
        );
      const allowed = command.okCodes ?? [0];
      if (allowed !== "any" && !allowed.includes(code)) {
        throw new AgentError(
          "exec",
          `${shown(command.argv)} failed with exit code ${code}${outputOf(result)}`,
          { status: code },
        );
      }
      return result;
    } finally {
      clearTimeout(limit);
      clearTimeout(killTimer);
      command.signal?.removeEventListener("abort", onAbort);
    }
  };

  return { run, find };
}

function spawn(argv: string[], command: Command, environment: Record<string, string>, root: Root) {
  const stdin = command.stdin instanceof Secret ? command.stdin.reveal() : command.stdin;
  return Bun.spawn(argv, {
    cwd: root.real(command.cwd ?? "/"),
    env: environment,
    stdin:
      stdin === undefined
        ? "ignore"
        : typeof stdin === "string"
          ? new TextEncoder().encode(stdin)
          : stdin,
    stdout: "pipe",
    stderr: "pipe",
    detached: true,
  });
}

async function collect(
  stream: ReadableStream<Uint8Array>,
  max: number,
  tooMuch: () => void,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
    if (size + chunk.length > max) {
      chunks.push(chunk.subarray(0, max - size));
      tooMuch();
      break;
    }
    chunks.push(chunk);
    size += chunk.length;
  }
  return Buffer.concat(chunks);
}

async function afterGrace<Result>(pid: number, reading: Promise<Result>): Promise<Result> {
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS).unref());
  killGroup(pid, "SIGKILL");
  return reading;
}

/** Signals a whole process group; a group that is gone is what we want. */
export function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: already gone
  }
}

function isExecutable(file: string): boolean {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false; // absent or not executable: both mean it cannot be run
  }
}

function shown(argv: readonly string[]): string {
  return argv
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(" ");
}

function outputOf(result: CommandResult): string {
  const text = (result.stderr.trim() === "" ? result.stdout : result.stderr).trim();
  return text === "" ? "" : `: ${text.length <= 600 ? text : `...${text.slice(-600)}`}`;
}
