import type { System } from "../system/system.ts";
import type { SystemPath } from "../system/root.ts";
import type { Capabilities } from "./distro.ts";

type Machine = Pick<System, "files" | "exec">;

/** Where systemd looks for units, strongest first. */
export const UNIT_DIRECTORIES: readonly SystemPath[] = [
  "/etc/systemd/system",
  "/run/systemd/system",
  "/usr/local/lib/systemd/system",
  "/usr/lib/systemd/system",
  "/lib/systemd/system",
];

/** Names under which packages of the agent install their unit. */
const AGENT_UNITS = ["walinuxagent", "waagent"];

/**
 * What is really there (`provisioning.md` OS-66, OS-67, DB-16, DB-18). Reads the file system only; runs nothing.
 * `preferredUnit` wins when units of both names are installed.
 */
export function detectCapabilities(system: Machine, preferredUnit: string): Capabilities {
  const { files } = system;
  const systemd = files.exists("/run/systemd/system");
  const hasUnit = (unit: string): boolean =>
    UNIT_DIRECTORIES.some((directory) => files.exists(`${directory}/${unit}`));
  const firstUnit = (units: readonly string[]): string | undefined => units.find(hasUnit);
  return {
    systemd,
    serviceManager: serviceManager(system, systemd),
    networkManagers: networkManagers(system),
    sshUnit: firstUnit(["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"]),
    agentUnit: [preferredUnit, ...AGENT_UNITS].find((name) => hasUnit(`${name}.service`)),
    readOnlyUsr: files.exists("/run/ostree-booted") || isReadOnly(system, "/usr"),
  };
}

/** By the mount that holds the folder; of two at the same place the later one hides the other. */
function isReadOnly({ files }: Pick<System, "files">, folder: SystemPath): boolean {
  let holder = "";
  let options = "";
  for (const line of (files.readTextIfExists("/proc/mounts") ?? "").split("\n")) {
    const [, point = "", , given = ""] = line.split(" ");
    const holds = point === "/" || folder === point || folder.startsWith(`${point}/`);
    if (point !== "" && holds && point.length >= holder.length) [holder, options] = [point, given];
  }
  return options.split(",").includes("ro");
}

function serviceManager(system: Machine, systemd: boolean): Capabilities["serviceManager"] {
  if (systemd) return "systemd";
  if (system.files.exists("/run/openrc") || system.exec.find("rc-service") !== undefined) {
    return "openrc";
  }
  return system.files.exists("/etc/init.d") ? "sysv" : "none";
}

/** In order of precedence: the first one owns the primary interface. */
function networkManagers(system: Machine): Capabilities["networkManagers"] {
  const { files } = system;
  const found: Capabilities["networkManagers"][number][] = [];
  if (files.exists("/run/NetworkManager")) found.push("NetworkManager");
  if (files.exists("/run/systemd/netif/state")) found.push("networkd");
  if (files.exists("/run/wicked")) found.push("wicked");
  if (
    system.exec.find("ifup") !== undefined &&
    (files.exists("/etc/network/interfaces") || files.exists("/etc/sysconfig/network-scripts"))
  ) {
    found.push("ifupdown");
  }
  if (files.glob("/run/dhcpcd*").length > 0) found.push("dhcpcd");
  if (files.glob("/run/dhclient*.pid").length > 0) found.push("dhclient");
  if (files.glob("/run/udhcpc*.pid").length > 0) found.push("udhcpc");
  return found;
}
