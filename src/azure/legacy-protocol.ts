import { describe } from "../base/error.ts";
import { compareVersions, isVersion } from "../base/version.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

const METADATA_ADDRESS = "169.254.169.254";
const LEGACY_FILES = ["V2TransportPrivate.pem", "Certificates.p7b", "V2TransportCert.pem"];
const MAX_COPIES = 99;
/** `iptables -w` waits for the lock instead of failing; older programs do not know it. */
const WAIT_SINCE = "1.4.21";

/**
 * What an agent that spoke the metadata protocol left behind: its keys, and firewall rules that keep everyone but
 * root from the metadata service (`wire-protocol.md` DHCP-07, `provisioning.md` PROT-06). Called after a detection that
 * succeeded, so that the old agent could still have taken over before. Its certificate goes last: while it is there,
 * the clean-up begins again. Errors: never; failures are warnings.
 */
export async function removeLegacyProtocol(
  system: Pick<System, "files" | "exec" | "log">,
  libDir: SystemPath,
  options: { readonly uid?: number } = {},
): Promise<void> {
  if (!system.files.exists(join(libDir, "V2TransportCert.pem"))) return;
  system.log.info("Removing what an agent of the metadata protocol left behind");
  await removeRules(system, options.uid ?? 0);
  for (const name of LEGACY_FILES) {
    try {
      system.files.remove(join(libDir, name));
    } catch (error) {
      system.log.warning(`Could not remove a file of the old protocol: ${describe(error)}`);
    }
  }
}

async function removeRules(system: Pick<System, "exec" | "log">, uid: number): Promise<void> {
  if (system.exec.find("iptables") === undefined) return;
  try {
    const wait = await waitOption(system);
    for (const match of [
      ["-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "ACCEPT"],
      ["--destination-port", "53", "-j", "ACCEPT"],
      ["-m", "owner", "--uid-owner", String(uid), "-j", "ACCEPT"],
      ["-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "DROP"],
    ]) {
      const argv = [
        ...["iptables", ...wait, "-t", "security", "-D", "OUTPUT"],
        ...["-d", METADATA_ADDRESS, "-p", "tcp", ...match],
      ];
      // Each start of the old agent may have added the rule again; 1 means that none is left.
      for (let copy = 0; copy < MAX_COPIES; copy += 1) {
        const { code } = await system.exec.run({ argv, timeoutMs: 10_000, okCodes: [0, 1, 2] });
        if (code !== 0) break;
      }
    }
  } catch (error) {
    system.log.warning(`Could not remove firewall rules of the old protocol: ${describe(error)}`);
  }
}

async function waitOption(system: Pick<System, "exec">): Promise<readonly string[]> {
  const { stdout } = await system.exec.run({ argv: ["iptables", "--version"], okCodes: "any" });
  const version = /v(\d+(?:\.\d+)+)/.exec(stdout)?.[1] ?? "";
  return isVersion(version) && compareVersions(version, WAIT_SINCE) >= 0 ? ["-w"] : [];
}
