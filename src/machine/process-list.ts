import type { System } from "../system/system.ts";
import { readLenient } from "./lenient.ts";

/** A live process as /proc shows it. */
export interface Process {
  readonly pid: number;
  readonly parent: number;
  /** /proc/PID/comm: at most 15 characters. */
  readonly name: string;
  readonly argv: readonly string[];
}

/** All processes, by pid. One that ends while it is looked at is left out. No program is run. */
export function processes(system: Pick<System, "files">): Process[] {
  return system.files
    .list("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .toSorted((a, b) => a - b)
    .flatMap((pid) => {
      try {
        const name = readLenient(system, `/proc/${pid}/comm`).trim();
        const stat = readLenient(system, `/proc/${pid}/stat`);
        const argv = new TextDecoder()
          .decode(system.files.read(`/proc/${pid}/cmdline`))
          .split("\0")
          .filter((word, index, all) => word !== "" || index < all.length - 1);
        // Names may hold blanks and parentheses; the fields after the last one are fixed: state, parent, ...
        const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
        return [{ pid, parent, name, argv }];
      } catch {
        return []; // it ended meanwhile
      }
    });
}
