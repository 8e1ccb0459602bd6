/** Unit files, as text. One row per family of distributions (`provisioning.md` PKG-20..25, `system.md` INIT-08). */

/**
 * What steers the runtime or whom it trusts before the first line of the agent can forget it (`bun-facts.md` §1).
 * systemd takes these out of whatever DefaultEnvironment= or PassEnvironment= brought in.
 */
export const UNSET_ENVIRONMENT: readonly string[] = [
  "BUN_BE_BUN",
  "BUN_OPTIONS",
  "BUN_INSPECT",
  "BUN_CONFIG_VERBOSE_FETCH",
  "BUN_BYTECODE_ORDER_OUT",
  "BUN_JSC_dumpOptions",
  "NODE_EXTRA_CA_CERTS",
  "NODE_TLS_REJECT_UNAUTHORIZED",
  "SSL_CERT_FILE",
  "SSL_CERT_DIR",
  ...["http_proxy", "https_proxy", "all_proxy", "no_proxy"].flatMap((name) => [
    name,
    name.toUpperCase(),
  ]),
];

export interface Family {
  readonly binary: "/usr/sbin/waagent" | "/usr/bin/waagent";
  readonly wants: readonly string[];
  readonly after: readonly string[];
  readonly slice: boolean;
  readonly path?: string;
}

const SSH = ["sshd.service", "sshd-keygen.service"] as const;

export const FAMILIES = {
  generic: {
    binary: "/usr/sbin/waagent",
    wants: ["network-online.target", ...SSH],
    after: ["network-online.target"],
    slice: true,
  },
  debian: {
    binary: "/usr/sbin/waagent",
    wants: ["network-online.target", ...SSH],
    after: ["network-online.target", "cloud-init.service"],
    slice: true,
  },
  azurelinux: {
    binary: "/usr/bin/waagent",
    wants: ["systemd-networkd-wait-online.service", ...SSH],
    after: ["systemd-networkd-wait-online.service", "cloud-init.service"],
    slice: true,
  },
  chainguard: {
    binary: "/usr/bin/waagent",
    wants: ["network-online.target", ...SSH],
    after: ["network-online.target"],
    slice: true,
    path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  },
  /** `/usr` appears after boot by systemd-sysext, and nothing below it can be written (`system.md` PKG-10). */
  sysext: {
    binary: "/usr/sbin/waagent",
    wants: ["network-online.target"],
    after: ["network-online.target", "systemd-sysext.service"],
    slice: true,
  },
} as const satisfies Record<string, Family>;

export type FamilyName = keyof typeof FAMILIES;

/**
 * The unit waagent.service, known as walinuxagent.service too, as Debian and Ubuntu call it. The file itself never has
 * that name: where /lib is a link to /usr/lib, removing the other package would take our file along.
 *
 * Type=simple, because readiness over the notify socket needs a datagram to a Unix socket, which the
 * runtime cannot send without native calls. Nothing here narrows what a process may do: extensions are children of the
 * agent and inherit it, and they install packages, change users and mount disks.
 */
export function serviceUnit(name: FamilyName): string {
  const family: Family = FAMILIES[name];
  const seeded = name === "sysext";
  return lines(
    "[Unit]",
    "Description=Azure Linux VM agent",
    "Documentation=man:waagent(8)",
    `Wants=${family.wants.join(" ")}`,
    `After=${family.after.join(" ")}`,
    "# An agent that keeps failing must be started again for ever: without it the VM is out of reach.",
    "StartLimitIntervalSec=0",
    "ConditionVirtualization=|microsoft",
    `ConditionFileIsExecutable=${family.binary}`,
    seeded ? "" : "ConditionPathExists=/etc/waagent.conf",
    "",
    "[Service]",
    "Type=simple",
    seeded
      ? "ExecStartPre=/bin/sh -c 'test -e /etc/waagent.conf || ln -s /usr/share/waagent/waagent.conf /etc/waagent.conf'"
      : "",
    `ExecStart=${family.binary} -daemon`,
    "Restart=always",
    "RestartSec=5",
    "WorkingDirectory=/",
    family.path === undefined ? "" : `Environment=PATH=${family.path}`,
    `UnsetEnvironment=${UNSET_ENVIRONMENT.join(" ")}`,
    family.slice ? "Slice=azure.slice" : "",
    family.slice ? "CPUAccounting=yes" : "",
    family.slice ? "MemoryAccounting=yes" : "",
    "# A child that runs out of memory is that child's failure, not the agent's.",
    "OOMPolicy=continue",
    "",
    "[Install]",
    "WantedBy=multi-user.target",
    "Alias=walinuxagent.service",
  );
}

/** Parent of everything that Azure runs in the VM (PKG-24). */
export function azureSlice(): string {
  return lines(
    "[Unit]",
    "Description=Azure agent and extensions",
    "Documentation=man:waagent(8)",
    "DefaultDependencies=no",
    "Before=slices.target",
  );
}

/** Parent of the scopes of extensions (PKG-25). */
export function extensionsSlice(): string {
  return lines(
    "[Unit]",
    "Description=Azure VM extensions",
    "Documentation=man:waagent(8)",
    "DefaultDependencies=no",
    "Before=slices.target",
    "",
    "[Slice]",
    "CPUAccounting=yes",
    "MemoryAccounting=yes",
  );
}

/**
 * For a unit file that an image already has and that starts an interpreter on the path where our executable lies:
 * clears its ExecStart and sets ours (`extensions.md` UPD-34).
 */
export function execStartDropIn(binary = "/usr/sbin/waagent"): string {
  return lines(
    "[Service]",
    "ExecStart=",
    `ExecStart=${binary} -daemon`,
    "WorkingDirectory=/",
    `UnsetEnvironment=${UNSET_ENVIRONMENT.join(" ")}`,
  );
}

/** Enabled where the distribution's policy asks presets (PKG-14). */
export function preset(): string {
  return lines("enable waagent.service");
}

/** A merged extension image is not seen by the boot transaction; this pulls the service in afterwards (PKG-10). */
export function upholdsDropIn(): string {
  return lines("[Unit]", "Upholds=waagent.service");
}

function lines(...all: readonly string[]): string {
  const text: string[] = [];
  for (const [index, line] of all.entries()) {
    const separator = line === "" && all[index + 1]?.startsWith("[") === true;
    if (line !== "" || separator) text.push(line);
  }
  return `${text.join("\n")}\n`;
}
