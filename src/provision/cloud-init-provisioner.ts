import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";
import { detectCloudInit, readCloudInitResult } from "./cloud-init.ts";
import { isCancelled } from "./failure.ts";
import { finish } from "./finish.ts";
import { applyGuestAgentWish } from "./guest-agent.ts";
import { primaryFingerprint, primaryPublicKey } from "./host-keys.ts";
import { emptyJournal, writeJournal } from "./journal.ts";
import { readProvisioningReport } from "./kvp.ts";
import { copyPath, saveCopy } from "./media.ts";
import { decodeOvf, parseOvf, type OvfEnvironment } from "./ovf.ts";
import type { ProvisionOptions, ProvisionOutcome } from "./outcome.ts";
import { provisioningFailed, tellStarting, type Reporter } from "./report.ts";
import { readReportedVmId } from "./vm-id.ts";

const POLL_MS = 1000;
const MAX_POLLS = 1800;
/** After cloud-init has ended, what it has not left by then will never come (DB-25). */
const POLLS_AFTER_END = 10;
const FIRST_INTERVAL = 10;
const LAST_INTERVAL = 320;

/**
 * Waits for what cloud-init leaves and says Ready (PROV-31..37). Touches no user, key, host name or root password.
 * Errors: never, but "cancelled".
 */
export async function provisionWithCloudInit(
  system: System,
  config: Config,
  options: ProvisionOptions & { readonly vmId: string },
): Promise<ProvisionOutcome> {
  const { platform, vmId, agent, afterStep = () => {} } = options;
  const reporter: Reporter = { platform, vmId, agent };
  const started = system.clock.monotonic();
  try {
    const document = await waitForDocument(system, config);
    for (const warning of document.warnings) system.log.warning(warning);
    applyGuestAgentWish(system, config, document);
    afterStep("read-document");
    await platform.detect();
    afterStep("detect");
    // cloud-init reports by itself; a NotReady after its Ready would take the VM back (DB-25).
    if (!hasReportedReady(system)) await tellStarting(system, reporter);
    afterStep("report-starting");
    await waitForHostKey(system, config);
    writeJournal(system, config, { ...emptyJournal(vmId), done: ["cloud-init"] });
    return await finish(system, config, {
      ...options,
      reporter,
      document: undefined,
      message: "Provisioning with cloud-init succeeded",
      durationMs: system.clock.monotonic() - started,
    });
  } catch (error) {
    if (isCancelled(error)) throw error;
    return provisioningFailed(system, error, {
      what: "Provisioning with cloud-init",
      reporter,
      secrets: [],
      started,
    });
  }
}

/** Parsed only once it is whole: cloud-init may still be writing it (DB-27). Its password goes (DB-03). */
async function waitForDocument(system: System, config: Config): Promise<OvfEnvironment> {
  const file = copyPath(config);
  let last: unknown;
  const found = await poll(system, file, () => {
    if (!system.files.exists(file)) return undefined;
    try {
      const text = decodeOvf(system.files.read(file), file);
      const document = parseOvf(text, file);
      saveCopy(system, config, text);
      return document;
    } catch (error) {
      last = error;
      return undefined;
    }
  });
  if (found !== undefined) return found;
  throw last === undefined
    ? new AgentError(
        "provision",
        `Giving up on ${file}: cloud-init did not write it in ${MAX_POLLS} s`,
      )
    : new AgentError(
        "provision",
        `The provisioning document ${file} of cloud-init cannot be used`,
        {
          cause: last,
        },
      );
}

async function waitForHostKey(system: System, config: Config): Promise<void> {
  const file = primaryPublicKey(config);
  const found = await poll(system, file, () => {
    if (!system.files.exists(file)) return undefined;
    try {
      return primaryFingerprint(system, config);
    } catch (error) {
      system.log.periodically(
        "WARNING",
        60_000,
        `Waiting for a whole ${file}: ${describe(error)}`,
        file,
      );
      return undefined;
    }
  });
  if (found === undefined)
    throw new AgentError("provision", `Giving up on the SSH host key ${file} after ${MAX_POLLS} s`);
  system.log.info(`SSH host key: ${found}`);
}

/** Once a second, half an hour at most, a little longer after cloud-init itself has ended (PROV-31, PROV-36, DB-25). */
async function poll<Result>(
  system: System,
  what: string,
  look: () => Result | undefined,
): Promise<Result | undefined> {
  let interval = FIRST_INTERVAL;
  let pollsAfterEnd = 0;
  for (let index = 0; index < MAX_POLLS; index += 1) {
    const found = look();
    if (found !== undefined) return found;
    if (readCloudInitResult(system) !== undefined && (pollsAfterEnd += 1) > POLLS_AFTER_END)
      return undefined;
    if (index === 0 || index % interval === 0) {
      system.log.info(`Waiting for cloud-init to provide ${what}`);
      if (index > 0) interval = Math.min(interval * 2, LAST_INTERVAL);
      const cloudInit = await detectCloudInit(system);
      if (!cloudInit.enabled)
        system.log.warning(`cloud-init does not appear to be enabled: ${cloudInit.because}`);
    }
    await system.clock.sleep(POLL_MS);
  }
  return undefined;
}

/** Its success in the host's pool, for this VM. */
function hasReportedReady(system: System): boolean {
  try {
    const report = readProvisioningReport(system) ?? "";
    const fields = report.split("|").map((field) => field.toLowerCase());
    return (
      fields.includes("result=success") &&
      fields.some((field) => field.startsWith("agent=cloud-init")) &&
      fields.includes(`vm_id=${readReportedVmId(system)}`)
    );
  } catch (error) {
    system.log.verbose(`The host's pool cannot be read: ${describe(error)}`);
    return false;
  }
}
