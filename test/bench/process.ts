import fs from "node:fs";
import path from "node:path";

/** A process and all that descend from it, as this machine numbers them. */
export function processTree(root: number): number[] {
  const found = [root];
  for (const pid of found) {
    for (const task of list(`/proc/${pid}/task`)) {
      const children = read(`/proc/${pid}/task/${task}/children`).trim();
      for (const child of children.split(" ").filter(Boolean)) found.push(Number(child));
    }
  }
  return found;
}

/** The agent itself: below the helper that entered the namespaces. */
export function agentProcesses(helper: number): number[] {
  return processTree(helper).slice(1);
}

/**
 * CPU seconds so far: of live threads in nanoseconds, of children that have ended in clock ticks. Threads that ended
 * are in the process's own ticks, which are taken when they say more.
 */
export function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = read(`/proc/${pid}/stat`).split(") ").at(-1)?.split(" ") ?? [];
    const ticks = (index: number) => Number(fields[index] ?? 0) / CLOCK_TICKS;
    const live = list(`/proc/${pid}/task`).reduce(
      (total, task) => total + Number(read(`/proc/${pid}/task/${task}/schedstat`).split(" ")[0]),
      0,
    );
    return sum + Math.max(live / 1e9, ticks(11) + ticks(12)) + ticks(13) + ticks(14);
  }, 0);
}

/** USER_HZ, the same on every Linux architecture we build for. */
const CLOCK_TICKS = 100;

export interface Memory {
  /** MB (10⁶), shared pages divided among those that share them. */
  readonly pss: number;
  /** MB of memory that no file backs, shared pages divided likewise. */
  readonly anonymous: number;
}

export function memoryOf(pids: readonly number[]): Memory {
  const sum = (key: string) =>
    pids.reduce((total, pid) => {
      const line = new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(read(`/proc/${pid}/smaps_rollup`));
      return total + (Number(line?.[1] ?? 0) * 1024) / 1e6;
    }, 0);
  return { pss: sum("Pss"), anonymous: sum("Pss_Anon") };
}

/** What a process did outside itself while strace looked. */
export interface Effects {
  /** Programs started. */
  readonly programs: number;
  /** Their command lines as strace shows them, in order. */
  readonly started: readonly string[];
  /** Writes, renames, removals and the like on files of a disk. */
  readonly writes: number;
  readonly bytes: number;
  /** Paths written, each once. */
  readonly paths: readonly string[];
}

/** The calls that `readEffects` understands; `-y` gives it the paths of descriptors. */
export const TRACED =
  "trace=execve,write,pwrite64,writev,pwritev,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,truncate,ftruncate,chmod,fchmod,fchmodat,link,linkat,symlink,symlinkat,utimensat";

/** Reads the output of `strace -f -y`. Pseudo file systems, pipes and sockets are no disk. */
export function readEffects(trace: string): Effects {
  const started: string[] = [];
  let writes = 0;
  let bytes = 0;
  const paths = new Set<string>();
  for (const line of trace.split("\n")) {
    const call = /^(?:\d+\s+)?(\w+)\((.*)\)\s+=\s+(-?\d+)/.exec(line);
    if (call === null) continue;
    const [, name = "", given = "", result = ""] = call;
    if (Number(result) < 0) continue;
    if (name === "execve") {
      started.push(/\[(.*)\]/.exec(given)?.[1] ?? given);
      continue;
    }
    const isWrite = /^p?writev?(?:64)?$/.test(name);
    const target =
      isWrite || name === "ftruncate" || name === "fchmod"
        ? /^\d+<([^>]*)>/.exec(given)?.[1]
        : /"([^"]*)"/.exec(given)?.[1];
    if (target === undefined || !target.startsWith("/")) continue;
    if (/^\/(?:dev|proc|sys)(?:\/|$)/.test(target)) continue;
    writes += 1;
    if (isWrite) bytes += Number(result);
    paths.add(target);
  }
  return { programs: started.length, started, writes, bytes, paths: [...paths].sort() };
}

/** Watches a process and its descendants for a while. Errors: strace cannot attach. */
export async function watchEffects(
  pid: number,
  milliseconds: number,
  scratch: string,
): Promise<Effects> {
  const file = path.join(scratch, `trace-${pid}`);
  const tracer = Bun.spawn(
    ["strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", TRACED, "-o", file, "-p", String(pid)],
    { stdout: "ignore", stderr: "pipe" },
  );
  await Promise.race([Bun.sleep(milliseconds), tracer.exited]);
  if (tracer.exitCode !== null) {
    throw new Error(`strace could not watch: ${await new Response(tracer.stderr).text()}`);
  }
  tracer.kill("SIGINT");
  await tracer.exited;
  const effects = readEffects(read(file));
  fs.rmSync(file, { force: true });
  return effects;
}

function read(file: string): string {
  try {
    return fs.readFileSync(file, "utf8");
  } catch {
    return ""; // the process ended
  }
}

function list(folder: string): string[] {
  try {
    return fs.readdirSync(folder);
  } catch {
    return []; // the process ended
  }
}
