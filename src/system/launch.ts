import * as fs from "node:fs";
import { AgentError, errnoOf } from "../base/error.ts";
import { killGroup } from "./exec.ts";
import type { Root, SystemPath } from "./root.ts";

/**
 * Starts commands of extensions. Unlike Exec it goes through `/bin/sh -c`, sends output to files (a script may
 * open /dev/stdout, which fails on a socket pair), survives the agent, and leaves pid and exit code in a file, so
 * that an agent that was killed meanwhile can pick the command up again instead of running it twice.
 */
export interface LaunchRequest {
  readonly shellCommand: string;
  readonly cwd: SystemPath;
  /** The complete environment; nothing is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  readonly stdout: SystemPath;
  readonly stderr: SystemPath;
  /**
   * Must not exist; a name of its own for every run. The command creates it before it does anything else and adds
   * its exit code at the end, so it tells whether the command started, as which process, and how it ended.
   */
  readonly runFile: SystemPath;
  readonly timeoutMs: number;
  /** Control group directory the command is started in, or with `through` the one it will be in. */
  readonly cgroup?: SystemPath | undefined;
  /** Program and arguments that replace themselves by the command, e.g. systemd-run with a scope. */
  readonly through?: readonly string[];
  /** Name of an environment variable whose value is unique to this run: its processes are found by it. */
  readonly marker?: string;
  /** Each output file is cut back to this when it grows to twice of it; its beginning is kept. */
  readonly maxOutputBytes?: number;
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
  /** Resolves when the command's own process ended; what it left running does not count (`extensions.md` EXT-72). */
  wait(): Promise<LaunchResult>;
  /** SIGKILL to the whole group, the control group, and whatever else carries the marker (`extensions.md` DB-13). */
  kill(): void;
}

/** What is known of a run from its file alone. "lost": it started, is gone, and left no exit code. */
export type RunState =
  | { readonly state: "never-started" }
  | { readonly state: "running"; readonly identity: ProcessIdentity }
  | { readonly state: "ended"; readonly code: number }
  | { readonly state: "lost" };

export type AttachRequest = Pick<
  LaunchRequest,
  "runFile" | "timeoutMs" | "stdout" | "stderr" | "cgroup" | "marker" | "maxOutputBytes"
> & {
  /** Value of the marker variable. */
  readonly markerValue?: string | undefined;
};

export interface Launch {
  /** Errors: AgentError "exec" when the shell cannot be started; the command then did not run and never will. */
  start(request: LaunchRequest): RunningCommand;
  /**
   * Says what became of a run that an earlier process of the agent began, and decides the race with a command
   * that is only now about to start: after "never-started" it cannot start any more.
   */
  settle(runFile: SystemPath): Promise<RunState>;
  /** Picks up a running command. `timeoutMs` is what is left. */
  attach(identity: ProcessIdentity, request: AttachRequest): RunningCommand;
}

/** Exit code of a command that did not start because its run file was there already, or could not be written. */
export const CLAIM_FAILED = 125;

/**
 * The command runs as a child of this shell, so that its exit code outlives the agent. Creating the run file with
 * noclobber (O_EXCL) is the claim: of this shell and `settle`, only one can win.
 */
const WRAPPER =
  `(set -C; read -r stat </proc/$$/stat; echo "$$ $stat" >"$2") 2>/dev/null || exit ${CLAIM_FAILED}; ` +
  '/bin/sh -c "$1"; code=$?; echo "exit $code" >>"$2"; exit "$code"';
const CLAIMED = "claimed\n";
const ATTACHED_POLL_MS = 50;
const CLAIM_WAIT_MS = 1000;
const OUTPUT_POLL_MS = 500;

