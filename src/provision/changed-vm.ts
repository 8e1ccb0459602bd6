import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

type Machine = Pick<System, "files" | "log">;

/** State of the goal states of another VM (DEPROV-40). */
const LIBRARY_FILES = [
  "HostingEnvironmentConfig.xml",
  "Incarnation",
  "partition",
  "Protocol",
  "SharedConfig.xml",
  "WireServerEndpoint",
  "published_hostname",
  "fast_track.json",
  "initial_goal_state",
  "waagent_rsm_update",
  "waagent_initial_update",
  "Extensions.*.xml",
  "ExtensionsConfig.*.xml",
  "GoalState.*.xml",
] as const;

/** What an extension knows about the settings it has had; its own state stays. */
const HANDLER_FILES = ["status/*.status", "config/*.settings", "config/HandlerStatus", "mrseq"];

const LEASE_DIRECTORIES: readonly SystemPath[] = [
  "/var/lib/dhclient",
  "/var/lib/dhcpcd",
  "/var/lib/dhcp",
];
const LEASE_FILES: readonly SystemPath[] = [
  "/var/db/dhclient.leases.*",
  "/var/lib/NetworkManager/dhclient-*.lease",
  "/run/systemd/netif/leases/*",
];

/** Directories whose content is cached DHCP leases (DEPROV-12). */
export function leaseDirectories(): readonly SystemPath[] {
  return LEASE_DIRECTORIES;
}

/** Lease files elsewhere, as patterns (DEPROV-12). */
export function leaseFiles(): readonly SystemPath[] {
  return LEASE_FILES;
}

/** The boot-time firewall unit and its old helper (DEPROV-21). */
export function networkSetupFiles(
  distro: Pick<Distro, "unitDirectory" | "serviceName">,
  config: Pick<Config, "Lib.Dir">,
): readonly SystemPath[] {
  return [
    join(distro.unitDirectory, `${distro.serviceName}-network-setup.service`),
    join("/etc/systemd/system", `${distro.serviceName}-network-setup.service`),
    join(config["Lib.Dir"] as SystemPath, "waagent-network-setup.py"),
  ];
}

/** Drop-ins and the slice that the agent writes at run time (DEPROV-22). */
export function cgroupFiles(
  distro: Pick<Distro, "unitDirectory" | "serviceName">,
): readonly SystemPath[] {
  const dropIns = join(distro.unitDirectory, `${distro.serviceName}.service.d`);
  return [
    ...[
      "10-Slice.conf",
      "11-CPUAccounting.conf",
      "12-CPUQuota.conf",
      "13-MemoryAccounting.conf",
    ].map((name) => join(dropIns, name)),
    join(distro.unitDirectory, "azure-walinuxagent-logcollector.slice"),
  ];
}

/** Patterns below the state directory that belong to another VM (DEPROV-40). */
export function staleLibraryFiles(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
): readonly SystemPath[] {
  const library = config["Lib.Dir"] as SystemPath;
  const handlers = system.files
    .list(library)
    .filter((name) => /^[^-]+-\d+(?:\.\d+)*$/.test(name) && !name.startsWith("WALinuxAgent-"));
  return [
    ...LIBRARY_FILES.map((name) => join(library, name)),
    ...handlers.flatMap((name) => HANDLER_FILES.map((file) => join(library, name, file))),
  ];
}

/**
 * Forgets what belongs to the VM this disk was before: leases, goal states, sequence numbers (DEPROV-40). Users, keys
 * and extensions stay. A file that cannot be removed is a WARNING. Returns the removed paths.
 */
export function forgetFormerVm(
  system: Machine,
  distro: Pick<Distro, "unitDirectory" | "serviceName">,
  config: Pick<Config, "Lib.Dir">,
): readonly SystemPath[] {
  system.log.warning("WARNING! Cached DHCP leases will be deleted.");
  const patterns = [
    ...leaseFiles(),
    ...staleLibraryFiles(system, config),
    ...networkSetupFiles(distro, config),
    ...cgroupFiles(distro),
  ];
  const files = [
    ...leaseDirectories().flatMap((directory) => contentOf(system, directory)),
    ...patterns.flatMap((pattern) => removableFiles(system, pattern)),
  ];
  return files.filter((file) => {
    try {
      system.files.remove(file);
      return true;
    } catch (error) {
      system.log.warning(describe(error));
      return false;
    }
  });
}

/** Regular files, and links to files that exist (DEPROV-31). */
export function removableFiles(system: Pick<System, "files">, pattern: SystemPath): SystemPath[] {
  return system.files.glob(pattern).filter((file) => system.files.stat(file)?.kind === "file");
}

/** Files, links and subtrees of a directory; pipes and sockets stay (DEPROV-32). */
export function contentOf(system: Pick<System, "files">, directory: SystemPath): SystemPath[] {
  return system.files
    .list(directory)
    .map((name) => join(directory, name))
    .filter((file) => system.files.lstat(file)?.kind !== "other");
}
