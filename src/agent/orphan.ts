import type { Config } from "../config/table.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * For `-run-exthandlers` only: the daemon that started us is gone when our parent is process 1, or `Pid.File` does not
 * name our parent any more (`system.md` DAEMON-16, THR-06). Then this process has no reason to live.
 */
export function isOrphan(system: Pick<System, "files">, config: Config, parent: number): boolean {
  if (parent <= 1) return true;
  try {
    return (
      system.files.readTextIfExists(config["Pid.File"] as SystemPath)?.trim() !== String(parent)
    );
  } catch {
    return true; // a pid file that cannot be read names nobody
  }
}
