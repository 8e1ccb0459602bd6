/**
 * The configuration files that packages install, made from the table of keys and the facts of `provisioning.md`
 * CONF-10..67 (column "Generic") and CONF-100..118, so that a file and what the agent knows about a key cannot
 * drift apart. `waagent config default` prints them.
 */
import { type ConfigKey, definitionOf } from "./table.ts";

/** Text of the value; with `#` in front the line is there as a comment, false leaves the key out. */
type Entry = string | false;

interface Section {
  readonly title: string;
  readonly entries: Partial<Record<ConfigKey, Entry>>;
}

const GENERIC: readonly Section[] = [
  {
    title: "Extensions and goal state",
    entries: {
      "Extensions.Enabled": "y",
      "Extensions.GoalStatePeriod": "6",
      "Extension.LogDir": "#/var/log/azure",
      EnableOverProvisioning: "#y",
    },
  },
  {
    title: "Provisioning",
    entries: {
      "Provisioning.Agent": "auto",
      "Provisioning.DeleteRootPassword": "y",
      "Provisioning.RegenerateSshHostKeyPair": "y",
      "Provisioning.SshHostKeyPairType": "rsa",
      "Provisioning.MonitorHostName": "y",
      "Provisioning.MonitorHostNamePeriod": "30",
      "Provisioning.DecodeCustomData": "n",
      "Provisioning.ExecuteCustomData": "n",
      "Provisioning.PasswordCryptId": "#6",
      "Provisioning.PasswordCryptSaltLength": "#10",
      "Provisioning.AllowResetSysUser": "n",
      "DVD.MountPoint": "#/mnt/cdrom/secure",
      DetectScvmmEnv: "#n",
    },
  },
  {
    title: "Resource disk and swap",
    entries: {
      "ResourceDisk.Format": "y",
      "ResourceDisk.Filesystem": "ext4",
      "ResourceDisk.MountPoint": "/mnt/resource",
      "ResourceDisk.MountOptions": "None",
      "ResourceDisk.EnableSwap": "n",
      "ResourceDisk.SwapSizeMB": "0",
    },
  },
  {
    title: "Logs",
    entries: {
      "Logs.Verbose": "n",
      "Logs.Console": "#y",
      "Logs.Collect": "y",
      "Logs.CollectPeriod": "3600",
    },
  },
  {
    title: "Operating system",
    entries: {
      "OS.EnableFirewall": "y",
      "OS.EnableFirewallPeriod": "30",
      "OS.EnableFIPS": "n",
      "OS.RootDeviceScsiTimeout": "300",
      "OS.RootDeviceScsiTimeoutPeriod": "30",
      "OS.RemovePersistentNetRulesPeriod": "30",
      "OS.MonitorDhcpClientRestartPeriod": "30",
      "OS.OpensslPath": "None",
      "OS.PasswordPath": false,
      "OS.SshDir": "/etc/ssh",
      "OS.SshClientAliveInterval": "#180",
      "OS.SudoersDir": false,
      "OS.HomeDir": "#/home",
      "OS.AllowHTTP": "#n",
      "OS.EnableRDMA": "#y",
      "OS.CheckRdmaDriver": "#y",
    },
  },
  {
    title: "Network proxy of downloads and uploads",
    entries: { "HttpProxy.Host": "#None", "HttpProxy.Port": "#None" },
  },
  {
    title: "Agent",
    entries: {
      "Lib.Dir": "#/var/lib/waagent",
      "Pid.File": "#/var/run/waagent.pid",
      "AutoUpdate.Enabled": false,
      "AutoUpdate.UpdateToLatestVersion": "#y",
      "AutoUpdate.GAFamily": "#Prod",
    },
  },
];

type Changes = Readonly<Partial<Record<ConfigKey, Entry>>>;

