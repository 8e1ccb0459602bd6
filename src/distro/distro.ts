import type { SystemPath } from "../system/root.ts";

/** A command as its arguments; strategies only return these or text, they never run anything. */
export type Argv = readonly string[];

/** What os-release and its relatives say (`provisioning.md` DIST-01..04). */
export interface Release {
  /** ID in lower case: "ubuntu", "rhel", ... */
  readonly name: string;
  readonly version: string;
  readonly codeName: string;
  readonly fullName: string;
  /** ID_LIKE, lower case, in order. */
  readonly like: readonly string[];
}

/** One row of the adapter matrix (`provisioning.md` §20-21): what differs between distributions, as data. */
export interface DistroRow {
  /** Class name of the matrix, reported in OSInfo: "Ubuntu18", "RedHatModern", "Default", ... */
  readonly adapter: string;
  readonly serviceName: string;
  /** Unit or script that stop and start act on, where it differs from the service name. */
  readonly controlledService: string;
  readonly configPath: SystemPath;
  readonly binDirectory: SystemPath;
  readonly unitDirectory: SystemPath;
  readonly justInTimeUsers: boolean;

  readonly stopService: Argv | undefined;
  readonly startService: Argv | undefined;
  readonly registerService: Argv | undefined;
  readonly unregisterService: Argv | undefined;

  readonly restartSsh: Argv | undefined;
  readonly editSshdConfig: boolean;

  readonly setHostName:
    | "etc-hostname"
    | "hostnamectl-static"
    | "hostnamectl"
    | "sysconfig-network"
    | "etc-HOSTNAME"
    | "uci"
    | "rc-conf"
    | "etc-myname"
    | "unsupported";
  readonly dhcpHostName: "dhclient-conf" | "ifcfg" | "suse-dhcp" | "none";
  /** How DHCP is made to announce a new name; the first whose program is there is taken. */
  readonly renewLease:
    | "ifupdown"
    | "networkd"
    | "network-manager"
    | "wicked"
    | "dhcpcd-hup"
    | "link-bounce"
    | "freebsd"
    | "openbsd"
    | "none";

  readonly dhcpAvailable: boolean;
  readonly dhcpClientPids: Argv;
  readonly leases:
    | {
        readonly format: "dhclient" | "networkd" | "openbsd";
        readonly globs: readonly SystemPath[];
      }
    | undefined;
  /** Stop and start the client around our own probe. */
  readonly stopDhcp: Argv | undefined;
  readonly startDhcp: Argv | undefined;
  readonly startNetwork: Argv | undefined;

  readonly userTool: "useradd" | "useradd-ash" | "pw" | "openbsd-useradd" | "unsupported";
  /** Users that are never system users ("core" on Flatcar). */
  readonly ordinaryUsers: readonly string[];
  readonly sudo: "sudoers" | "doas" | "none";
  readonly removePersistentNetRules: boolean;
  readonly resolver: "remove" | "remove-resolvconf" | "keep";
  readonly removeMachineId: boolean;
  readonly bootOptions: "grub2" | "grub1" | "loader-conf" | "none";
  /** How `OS.RootDeviceScsiTimeout` is applied (OS-62). */
  readonly scsiTimeout: "sysfs" | "sysctl" | "none";
  /** "root", and "admin" on NS-BSD (OS-65). */
  readonly rootAccount: string;
}

/** What is really there, looked up by programs, units and sockets; the name of the distribution is only a hint. */
export interface Capabilities {
  readonly systemd: boolean;
  readonly serviceManager: "systemd" | "openrc" | "sysv" | "none";
  readonly networkManagers: readonly (
    "networkd" | "NetworkManager" | "wicked" | "ifupdown" | "dhcpcd" | "dhclient" | "udhcpc"
  )[];
  /** "ssh.service", "sshd.service", a socket unit, or undefined. */
  readonly sshUnit: string | undefined;
  /** Name of the installed unit of this agent without suffix: "walinuxagent", "waagent", or undefined. */
  readonly agentUnit: string | undefined;
  /** /usr cannot be written: an image, ostree (OS-67), a merged extension image, or mounted so. */
  readonly readOnlyUsr: boolean;
}

/** The row of this machine after its capabilities were taken into account. */
export interface Distro extends DistroRow {
  readonly release: Release;
  readonly capabilities: Capabilities;
  /** False when no adapter of the matrix names this distribution (DIST-24); its facts then come from ID_LIKE. */
  readonly known: boolean;
}
