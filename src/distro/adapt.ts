import type { Capabilities, DistroRow } from "./distro.ts";
import { DEBIAN_LEASES, NETWORKD, NETWORKD_LEASES, reloadUnit } from "./rows.ts";

/** Adapters of systems that are not an ordinary Linux: their row is all there is to know. */
const FIXED = ["IosXE", "BigIp", "Gaia", "FreeBSD", "OpenBSD", "NSBSD", "OpenWRT"];

/**
 * Applies what is really there to a row (`provisioning.md` DB-14, DB-16, DB-18, DB-22): the installed unit names the
 * service, systemd starts and stops it, the ssh unit that exists is reloaded, and the network manager that
 * runs owns the lease. The row's own way is kept while what it needs is present. Pure.
 */
export function adaptRow(row: DistroRow, found: Capabilities): DistroRow {
  if (FIXED.includes(row.adapter)) return row;
  return { ...row, ...network(row, found), ...ssh(row, found), ...service(row, found) };
}

function service(row: DistroRow, found: Capabilities): Partial<DistroRow> {
  if (!found.systemd) return {};
  const name = found.agentUnit ?? row.serviceName;
  const unit = found.agentUnit ?? row.controlledService;
  return {
    serviceName: name,
    controlledService: unit,
    stopService: ["systemctl", "stop", unit],
    startService: ["systemctl", "start", unit],
    // A row that has no way to register us gets systemd's once our unit is there; Ubuntu keeps mask and unmask.
    ...renamed(row, row.serviceName, unit, found.agentUnit !== undefined),
    ...(found.readOnlyUsr ? { unitDirectory: "/etc/systemd/system" as const } : {}),
  };
}

function renamed(
  row: DistroRow,
  from: string,
  to: string,
  installed: boolean,
): Pick<DistroRow, "registerService" | "unregisterService"> {
  const rename = (argv: DistroRow["registerService"], verb: string) => {
    if (argv === undefined) return installed ? ["systemctl", verb, to] : undefined;
    if (argv[0] !== "systemctl") return ["systemctl", verb, to];
    return argv.map((word) => (word === from || word === `${from}.service` ? to : word));
  };
  return {
    registerService: rename(row.registerService, "enable"),
    unregisterService: rename(row.unregisterService, "disable"),
  };
}

function ssh(row: DistroRow, found: Capabilities): Partial<DistroRow> {
  if (found.systemd) {
    if (found.sshUnit === undefined) return {};
    // Socket activation starts a new sshd for each connection or on demand: a new one reads the new file.
    return {
      restartSsh: found.sshUnit.endsWith(".socket")
        ? undefined
        : reloadUnit(found.sshUnit.replace(/\.service$/, "")),
    };
  }
  if (found.serviceManager === "openrc") {
    return { restartSsh: ["rc-service", "--ifexists", "--ifstarted", "sshd", "restart"] };
  }
  return row.restartSsh?.[0] === "systemctl"
    ? { restartSsh: found.serviceManager === "sysv" ? ["service", "ssh", "restart"] : undefined }
    : {};
}

const OWNER: Readonly<Record<DistroRow["renewLease"], string | undefined>> = {
  networkd: "networkd",
  "network-manager": "NetworkManager",
  wicked: "wicked",
  ifupdown: "ifupdown",
  "dhcpcd-hup": "dhcpcd",
  "link-bounce": undefined,
  freebsd: undefined,
  openbsd: undefined,
  none: undefined,
};

function network(row: DistroRow, found: Capabilities): Partial<DistroRow> {
  const present = found.networkManagers;
  const owner = OWNER[row.renewLease];
  if (present.length === 0 || row.renewLease === "none") return {};
  if (owner !== undefined && present.some((manager) => manager === owner)) return {};
  // Stopping somebody's only network manager around a probe is worth it only where the matrix says so.
  const noProbe = { stopDhcp: undefined, startDhcp: undefined };
  switch (present[0]) {
    case "networkd":
      return { ...NETWORKD, ...noProbe, leases: NETWORKD_LEASES };
    case "NetworkManager":
      return {
        ...noProbe,
        renewLease: "network-manager",
        dhcpClientPids: ["pidof", "NetworkManager"],
      };
    case "wicked":
      return { ...noProbe, renewLease: "wicked", dhcpClientPids: ["pidof", "wickedd-dhcp4"] };
    case "ifupdown":
      return {
        ...noProbe,
        renewLease: "ifupdown",
        dhcpClientPids: ["pidof", present.includes("dhcpcd") ? "dhcpcd" : "dhclient"],
        leases: row.leases?.format === "dhclient" ? row.leases : DEBIAN_LEASES,
      };
    case "dhcpcd":
      return { ...noProbe, renewLease: "dhcpcd-hup", dhcpClientPids: ["pidof", "dhcpcd"] };
    default:
      return {};
  }
}
