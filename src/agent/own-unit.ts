import { describe } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

const SLICE_DROP_IN = "10-Slice.conf";
const SLICE_TEXT = "[Service]\nSlice=azure.slice\n";
/** What older agents left there; their quota would hold us too. */
const LEGACY_DROP_INS = ["11-CPUAccounting.conf", "12-CPUQuota.conf", "13-MemoryAccounting.conf"];

/**
 * Puts the agent's own service into azure.slice where its unit does not say a slice, and takes away the limits of
 * older agents (`system.md` THR-08, `extensions.md` §16.2). Systemd heeds files at the next boot: reloading it for
 * this could start or stop what others have changed. Never throws.
 */
export function prepareOwnUnit(
  system: Pick<System, "files" | "log">,
  distro: Pick<Distro, "unitDirectory" | "serviceName" | "capabilities">,
): void {
  if (!distro.capabilities.systemd) return;
  const { files, log } = system;
  const unit = `${distro.serviceName}.service`;
  const dropIns = join(distro.unitDirectory, `${unit}.d`);
  const slice = join(dropIns, SLICE_DROP_IN);
  const attempt = (file: SystemPath, action: () => void): void => {
    try {
      action();
    } catch (error) {
      log.warning(`[CGW] ${file} could not be changed: ${describe(error)}`);
    }
  };
  for (const file of LEGACY_DROP_INS.map((name) => join(dropIns, name)))
    attempt(file, () => {
      if (!files.exists(file)) return;
      files.remove(file);
      log.info(`[CGI] Removed ${file} of an older agent`);
    });
  attempt(slice, () => {
    const text = files.readTextIfExists(join(distro.unitDirectory, unit));
    if (text === undefined) return; // started otherwise: there is no unit to add to
    if (/^[ \t]*Slice[ \t]*=/m.test(text)) {
      if (files.exists(slice)) files.remove(slice);
      return;
    }
    if (files.readTextIfExists(slice) === SLICE_TEXT) return;
    files.makeDirectory(dropIns, { mode: 0o755, keepMode: true });
    files.write(slice, SLICE_TEXT, { mode: 0o644 });
    log.info(`[CGI] ${unit} will be in azure.slice from the next boot on`);
  });
}
