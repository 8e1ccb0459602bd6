import type { EventFacts } from "../report/event-parameters.ts";
import { osVersionText } from "../report/event-parameters.ts";
import { architecture, pid } from "../system/process.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";

/** What every event says about this machine (`wire-protocol.md` TEL-06, `system.md` MON-16). Reads /proc once. */
export function eventFacts(
  system: Pick<System, "files">,
  context: Pick<AgentContext, "distro" | "version">,
): EventFacts {
  const { release } = context.distro;
  const kernel = readLine(system, "/proc/sys/kernel/osrelease");
  return {
    agentVersion: context.version,
    processId: pid(),
    osVersion: osVersionText(release, kernel),
    ramMiB: Math.trunc(
      Number(/^MemTotal:\s+(\d+) kB/m.exec(read(system, "/proc/meminfo"))?.[1] ?? 0) / 1024,
    ),
    processors: (read(system, "/proc/cpuinfo").match(/^processor\s*:/gm) ?? []).length || 1,
    architecture: architecture(),
  };
}

/** The kernel's host name (`wire-protocol.md` STAT-11). */
export function hostName(system: Pick<System, "files">): string {
  return readLine(system, "/proc/sys/kernel/hostname");
}

function readLine(system: Pick<System, "files">, file: `/${string}`): string {
  return read(system, file).split("\n")[0] ?? "";
}

function read(system: Pick<System, "files">, file: `/${string}`): string {
  try {
    return system.files.readTextIfExists(file) ?? "";
  } catch {
    return ""; // a fact that cannot be read is left out, nothing depends on it
  }
}
