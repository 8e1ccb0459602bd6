/**
 * Every configuration key, once: name, type, default, range and text. Parsing, `-show-configuration`, warnings and
 * the reference in the README all come from this table (`provisioning.md` §19, DB-21; `system.md` BET-24).
 */
import type { SystemPath } from "../system/root.ts";

export type KeyType = "boolean" | "integer" | "string" | "path";

export interface KeyDefinition {
  readonly type: KeyType;
  /** Effective value when the key is absent; undefined means unset. */
  readonly default: boolean | number | string | undefined;
  /** Unit or a word on the meaning, one sentence. */
  readonly doc: string;
  readonly minimum?: number;
  readonly maximum?: number;
  /** Words a string key may have; another one is kept, because rules say what it means, and warned about. */
  readonly values?: readonly string[];
  /** Effective value when this key is absent: that of the given ones, joined by "or". */
  readonly follows?: readonly string[];
  /** debug: experimental; own: ours, not known to the Python agent. */
  readonly kind?: "debug" | "own";
  /** Whether `-show-configuration` prints it (CLI-28). Default true. */
  readonly shown?: boolean;
}

type KeyOptions = Omit<Partial<KeyDefinition>, "type" | "default" | "doc">;

const boolean = (value: boolean, doc: string, rest: KeyOptions = {}) =>
  ({ type: "boolean", default: value, doc, ...rest }) as const satisfies KeyDefinition;
const integer = (value: number, doc: string, rest: KeyOptions = {}) =>
  ({ type: "integer", default: value, doc, ...rest }) as const satisfies KeyDefinition;
const string = (value: string, doc: string, rest: KeyOptions = {}) =>
  ({ type: "string", default: value, doc, ...rest }) as const satisfies KeyDefinition;
/** An absolute path; anything else would make every use of it fail, so it counts as absent. */
const path = <const Value extends SystemPath>(value: Value, doc: string, rest: KeyOptions = {}) =>
  ({ type: "path", default: value, doc, ...rest }) as const satisfies KeyDefinition;
const optionalInteger = (doc: string, rest: KeyOptions = {}) =>
  ({ type: "integer", default: undefined, doc, ...rest }) as {
    readonly type: "integer";
    readonly default: number | undefined;
    readonly doc: string;
  };
const optionalString = (doc: string, rest: KeyOptions = {}) =>
  ({ type: "string", default: undefined, doc, ...rest }) as {
    readonly type: "string";
    readonly default: string | undefined;
    readonly doc: string;
  };

