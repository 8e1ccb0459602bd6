import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { forgetRuns } from "./custom-data.ts";
import { applyGuestAgentWish } from "./guest-agent.ts";
import { hostKeyFingerprints, primaryFingerprint } from "./host-keys.ts";
import { journalPath } from "./journal.ts";
import { writeMarker } from "./marker.ts";
import type { OvfEnvironment } from "./ovf.ts";
import type { ProvisionOptions, ProvisionOutcome } from "./outcome.ts";
import { AGENT_EVENT_NAME, tellReady, uptime, type Reporter } from "./report.ts";

/**
 * The end of every successful provisioning (PROV-16..19, PROV-34): marker, events, fingerprints, Ready. The journal
 * goes last, so a run that ends in between says Ready again at the next start and changes nothing else (DB-23).
 */
export async function finish(
  system: System,
  config: Config,
  options: Pick<ProvisionOptions, "afterStep"> & {
    readonly reporter: Reporter;
    /** undefined when it was acted upon already, as with cloud-init (PROV-31). */
    readonly document: OvfEnvironment | undefined;
    readonly message: string;
    readonly durationMs: number;
  },
): Promise<ProvisionOutcome> {
  const { reporter, afterStep = () => {} } = options;
  writeMarker(system, config, reporter.vmId);
  afterStep("marker");
  system.emit({
    name: AGENT_EVENT_NAME,
    operation: "Provision",
    success: true,
    message: `${options.message} (${uptime(system)}s)`,
    durationMs: Math.round(options.durationMs),
  });
  forgetRuns(system, config);
  if (options.document !== undefined) applyGuestAgentWish(system, config, options.document);
  afterStep("guest-agent");
  await sendFingerprint(system, config, reporter);
  const facts = Object.fromEntries(
    hostKeyFingerprints(system, config).map(({ type, fingerprint }) => [
      `ssh_${type}`,
      fingerprint,
    ]),
  );
  const tell = async (): Promise<boolean> => {
    const known = await tellReady(system, reporter, facts);
    afterStep("report-ready");
    if (known) forgetJournal(system, config);
    return known;
  };
  const known = await tell();
  system.log.info("Provisioning complete");
  return { status: "provisioned", failure: undefined, unreported: known ? undefined : tell };
}

/** A journal that stays makes the next start say Ready once more, no worse. */
function forgetJournal(system: System, config: Config): void {
  try {
    system.files.remove(journalPath(config));
  } catch (error) {
    system.log.warning(describe(error));
  }
}

/** A property of the role (HLTH-08); it is extra, so its failure is only told. */
async function sendFingerprint(system: System, config: Config, reporter: Reporter): Promise<void> {
  if (reporter.platform.reportFingerprint === undefined) return;
  try {
    await reporter.platform.reportFingerprint(primaryFingerprint(system, config));
  } catch (error) {
    system.log.warning(`The SSH host key's fingerprint was not sent: ${describe(error)}`);
  }
}
