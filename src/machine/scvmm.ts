import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

export interface ScvmmOptions {
  /** `uname -r`. */
  readonly kernelRelease: string;
  /** Starts the installer in the background with all of its streams on /dev/null, and does not wait for it. */
  readonly startInstaller: (argv: readonly string[]) => void;
}

type Needs = Pick<System, "exec" | "files" | "clock" | "log">;

/** Optical drives under all their names, matched from the start (`system.md` VMM-01). */
const DRIVES = /^(?:sr\d|hd[c-z]|cdrom\d?|cd\d)/;
const MARKER = "linuxosconfiguration.xml";
const MODULE = "ata_piix";
const MODULE_CHECKS = 3;
const MODULE_CHECK_MS = 1000;
const TIMEOUT_MS = 60_000;

/**
 * Looks for the installation media of System Center Virtual Machine Manager and hands the machine over to its
 * installer (`system.md` VMM-01..04). True when that was started: then the agent has nothing more to do in this boot,
 * and must wait until it is stopped instead of ending and being started again and again (BET-08).
 * Errors: AgentError "cancelled" only; everything else is a warning and the start goes on.
 */
export async function handOverToScvmm(
  system: Needs,
  config: Pick<Config, "DetectScvmmEnv" | "DVD.MountPoint">,
  options: ScvmmOptions,
): Promise<boolean> {
  if (!config.DetectScvmmEnv) return false;
  await loadAtapi(system, options.kernelRelease);
  const mountPoint = config["DVD.MountPoint"];
  const place = system.files.realPath(mountPoint);
  const drives = system.files.list("/dev").filter((name) => DRIVES.test(name));
  for (const drive of drives) {
    const mountedHere = await mount(system, `/dev/${drive}`, mountPoint);
    if (system.files.exists(join(mountPoint, MARKER))) {
      system.log.info(
        `Found the media of System Center VMM in /dev/${drive}; starting its installer`,
      );
      // The second argument is one word with a blank inside: that is how the installer expects it.
      options.startInstaller(["/bin/bash", `${place}/install`, `-p ${place}`]);
      system.log.info("Exiting");
      return true;
    }
    if (mountedHere) await unmount(system, place);
  }
  return false;
}

/** One real attempt, read-only; the reference makes none (`system.md` VMM-03). */
async function mount(system: Needs, device: string, mountPoint: SystemPath): Promise<boolean> {
  try {
    system.files.makeDirectory(mountPoint, { keepMode: true });
    const place = system.files.realPath(mountPoint);
    await system.exec.run({
      argv: ["mount", "-o", "ro", "-t", "udf,iso9660,vfat", device, place],
      timeoutMs: TIMEOUT_MS,
    });
    return true;
  } catch (error) {
    // No medium, or mounted already by somebody else: the marker decides.
    system.log.verbose(`${device} was not mounted: ${describe(error)}`);
    return false;
  }
}

async function unmount(system: Needs, place: string): Promise<void> {
  try {
    await system.exec.run({ argv: ["umount", place], timeoutMs: TIMEOUT_MS });
  } catch (error) {
    system.log.warning(`Could not unmount ${place}: ${describe(error)}`);
  }
}

/** Driver of the emulated IDE drive; without it there is no drive to look into (`system.md` VMM-02). Failures warn. */
async function loadAtapi(system: Needs, kernelRelease: string): Promise<void> {
  const loaded = (): boolean =>
    new RegExp(`^${MODULE} `, "m").test(system.files.readTextIfExists("/proc/modules") ?? "") ||
    system.files.exists(`/sys/module/${MODULE}`);
  if (loaded()) return;
  const file = `/lib/modules/${kernelRelease}/kernel/drivers/ata/${MODULE}.ko`;
  try {
    await system.exec.run({ argv: ["insmod", file], timeoutMs: TIMEOUT_MS });
  } catch (error) {
    system.log.warning(`Could not load ${file}: ${describe(error)}`);
  }
  for (let check = 0; check < MODULE_CHECKS; check += 1) {
    if (loaded()) return;
    await system.clock.sleep(MODULE_CHECK_MS);
  }
  system.log.warning(`The driver ${MODULE} is not loaded; optical drives may be missing`);
}
