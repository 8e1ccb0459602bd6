import { AgentError } from "../base/error.ts";
import type { Secret } from "../base/secret.ts";
import type { Config } from "../config/table.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { detectCloudInit } from "./cloud-init.ts";
import { isCancelled } from "./failure.ts";
import { finish } from "./finish.ts";
import { discardWaitingHostKeys } from "./host-keys.ts";
import { emptyJournal, readJournal, writeJournal, type Journal } from "./journal.ts";
import { readCopy, readMedium } from "./media.ts";
import type { OvfEnvironment } from "./ovf.ts";
import type { ProvisionOptions, ProvisionOutcome } from "./outcome.ts";
import { provisioningFailed, tellStarting, type Reporter } from "./report.ts";
import { makeHostKeys, STEPS, type StepContext } from "./steps.ts";

/**
 * Provisions from the DVD (PROV-07..20), or goes on with what an interrupted run began. Every failure is told to the
 * platform (DB-01); what was done until then stays done, and the next start of the agent goes on from there.
 * Errors: never, but "cancelled".
 */
export async function provisionFromMedium(
  system: System,
  config: Config,
  options: ProvisionOptions & {
    readonly vmId: string;
    /** Whether cloud-init may be enabled all the same (PROV-07). */
    readonly checkCloudInit: boolean;
  },
): Promise<ProvisionOutcome> {
  const { vmId, platform, agent } = options;
  const reporter: Reporter = { platform, vmId, agent };
  const started = system.clock.monotonic();
  const secrets: Secret[] = [];
  try {
    const document = await run(system, config, {
      ...options,
      reporter,
      secrets,
    });
    return await finish(system, config, {
      ...options,
      reporter,
      document,
      message: "Provisioning succeeded",
      durationMs: system.clock.monotonic() - started,
    });
  } catch (error) {
    if (isCancelled(error)) throw error;
    return provisioningFailed(system, error, {
      what: "Provisioning",
      reporter,
      secrets,
      started,
    });
  }
}

/** All steps up to, but without, the marker. Returns the document. */
async function run(
  system: System,
  config: Config,
  options: ProvisionOptions & {
    readonly vmId: string;
    readonly checkCloudInit: boolean;
    readonly reporter: Reporter;
    readonly secrets: Secret[];
  },
): Promise<OvfEnvironment> {
  const { distro, vmId, afterStep = () => {} } = options;
  if (options.checkCloudInit) await refuseBesideCloudInit(system);

  let journal = readJournal(system, config, vmId) ?? emptyJournal(vmId);
  const record = (change: Partial<Journal>): void => {
    journal = { ...journal, ...change };
    writeJournal(system, config, journal);
  };
  const isDone = (name: string): boolean => journal.done.includes(name);
  if (journal.done.length > 0)
    system.log.info(`Going on with an interrupted provisioning after: ${journal.done.at(-1)}`);

  // Begun now, because RSA takes as long as all the rest, and the platform has to be looked for in any case.
  const regenerate = config["Provisioning.RegenerateSshHostKeyPair"] && !isDone("host-keys");
  const hostKeys = regenerate ? makeHostKeys(system, config) : undefined;
  hostKeys?.catch(() => {});
  const detecting = options.platform.detect();
  detecting.catch(() => {});
  try {
    const { document, device } = await readDocument(system, config, isDone("password"));
    if (document.password !== undefined) options.secrets.push(document.password);
    for (const warning of document.warnings) system.log.warning(warning);
    afterStep("read-document");
    // The certificates may come while users are made; without the endpoint nothing is begun (PROV-09, PROV-10).
    await options.platform.identify();
    afterStep("identify");
    await tellStarting(system, options.reporter);
    afterStep("report-starting");
    record({
      hadPassword: journal.hadPassword ?? document.password !== undefined,
      device: journal.device ?? device,
    });
    const context: StepContext = {
      system,
      config,
      distro,
      document,
      journal: () => journal,
      record,
      publishHostName: options.publishHostName,
      hostKeys,
      certificates: detecting,
    };
    for (const step of STEPS) {
      if (isDone(step.name)) continue;
      await step.run(context);
      afterStep(step.name);
      journal = { ...journal, done: [...journal.done, step.name] };
      if (step.once === true) writeJournal(system, config, journal);
    }
    await detecting;
    afterStep("detect");
    return document;
  } catch (error) {
    await Promise.allSettled([hostKeys]);
    discardWaitingHostKeys(system, config);
    throw error;
  }
}

async function refuseBesideCloudInit(system: System): Promise<void> {
  const cloudInit = await detectCloudInit(system);
  if (!cloudInit.enabled) return;
  throw new AgentError(
    "provision",
    `cloud-init appears to be enabled (${cloudInit.because}), this is not expected with Provisioning.Agent=waagent`,
  );
}

/** The DVD, or once the password is set the copy without it: by then the DVD may have been handed back. */
async function readDocument(
  system: System,
  config: Config,
  passwordIsSet: boolean,
): Promise<{ document: OvfEnvironment; device: SystemPath | undefined }> {
  if (passwordIsSet) {
    const copy = readCopy(system, config);
    if (copy !== undefined) return { document: copy, device: undefined };
  }
  const medium = await readMedium(system, config);
  if (medium.document.isRedacted)
    throw new AgentError(
      "protocol",
      "[CopyOvfEnv] The provisioning document on the DVD has a placeholder in the place of the password",
    );
  return medium;
}