export function createLaunch(root: Root): Launch {
  const start = (request: LaunchRequest): RunningCommand => {
    const runFile = root.real(request.runFile);
    const stdout = openOutput(root.real(request.stdout));
    const stderr = openOutput(root.real(request.stderr));
    const began = performance.now();
    const argv = [
      ...(request.through ?? []),
      "/bin/sh",
      "-c",
      WRAPPER,
      "sh",
      request.shellCommand,
      runFile,
    ];
    try {
      const child = Bun.spawn(argv, {
        cwd: root.real(request.cwd),
        env: { ...request.environment },
        stdin: "ignore",
        stdout,
        stderr,
        detached: true,
        ...(request.cgroup === undefined || request.through !== undefined
          ? {}
          : { cgroup: root.real(request.cgroup) }),
      });
      child.unref();
      const identity = { pid: child.pid, startTime: startTimeOf(child.pid) ?? "" };
      const marker = request.marker === undefined ? undefined : request.environment[request.marker];
      return running(
        root,
        identity,
        { ...request, markerValue: marker },
        began,
        () => child.exited,
      );
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

  const settle = async (runFile: SystemPath): Promise<RunState> => {
    const real = root.real(runFile);
    try {
      fs.writeFileSync(real, CLAIMED, { flag: "wx", mode: 0o600 });
      return { state: "never-started" };
    } catch (error) {
      if (errnoOf(error) !== "EEXIST")
        throw new AgentError("io", `Could not look at the run ${runFile}`, {
          cause: error,
          errno: errnoOf(error),
        });
    }
    let identity: ProcessIdentity | undefined;
    for (let waited = 0; ; waited += ATTACHED_POLL_MS) {
      const text = fs.readFileSync(real, "utf8");
      if (text === CLAIMED) return { state: "never-started" };
      const code = exitCodeIn(text);
      if (code !== undefined) return { state: "ended", code };
      // Between claiming the file and writing its first line lies a moment only.
      identity = identityIn(text);
      if (identity !== undefined || waited >= CLAIM_WAIT_MS) break;
      await Bun.sleep(ATTACHED_POLL_MS);
    }
    if (identity !== undefined && isAlive(identity)) return { state: "running", identity };
    const code = exitCodeIn(fs.readFileSync(real, "utf8"));
    return code === undefined ? { state: "lost" } : { state: "ended", code };
  };

  const attach = (identity: ProcessIdentity, request: AttachRequest): RunningCommand => {
    const runFile = root.real(request.runFile);
    return running(root, identity, request, performance.now(), async () => {
      while (isAlive(identity)) await Bun.sleep(ATTACHED_POLL_MS);
      return exitCodeOf(runFile);
    });
  };

  return { start, settle, attach };
}

/** Appending, so that a file that is cut while the command writes does not become sparse. */
function openOutput(file: string): number {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND } = fs.constants;
  return fs.openSync(file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600);
}

function running(
  root: Root,
  identity: ProcessIdentity,
  request: AttachRequest,
  began: number,
  exited: () => Promise<number | undefined>,
): RunningCommand {
  const kill = (): void => {
    killGroup(identity.pid, "SIGKILL");
    if (request.cgroup !== undefined) killControlGroup(root.real(request.cgroup));
    if (request.marker !== undefined && request.markerValue !== undefined)
      killMarked(`${request.marker}=${request.markerValue}`);
  };
  const wait = async (): Promise<LaunchResult> => {
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      kill();
    }, request.timeoutMs);
    const { maxOutputBytes } = request;
    const guard =
      maxOutputBytes === undefined
        ? undefined
        : setInterval(() => {
            for (const file of [request.stdout, request.stderr])
              limitSize(root.real(file), maxOutputBytes);
          }, OUTPUT_POLL_MS);
    try {
      const code = await exited();
      return { code: timedOut ? undefined : code, timedOut, durationMs: performance.now() - began };
    } finally {
      clearTimeout(timer);
      clearInterval(guard);
      if (maxOutputBytes !== undefined)
        for (const file of [request.stdout, request.stderr])
          limitSize(root.real(file), maxOutputBytes);
    }
  };
  let result: Promise<LaunchResult> | undefined;
  return { identity, kill, wait: () => (result ??= wait()) };
}

function limitSize(file: string, maxBytes: number): void {
  try {
    if (fs.statSync(file).size > 2 * maxBytes) fs.truncateSync(file, maxBytes);
  } catch {
    // the extension removed its own output: nothing to limit
  }
}

function killControlGroup(directory: string): void {
  try {
    fs.writeFileSync(`${directory}/cgroup.kill`, "1");
    return;
  } catch {
    // before Linux 5.14, or version 1: one by one
  }
  try {
    for (const pid of fs.readFileSync(`${directory}/cgroup.procs`, "utf8").split("\n"))
      if (/^[1-9]\d*$/.test(pid)) killOne(Number(pid));
  } catch {
    // the group is gone with its last process
  }
}

/** Twice, because a process can fork between the look and the kill. */
function killMarked(assignment: string): void {
  for (let round = 0; round < 2; round += 1) {
    let names: string[];
    try {
      names = fs.readdirSync("/proc");
    } catch {
      return; // no /proc: the group was all we could end
    }
    for (const name of names) {
      if (!/^[1-9]\d*$/.test(name) || Number(name) === process.pid) continue;
      try {
        const environment = fs.readFileSync(`/proc/${name}/environ`, "latin1");
        if (environment.split("\0").includes(assignment)) killOne(Number(name));
      } catch {
        // gone, or not ours to look at
      }
    }
  }
}

function killOne(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // ESRCH: already gone
  }
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
  const fields = fieldsAfterName(stat);
  return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
}

/** Fields 3 and up of a stat line; the name before them may hold blanks and parentheses. */
function fieldsAfterName(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

function identityIn(text: string): ProcessIdentity | undefined {
  const line = text.split("\n")[0] ?? "";
  const pid = /^([1-9]\d*) /.exec(line)?.[1];
  if (pid === undefined) return undefined;
  const startTime = line.includes(")") ? (fieldsAfterName(line)[19] ?? "") : "";
  return { pid: Number(pid), startTime };
}

function exitCodeIn(text: string): number | undefined {
  const code = /^exit (\d+)$/m.exec(text)?.[1];
  return code === undefined ? undefined : Number(code);
}

function exitCodeOf(file: string): number | undefined {
  try {
    return exitCodeIn(fs.readFileSync(file, "utf8"));
  } catch {
    return undefined; // removed from under us: then nobody can know
  }
}
