import type { System } from "../system/system.ts";

/** What was seen of the processes that are started on the machine; start with `firstLook`. */
export interface Starts {
  /** Number of the last process or thread that was started, by whomever. */
  readonly last: number;
  /** Something was started that is no thread of this process. */
  readonly foreign: boolean;
}

/**
 * How often to look. The runtime starts threads for its own purposes and ends them after 10 s without work; one that is
 * seen while it lives is known as our own.
 */
export const LOOK_PERIOD_MS = 5000;
/** More than that at once is not looked at one by one. */
const MAX_STARTS = 256;

/** undefined where the kernel does not tell. */
export function firstLook(system: Pick<System, "files">): Starts | undefined {
  const last = lastStarted(system);
  return last === undefined ? undefined : { last, foreign: false };
}

/** Adds what was started since the last look. `own`: programs that this process has run meanwhile. */
export function lookAgain(system: Pick<System, "files">, before: Starts, own = 0): Starts {
  const last = lastStarted(system);
  if (last === before.last) return before;
  if (last === undefined || last < before.last || last - before.last > MAX_STARTS)
    return { last: last ?? 0, foreign: true };
  const threads = new Set(system.files.list("/proc/self/task"));
  let others = 0;
  for (let number = before.last + 1; number <= last; number += 1)
    if (!threads.has(`${number}`)) others += 1;
  return { last, foreign: before.foreign || others !== own };
}

/** proc(5): the last field of /proc/loadavg is the number of the process or thread that was started last. */
function lastStarted(system: Pick<System, "files">): number | undefined {
  const [, digits] = / (\d+)\s*$/.exec(system.files.readTextIfExists("/proc/loadavg") ?? "") ?? [];
  return digits === undefined ? undefined : Number(digits);
}
