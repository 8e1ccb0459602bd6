import type { AgentFamily } from "../azure/goal-state.ts";
import { compareVersions, isVersion } from "../base/version.ts";
import type { Config } from "../config/table.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { libDirectory } from "./settings.ts";

/**
 * What the platform wants of the agent's version. Its packages are Python archives: they are never run, written or
 * deleted (design D6, `extensions.md` UPD-30, UPD-31). Our version is the package manager's business, so the platform
 * is not promised that it can choose it (UPD-32), and an operator is told when it tries (UPD-33).
 */
export function judgeRequestedVersion(
  families: readonly AgentFamily[],
  options: { readonly family: string; readonly version: string },
): string | undefined {
  // The first of that name with an address; another agent would take its package from there (FAM-01, UPD-02).
  const family = families.find(({ name, uris }) => name === options.family && uris.length > 0);
  if (family?.isVmEnabledForRsmUpgrades !== true || family.isVersionFromRsm !== true)
    return undefined;
  const wanted = family.version;
  if (wanted === undefined || !isVersion(wanted)) return undefined;
  if (compareVersions(wanted, options.version) === 0) return undefined;
  return (
    `The platform asks for agent version ${wanted}. This agent stays at ${options.version}: ` +
    "it is updated by the package manager, not with packages of the platform"
  );
}

/** Looks at each new goal state; the same request is told once. */
export function createVersionWatch(
  system: Pick<System, "files" | "log" | "emit">,
  config: Config,
  version: string,
): { look(families: readonly AgentFamily[]): void } {
  let told: string | undefined;
  // Left by an older agent, it would make one that comes after us believe in a promise we do not keep (UPD-32).
  system.files.remove(join(libDirectory(config), "waagent_rsm_update"));
  return {
    look: (families) => {
      const message = judgeRequestedVersion(families, {
        family: config["AutoUpdate.GAFamily"],
        version,
      });
      if (message === told) return;
      told = message;
      if (message === undefined) return;
      system.log.warning(message);
      system.emit({
        operation: "AgentUpgrade",
        success: false,
        message: `[WARNING] ${message}`,
        log: false,
      });
    },
  };
}
