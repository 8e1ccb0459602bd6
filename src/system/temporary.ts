import fs from "node:fs";
import path from "node:path";

/** Tells this process from a killed one that had the same number: after a boot, or as first process of a namespace. */
const THIS_PROCESS = `${process.pid}-${crypto.randomUUID().slice(0, 8)}`;
let counter = 0;

/**
 * Where a new content waits until it is complete and takes the place of `file`. The name tells which process made it.
 * Removed are those beside `file` whose process was killed: they may hold secrets, and an interrupted step writes the
 * same file again, so what it left goes with the next write.
 */
export function temporaryBeside(file: string): string {
  const directory = path.dirname(file);
  const prefix = `.${path.basename(file).slice(0, 200)}.`;
  removeLeftovers(directory, prefix);
  counter += 1;
  return path.join(directory, `${prefix}${THIS_PROCESS}.${counter}.tmp`);
}

function removeLeftovers(directory: string, prefix: string): void {
  let names: string[];
  try {
    names = fs.readdirSync(directory);
  } catch {
    return; // the write will say what is wrong with the directory
  }
  for (const name of names) {
    if (!name.startsWith(prefix)) continue;
    const maker = /^((\d+)-[0-9a-f]{8})\.\d+\.tmp$/.exec(name.slice(prefix.length));
    if (maker === null || maker[1] === THIS_PROCESS || isAnotherAgent(Number(maker[2]))) continue;
    try {
      fs.unlinkSync(path.join(directory, name));
    } catch {
      // Read-only, gone meanwhile, or somebody's directory: nothing is lost by leaving it.
    }
  }
}

/** A living process of this program that is not this one. */
function isAnotherAgent(pid: number): boolean {
  return pid !== process.pid && programOf(String(pid)) === programOf("self");
}

/** undefined when there is no such process. A program that was replaced on disk keeps its name. */
function programOf(pid: string): string | undefined {
  try {
    return fs.readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, "");
  } catch {
    return undefined;
  }
}
