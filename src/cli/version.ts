import { AGENT_LONG_NAME, VERSION } from "../base/identity.ts";
import { isVersion } from "../base/version.ts";
import { detectRelease } from "../distro/detect.ts";
import type { System } from "../system/system.ts";

/**
 * The three lines of `-version` (`provisioning.md` CLI-20, `extensions.md` UPD-36). Needs no configuration. The second
 * one names our runtime; the form `<Runtime>: x.y.z` is what tools expect there (DB-20).
 */
export async function versionText(
  system: Pick<System, "files" | "exec">,
  runtime: string,
): Promise<string> {
  const release = await detectRelease(system);
  return [
    `${AGENT_LONG_NAME} running on ${release.name} ${release.version}\n`,
    `Bun: ${runtime}\n`,
    `Goal state agent: ${runningGoalStateAgent(system) ?? VERSION}\n`,
  ].join("");
}

const FOLDER = /\/WALinuxAgent-(\d[\d.]*\d)/;
const HANDLER_VERB = "-run-exthandlers";

/**
 * Version of an agent that runs from `LIB/WALinuxAgent-<version>/`, found as tools find it: the first process whose
 * command line has that folder and `-run-exthandlers` (`system.md` INIT-06).
 */
export function runningGoalStateAgent(system: Pick<System, "files">): string | undefined {
  for (const name of processIds(system)) {
    let commandLine: string | undefined;
    try {
      commandLine = system.files.readTextIfExists(`/proc/${name}/cmdline`, { maxBytes: 64 * 1024 });
    } catch {
      continue; // ended meanwhile, or not text
    }
    const end = commandLine?.lastIndexOf(HANDLER_VERB) ?? -1;
    if (end < 0) continue;
    const version = FOLDER.exec(commandLine?.slice(0, end) ?? "")?.[1];
    if (version !== undefined && isVersion(version)) return version;
  }
  return undefined;
}

function processIds(system: Pick<System, "files">): readonly string[] {
  try {
    return system.files
      .list("/proc")
      .filter((name) => /^\d+$/.test(name))
      .toSorted((a, b) => Number(a) - Number(b));
  } catch {
    return []; // no /proc: a scratch root, or not Linux
  }
}
