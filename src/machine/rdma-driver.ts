import { AgentError, describe } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { processes } from "./process-list.ts";

/** What the driver must fit, and how far the agent may go. */
export interface DriverRequest {
  /** Version of the host's firmware, e.g. "144.0". */
  readonly firmware: string;
  /** `uname -r`. */
  readonly kernelRelease: string;
  /** `OS.UpdateRdmaDriver`: packages may be exchanged and the machine restarted. */
  readonly update: boolean;
}

type Needs = Pick<System, "exec" | "files" | "clock" | "log">;

const MODULE = "hv_network_direct";
const TIMEOUT_MS = 60_000;
const PACKAGE_TIMEOUT_MS = 15 * 60_000;
const UBUNTU_ALIAS_FILE = "/etc/modprobe.d/vmbus-rdma.conf";
const PACKAGE_FOLDER = "/opt/microsoft/rdma";
const DAEMON_WAIT_MS = 10_000;
/** zypper: packages were installed, but a repository was skipped. */
const ZYPPER_REPOSITORY_SKIPPED = 106;

/**
 * Installs the Network Direct driver that fits the host's firmware, where the distribution has one
 * (`system.md` RDMA-07..09). May restart the machine. Errors: AgentError of the program that failed.
 */
export async function installRdmaDriver(
  system: Needs,
  distro: Pick<Distro, "release">,
  request: DriverRequest,
): Promise<void> {
  const { name, version, like } = distro.release;
  if (name === "ubuntu") return installOnUbuntu(system, request);
  if (/^(?:suse|sles|sled|opensuse)/.test(name)) return installOnSuse(system, version, request);
  if (
    ["centos", "rhel", "redhat", "oracle", "almalinux", "rocky"].includes(name) ||
    like.includes("rhel")
  )
    return installOnRedHat(system, version, request);
  system.log.info(`RDMA: there is no driver package for ${name}; what the kernel has is used`);
}

// ---- Ubuntu (RDMA-07)

async function installOnUbuntu(system: Needs, request: DriverRequest): Promise<void> {
  const module = `${MODULE}_${request.firmware.replaceAll(".", "_")}`;
  const alias = (await attempt(system, ["modprobe", "-R", MODULE]))?.trim();
  if (alias === module) return;
  if ((await attempt(system, ["modinfo", module])) !== undefined) {
    setUbuntuAlias(system, module);
    return;
  }
  if (!request.update) {
    system.log.info(`RDMA: the kernel has no ${module}, and OS.UpdateRdmaDriver=n`);
    return;
  }
  if (!request.kernelRelease.endsWith("-azure")) {
    system.log.info(
      `RDMA: ${request.kernelRelease} is no -azure kernel; the driver is not updated`,
    );
    return;
  }
  await run(system, ["apt-get", "update"], PACKAGE_TIMEOUT_MS);
  const listing = await run(system, ["apt-cache", "show", "--no-all-versions", "linux-azure"]);
  const offered = /^Version: (\d+\.\d+\.\d+)\.(\d+)/m.exec(listing);
  if (offered === null)
    throw new AgentError("bad-input", "apt-cache tells no version of linux-azure");
  if (request.kernelRelease.startsWith(`${offered[1]}-${offered[2]}-`)) {
    system.log.info("RDMA: linux-azure is the newest, and has no driver for this host");
    return;
  }
  await run(system, ["apt-get", "-y", "install", "linux-azure"], PACKAGE_TIMEOUT_MS);
  await reboot(system, "a new linux-azure was installed");
}

function setUbuntuAlias(system: Needs, module: string): void {
  const line = `alias ${MODULE} ${module}`;
  const text = system.files.readTextIfExists(UBUNTU_ALIAS_FILE) ?? "";
  const kept = text
    .split("\n")
    .filter((other) => other !== "" && !other.startsWith(`alias ${MODULE} `));
  const next = `${[...kept, line].join("\n")}\n`;
  if (next !== text) system.files.write(UBUNTU_ALIAS_FILE, next, { mode: 0o644 });
}

// ---- SUSE (RDMA-08)

async function installOnSuse(
  system: Needs,
  version: string,
  request: DriverRequest,
): Promise<void> {
  const major = Number(version.split(".")[0]);
  if (major >= 15 || major <= 11) return; // newer kernels have the driver, older ones never had
  const flavour = request.kernelRelease.endsWith("-azure") ? "azure" : "default";
  const name = `msft-rdma-kmp-${flavour}`;
  const listing = await run(system, ["zypper", "-n", "se", "-s", name], PACKAGE_TIMEOUT_MS);
  const packages = parseZypper(listing, name);
  const fits = (one: ZypperPackage): boolean => one.version.includes(request.firmware);
  const installed = packages.filter((one) => one.installed);
  const wrong = installed.filter((one) => !fits(one));
  let restart = false;
  for (const one of wrong) {
    await attempt(system, ["zypper", "removelock", one.name]);
    await run(system, ["zypper", "-n", "remove", one.name], PACKAGE_TIMEOUT_MS);
    restart = true; // the wrong driver may be loaded
  }
  if (!installed.some(fits)) {
    const offered = packages.find((one) => !one.installed && fits(one));
    if (offered !== undefined)
      await run(
        system,
        ["zypper", "-n", "install", "--force", `${name}=${offered.version}`],
        PACKAGE_TIMEOUT_MS,
      );
    else await installSusePackage(system, request.firmware);
  }
  await run(system, ["zypper", "addlock", name]);
  if ((await attempt(system, ["modprobe", "--first-time", MODULE])) === undefined) restart = true;
  if (restart) await reboot(system, "another RDMA driver was installed");
}

