import type { SystemPath } from "../system/root.ts";

/** What a manifest of the log collector asks for (`system.md` LOGC-15). */
export type ManifestCommand =
  | { readonly do: "echo"; readonly text: string }
  | { readonly do: "list"; readonly directory: SystemPath }
  | { readonly do: "copy"; readonly pattern: SystemPath };

export interface ParsedManifest {
  readonly commands: readonly ManifestCommand[];
  /** Lines that are no command, for the results file. */
  readonly errors: readonly string[];
}

export interface ManifestPaths {
  readonly libDirectory: SystemPath;
  /** `Extension.LogDir`. */
  readonly logDirectory: SystemPath;
  readonly agentLog: SystemPath;
}

/** An operator's additions, in the same language (BET-19). */
export const OWN_MANIFEST_FILE = "/etc/waagent/logs.manifest";

/** One entry per line: `verb,argument` with exactly one comma; blank lines and `#` are skipped (LOGC-15). */
export function parseManifest(text: string, paths: ManifestPaths): ParsedManifest {
  const commands: ManifestCommand[] = [];
  const errors: string[] = [];
  for (const raw of text.split("\n")) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const [verb = "", argument, ...more] = line.split(",");
    const value = withVariables((argument ?? "").trim(), paths);
    if (argument === undefined || more.length > 0)
      errors.push(`${JSON.stringify(line)} is not a command followed by one comma`);
    else if (verb === "echo") commands.push({ do: "echo", text: value });
    else if (verb === "diskinfo") continue;
    else if (verb !== "ll" && verb !== "copy")
      errors.push(`${JSON.stringify(line)} begins with an unknown command`);
    else if (!isPath(value)) errors.push(`${JSON.stringify(line)} needs an absolute path`);
    else if (verb === "ll") commands.push({ do: "list", directory: value });
    else commands.push({ do: "copy", pattern: value });
  }
  return { commands, errors };
}

function isPath(text: string): text is SystemPath {
  return text.startsWith("/") && !text.includes("\0");
}

function withVariables(text: string, paths: ManifestPaths): string {
  return text
    .replaceAll("$LIB_DIR", paths.libDirectory)
    .replaceAll("$LOG_DIR", paths.logDirectory)
    .replaceAll("$AGENT_LOG", paths.agentLog);
}

/** The built-in manifest (LOGC-19); "full" is what an operator asks for with `-full`. */
export function builtInManifest(kind: "normal" | "full"): string {
  return SECTIONS.flatMap((section) => {
    const entries = section.entries.filter(([which]) => which === "both" || which === kind);
    if (entries.length === 0) return [];
    return [`echo,### ${section.heading} ###`, ...entries.flatMap(([, lines]) => lines), ""];
  }).join("\n");
}

type Which = "normal" | "full" | "both";
interface Section {
  readonly heading: string;
  readonly entries: readonly (readonly [Which, readonly string[]])[];
}

const copies = (...patterns: readonly string[]): string[] =>
  patterns.map((pattern) => `copy,${pattern}`);

