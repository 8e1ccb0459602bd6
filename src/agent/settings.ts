import type { Config } from "../config/table.ts";
import type { SystemPath } from "../system/root.ts";

/** Values of the configuration in the form that the agent's own modules use. */

/** `Lib.Dir`. */
export function libDirectory(config: Config): SystemPath {
  return config["Lib.Dir"] as SystemPath;
}

/** `Extension.LogDir`. */
export function extensionLogDirectory(config: Config): SystemPath {
  return config["Extension.LogDir"] as SystemPath;
}

/** Seconds of the configuration as ms. */
export function seconds(value: number): number {
  return value * 1000;
}