/** True of every file but the generic one. */
const NO_PERIODS: Changes = {
  "Extensions.GoalStatePeriod": false,
  "OS.EnableFirewallPeriod": false,
  "OS.MonitorDhcpClientRestartPeriod": false,
  "OS.RemovePersistentNetRulesPeriod": false,
  "OS.RootDeviceScsiTimeoutPeriod": false,
  "Provisioning.MonitorHostNamePeriod": false,
};
/** CONF-118. */
const NO_COLLECTION: Changes = { "Logs.Collect": false, "Logs.CollectPeriod": false };

const CHANGES = {
  generic: {},
  ubuntu: {
    ...NO_PERIODS,
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "Provisioning.MonitorHostName": "n",
    "ResourceDisk.Format": "n",
    "ResourceDisk.MountPoint": "/mnt",
  },
  debian: {
    ...NO_PERIODS,
    "Provisioning.SshHostKeyPairType": "auto",
    "OS.EnableFirewall": "n",
  },
  devuan: { ...NO_PERIODS, ...NO_COLLECTION, "Provisioning.SshHostKeyPairType": "auto" },
  suse: {
    ...NO_PERIODS,
    "ResourceDisk.Filesystem": "btrfs",
    "ResourceDisk.MountOptions": "compress=lzo",
  },
  mariner: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.DecodeCustomData": "y",
    "ResourceDisk.Format": "n",
    "ResourceDisk.MountOptions": false,
    "AutoUpdate.GAFamily": "Prod",
  },
  photonos: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.Agent": false,
    "Provisioning.DecodeCustomData": "y",
    "ResourceDisk.Format": "n",
    "ResourceDisk.MountOptions": false,
    "AutoUpdate.GAFamily": "Prod",
    "OS.EnableFirewall": false,
    "Extensions.Enabled": false,
  },
  coreos: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.DeleteRootPassword": "n",
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "Provisioning.SshHostKeyPairType": "ed25519",
    "OS.AllowHTTP": "y",
  },
  arch: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.DeleteRootPassword": "n",
    "Extensions.Enabled": false,
  },
  alpine: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.MonitorHostName": "n",
    "Provisioning.DecodeCustomData": "y",
    "Provisioning.ExecuteCustomData": "y",
    "Provisioning.AllowResetSysUser": false,
    "Logs.Console": "y",
  },
  chainguard: {
    ...NO_PERIODS,
    "Extensions.Enabled": "n",
    "AutoUpdate.UpdateToLatestVersion": "n",
    "Provisioning.SshHostKeyPairType": "auto",
  },
  clearlinux: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.DecodeCustomData": "y",
    "ResourceDisk.MountOptions": false,
    "AutoUpdate.GAFamily": "Prod",
    "Extensions.Enabled": false,
  },
  iosxe: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "Provisioning.MonitorHostName": "n",
    "ResourceDisk.Format": "n",
    "Extensions.Enabled": false,
  },
  bigip: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Lib.Dir": "/shared/vadc/azure/waagent/",
    "Provisioning.MonitorHostName": "n",
    "Provisioning.DecodeCustomData": false,
    "Provisioning.ExecuteCustomData": false,
    "Provisioning.AllowResetSysUser": false,
    "ResourceDisk.MountOptions": false,
    "OS.EnableRDMA": "n",
  },
  gaia: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.AllowResetSysUser": "y",
    "Provisioning.DecodeCustomData": "y",
    "Provisioning.DeleteRootPassword": "n",
    "Provisioning.MonitorHostName": "n",
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "Provisioning.PasswordCryptId": "1",
    "OS.OpensslPath": "/var/lib/waagent/openssl",
    "ResourceDisk.Filesystem": "ext3",
    "ResourceDisk.EnableSwap": "y",
    "ResourceDisk.SwapSizeMB": "1024",
    "AutoUpdate.Enabled": "n",
    "AutoUpdate.UpdateToLatestVersion": false,
    "OS.EnableRDMA": "n",
  },
  freebsd: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Provisioning.AllowResetSysUser": false,
    "ResourceDisk.Filesystem": "ufs",
    "ResourceDisk.EnableSwap": "y",
    "ResourceDisk.SwapSizeMB": "16384",
    "OS.PasswordPath": "/etc/master.passwd",
    "OS.SudoersDir": "/usr/local/etc/sudoers.d",
  },
  openbsd: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Extensions.Enabled": false,
    "Provisioning.AllowResetSysUser": false,
    "Provisioning.SshHostKeyPairType": "auto",
    "ResourceDisk.Filesystem": "ufs2",
    "ResourceDisk.EnableSwap": "y",
    "ResourceDisk.SwapSizeMB": "65536",
    "OS.PasswordPath": "/etc/master.passwd",
    "OS.OpensslPath": "/usr/local/bin/eopenssl",
  },
  nsbsd: {
    ...NO_PERIODS,
    ...NO_COLLECTION,
    "Extensions.Enabled": false,
    "Extension.LogDir": "/log/azure",
    "Lib.Dir": "/usr/Firewall/lib/waagent",
    "Provisioning.AllowResetSysUser": false,
    "Provisioning.DeleteRootPassword": "n",
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "ResourceDisk.Format": "n",
    "ResourceDisk.Filesystem": "ufs",
    "OS.EnableFirewall": "n",
    "OS.PasswordPath": "/etc/master.passwd",
    "OS.SudoersDir": "/usr/local/etc/sudoers.d",
    "AutoUpdate.Enabled": "n",
    "AutoUpdate.UpdateToLatestVersion": false,
  },
} as const satisfies Readonly<Record<string, Changes>>;

