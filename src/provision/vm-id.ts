import { describe } from "../base/error.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

const UUID = /^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/;
const PRODUCT_UUID: SystemPath = "/sys/class/dmi/id/product_uuid";

/**
 * The id of this VM as the platform writes it: the firmware's UUID with its first three groups in the other byte
 * order (`provisioning.md` ID-01, ID-02). "" when it cannot be found out.
 */
export async function readVmId(
  system: Pick<System, "exec" | "files" | "log">,
  options: { readonly isOpenBsd?: boolean } = {},
): Promise<string> {
  if (options.isOpenBsd === true) return outputOf(system, ["sysctl", "-n", "hw.uuid"]);
  try {
    const text = system.files.readTextIfExists(PRODUCT_UUID);
    if (text !== undefined) return swapUuid(text.trim());
  } catch (error) {
    system.log.verbose(`${PRODUCT_UUID} cannot be read: ${describe(error)}`);
  }
  const found = await outputOf(system, ["dmidecode", "--string", "system-uuid"]);
  return UUID.test(found) ? swapUuid(found) : "";
}

async function outputOf(
  system: Pick<System, "exec" | "log">,
  argv: readonly string[],
): Promise<string> {
  try {
    const { stdout } = await system.exec.run({ argv, timeoutMs: 10_000 });
    return stdout.trim();
  } catch (error) {
    system.log.verbose(`The VM id could not be read: ${describe(error)}`);
    return "";
  }
}

/**
 * The id that reports to the host carry: lower case, and in the other byte order only on machines without EFI
 * (`system.md` PEER-07). "" when the firmware does not tell it.
 */
export function readReportedVmId(system: Pick<System, "files" | "log">): string {
  try {
    const text = system.files.readTextIfExists(PRODUCT_UUID)?.trim().toLowerCase() ?? "";
    const isFirstGeneration =
      !system.files.exists("/sys/firmware/efi") && !system.files.exists("/dev/efi");
    return isFirstGeneration ? swapUuid(text) : text;
  } catch (error) {
    system.log.verbose(`${PRODUCT_UUID} cannot be read: ${describe(error)}`);
    return "";
  }
}

/** Byte order of the first three groups changed, case kept; a text that is no UUID stays as it is (ID-02). */
export function swapUuid(text: string): string {
  if (!UUID.test(text)) return text;
  const groups = text.split("-");
  return groups
    .map((group, index) => (index < 3 ? (group.match(/../g) ?? []).toReversed().join("") : group))
    .join("-");
}

/** The same VM, in either byte order and any case (ID-04). */
export function isSameVm(stored: string, current: string): boolean {
  const left = stored.trim().toLowerCase();
  const right = current.trim().toLowerCase();
  return left === right || swapUuid(left) === right;
}
