/**
 * The adapter matrix of `provisioning.md` §21 (Tables A and B, OS-60..67, HOST-01..09, SSH-15, USER-03, USER-23,
 * DEPROV-23..27) as data. Known defects of the reference matrix are mended here (DB-14, DB-15, DB-18); what a
 * machine really has installed is applied on top by `adapt.ts`.
 */
import type { Argv, DistroRow } from "./distro.ts";

const LIB_UNITS = "/lib/systemd/system";
const USR_UNITS = "/usr/lib/systemd/system";

/** systemd-networkd's own lease files carry `OPTION_245=<8 hex digits>`. */
export const NETWORKD_LEASES = {
  format: "networkd",
  globs: ["/run/systemd/netif/leases/*"],
} as const satisfies DistroRow["leases"];
export const DEBIAN_LEASES = {
  format: "dhclient",
  globs: ["/var/lib/dhcp/dhclient.*.leases"],
} as const satisfies DistroRow["leases"];
const RED_HAT_LEASES = {
  format: "dhclient",
  globs: ["/var/lib/dhclient/dhclient-*.lease", "/var/lib/NetworkManager/dhclient-*.lease"],
} as const satisfies DistroRow["leases"];

/** `systemctl`, without waiting for units that wait for us during boot. */
export function reloadUnit(unit: string): Argv {
  return ["systemctl", "--job-mode=ignore-dependencies", "try-reload-or-restart", unit];
}

const systemctl = (verb: string, unit: string): Argv => ["systemctl", verb, unit];
const service = (name: string, verb: string, program = "service"): Argv => [program, name, verb];

/** Start and stop of our own service through systemd. */
const bySystemd = (unit: string) => ({
  stopService: systemctl("stop", unit),
  startService: systemctl("start", unit),
});
const enabledBySystemd = (unit: string) => ({
  registerService: systemctl("enable", unit),
  unregisterService: systemctl("disable", unit),
});
const byService = (name: string, program = "service") => ({
  stopService: service(name, "stop", program),
  startService: service(name, "start", program),
});

/** OS-01, OS-30. */
const DEFAULT: DistroRow = {
  adapter: "Default",
  serviceName: "waagent",
  controlledService: "waagent",
  configPath: "/etc/waagent.conf",
  binDirectory: "/usr/sbin",
  unitDirectory: LIB_UNITS,
  justInTimeUsers: false,
  stopService: undefined,
  startService: undefined,
  registerService: undefined,
  unregisterService: undefined,
  restartSsh: undefined,
  editSshdConfig: true,
  setHostName: "etc-hostname",
  dhcpHostName: "dhclient-conf",
  renewLease: "ifupdown",
  dhcpAvailable: true,
  dhcpClientPids: ["pidof", "dhclient"],
  leases: undefined,
  stopDhcp: undefined,
  startDhcp: undefined,
  startNetwork: undefined,
  userTool: "useradd",
  ordinaryUsers: [],
  sudo: "sudoers",
  removePersistentNetRules: true,
  resolver: "remove",
  removeMachineId: false,
  bootOptions: "grub2",
  scsiTimeout: "sysfs",
  rootAccount: "root",
};

/** Facts of every machine whose interfaces belong to systemd-networkd. */
export const NETWORKD = {
  renewLease: "networkd",
  dhcpClientPids: ["pidof", "systemd-networkd"],
  startNetwork: systemctl("start", "systemd-networkd"),
} as const satisfies Partial<DistroRow>;
const NETWORKD_PROBE = {
  stopDhcp: systemctl("stop", "systemd-networkd"),
  startDhcp: systemctl("start", "systemd-networkd"),
} as const satisfies Partial<DistroRow>;

/** OS-02, OS-31: 14.04, and what all Ubuntu rows share. */
const UBUNTU: DistroRow = {
  ...DEFAULT,
  adapter: "Ubuntu14",
  serviceName: "walinuxagent",
  controlledService: "walinuxagent",
  justInTimeUsers: true,
  ...byService("walinuxagent"),
  startNetwork: service("networking", "start"),
  leases: DEBIAN_LEASES,
  removePersistentNetRules: false,
  resolver: "remove-resolvconf",
};
const UBUNTU_16: DistroRow = {
  ...UBUNTU,
  adapter: "Ubuntu16",
  registerService: systemctl("unmask", "walinuxagent"),
  unregisterService: systemctl("mask", "walinuxagent"),
  restartSsh: reloadUnit("ssh"),
};

/** OS-03, OS-36. */
const DEBIAN: DistroRow = {
  ...DEFAULT,
  adapter: "DebianBase",
  controlledService: "azurelinuxagent",
  justInTimeUsers: true,
  ...byService("azurelinuxagent"),
  restartSsh: reloadUnit("ssh"),
  leases: DEBIAN_LEASES,
  removePersistentNetRules: false,
};