const SECTIONS: readonly Section[] = [
  {
    heading: "Probing Directories",
    entries: [
      ["both", ["ll,/var/log", "ll,$LIB_DIR"]],
      ["full", ["ll,/etc/udev/rules.d"]],
    ],
  },
  {
    heading: "Gathering Configuration Files",
    entries: [
      ["both", copies("/etc/*-release", "/etc/HOSTNAME", "/etc/hostname", "/etc/waagent.conf")],
      [
        "full",
        copies(
          "$LIB_DIR/provisioned",
          "/etc/fstab",
          "/etc/ssh/sshd_config",
          "/boot/grub*/grub.c*",
          "/boot/grub*/menu.lst",
          "/etc/network/interfaces",
          "/etc/network/interfaces.d/*.cfg",
          "/etc/netplan/50-cloud-init.yaml",
          "/etc/nsswitch.conf",
          "/etc/resolv.conf",
          "/run/systemd/resolve/stub-resolv.conf",
          "/run/resolvconf/resolv.conf",
          "/etc/sysconfig/iptables",
          "/etc/sysconfig/network",
          "/etc/sysconfig/network/ifcfg-eth*",
          "/etc/sysconfig/network/routes",
          "/etc/sysconfig/network-scripts/ifcfg-eth*",
          "/etc/sysconfig/network-scripts/route-eth*",
          "/etc/sysconfig/SuSEfirewall2",
          "/etc/ufw/ufw.conf",
          "/var/lib/dhcp/dhclient.eth0.leases",
          "/var/lib/dhclient/dhclient-eth0.leases",
          "/var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
          "/run/systemd/netif/leases/2",
        ),
      ],
    ],
  },
  {
    heading: "Gathering Log Files",
    entries: [
      [
        "both",
        copies(
          "$AGENT_LOG*",
          "/var/log/dmesg*",
          "/var/log/syslog*",
          "/var/log/auth*",
          "$LOG_DIR/*/*",
          "$LOG_DIR/*/*/*",
          "$LOG_DIR/custom-script/handler.log",
        ),
      ],
      // The reference has these in neither or only in the full one; without them a RHEL machine sends no log (BET-19).
      ["both", copies("/var/log/messages*", "/var/log/cloud-init*")],
      [
        "full",
        copies(
          "/var/log/rsyslog*",
          "/var/log/kern*",
          "/var/log/dpkg*",
          "/var/log/yum*",
          "/var/log/boot*",
          "/var/log/secure*",
          "$LOG_DIR/run-command/handler.log",
        ),
      ],
    ],
  },
  {
    heading: "Gathering Extension Files",
    entries: [
      [
        "both",
        copies(
          "$LIB_DIR/ovf-env.xml",
          "$LIB_DIR/waagent_status.json",
          "$LIB_DIR/*/status/*.status",
          "$LIB_DIR/*/config/*.settings",
          "$LIB_DIR/*/config/HandlerState",
          "$LIB_DIR/*/config/HandlerStatus",
          "$LIB_DIR/history/*.zip",
        ),
      ],
      ["normal", copies("$LIB_DIR/error.json")],
      [
        "full",
        copies(
          "$LIB_DIR/*/error.json",
          "$LIB_DIR/SharedConfig.xml",
          "$LIB_DIR/ManagedIdentity-*.json",
        ),
      ],
    ],
  },
  { heading: "Disk Info", entries: [["full", ["diskinfo,"]]] },
  {
    heading: "Gathering Guest ProxyAgent Log Files",
    entries: [["both", copies("/var/log/azure-proxy-agent/*")]],
  },
];

/** Most wanted first (LOGC-17): agent log, status, history, extensions' logs, rotated agent logs, then the rest by name. */
export function byPriority(
  files: Iterable<SystemPath>,
  paths: ManifestPaths,
): readonly SystemPath[] {
  const { agentLog, libDirectory, logDirectory } = paths;
  const ranks: readonly ((file: string) => boolean)[] = [
    (file) => file === agentLog,
    (file) => file === `${libDirectory}/waagent_status.json`,
    (file) => depthBelow(file, `${libDirectory}/history`) === 1 && file.endsWith(".zip"),
    (file) => depthBelow(file, logDirectory) === 2,
    (file) => depthBelow(file, logDirectory) === 3,
    (file) => file.startsWith(`${agentLog}.`),
  ];
  const rank = (file: string): number => {
    const found = ranks.findIndex((matches) => matches(file));
    return found === -1 ? ranks.length : found;
  };
  return [...new Set(files)].sort(
    (left, right) => rank(left) - rank(right) || (left < right ? -1 : 1),
  );
}

/** How many components a path has below a directory; 0 when it is not below it. */
function depthBelow(file: string, directory: string): number {
  return file.startsWith(`${directory}/`) ? file.slice(directory.length + 1).split("/").length : 0;
}