export const KEYS = {
  "AutoUpdate.Enabled": boolean(true, "Legacy switch of agent self-update."),
  "AutoUpdate.GAFamily": string("Prod", "Agent family of the goal state that is looked at."),
  "AutoUpdate.UpdateToLatestVersion": boolean(
    true,
    "Whether newer agent versions are wanted; follows AutoUpdate.Enabled when absent.",
    { follows: ["AutoUpdate.Enabled"] },
  ),
  "Autoupdate.Frequency": integer(3600, "Seconds between two looks at the agent manifest.", {
    minimum: 60,
  }),
  "DVD.MountPoint": path("/mnt/cdrom/secure", "Where the provisioning DVD is mounted."),
  "Debug.AgentCpuQuota": integer(
    50,
    "CPU quota of the agent under systemd, in percent of one core.",
    {
      minimum: 1,
      maximum: 10000,
      kind: "debug",
    },
  ),
  "Debug.AgentCpuThrottledTimeThreshold": integer(
    120,
    "Seconds of throttling per check that end the quota.",
    { minimum: 0, kind: "debug" },
  ),
  "Debug.AgentMemoryQuota": integer(
    31457280,
    "Bytes of memory that end the agent when the check is on.",
    { minimum: 1, kind: "debug" },
  ),
  "Debug.AutoUpdateHotfixFrequency": integer(
    14400,
    "Printed only; see Debug.SelfUpdateHotfixFrequency.",
    { minimum: 1, kind: "debug" },
  ),
  "Debug.AutoUpdateNormalFrequency": integer(
    86400,
    "Printed only; see Debug.SelfUpdateRegularFrequency.",
    { minimum: 1, kind: "debug" },
  ),
  "Debug.CgroupCheckPeriod": integer(300, "Seconds between two control group checks and samples.", {
    minimum: 1,
    kind: "debug",
  }),
  "Debug.CgroupDisableOnProcessCheckFailure": boolean(
    true,
    "Take away the agent's CPU quota when foreign processes are in its control group.",
    { kind: "debug" },
  ),
  "Debug.CgroupDisableOnQuotaCheckFailure": boolean(
    true,
    "Take away the agent's CPU quota when it is throttled too much.",
    { kind: "debug" },
  ),
  "Debug.CgroupLogMetrics": boolean(false, "Log every control group metric.", { kind: "debug" }),
  "Debug.EnableAgentMemoryUsageCheck": boolean(
    false,
    "End the agent when it uses more than Debug.AgentMemoryQuota.",
    { kind: "debug" },
  ),
  "Debug.EnableCgroupV2ResourceLimiting": boolean(
    true,
    "Collect logs under limits on control group v2.",
    { kind: "debug" },
  ),
  "Debug.EnableExtensionPolicy": boolean(false, "Apply the policy file to extensions.", {
    kind: "debug",
  }),
  "Debug.EnableFastTrack": boolean(true, "Read vmSettings from the host plugin.", {
    kind: "debug",
  }),
  "Debug.EnableGAVersioning": boolean(true, "Honour agent versions requested by the platform.", {
    kind: "debug",
  }),
  "Debug.EnableSignatureValidation": boolean(false, "Verify signatures of extension packages.", {
    kind: "debug",
  }),
  "Debug.EtpCollectionPeriod": integer(
    300,
    "Seconds between two collections of extension events.",
    { minimum: 1, kind: "debug" },
  ),
  "Debug.FirewallRulesLogPeriod": integer(86400, "Without effect.", { minimum: 1, kind: "debug" }),
  "Debug.LogCollectorInitialDelay": integer(300, "Seconds before the first log collection.", {
    minimum: 0,
    kind: "debug",
  }),
  DetectScvmmEnv: boolean(false, "Look for the installer of System Center VMM at start."),
  EnableOverProvisioning: boolean(true, "Honour the platform's on-hold flag."),
  "Extension.LogDir": path("/var/log/azure", "Parent of the log directories of extensions."),
  "Extensions.Enabled": boolean(true, "n: extensions are not run, only reported."),
  "Extensions.GoalStatePeriod": integer(6, "Seconds between two polls of the goal state.", {
    minimum: 1,
    maximum: 3600,
  }),
  "Extensions.InitialGoalStatePeriod": integer(
    6,
    "The same until the first goal state has converged; follows Extensions.GoalStatePeriod when absent.",
    { minimum: 1, maximum: 3600, follows: ["Extensions.GoalStatePeriod"] },
  ),
  "Extensions.WaitForCloudInit": boolean(false, "Wait for cloud-init before the first extension."),
  "Extensions.WaitForCloudInitTimeout": integer(3600, "Seconds to wait for cloud-init at most.", {
    minimum: 1,
  }),
  "HttpProxy.Host": optionalString(
    "Proxy for storage requests: host name or URL, credentials allowed.",
  ),
  "HttpProxy.Port": optionalInteger("Port of the proxy.", { minimum: 1, maximum: 65535 }),
  "Lib.Dir": path("/var/lib/waagent", "State directory."),
  "Logs.Collect": boolean(true, "Collect logs and hand them to the platform periodically."),
  "Logs.CollectPeriod": integer(3600, "Seconds between two log collections.", { minimum: 60 }),
  "Logs.Console": boolean(true, "Log to /dev/console until the machine is provisioned."),
  "Logs.Verbose": boolean(false, "Log at VERBOSE."),
  "OS.AllowHTTP": boolean(false, "Accepted; TLS is always there, so nothing is ever downgraded."),
  // RDMA-01: naming this key turns RDMA on; once RDMA is on for another reason, its own default is y.
  "OS.CheckRdmaDriver": boolean(
    false,
    "Install the RDMA driver that fits the host; y when another RDMA key is y.",
    { follows: ["OS.EnableRDMA", "OS.UpdateRdmaDriver"] },
  ),
  "OS.EnableFIPS": boolean(false, "Set OPENSSL_FIPS=1 for helper programs."),
  "OS.EnableFirewall": boolean(false, "Only root may talk to the WireServer."),
  "OS.EnableFirewallPeriod": integer(300, "Seconds between two checks of the firewall rules.", {
    minimum: 1,
  }),
  "OS.EnableRDMA": boolean(false, "Set up RDMA devices."),
  "OS.HomeDir": path("/home", "Base directory that $HOME stands for in key paths."),
  "OS.MonitorDhcpClientRestartPeriod": integer(
    30,
    "Seconds between two looks at the DHCP client.",
    { minimum: 1 },
  ),
  "OS.OpensslPath": path("/usr/bin/openssl", "The openssl program."),
  "OS.PasswordPath": path("/etc/shadow", "Password database."),
  "OS.RemovePersistentNetRulesPeriod": integer(
    30,
    "Seconds between two looks for persistent network rules.",
    { minimum: 1 },
  ),
  "OS.RootDeviceScsiTimeout": optionalString(
    "Seconds written to the timeout of SCSI disks; off when unset.",
  ),
  "OS.RootDeviceScsiTimeoutPeriod": integer(30, "Seconds between two looks at the SCSI timeouts.", {
    minimum: 1,
  }),
  "OS.SshClientAliveInterval": string("180", "ClientAliveInterval of sshd, seconds."),
  "OS.SshDir": path("/etc/ssh", "Configuration directory of sshd."),
  "OS.SudoersDir": path("/etc/sudoers.d", "Drop-in directory of sudo."),
  "OS.UpdateRdmaDriver": boolean(false, "Update the RDMA driver where a package offers it."),
  "Pid.File": path("/var/run/waagent.pid", "File that holds the daemon's pid."),
  "Policy.PolicyFilePath": path("/etc/waagent_policy.json", "Policy file for extensions."),
  "Protocol.EndpointDiscovery": string(
    "dhcp",
    "dhcp, or anything else for the fixed address 168.63.129.16.",
  ),
  "Provisioning.Agent": string("auto", "Who provisions the machine.", {
    values: ["auto", "waagent", "cloud-init", "disabled"],
  }),
  "Provisioning.AllowResetSysUser": boolean(false, "Passwords of system users may be set."),
  "Provisioning.DecodeCustomData": boolean(false, "Decode custom data from base64."),
  "Provisioning.DeleteRootPassword": boolean(false, "Lock root's password when provisioning."),
  "Provisioning.ExecuteCustomData": boolean(false, "Run custom data as a program."),
  "Provisioning.MonitorHostName": boolean(false, "Publish changes of the host name."),
  "Provisioning.MonitorHostNamePeriod": integer(30, "Seconds between two looks at the host name.", {
    minimum: 1,
  }),
  "Provisioning.PasswordCryptId": string("6", "Kind of password hash, as in crypt(5).", {
    values: ["6", "5", "1", "y", "gy", "2b", "2a"],
  }),
  "Provisioning.PasswordCryptSaltLength": integer(10, "Characters of salt.", {
    minimum: 1,
    maximum: 16,
  }),
  "Provisioning.RegenerateSshHostKeyPair": boolean(
    false,
    "Make new SSH host keys when provisioning.",
  ),
  "Provisioning.SshHostKeyPairType": string(
    "rsa",
    "Kind of SSH host key; auto makes all of them.",
    {
      values: ["rsa", "ecdsa", "ed25519", "auto"],
    },
  ),
  "ResourceDisk.EnableSwap": boolean(false, "Make a swap file on the resource disk."),
  "ResourceDisk.EnableSwapEncryption": boolean(false, "Encrypt the swap with a throw-away key."),
  "ResourceDisk.Filesystem": string("ext3", "File system of the resource disk."),
  "ResourceDisk.Format": boolean(false, "Set up the resource disk."),
  "ResourceDisk.MountOptions": optionalString("Options for mounting the resource disk."),
  "ResourceDisk.MountPoint": path("/mnt/resource", "Where the resource disk is mounted."),
  "ResourceDisk.SwapSizeMB": integer(0, "Size of the swap file, MiB.", { minimum: 0 }),

  "Debug.SelfUpdateHotfixFrequency": integer(14400, "Window in seconds for hotfix updates.", {
    minimum: 1,
    kind: "debug",
    shown: false,
  }),
  "Debug.SelfUpdateRegularFrequency": integer(86400, "Window in seconds for regular updates.", {
    minimum: 1,
    kind: "debug",
    shown: false,
  }),
  "Debug.EnableRsmDowngrade": boolean(false, "Without effect.", { kind: "debug", shown: false }),
  "Monitor.NetworkConfigurationChanges": boolean(false, "Log changes of routes and interfaces.", {
    shown: false,
  }),

  "Network.Manage": boolean(
    true,
    "n: interfaces, routes, DHCP and host name publishing are left alone.",
    { kind: "own", shown: false },
  ),
  "Provisioning.ManageEtcHosts": boolean(
    false,
    "Keep a line for the host name in /etc/hosts when provisioning.",
    { kind: "own", shown: false },
  ),
  "ResourceDisk.CombineLocalDisks": boolean(
    true,
    "Join several blank local NVMe disks into one (raid0) where mdadm is installed; n: the first is used.",
    { kind: "own", shown: false },
  ),
  "Telemetry.Enabled": boolean(true, "n: no telemetry leaves the machine.", {
    kind: "own",
    shown: false,
  }),
  "Agent.Profile": string("full", "Which parts of the agent run.", {
    values: ["full", "extensions-only", "provision-only", "report-only"],
    kind: "own",
    shown: false,
  }),
  "Extensions.EnforceMemoryQuota": boolean(
    false,
    "Hold extensions to the memory that their packages ask for (systemd, control group v2).",
    { kind: "own", shown: false },
  ),
  "Extensions.DownloadRetries": integer(
    0,
    "How often a failed download of a package or manifest is tried again, after 30 s and then twice as long each time, up to 10 min; 0: only when the platform sends a new goal state.",
    { minimum: 0, maximum: 20, kind: "own", shown: false },
  ),
  "Extensions.SkipUnchanged": boolean(
    false,
    "y: a restart of the agent does not enable again what it enabled since boot for the same goal state with success.",
    { kind: "own", shown: false },
  ),
  "Extensions.TasksMax": integer(
    0,
    "Processes and threads that one extension may have at once, under systemd; 0: only systemd's own limit of each command.",
    { minimum: 0, kind: "own", shown: false },
  ),
  "Firewall.CoverForwarded": boolean(
    false,
    "Apply the firewall to forwarded traffic (containers) too.",
    { kind: "own", shown: false },
  ),
  "Status.UnchangedPeriod": integer(
    0,
    "Seconds after which a status that did not change is uploaded again; 0: with every look at the goal state.",
    { minimum: 0, maximum: 300, kind: "own", shown: false },
  ),
} as const satisfies Readonly<Record<string, KeyDefinition>>;

