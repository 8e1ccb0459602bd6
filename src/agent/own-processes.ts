import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** On every helper the agent starts, so that it is known wherever it ends up (`system.md` THR-05). */
const MARKER = "AZURE_GUEST_AGENT_PARENT_PROCESS_NAME=AZURE_GUEST_AGENT";

interface Self {
  readonly pid: number;
  readonly parentPid: number;
}

/**
 * Processes in a control group of the agent that are neither it, its parent, started by it, nor on their way into
 * a group of their own (`extensions.md` CG-41), as `pid name`. What ends meanwhile is no process any more.
 */
export function foreignProcesses(
  system: Pick<System, "files">,
  group: SystemPath,
  self: Self,
): readonly string[] {
  const pids = (read(system, join(group, "cgroup.procs")) ?? "").split("\n").filter(Boolean);
  return pids.flatMap((text) => {
    const pid = Number(text);
    const stat = statOf(system, pid);
    if (stat === undefined || stat.state === "Z" || isOwn(system, pid, self)) return [];
    const words = (read(system, `/proc/${pid}/cmdline`) ?? "").split("\0");
    // A shell or systemd-run itself, about to move the command of an extension into a scope.
    if (words.some((word) => /(?:^|\/)systemd-run$/.test(word))) return [];
    const environment = (read(system, `/proc/${pid}/environ`) ?? "").split("\0");
    return environment.includes(MARKER) ? [] : [`${pid} ${stat.name}`];
  });
}

function isOwn(system: Pick<System, "files">, pid: number, self: Self): boolean {
  if (pid === self.parentPid) return true;
  let current: number | undefined = pid;
  // A chain of parents is short; what changes while it is read cannot make it endless.
  for (let step = 0; step < 100 && current !== undefined && current > 1; step += 1) {
    if (current === self.pid) return true;
    current = statOf(system, current)?.parentPid;
  }
  return false;
}

function statOf(
  system: Pick<System, "files">,
  pid: number,
): { readonly name: string; readonly state: string; readonly parentPid: number } | undefined {
  const text = read(system, `/proc/${pid}/stat`);
  // The name may hold blanks and parentheses.
  const match = /^\d+ \((.*)\) (\S) (\d+) /s.exec(text ?? "");
  if (match === null) return undefined;
  return { name: match[1] ?? "", state: match[2] ?? "", parentPid: Number(match[3]) };
}

/** One byte a character: names and variables of others are in any encoding. */
function read(system: Pick<System, "files">, file: SystemPath): string | undefined {
  try {
    return Buffer.from(system.files.read(file)).toString("latin1");
  } catch {
    return undefined; // it has ended
  }
}
