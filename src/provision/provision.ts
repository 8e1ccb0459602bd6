import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { provisionFromMedium } from "./agent-provisioner.ts";
import { forgetFormerVm } from "./changed-vm.ts";
import { chooseProvisioner } from "./choose.ts";
import { provisionWithCloudInit } from "./cloud-init-provisioner.ts";
import { isCancelled } from "./failure.ts";
import { finish } from "./finish.ts";
import { journalPath, readJournal } from "./journal.ts";
import { readCopy } from "./media.ts";
import { readMarker, writeMarker } from "./marker.ts";
import type { ProvisionOptions, ProvisionOutcome } from "./outcome.ts";
import { AGENT_EVENT_NAME, tellReady, type Reporter } from "./report.ts";
import { isSameVm, readVmId } from "./vm-id.ts";

const ALREADY: ProvisionOutcome = {
  status: "already-provisioned",
  failure: undefined,
  unreported: undefined,
};

/**
 * Makes this machine what the platform ordered, once (`provisioning.md` §5-16). Call it at every start of the daemon:
 * a provisioned machine is left alone, an interrupted run goes on. Errors: never but "cancelled"; failures
 * are told to the platform and returned.
 */
export async function provision(
  system: System,
  config: Config,
  options: ProvisionOptions,
): Promise<ProvisionOutcome> {
  const { platform, agent, distro } = options;
  const library = config["Lib.Dir"] as SystemPath;
  if (!system.files.exists(library)) system.files.makeDirectory(library, { mode: 0o700 });
  const provisioner = await chooseProvisioner(system, config);
  const vmId = await readVmId(system, { isOpenBsd: distro.adapter === "OpenBSD" });
  const reporter: Reporter = { platform, vmId, agent };

  if (provisioner === "disabled") {
    system.log.info("Provisioning is disabled, skipping.");
    writeMarker(system, config, vmId);
    return { ...(await reportReadyOnly(system, reporter)), status: "disabled" };
  }
  const marker = readMarker(system, config);
  if (marker !== undefined) {
    const outcome = await settleProvisioned(system, config, { ...options, reporter, marker });
    if (outcome !== undefined) return outcome;
  }
  return provisioner === "cloud-init"
    ? provisionWithCloudInit(system, config, { ...options, vmId })
    : provisionFromMedium(system, config, {
        ...options,
        vmId,
        checkCloudInit: provisioner === "agent-unasked",
      });
}

/** A machine with a marker (PROV-06, PROV-30, ID-04). */
async function settleProvisioned(
  system: System,
  config: Config,
  options: ProvisionOptions & { readonly reporter: Reporter; readonly marker: string },
): Promise<ProvisionOutcome> {
  const { reporter, marker, distro } = options;
  if (readJournal(system, config, reporter.vmId) !== undefined)
    return finishInterrupted(system, config, options);
  system.log.info("Provisioning already completed, skipping.");
  if (isSameVm(marker, reporter.vmId)) return ALREADY;
  if (reporter.vmId === "") {
    system.log.warning(
      "The id of this VM cannot be found out; it is taken for the one that was provisioned",
    );
    return ALREADY;
  }
  if (marker !== "") {
    const message = `VM is provisioned, but the VM unique identifier has changed from ${marker} to ${reporter.vmId}, clearing cached state`;
    system.log.warning(message);
    system.emit({ name: AGENT_EVENT_NAME, operation: "Provision", success: true, message });
    forgetFormerVm(system, distro, config);
    // A journal of the former VM says nothing about this one.
    system.files.remove(journalPath(config));
  }
  writeMarker(system, config, reporter.vmId);
  return { ...(await reportReadyOnly(system, reporter)), status: "already-provisioned" };
}

/** The marker was written, but the run ended before the platform was known to know (DB-23). */
async function finishInterrupted(
  system: System,
  config: Config,
  options: ProvisionOptions & { readonly reporter: Reporter },
): Promise<ProvisionOutcome> {
  system.log.info("Provisioning was done, but the platform may not know: reporting Ready");
  const attempt = async (): Promise<ProvisionOutcome> => {
    await options.platform.detect();
    return finish(system, config, {
      ...options,
      document: readCopy(system, config),
      message: "Provisioning succeeded",
      durationMs: 0,
    });
  };
  try {
    return await attempt();
  } catch (error) {
    if (isCancelled(error)) throw error;
    system.log.error(`The platform cannot be told: ${describe(error)}`);
    return { ...ALREADY, unreported: async () => (await attempt()).unreported === undefined };
  }
}

async function reportReadyOnly(
  system: System,
  reporter: Reporter,
): Promise<Pick<ProvisionOutcome, "failure" | "unreported">> {
  const tell = async (): Promise<boolean> => {
    try {
      await reporter.platform.detect();
    } catch (error) {
      if (isCancelled(error)) throw error;
      system.log.error(`The platform cannot be told: ${describe(error)}`);
      return false;
    }
    return tellReady(system, reporter);
  };
  const known = await tell();
  return { failure: undefined, unreported: known ? undefined : tell };
}