async function installSusePackage(system: Needs, firmware: string): Promise<void> {
  const file = system.files
    .glob(`${PACKAGE_FOLDER}/*.rpm`)
    .find((candidate) => candidate.includes(firmware));
  if (file === undefined)
    throw new AgentError(
      "not-supported",
      `There is no RDMA driver package for firmware ${firmware}`,
    );
  await system.exec.run({
    argv: ["zypper", "-n", "--no-refresh", "install", "--force", system.files.realPath(file)],
    okCodes: [0, ZYPPER_REPOSITORY_SKIPPED],
    timeoutMs: PACKAGE_TIMEOUT_MS,
  });
}

interface ZypperPackage {
  readonly name: string;
  readonly version: string;
  readonly installed: boolean;
}

/** Table of `zypper se -s`: S | Name | Type | Version | Arch | Repository. */
export function parseZypper(listing: string, name: string): ZypperPackage[] {
  return listing.split("\n").flatMap((line) => {
    const [state, found, , version] = line.split("|").map((cell) => cell.trim());
    if (found !== name || version === undefined) return [];
    return [{ name, version, installed: /^[iI]/.test(state ?? "") }];
  });
}

// ---- Red Hat and its relatives (RDMA-09)

async function installOnRedHat(
  system: Needs,
  version: string,
  request: DriverRequest,
): Promise<void> {
  await system.clock.sleep(DAEMON_WAIT_MS); // the KVP daemon starts beside us
  await ensureKvpDaemon(system);
  await system.clock.sleep(DAEMON_WAIT_MS);
  const wanted = request.firmware.split(".")[0] ?? "";
  const installed = (
    await attempt(system, ["rpm", "-q", "--qf", "%{VERSION}", "microsoft-hyper-v-rdma"])
  )?.trim();
  if (installed !== undefined && installed.split(".").includes(wanted)) {
    if ((await attempt(system, ["modprobe", MODULE])) !== undefined) return;
  }
  if (!request.update) {
    system.log.info(
      `RDMA: the driver (${installed ?? "none"}) is not the one for ${request.firmware}, and OS.UpdateRdmaDriver=n`,
    );
    return;
  }
  await run(system, ["yum", "clean", "all"], PACKAGE_TIMEOUT_MS);
  await attempt(system, ["yum", "updateinfo"], PACKAGE_TIMEOUT_MS);
  await attempt(system, ["yum", "-y", "remove", "msft-rdma-drivers"], PACKAGE_TIMEOUT_MS);
  await run(system, ["yum", "-y", "install", "msft-rdma-drivers"], PACKAGE_TIMEOUT_MS);
  const [major = "", minor = ""] = version.split(".");
  const folder: SystemPath = `${PACKAGE_FOLDER}/rhel${major}${minor}`;
  for (const kind of ["kmod-microsoft-hyper-v-rdma", "microsoft-hyper-v-rdma"]) {
    const file = system.files
      .glob(`${folder}/${kind}-*.rpm`)
      .find((candidate) => candidate.includes(`${kind}-`) && candidate.includes(wanted));
    if (file === undefined)
      throw new AgentError(
        "not-supported",
        `${folder} has no ${kind} for firmware ${request.firmware}`,
      );
    await run(system, ["yum", "-y", "install", system.files.realPath(file)], PACKAGE_TIMEOUT_MS);
  }
  if ((await attempt(system, ["modprobe", MODULE])) === undefined)
    await reboot(system, "the RDMA driver was exchanged");
}

/** Without it the host's pool is not filled. */
async function ensureKvpDaemon(system: Needs): Promise<void> {
  const isRunning = (): boolean =>
    processes(system).some((one) => /^(?:hypervkvpd|hv_kvp_daemon)/.test(one.name));
  if (isRunning()) return;
  const installed = await attempt(system, ["rpm", "-q", "hypervkvpd"]);
  if (installed !== undefined)
    throw new AgentError("not-supported", "hypervkvpd is installed, but does not run");
  await run(system, ["yum", "-y", "install", "hypervkvpd"], PACKAGE_TIMEOUT_MS);
  await reboot(system, "the KVP daemon was installed");
}

// ---- common

async function reboot(system: Needs, why: string): Promise<void> {
  system.log.info(`RDMA: restarting the machine, because ${why}`);
  await run(system, ["shutdown", "-r", "now"]);
}

async function run(
  system: Needs,
  argv: readonly string[],
  timeoutMs = TIMEOUT_MS,
): Promise<string> {
  return (await system.exec.run({ argv, timeoutMs })).stdout;
}

/** Output, or undefined when the program failed, which is an answer here. */
async function attempt(
  system: Needs,
  argv: readonly string[],
  timeoutMs = TIMEOUT_MS,
): Promise<string | undefined> {
  try {
    return await run(system, argv, timeoutMs);
  } catch (error) {
    system.log.verbose(`RDMA: ${describe(error)}`);
    return undefined;
  }
}
