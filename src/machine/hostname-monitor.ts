import { describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { currentHostName, setHostName } from "./hostname.ts";
import { PUBLISHED_FILE, publishHostName, recordHostName } from "./publish-hostname.ts";

/** Seconds between two looks are in this key (`system.md` ENV-05). */
export const HOSTNAME_PERIOD = "Provisioning.MonitorHostNamePeriod" satisfies keyof Config;

export interface HostNameState {
  /** Last name that was seen; undefined before the first run. */
  readonly known: string | undefined;
  /** A name that could not be published yet. */
  readonly pending: { readonly attempts: number; readonly notBefore: number } | undefined;
}

export const initialHostNameState: HostNameState = { known: undefined, pending: undefined };

const CLOUD_INIT_FILE = "/var/lib/cloud/data/set-hostname";
const FIRST_RETRY_MS = 30_000;
const LAST_RETRY_MS = 30 * 60_000;

/**
 * Notices a new host name and publishes it (`system.md` NET-40..42). A failure is an event `HostnamePublishing` and
 * is tried again, later and later (BET-11). An idle run reads one file of procfs.
 */
export async function monitorHostName(
  system: Pick<System, "exec" | "files" | "clock" | "log" | "emit">,
  config: Pick<Config, "Lib.Dir" | "Network.Manage" | "Provisioning.MonitorHostName">,
  state: HostNameState,
  distro: Pick<Distro, "adapter" | "setHostName" | "dhcpHostName" | "renewLease">,
): Promise<HostNameState> {
  if (!config["Provisioning.MonitorHostName"]) return state;
  const name = currentHostName(system);
  const known = state.known ?? publishedHostName(system, config);
  const changed = name !== "" && name !== known;
  const due = state.pending !== undefined && system.clock.monotonic() >= state.pending.notBefore;
  if (!changed && !due) return { ...state, known };

  if (changed) system.log.info(`EnvMonitor: Detected hostname change: ${known} -> ${name}`);
  try {
    await setHostName(system, distro, name);
    await publishHostName(system, config, distro, name);
    return { known: name, pending: undefined };
  } catch (error) {
    const attempts = changed ? 1 : (state.pending?.attempts ?? 0) + 1;
    const delay = Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempts - 1));
    const message = `Could not publish the host name ${name}: ${describe(error)}; trying again in ${delay / 1000} s`;
    system.log.warning(message);
    system.emit({ operation: "HostnamePublishing", success: false, message, log: false });
    return { known: name, pending: { attempts, notBefore: system.clock.monotonic() + delay } };
  }
}

/**
 * The name that was published last: our record, else what cloud-init set, else the running name. The record is made
 * when it is missing (`system.md` NET-41, `provisioning.md` HOST-15).
 */
export function publishedHostName(
  system: Pick<System, "files" | "log">,
  config: Pick<Config, "Lib.Dir">,
): string {
  const recorded = system.files.readTextIfExists(join(config["Lib.Dir"], PUBLISHED_FILE))?.trim();
  if (recorded !== undefined && recorded !== "") return recorded;
  const name = cloudInitHostName(system) ?? currentHostName(system);
  recordHostName(system, config, name);
  return name;
}

function cloudInitHostName(system: Pick<System, "files" | "log">): string | undefined {
  try {
    const text = system.files.readTextIfExists(CLOUD_INIT_FILE);
    if (text === undefined) return undefined;
    const name = JsonReader.parse(text, CLOUD_INIT_FILE).get("hostname").optionalString();
    return name === "" ? undefined : name;
  } catch (error) {
    system.log.warning(`Ignoring ${CLOUD_INIT_FILE}: ${describe(error)}`);
    return undefined;
  }
}