export type DefaultFileName = keyof typeof CHANGES;

export function defaultFileNames(): readonly DefaultFileName[] {
  return Object.keys(CHANGES) as DefaultFileName[];
}

/** The text of one of the shipped files. */
export function defaultFile(name: DefaultFileName): string {
  const changes: Changes = CHANGES[name];
  const lines = [
    "# Configuration of the Azure Linux agent. One Key=value on a line; y or n for switches, None for no value.",
    "# The last of equal keys counts. A `#` begins a comment, also behind a value. A change needs a restart.",
  ];
  for (const section of GENERIC) {
    const entries = (Object.entries({ ...section.entries }) as [ConfigKey, Entry][])
      .map(([key, entry]) => [key, changes[key] ?? entry] as const)
      .filter(([, entry]) => entry !== false);
    if (entries.length === 0) continue;
    lines.push("", `## ${section.title}`);
    for (const [key, entry] of entries) {
      if (entry === false) continue;
      const comment = entry.startsWith("#");
      lines.push(
        "",
        `# ${describeKey(key)}`,
        `${comment ? "# " : ""}${key}=${comment ? entry.slice(1) : entry}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

function describeKey(key: ConfigKey): string {
  const { doc, values } = definitionOf(key);
  // The agent's parser ends a value at the first `#` and so must our own sentences not hold one.
  return values === undefined ? doc : `${doc.replace(/\.$/, "")}: ${values.join(", ")}.`;
}

/** Which file a distribution gets (`provisioning.md` PKG-01..19); packages of an unknown one take the generic file. */
export function defaultFileFor(release: {
  readonly name: string;
  readonly codeName: string;
  readonly fullName: string;
}): DefaultFileName {
  const { name, codeName, fullName } = release;
  if (fullName.includes("Clear Linux")) return "clearlinux";
  if ([name, codeName].some((word) => word === "flatcar" || word === "coreos")) return "coreos";
  if (/^(suse|sles|sle[-_].*|sl-micro|opensuse.*)$/.test(name)) return "suse";
  const same = { azurelinux: "mariner", alpaquita: "alpine" } as const;
  if (name === "azurelinux" || name === "alpaquita") return same[name];
  return Object.hasOwn(CHANGES, name) ? (name as DefaultFileName) : "generic";
}