/** OS-06, OS-39. */
const RED_HAT_6: DistroRow = {
  ...DEFAULT,
  adapter: "RedHat6",
  justInTimeUsers: true,
  ...byService("waagent", "/sbin/service"),
  registerService: ["chkconfig", "--add", "waagent"],
  unregisterService: ["chkconfig", "--del", "waagent"],
  restartSsh: service("sshd", "condrestart", "/sbin/service"),
  setHostName: "sysconfig-network",
  dhcpHostName: "ifcfg",
  leases: { format: "dhclient", globs: ["/var/lib/dhclient/dhclient-*.leases"] },
  startNetwork: service("network", "start", "/sbin/service"),
  bootOptions: "grub1",
};
/** OS-07, OS-40. */
const RED_HAT_7: DistroRow = {
  ...RED_HAT_6,
  adapter: "RedHat7",
  unitDirectory: USR_UNITS,
  ...enabledBySystemd("waagent"),
  setHostName: "hostnamectl-static",
  renewLease: "network-manager",
  leases: RED_HAT_LEASES,
  bootOptions: "grub2",
};

/** OS-08, OS-43. */
const SUSE: DistroRow = {
  ...DEFAULT,
  adapter: "SUSE",
  unitDirectory: USR_UNITS,
  justInTimeUsers: true,
  ...bySystemd("waagent.service"),
  ...enabledBySystemd("waagent.service"),
  restartSsh: systemctl("restart", "sshd.service"),
  setHostName: "hostnamectl",
  dhcpHostName: "suse-dhcp",
  renewLease: "wicked",
  dhcpClientPids: ["pidof", "wickedd-dhcp4"],
  stopDhcp: systemctl("stop", "wickedd-dhcp4.service"),
  startDhcp: systemctl("start", "wickedd-dhcp4.service"),
  startNetwork: systemctl("start", "network.service"),
};

/** OS-10, OS-45. */
const MARINER: DistroRow = {
  ...DEFAULT,
  adapter: "Mariner",
  binDirectory: "/usr/bin",
  unitDirectory: USR_UNITS,
  justInTimeUsers: true,
  ...bySystemd("waagent"),
  ...enabledBySystemd("waagent"),
  restartSsh: systemctl("restart", "sshd"),
  editSshdConfig: false,
  ...NETWORKD,
  ...NETWORKD_PROBE,
};

/** OS-12, OS-47: ssh is socket activated. */
const ARCH: DistroRow = {
  ...MARINER,
  adapter: "Arch",
  registerService: undefined,
  unregisterService: undefined,
  restartSsh: undefined,
  removeMachineId: true,
};

/** OS-18: appliances that own their network, names and accounts. */
const APPLIANCE: DistroRow = {
  ...DEFAULT,
  setHostName: "unsupported",
  dhcpHostName: "none",
  renewLease: "none",
  userTool: "unsupported",
  sudo: "none",
  bootOptions: "none",
};

const BSD: DistroRow = {
  ...DEFAULT,
  binDirectory: "/usr/local/sbin",
  justInTimeUsers: true,
  dhcpHostName: "none",
  dhcpClientPids: ["pgrep", "-n", "dhclient"],
  bootOptions: "none",
};

