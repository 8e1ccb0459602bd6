import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import type { System } from "../system/system.ts";
import { applyRoutes, type WantedRoutes } from "./routes.ts";

/** What the monitor remembers between two runs; start with `initialDhcpMonitorState`. */
export interface DhcpMonitorState {
  /** Sorted pids of the DHCP client when it was last seen. */
  readonly pids: readonly number[];
  /** "Dhcp client is not running." was said and the client not seen since (`system.md` NET-31). */
  readonly missingTold: boolean;
  /** Routes of the last DHCP answer that the agent itself got; undefined when it never had to ask. */
  readonly routes: WantedRoutes | undefined;
}

/** Seconds between two runs are in this key. */
export const DHCP_MONITOR_PERIOD = "OS.MonitorDhcpClientRestartPeriod" satisfies keyof Config;

/** Process names of DHCP clients, as /proc/PID/comm shows them: cut at 15 characters. */
const CLIENTS = [
  "dhclient",
  "dhclient3",
  "dhcpcd",
  "udhcpc",
  "systemd-network",
  "wickedd-dhcp4",
  "NetworkManager",
] as const;

export function initialDhcpMonitorState(routes: WantedRoutes | undefined): DhcpMonitorState {
  return { pids: [], missingTold: false, routes };
}

/**
 * Notices that the DHCP client was restarted, which drops the routes we added, and adds them again
 * (`system.md` NET-30, BET-09). An idle run reads one small file per client process: no program, no write.
 */
export async function monitorDhcpClient(
  system: Pick<System, "files" | "exec" | "log">,
  config: Pick<Config, "Network.Manage">,
  state: DhcpMonitorState,
  distro: Pick<Distro, "dhcpClientPids">,
): Promise<DhcpMonitorState> {
  if (!config["Network.Manage"]) return state;
  if (state.pids.length > 0 && state.pids.every((pid) => isDhcpClient(system, distro, pid)))
    return state;

  const pids = findDhcpClients(system, distro);
  if (pids.length === 0) {
    if (!state.missingTold) system.log.warning("Dhcp client is not running.");
    return { ...state, missingTold: true };
  }
  const restarted = state.pids.length > 0 && pids.join() !== state.pids.join();
  if (restarted) {
    system.log.info(
      `The DHCP client was restarted (pid ${state.pids.join(", ")} before, ${pids.join(", ")} now); restoring routes`,
    );
    if (state.routes !== undefined) await applyRoutes(system, config, state.routes);
  }
  return { ...state, pids, missingTold: false };
}

/**
 * Sorted pids of the DHCP client: the one the distribution's row names, else any client we know, because which one
 * runs is the administrator's choice (`system.md` BET-12). /proc is read; no program is run.
 */
export function findDhcpClients(
  system: Pick<System, "files">,
  distro: Pick<Distro, "dhcpClientPids">,
): number[] {
  const expected = clientOf(distro);
  const found = new Map<string, number[]>();
  for (const entry of system.files.list("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const name = processName(system, Number(entry));
    if (name === undefined || !(name === expected || isClientName(name))) continue;
    found.set(name, [...(found.get(name) ?? []), Number(entry)]);
  }
  const names = [expected, ...CLIENTS].find((name) => found.has(name));
  return (found.get(names ?? "") ?? []).toSorted((a, b) => a - b);
}

function isDhcpClient(
  system: Pick<System, "files">,
  distro: Pick<Distro, "dhcpClientPids">,
  pid: number,
): boolean {
  const name = processName(system, pid) ?? "";
  return name === clientOf(distro) || isClientName(name);
}

/** The last word of `pidof dhclient` and its like is the program. */
function clientOf(distro: Pick<Distro, "dhcpClientPids">): string {
  return (distro.dhcpClientPids.at(-1) ?? "").slice(0, 15);
}

function isClientName(name: string): boolean {
  return CLIENTS.some((client) => client === name);
}

function processName(system: Pick<System, "files">, pid: number): string | undefined {
  try {
    return system.files.readText(`/proc/${pid}/comm`).trim();
  } catch {
    return undefined; // the process ended between listing and reading
  }
}
