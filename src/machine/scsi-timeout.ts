import { describe, errnoOf } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** Seconds between two looks are in this key (`system.md` ENV-04). */
export const SCSI_TIMEOUT_PERIOD = "OS.RootDeviceScsiTimeoutPeriod" satisfies keyof Config;

/** Model of the controllers that serve remote disks (`system.md` PEER-15). */
const REMOTE_NVME_MODEL = "MSFT NVMe Accelerator v1.0";
/** What the platform asks for on these, whatever is configured for SCSI. */
const REMOTE_NVME_TIMEOUT_MS = "240000";

/**
 * Writes `OS.RootDeviceScsiTimeout` to every SCSI disk that has another value, and the platform's value to remote
 * NVMe disks (`system.md` SCSI-02, BET-26). A disk that vanishes or refuses is a WARNING, the others go on. An idle
 * run only reads. Does nothing without the key.
 */
export function setScsiTimeouts(
  system: Pick<System, "files" | "log">,
  config: Pick<Config, "OS.RootDeviceScsiTimeout">,
): void {
  const wanted = config["OS.RootDeviceScsiTimeout"]?.trim();
  if (wanted === undefined || wanted === "") return;
  if (!/^\d+$/.test(wanted)) {
    system.log.periodically(
      "WARNING",
      3_600_000,
      `OS.RootDeviceScsiTimeout=${wanted} is not a number of seconds; the timeouts are left alone`,
    );
    return;
  }
  for (const name of system.files.list("/sys/block")) {
    if (/^sd[a-z]/.test(name))
      writeTimeout(system, name, { file: `/sys/block/${name}/device/timeout`, value: wanted });
    else if (isRemoteNvme(system, name))
      writeTimeout(system, name, {
        file: `/sys/block/${name}/queue/io_timeout`,
        value: REMOTE_NVME_TIMEOUT_MS,
      });
  }
}

interface Setting {
  readonly file: SystemPath;
  readonly value: string;
}

/** Compared as numbers: the kernel prints 0300 as 300, which would be rewritten for ever. */
function writeTimeout(system: Pick<System, "files" | "log">, name: string, setting: Setting): void {
  try {
    const current = system.files.readText(setting.file).trim();
    if (Number(current) === Number(setting.value)) return;
    system.files.writeInto(setting.file, setting.value);
    system.log.info(`Set the timeout of ${name} from ${current} to ${setting.value}`);
  } catch (error) {
    // A disk may be taken away between two looks; then there is nothing to set.
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENODEV") return;
    system.log.periodically(
      "WARNING",
      3_600_000,
      `Could not set the timeout of ${name}: ${describe(error)}`,
    );
  }
}

function isRemoteNvme(system: Pick<System, "files">, name: string): boolean {
  if (!/^nvme\d+n\d+$/.test(name)) return false;
  const model = join(`/sys/block/${name}`, "device", "model");
  try {
    return system.files.readTextIfExists(model)?.trim() === REMOTE_NVME_MODEL;
  } catch {
    return false; // gone meanwhile
  }
}
