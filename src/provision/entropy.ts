import { describe } from "../base/error.ts";
import type { System } from "../system/system.ts";

const HYPERV_SEED = "/sys/firmware/acpi/tables/OEM0";

/**
 * Mixes the host's random bytes into the kernel's pool before keys are made; nothing is credited, and nothing that
 * goes wrong matters (`provisioning.md` RAND-01, DB-38).
 */
export function mixEntropy(system: Pick<System, "files" | "log">): void {
  try {
    if (!system.files.exists(HYPERV_SEED) || !system.files.exists("/dev/random")) return;
    const seed = system.files.read(HYPERV_SEED, { maxBytes: 65_536 });
    // A character for each byte: what is mixed in is its UTF-8 form, which holds the same entropy.
    system.files.writeInto("/dev/random", Buffer.from(seed).toString("latin1"));
  } catch (error) {
    system.log.verbose(`The host's random seed was not used: ${describe(error)}`);
  }
}
