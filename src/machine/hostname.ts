import { describe, isAgentError } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { rewriteSetting } from "./hostname-rewrite.ts";

type Machine = Pick<System, "exec" | "files" | "log">;

const TIMEOUT_MS = 30_000;

/**
 * Gives the machine its name, now and after a reboot, by the mechanism of its distribution (`provisioning.md`
 * HOST-01..09). The running kernel's part is best effort; the file must be written.
 * Errors: AgentError "io" when the file cannot be written.
 */
export async function setHostName(
  system: Machine,
  distro: Pick<Distro, "setHostName" | "adapter">,
  name: string,
): Promise<void> {
  switch (distro.setHostName) {
    case "etc-hostname":
      await byFile(system, "/etc/hostname", name, name);
      return;
    case "etc-HOSTNAME":
      await byFile(system, "/etc/HOSTNAME", name, name);
      return;
    case "etc-myname":
      await byFile(system, "/etc/myname", `${name}\n`, name);
      return;
    case "hostnamectl":
      await byHostnamectl(system, ["hostnamectl", "set-hostname", name], name);
      return;
    case "hostnamectl-static":
      await byHostnamectl(system, ["hostnamectl", "set-hostname", name, "--static"], name);
      return;
    case "sysconfig-network":
      await byFile(
        system,
        "/etc/sysconfig/network",
        rewriteSetting(
          system.files.readTextIfExists("/etc/sysconfig/network") ?? "",
          "HOSTNAME=",
          `HOSTNAME=${name}`,
        ),
        name,
      );
      return;
    case "rc-conf":
      await byFile(
        system,
        "/etc/rc.conf",
        rewriteSetting(
          system.files.readTextIfExists("/etc/rc.conf") ?? "",
          "hostname=",
          `hostname="${name}"`,
        ),
        name,
      );
      return;
    case "uci":
      await byUci(system, name);
      return;
    case "unsupported":
      system.log.info(`The host name is left as it is: ${distro.adapter} manages its own`);
  }
}

/** Name of the running machine. */
export function currentHostName(system: Pick<System, "files">): string {
  return (
    system.files.readTextIfExists("/proc/sys/kernel/hostname") ??
    system.files.readTextIfExists("/etc/hostname") ??
    ""
  ).trim();
}

async function byFile(
  system: Machine,
  file: SystemPath,
  text: string,
  name: string,
): Promise<void> {
  if (system.files.readTextIfExists(file) !== text) {
    const old = system.files.stat(file);
    system.files.write(file, text, { mode: old?.mode ?? 0o644 });
  }
  await announce(system, name);
}

/** Without newline, as other agents and cloud images expect it (HOST-01); errors only in the log. */
async function announce(system: Machine, name: string): Promise<void> {
  await attempt(system, ["hostname", name]);
}

/** hostnamectl needs a running hostnamed; early in a boot, or without systemd, the file does as well (HOST-02). */
async function byHostnamectl(
  system: Machine,
  argv: readonly string[],
  name: string,
): Promise<void> {
  try {
    await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
    // --static leaves the kernel's name to the next boot.
    if (argv.includes("--static")) await announce(system, name);
  } catch (error) {
    system.log.warning(`hostnamectl failed, writing /etc/hostname instead: ${describe(error)}`);
    await byFile(system, "/etc/hostname", name, name);
  }
}

/** OpenWRT; stops at the first failure (HOST-06). */
async function byUci(system: Machine, name: string): Promise<void> {
  if (system.files.readTextIfExists("/etc/hostname") !== name)
    system.files.write("/etc/hostname", name, { mode: 0o644 });
  for (const argv of [
    ["uci", "set", `system.@system[0].hostname=${name}`],
    ["uci", "commit", "system"],
    ["/etc/init.d/system", "reload"],
  ])
    if (!(await attempt(system, argv))) return;
}

async function attempt(system: Machine, argv: readonly string[]): Promise<boolean> {
  try {
    await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
    return true;
  } catch (error) {
    if (!isAgentError(error)) throw error;
    system.log.warning(`The host name could not be set by ${argv[0]}: ${describe(error)}`);
    return false;
  }
}
