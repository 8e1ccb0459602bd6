import type { System } from "../system/system.ts";

/** The kernel's host name (`wire-protocol.md` STAT-11); "" when it cannot be read. */
export function hostName(system: Pick<System, "files">): string {
  try {
    return system.files.readText("/proc/sys/kernel/hostname").trim();
  } catch {
    return ""; // a fact that cannot be read is left out, nothing depends on it
  }
}
