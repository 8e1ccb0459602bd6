import { describe, isAgentError } from "../base/error.ts";
import { KEYS, type Config, type ConfigKey } from "../config/table.ts";
import type { Capabilities, Distro } from "../distro/distro.ts";
import { architecture, pid, runtimeVersion } from "../system/process.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { osVersionText, type EventFacts } from "./event-parameters.ts";

type Machine = Pick<System, "files" | "exec" | "log" | "emit">;

/** Kernel, memory and processors for every event (`wire-protocol.md` TEL-06, `system.md` MON-16). Never throws. */
export function readEventFacts(
  system: Pick<System, "files">,
  distro: Pick<Distro, "release">,
  agentVersion: string,
): EventFacts {
  return {
    agentVersion,
    processId: pid(),
    osVersion: osVersionText(distro.release, kernelRelease(system)),
    ramMiB: memoryMiB(readProc(system, "/proc/meminfo")),
    processors: processorCount(readProc(system, "/proc/cpuinfo")),
    architecture: architecture(),
  };
}

export function kernelRelease(system: Pick<System, "files">): string {
  return readProc(system, "/proc/sys/kernel/osrelease").trim() || "unknown";
}

/** Whole MiB of `MemTotal`; 0 when it cannot be told. */
export function memoryMiB(meminfo: string): number {
  return Math.floor(Number(/^MemTotal:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0) / 1024);
}

/** Logical processors; at least 1. */
export function processorCount(cpuinfo: string): number {
  return Math.max(1, cpuinfo.match(/^processor\s*:/gm)?.length ?? 1);
}

function readProc(system: Pick<System, "files">, file: SystemPath): string {
  try {
    return system.files.readText(file);
  } catch {
    return ""; // a system without this part of /proc is described with less
  }
}

/**
 * Line and event `OSInfo` (`system.md` DAEMON-21). The field "Python" keeps its name, because queries look for it, and
 * names our runtime.
 */
export async function reportOsInfo(
  system: Machine,
  distro: Pick<Distro, "release" | "adapter" | "serviceName"> & {
    readonly capabilities: Pick<Capabilities, "systemd">;
  },
): Promise<void> {
  const { systemd } = distro.capabilities;
  const [systemdVersion, drivers, logrotate] = await Promise.all([
    systemd ? firstLine(system, ["systemctl", "--version"], "unknown") : "unknown",
    firstLine(system, ["modinfo", "-F", "version", "hv_vmbus"], "Absent"),
    firstLine(system, ["logrotate", "--version"], "Absent"),
  ]);
  const message =
    `Distro: ${distro.release.name}-${distro.release.version}; OSUtil: ${distro.adapter}; ` +
    `AgentService: ${distro.serviceName}; Python: Bun ${runtimeVersion()}; Arch: ${architecture()}; ` +
    `systemd: ${systemd ? "True" : "False"}; systemd_version: ${systemdVersion}; ` +
    `LISDrivers: ${drivers}; logrotate: ${logrotate};`;
  system.log.info(message);
  system.emit({ operation: "OSInfo", success: true, message });
}

/** Line and event `OpenSsl`: which version, and whether it has the commands we need (`system.md` DAEMON-21). */
export async function reportOpenSsl(
  system: Pick<System, "exec" | "log" | "emit">,
  openssl: string,
): Promise<void> {
  const version = await firstLine(system, [openssl, "version"], "Absent");
  const pkey =
    version !== "Absent" && version !== "Failed"
      ? await firstLine(system, [openssl, "help", "pkey"], "Failed")
      : "Failed";
  const message = `OpenSSL version: ${version}`;
  system.log.info(message);
  system.log.info(`OpenSSL ${pkey === "Failed" ? "has no pkey command" : "has the pkey command"}`);
  system.emit({
    operation: "OpenSsl",
    success: version !== "Absent" && version !== "Failed",
    message,
  });
}

/** First line of what a program prints, on either stream; `absent` without the program, "Failed" when it fails. */
async function firstLine(
  system: Pick<System, "exec">,
  argv: readonly string[],
  absent: string,
): Promise<string> {
  try {
    const { stdout, stderr } = await system.exec.run({ argv, timeoutMs: 10_000 });
    return (stdout.trim() || stderr.trim()).split("\n")[0]?.trim() ?? "";
  } catch (error) {
    return isAgentError(error, "program-missing") || absent === "unknown" ? absent : "Failed";
  }
}

/** One line and event `ConfigurationChange` for each setting that differs from its default (`wire-protocol.md` TEL-51). */
export function reportConfigurationChanges(
  system: Pick<System, "log" | "emit">,
  config: Config,
): void {
  for (const key of Object.keys(KEYS) as ConfigKey[]) {
    const value: unknown = config[key];
    const { default: usual } = KEYS[key] as { default: unknown };
    if (value === usual || isInherited(config, key)) continue;
    const message = `${key} changed from its default: ${shown(usual)}. New value: ${shown(value)}`;
    system.log.info(`******** ${message} ********`);
    system.emit({ operation: "ConfigurationChange", success: true, message });
  }
}

/** Keys that follow another one when they are absent are no change of their own. */
function isInherited(config: Config, key: ConfigKey): boolean {
  return (
    key === "Extensions.InitialGoalStatePeriod" &&
    config[key] === config["Extensions.GoalStatePeriod"]
  );
}

/** A proxy may stand there with user and password. */
function shown(value: unknown): string {
  return value === undefined ? "None" : String(value).replace(/^((?:\w+:\/\/)?)[^@\s]*@/, "$1***@");
}

/** `LIB/current_version` is still there when the last run did not end in order (`system.md` DAEMON-19). */
export const SENTINEL_FILE = "current_version";

/** Event `Restart` when the previous run left its sentinel; its text is what that run wrote (`wire-protocol.md` TEL-51). */
export function reportRestart(
  system: Pick<System, "files" | "log" | "emit">,
  sentinel: SystemPath,
): void {
  let text: string | undefined;
  try {
    text = system.files.readTextIfExists(sentinel, { maxBytes: 64 * 1024 });
  } catch (error) {
    text = describe(error);
  }
  if (text === undefined) return;
  const message = text.trim();
  system.log.info(`The previous run did not end in order: ${message}`);
  system.emit({ operation: "Restart", success: false, message, log: false });
}