export type ConfigKey = keyof typeof KEYS;

type Widen<Value> = Value extends boolean
  ? boolean
  : Value extends number
    ? number
    : Value extends SystemPath
      ? SystemPath
      : Value extends string
        ? string
        : undefined;

/** The effective configuration: `config["Extensions.GoalStatePeriod"]` is a number in range. */
export type Config = { readonly [Key in ConfigKey]: Widen<(typeof KEYS)[Key]["default"]> };

/** Keys found in shipped files that nothing reads; accepted without a warning (CONF-92, CONF-93, LEG-01, LEG-02, LEG-05). */
export const INERT_KEYS: readonly string[] = [
  "CGroups.Enabled",
  "CGroups.EnforceLimits",
  "CGroups.Excluded",
  "Home.Dir",
  "LBProbeResponder",
  "Logs.File",
  "Network.Interface",
  "OS.SshdConfigPath",
  "Provisioning.Enabled",
  "Provisioning.UseCloudInit",
  "Role.ConfigurationConsumer",
  "Role.StateConsumer",
  "Role.TopologyConsumer",
];

/** The definition of a key as the general type, for code that walks the table. */
export function definitionOf(key: ConfigKey): KeyDefinition {
  return KEYS[key];
}

export function isConfigKey(key: string): key is ConfigKey {
  return Object.hasOwn(KEYS, key);
}

/** Every key in the order of the table. */
export function configKeys(): readonly ConfigKey[] {
  return Object.keys(KEYS) as ConfigKey[];
}

/** All defaults: what the agent does with an empty file. */
export function defaultConfig(): Config {
  return Object.fromEntries(configKeys().map((key) => [key, KEYS[key].default])) as Config;
}
