import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, nameOf, parentOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * Pid files (`system.md` DAEMON-05, DAEMON-15, THR-06). `Pid.File` names the daemon; `<n>_waagent.pid` names the
 * process that handles goal states, which is the same one here.
 */

/** The pid in `Pid.File` when that process lives and is an agent; undefined otherwise. */
export function runningDaemon(
  system: Pick<System, "files">,
  config: Config,
  ownPid: number,
): number | undefined {
  const pid = readPid(system, config["Pid.File"] as SystemPath);
  if (pid === undefined || pid === ownPid || !isAgent(system, pid)) return undefined;
  return pid;
}

/** Decimal pid, no newline; the file is never removed on exit. */
export function writePidFile(system: Pick<System, "files">, config: Config, pid: number): void {
  const file = config["Pid.File"] as SystemPath;
  system.files.makeDirectory(parentOf(file), { keepMode: true });
  system.files.write(file, String(pid), { mode: 0o644, durable: false });
}

export interface OlderAgent {
  readonly file: SystemPath;
  readonly pid: number;
}

/** Writes the next `<n>_waagent.pid` and removes those whose process is gone. Returns the older agents that still live. */
export function claimHandlerPidFile(
  system: Pick<System, "files">,
  config: Config,
  pid: number,
): OlderAgent[] {
  const pidFile = config["Pid.File"] as SystemPath;
  const directory = parentOf(pidFile);
  const base = nameOf(pidFile);
  const alive: OlderAgent[] = [];
  let next = 0;
  system.files.makeDirectory(directory, { keepMode: true });
  for (const file of system.files.glob(join(directory, `*_${base}`))) {
    const index = /^(\d+)_/.exec(nameOf(file))?.[1];
    if (index === undefined) continue;
    const other = readPid(system, file);
    if (other !== undefined && other !== pid && isAgent(system, other)) {
      next = Math.max(next, Number(index) + 1);
      alive.push({ file, pid: other });
    } else system.files.remove(file);
  }
  system.files.write(join(directory, `${next}_${base}`), String(pid), {
    mode: 0o644,
    durable: false,
  });
  return alive;
}

/** True when the process exists and its command line is an agent's (`system.md` BET-15: pids are reused). */
export function isAgent(system: Pick<System, "files">, pid: number): boolean {
  try {
    const commandLine = system.files.readTextIfExists(`/proc/${pid}/cmdline`);
    return commandLine !== undefined && /waagent|WALinuxAgent/.test(commandLine);
  } catch (error) {
    // A process that cannot be looked at is alive; to be on the safe side it counts as an agent.
    return !describe(error).includes("ESRCH");
  }
}

function readPid(system: Pick<System, "files">, file: SystemPath): number | undefined {
  try {
    const text = system.files.readTextIfExists(file)?.trim() ?? "";
    return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
  } catch {
    return undefined; // unreadable or not text: nobody we could name
  }
}
