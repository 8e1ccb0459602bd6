import * as fs from "node:fs";
import { AgentError, errnoOf } from "../base/error.ts";
import { killGroup } from "./exec.ts";
import type { Root, SystemPath } from "./root.ts";

/**
 * Starts commands of extensions. Unlike Exec it goes through `/bin/sh -c`, sends output to files (a script may
 * open /dev/stdout, which fails on a socket pair), survives the agent, and leaves its exit code in a file, so
 * that an agent that was killed meanwhile can pick the command up again instead of running it twice.
 */
export interface LaunchRequest {
  readonly shellCommand: string;
  readonly cwd: SystemPath;
  /** The complete environment; nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  readonly stdout: SystemPath;
  readonly stderr: SystemPath;
  /** Gets the decimal exit code, atomically, when the command ends. */
  readonly exitFile: SystemPath;
  readonly timeoutMs: number;
  /** Control group directory the command is started in. */
  readonly cgroup?: SystemPath;
}

/** Identity of a process that survives pid reuse. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat, clock ticks since boot; "" where there is no /proc. */
  readonly startTime: string;
}

export interface LaunchResult {
  /** Exit code, 128 + n for signal n; undefined when it cannot be known any more. */
  readonly code: number | undefined;
  readonly timedOut: boolean;
  readonly durationMs: number;
}

export interface RunningCommand {
  readonly identity: ProcessIdentity;
  wait(): Promise<LaunchResult>;
  /** SIGKILL to the whole group. */
  kill(): void;
}

export interface Launch {
  /** Errors: AgentError "exec" when the shell cannot be started. */
  start(request: LaunchRequest): RunningCommand;
  /** Picks up a command that an earlier agent process started. `timeoutMs` is what is left. */
  attach(
    identity: ProcessIdentity,
    request: Pick<LaunchRequest, "exitFile" | "timeoutMs">,
  ): RunningCommand;
}

/** The command runs as a child of this shell, so that its exit code outlives the agent. */
const WRAPPER =
  '/bin/sh -c "$1"; code=$?; echo "$code" > "$2.new" && mv "$2.new" "$2"; exit "$code"';
const ATTACHED_POLL_MS = 200;

export function createLaunch(root: Root): Launch {
  const start = (request: LaunchRequest): RunningCommand => {
    const exitFile = root.real(request.exitFile);
    fs.rmSync(exitFile, { force: true });
    const stdout = fs.openSync(root.real(request.stdout), "w", 0o600);
    const stderr = fs.openSync(root.real(request.stderr), "w", 0o600);
    const began = performance.now();
    try {
      const child = Bun.spawn(["/bin/sh", "-c", WRAPPER, "sh", request.shellCommand, exitFile], {
        cwd: root.real(request.cwd),
        env: { ...request.environment },
        stdin: "ignore",
        stdout,
        stderr,
        detached: true,
        ...(request.cgroup === undefined ? {} : { cgroup: root.real(request.cgroup) }),
      });
      child.unref();
      const identity = { pid: child.pid, startTime: startTimeOf(child.pid) ?? "" };
      return running(identity, request.timeoutMs, began, () => child.exited);
    } catch (error) {
      throw new AgentError("exec", `Could not start ${request.shellCommand}`, {
        cause: error,
        errno: errnoOf(error),
      });
    } finally {
      fs.closeSync(stdout);
      fs.closeSync(stderr);
    }
  };

  const attach = (
    identity: ProcessIdentity,
    request: Pick<LaunchRequest, "exitFile" | "timeoutMs">,
  ): RunningCommand => {
    const exitFile = root.real(request.exitFile);
    return running(identity, request.timeoutMs, performance.now(), async () => {
      while (isAlive(identity)) await Bun.sleep(ATTACHED_POLL_MS);
      return exitCodeIn(exitFile);
    });
  };

  return { start, attach };
}

function running(
  identity: ProcessIdentity,
  timeoutMs: number,
  began: number,
  exited: () => Promise<number | undefined>,
): RunningCommand {
  const kill = (): void => killGroup(identity.pid, "SIGKILL");
  const wait = async (): Promise<LaunchResult> => {
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, timeoutMs);
    try {
      const code = await exited();
      return { code: timedOut ? undefined : code, timedOut, durationMs: performance.now() - began };
    } finally {
      clearTimeout(timer);
    }
  };
  let result: Promise<LaunchResult> | undefined;
  return { identity, kill, wait: () => (result ??= wait()) };
}

/** False when the process is gone, a zombie, or its pid now belongs to another one. */
export function isAlive(identity: ProcessIdentity): boolean {
  const startTime = startTimeOf(identity.pid);
  return startTime !== undefined && (identity.startTime === "" || startTime === identity.startTime);
}

/** Start time of a live process in clock ticks since boot; undefined when it is gone or a zombie. */
export function startTimeOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined; // the process is gone
  }
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

function exitCodeIn(file: string): number | undefined {
  try {
    const text = fs.readFileSync(file, "utf8").trim();
    return /^\d+$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined; // killed before it could leave a code
  }
}
