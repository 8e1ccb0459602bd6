import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** Seconds between two looks are in this key (`system.md` ENV-01). */
export const UDEV_RULES_PERIOD = "OS.RemovePersistentNetRulesPeriod" satisfies keyof Config;

/** Rules that tie eth0 to a MAC address, and so keep a machine with a new NIC off the network. */
const RULES: readonly SystemPath[] = [
  "/lib/udev/rules.d/75-persistent-net-generator.rules",
  "/etc/udev/rules.d/70-persistent-net.rules",
];

/**
 * Moves the rules into `Lib.Dir`, where the newest copy stays (`system.md` UDEV-01, `provisioning.md` OS-61). Not on
 * distributions that do without (UDEV-02), nor with `Network.Manage=n`. An idle run looks at two paths.
 * A rule that cannot be moved is a WARNING.
 */
export function removePersistentNetRules(
  system: Pick<System, "files" | "log">,
  config: Pick<Config, "Lib.Dir" | "Network.Manage">,
  distro: Pick<Distro, "removePersistentNetRules">,
): void {
  if (!distro.removePersistentNetRules || !config["Network.Manage"]) return;
  for (const file of RULES) {
    if (system.files.lstat(file) === undefined) continue;
    const saved = join(config["Lib.Dir"], nameOf(file));
    try {
      // The library is often another file system than /etc or /lib, so a rename would not do.
      system.files.makeDirectory(config["Lib.Dir"], { mode: 0o700, keepMode: true });
      system.files.remove(saved);
      system.files.copy(file, saved);
      system.files.remove(file);
      system.log.warning(`Move rules file ${nameOf(file)} to ${saved}`);
    } catch (error) {
      system.log.periodically(
        "WARNING",
        3_600_000,
        `Could not move ${file} to ${saved}: ${describe(error)}`,
      );
    }
  }
}

/** Moves saved rules back unless there are new ones meanwhile (`system.md` UDEV-01); for removal of the agent. */
export function restorePersistentNetRules(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
): void {
  for (const file of RULES) {
    const saved = join(config["Lib.Dir"], nameOf(file));
    if (!system.files.exists(saved) || system.files.exists(file)) continue;
    system.files.copy(saved, file);
    system.files.remove(saved);
  }
}
