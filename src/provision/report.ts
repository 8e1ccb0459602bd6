import { describe } from "../base/error.ts";
import type { Secret } from "../base/secret.ts";
import type { System } from "../system/system.ts";
import { failedToProvision, failureText, isCancelled } from "./failure.ts";
import { writeProvisioningReport } from "./kvp.ts";
import type { ProvisionOutcome } from "./outcome.ts";
import type { ProvisioningPlatform } from "./platform.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "clock" | "emit">;

/** Identity in reports to the host (`system.md` PEER-05). */
export interface Reporter {
  readonly platform: ProvisioningPlatform;
  readonly vmId: string;
  readonly agent: string;
}

export const AGENT_EVENT_NAME = "WALinuxAgent";

/** Seconds since boot as the kernel writes them, "0.00" when unreadable (PROV-17). */
export function uptime(system: Pick<System, "files">): string {
  const first = (system.files.readTextIfExists("/proc/uptime") ?? "").split(" ")[0] ?? "";
  return /^\d+\.\d+$/.test(first) ? first : "0.00";
}

/** The host's pool first: it is read when the health report comes in (PEER-03). Resolves to whether the platform knows. */
export async function tellReady(
  system: Machine,
  reporter: Reporter,
  facts: Readonly<Record<string, string>> = {},
): Promise<boolean> {
  await writeProvisioningReport(system, { result: "success", fields: facts }, reporter);
  return attempt(system, () => reporter.platform.reportReady());
}

/**
 * Logs a failed provisioning, tells it to the platform (DB-01) and gives the outcome, which tells it again for as long
 * as the platform does not know. Errors: only "cancelled".
 */
export async function provisioningFailed(
  system: Machine,
  error: unknown,
  run: {
    /** What failed, as the log and the event begin. */
    readonly what: string;
    readonly reporter: Reporter;
    /** All that the run read; none of them is told. */
    readonly secrets: readonly Secret[];
    /** Start of the run on the monotonic clock, ms. */
    readonly started: number;
  },
): Promise<ProvisionOutcome> {
  const failure = failureText(failedToProvision(error), run.secrets);
  system.log.error(`${run.what} failed: ${failure}`);
  const tell = async (): Promise<boolean> => {
    try {
      await run.reporter.platform.identify();
    } catch (reason) {
      system.log.error(`The platform cannot be told: ${describe(reason)}`);
      return false;
    }
    await writeProvisioningReport(system, { result: "error", reason: failure }, run.reporter);
    return attempt(system, () =>
      run.reporter.platform.reportNotReady("ProvisioningFailed", failure),
    );
  };
  const known = await tell();
  system.emit({
    name: AGENT_EVENT_NAME,
    operation: "Provision",
    success: false,
    message: `${run.what} failed: ${failure} (${uptime(system)}s)`,
    durationMs: system.clock.monotonic() - run.started,
    log: false,
  });
  return { status: "failed", failure, unreported: known ? undefined : tell };
}

export async function tellStarting(system: Machine, reporter: Reporter): Promise<boolean> {
  return attempt(system, () => reporter.platform.reportNotReady("Provisioning", "Starting"));
}

/** HLTH-07: a platform that cannot be told does not stop provisioning. */
async function attempt(system: Machine, action: () => Promise<boolean>): Promise<boolean> {
  try {
    return await action();
  } catch (error) {
    if (isCancelled(error)) throw error;
    const message = `Failed to report provisioning status: ${describe(error)}`;
    system.log.error(message);
    system.emit({
      name: AGENT_EVENT_NAME,
      operation: "Provision",
      success: false,
      message,
      log: false,
    });
    return false;
  }
}
