import { describe } from "../base/error.ts";
import type { System } from "../system/system.ts";
import { isCancelled } from "./failure.ts";
import { writeProvisioningReport } from "./kvp.ts";
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

export async function tellFailed(
  system: Machine,
  reporter: Reporter,
  description: string,
): Promise<boolean> {
  await writeProvisioningReport(system, { result: "error", reason: description }, reporter);
  return attempt(system, () => reporter.platform.reportNotReady("ProvisioningFailed", description));
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