const ALL: readonly DistroRow[] = [
  DEFAULT,
  { ...UBUNTU, adapter: "Ubuntu12", dhcpClientPids: ["pidof", "dhclient3"] },
  UBUNTU,
  UBUNTU_16,
  {
    ...UBUNTU_16,
    adapter: "Ubuntu18",
    ...bySystemd("walinuxagent"),
    ...NETWORKD,
    ...NETWORKD_PROBE,
    leases: NETWORKD_LEASES,
    resolver: "keep",
  },
  { ...UBUNTU_16, adapter: "UbuntuOther", renewLease: "link-bounce", resolver: "keep" },
  { ...UBUNTU, adapter: "Snappy", configPath: "/apps/walinuxagent/current/waagent.conf" },
  DEBIAN,
  {
    ...DEBIAN,
    adapter: "DebianModern",
    serviceName: "walinuxagent",
    controlledService: "walinuxagent",
    ...bySystemd("walinuxagent"),
  },
  {
    ...DEBIAN,
    adapter: "Devuan",
    controlledService: "walinuxagent",
    ...byService("walinuxagent", "/usr/sbin/service"),
    restartSsh: service("ssh", "restart", "/usr/sbin/service"),
  },
  RED_HAT_6,
  RED_HAT_7,
  {
    ...RED_HAT_7,
    adapter: "RedHatModern",
    ...bySystemd("waagent"),
    restartSsh: systemctl("condrestart", "sshd"),
  },
  {
    ...DEFAULT,
    adapter: "SUSE11",
    justInTimeUsers: true,
    ...byService("waagent", "/sbin/service"),
    registerService: ["/sbin/insserv", "waagent"],
    unregisterService: ["/sbin/insserv", "-r", "waagent"],
    restartSsh: service("sshd", "restart", "/sbin/service"),
    setHostName: "etc-HOSTNAME",
    dhcpClientPids: ["pidof", "dhcpcd"],
    stopDhcp: service("dhcpcd", "stop", "/sbin/service"),
    startDhcp: service("dhcpcd", "start", "/sbin/service"),
    startNetwork: service("network", "start", "/sbin/service"),
    bootOptions: "grub1",
  },
  SUSE,
  {
    ...DEFAULT,
    adapter: "Fedora",
    unitDirectory: USR_UNITS,
    ...bySystemd("waagent"),
    restartSsh: systemctl("restart", "sshd"),
    editSshdConfig: false,
    renewLease: "network-manager",
  },
  MARINER,
  {
    ...MARINER,
    adapter: "Photon",
    justInTimeUsers: false,
    registerService: undefined,
    unregisterService: undefined,
  },
  ARCH,
  {
    ...ARCH,
    adapter: "Clear",
    configPath: "/usr/share/defaults/waagent/waagent.conf",
    removeMachineId: false,
  },
  {
    ...ARCH,
    adapter: "CoreOS",
    configPath: "/usr/share/oem/waagent.conf",
    binDirectory: "/usr/share/oem/bin",
    unitDirectory: LIB_UNITS,
    dhcpClientPids: ["systemctl", "show", "-p", "MainPID", "systemd-networkd"],
    ordinaryUsers: ["core"],
  },
  {
    ...ARCH,
    adapter: "Chainguard",
    editSshdConfig: true,
    leases: NETWORKD_LEASES,
    removeMachineId: false,
  },
  {
    ...DEFAULT,
    adapter: "Alpine",
    justInTimeUsers: true,
    editSshdConfig: false,
    renewLease: "dhcpcd-hup",
    dhcpClientPids: ["pidof", "dhcpcd"],
    bootOptions: "none",
  },
  {
    ...DEFAULT,
    adapter: "OpenWRT",
    justInTimeUsers: true,
    stopService: ["/etc/init.d/waagent", "stop"],
    startService: ["/etc/init.d/waagent", "start"],
    registerService: ["/etc/init.d/waagent", "enable"],
    unregisterService: ["/etc/init.d/waagent", "disable"],
    restartSsh: ["/etc/init.d/sshd", "restart"],
    setHostName: "uci",
    dhcpClientPids: ["pidof", "udhcpc"],
    startNetwork: ["/etc/init.d/network", "start"],
    userTool: "useradd-ash",
    removePersistentNetRules: false,
    bootOptions: "none",
  },
  {
    ...DEFAULT,
    adapter: "IosXE",
    unitDirectory: USR_UNITS,
    ...enabledBySystemd("waagent"),
    setHostName: "hostnamectl-static",
    renewLease: "network-manager",
    dhcpAvailable: false,
    bootOptions: "none",
  },
  {
    ...APPLIANCE,
    adapter: "BigIp",
    ...byService("waagent", "/sbin/service"),
    registerService: ["/sbin/chkconfig", "--add", "waagent"],
    unregisterService: ["/sbin/chkconfig", "--del", "waagent"],
    restartSsh: ["/usr/bin/bigstart", "restart", "sshd"],
    dhcpClientPids: ["/sbin/pidof", "dhclient"],
  },
  {
    ...APPLIANCE,
    adapter: "Gaia",
    restartSsh: service("sshd", "condrestart", "/sbin/service"),
    removePersistentNetRules: false,
  },
  {
    ...BSD,
    adapter: "FreeBSD",
    configPath: "/usr/local/etc/waagent.conf",
    restartSsh: service("sshd", "restart"),
    setHostName: "rc-conf",
    renewLease: "freebsd",
    userTool: "pw",
    bootOptions: "loader-conf",
    scsiTimeout: "sysctl",
  },
  {
    ...BSD,
    adapter: "OpenBSD",
    stopService: ["rcctl", "stop", "waagent"],
    startService: ["rcctl", "start", "waagent"],
    registerService: ["rcctl", "enable", "waagent"],
    unregisterService: ["rcctl", "disable", "waagent"],
    restartSsh: ["rcctl", "restart", "sshd"],
    setHostName: "etc-myname",
    renewLease: "openbsd",
    leases: { format: "openbsd", globs: ["/var/db/dhclient.leases.*"] },
    userTool: "openbsd-useradd",
    sudo: "doas",
    scsiTimeout: "none",
  },
  {
    ...BSD,
    adapter: "NSBSD",
    restartSsh: ["/usr/Firewall/sbin/enservice"],
    setHostName: "unsupported",
    renewLease: "none",
    dhcpClientPids: ["cat", "/var/run/dhclient.pid"],
    stopDhcp: ["/usr/Firewall/sbin/nstop", "dhclient"],
    startDhcp: ["/usr/Firewall/sbin/nstart", "dhclient"],
    userTool: "unsupported",
    sudo: "none",
    scsiTimeout: "sysctl",
    rootAccount: "admin",
  },
];

/** Every adapter by its name, in the order of the specification. */
export const ROWS: ReadonlyMap<string, DistroRow> = new Map(ALL.map((row) => [row.adapter, row]));

/** The row of an adapter; its name comes from `select.ts`, so it is always there. */
export function rowOf(adapter: string): DistroRow {
  return ROWS.get(adapter) ?? DEFAULT;
}
