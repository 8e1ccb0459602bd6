import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** Its existence alone means provisioned; tools wait for it (ID-03). */
export function markerPath(config: Pick<Config, "Lib.Dir">): SystemPath {
  return join(config["Lib.Dir"] as SystemPath, "provisioned");
}

/** The VM id the machine was provisioned as; undefined while it was not. */
export function readMarker(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
): string | undefined {
  return system.files.readTextIfExists(markerPath(config))?.trim();
}

/** Bare id, no newline (ID-03). Mode as the Python agent leaves it: other programs read it. */
export function writeMarker(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
  vmId: string,
): void {
  const file = markerPath(config);
  if (system.files.readTextIfExists(file) !== vmId) system.files.write(file, vmId, { mode: 0o644 });
}
