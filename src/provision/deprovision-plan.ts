import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { hasHostsEntry } from "../machine/hostname-hosts.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { findAccount, isSystemUser, parseAccount } from "./accounts.ts";
import {
  cgroupFiles,
  leaseDirectories,
  leaseFiles,
  networkSetupFiles,
  removableFiles,
} from "./changed-vm.ts";
import type { DeprovisionAction } from "./deprovision-actions.ts";
import { hostKeyFiles } from "./host-keys.ts";
import { copyPath, readCopy } from "./media.ts";
import { dropInFiles } from "./sshd-config.ts";

/** What deprovisioning will do, decided before anything is done (`provisioning.md` §17). */
export interface DeprovisionPlan {
  /** Told before the question. Those about losses begin with `WARNING!` (DEPROV-06). */
  readonly warnings: readonly string[];
  readonly actions: readonly DeprovisionAction[];
}

type Machine = Pick<System, "exec" | "files" | "log">;

interface Part {
  readonly warnings?: readonly string[];
  readonly actions?: readonly DeprovisionAction[];
}

const OPENBSD_FILES: readonly SystemPath[] = [
  "/etc/random.seed",
  "/var/db/host.random",
  "/etc/isakmpd/local.pub",
  "/etc/isakmpd/private/local.key",
  "/etc/iked/private/local.key",
  "/etc/iked/local.pub",
];
/** Beyond the list of the Python agent (DB-22); every one of them is shown before it is removed. */
const MORE_FILES: readonly SystemPath[] = [
  "/var/log/waagent.log[.-]*",
  "/root/.ash_history",
  "/root/.sh_history",
  "/root/.zsh_history",
  "/root/.lesshst",
  "/root/.viminfo",
  "/var/lib/NetworkManager/internal-*.lease",
  "/var/lib/wicked/lease-*.xml",
  "/var/lib/systemd/random-seed",
  "/var/lib/urandom/random-seed",
  "/var/lib/misc/random-seed",
  "/var/lib/seedrng/seed.*",
  "/etc/udev/rules.d/70-persistent-net.rules",
  "/var/lib/hyperv/.kvp_pool_1",
];
/** The account tools keep the last version of their files, deleted users and their hashes included. */
const ACCOUNT_BACKUPS: readonly SystemPath[] = [
  "passwd",
  "shadow",
  "group",
  "gshadow",
  "subuid",
  "subgid",
].map((name): SystemPath => `/etc/${name}-`);
const LOGIN_RECORDS: readonly SystemPath[] = ["/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog"];
const JUST_IN_TIME = "JIT_Account";
const NEUTRAL_NAME = "localhost.localdomain";

/** Errors: AgentError "io" when the machine cannot be looked at. Changes nothing. */
export async function planDeprovision(
  system: Machine,
  config: Config,
  options: { readonly distro: Distro; readonly user: boolean },
): Promise<DeprovisionPlan> {
  const { distro } = options;
  const remove = (...patterns: readonly SystemPath[]): DeprovisionAction[] =>
    [...new Set(patterns.flatMap((pattern) => removableFiles(system, pattern)))].map((file) => ({
      do: "remove",
      file,
    }));
  const library = config["Lib.Dir"] as SystemPath;

  const parts: Part[] = [
    {
      warnings: ["WARNING! The waagent service will be stopped."],
      actions: stopActions(distro),
    },
    config["Provisioning.RegenerateSshHostKeyPair"]
      ? {
          warnings: ["WARNING! All SSH host key pairs will be deleted."],
          actions: hostKeyFiles(system, config).map((file) => ({ do: "remove", file })),
        }
      : {},
    {
      warnings: ["WARNING! Cached DHCP leases will be deleted."],
      actions: [
        ...leaseDirectories()
          .filter((directory) => system.files.list(directory).length > 0)
          .map((directory): DeprovisionAction => ({ do: "empty-directory", directory })),
        ...remove(...leaseFiles()),
      ],
    },
    { actions: [{ do: "host-name", name: NEUTRAL_NAME }] },
    config["Provisioning.DeleteRootPassword"]
      ? {
          warnings: [
            "WARNING! The root password will be disabled. You will not be able to login as root.",
          ],
          actions: [{ do: "lock-root-password" }],
        }
      : {},
    {
      actions: [library, config["Extension.LogDir"] as SystemPath].map((directory) => ({
        do: "empty-directory",
        directory,
      })),
    },
    { actions: remove("/root/.bash_history", "/var/log/waagent.log") },
    { actions: remove(...OPENBSD_FILES) },
    resolverPart(system, distro, remove),
    options.user ? await userPart(system, config, distro) : {},
    { actions: remove(...networkSetupFiles(distro, config)) },
    { actions: remove(...cgroupFiles(distro)) },
    machineIdPart(system, distro, remove),
    cloudInitPart(system),
    journalPart(system),
    { actions: hasHostsEntry(system) ? [{ do: "remove-hosts-entry" }] : [] },
    { actions: remove(...MORE_FILES, ...dropInFiles(config)) },
    options.user
      ? {
          actions: [
            ...remove(...ACCOUNT_BACKUPS),
            ...LOGIN_RECORDS.filter((file) => (system.files.stat(file)?.size ?? 0) > 0).map(
              (file): DeprovisionAction => ({ do: "empty-file", file }),
            ),
          ],
        }
      : {},
  ];
  const { warnings = [], actions = [] } = joined(parts);
  return { warnings, actions };
}

/** systemctl has nobody to talk to where systemd is installed but does not run, e.g. while an image is built. */
function stopActions(distro: Distro): DeprovisionAction[] {
  const argv = distro.stopService;
  if (argv === undefined || (argv[0] === "systemctl" && !distro.capabilities.systemd)) return [];
  return [{ do: "run", argv }];
}

/** DEPROV-25..27. */
function resolverPart(
  system: Machine,
  distro: Pick<Distro, "resolver">,
  remove: (...patterns: readonly SystemPath[]) => DeprovisionAction[],
): Part {
  switch (distro.resolver) {
    case "keep":
      return { warnings: ["NOTICE: /etc/resolv.conf is kept: it belongs to systemd-resolved."] };
    case "remove-resolvconf":
      if (
        /^(?:\.\.)?\/run\/resolvconf\/resolv\.conf$/.test(
          system.files.readLink("/etc/resolv.conf") ?? "",
        )
      )
        return {
          warnings: [
            "WARNING! Name servers of resolvconf (/etc/resolvconf/resolv.conf.d/tail and original) will be deleted.",
          ],
          actions: remove(
            "/etc/resolvconf/resolv.conf.d/tail",
            "/etc/resolvconf/resolv.conf.d/original",
          ),
        };
      break;
    case "remove":
  }
  return {
    warnings: ["WARNING! /etc/resolv.conf will be deleted."],
    actions: remove("/etc/resolv.conf"),
  };
}

/** DEPROV-19, DEPROV-20: the name comes from the document, before the state directory is emptied. */
async function userPart(system: Machine, config: Config, distro: Distro): Promise<Part> {
  const temporary = justInTimeUsers(system).map((name) => deletionOf(system, name));
  let name: string | undefined;
  try {
    name = readCopy(system, config)?.userName;
  } catch (error) {
    system.log.verbose(describe(error));
  }
  if (name === undefined)
    return joined([
      {
        warnings: [
          `WARNING! ${copyPath(config)} is missing or cannot be read.`,
          "WARNING! No provisioned user will be deleted.",
        ],
      },
      ...temporary,
    ]);
  const account = await findAccount(system, name);
  if (account !== undefined && isSystemUser(system, distro, account))
    return joined([
      { warnings: [`WARNING! ${name} is a system user and will not be deleted.`] },
      ...temporary,
    ]);
  return joined([deletionOf(system, name), ...temporary]);
}

/** What goes with a user, beyond what userdel itself takes. */
function deletionOf(system: Machine, name: string): Part {
  const spools: readonly SystemPath[] = [
    `/var/spool/cron/crontabs/${name}`,
    `/var/spool/cron/${name}`,
    `/var/lib/systemd/linger/${name}`,
  ];
  return {
    warnings: [`WARNING! The account ${name} and its entire home directory will be deleted.`],
    actions: [
      { do: "delete-user", name },
      { do: "remove-sudo", name },
      ...spools
        .filter((file) => system.files.stat(file)?.kind === "file")
        .map((file): DeprovisionAction => ({ do: "remove", file })),
    ],
  };
}

/** Accounts the platform asked for, for some hours; they are known by their comment alone (USER-41). */
function justInTimeUsers(system: Machine): string[] {
  return (system.files.readTextIfExists("/etc/passwd") ?? "").split("\n").flatMap((line) => {
    const account = parseAccount(line);
    return account?.comment === JUST_IN_TIME ? [account.name] : [];
  });
}

function joined(parts: readonly Part[]): Part {
  return {
    warnings: parts.flatMap((part) => part.warnings ?? []),
    actions: parts.flatMap((part) => part.actions ?? []),
  };
}

/** Removed where the distribution's images have none (DEPROV-23), else emptied, so that the first boot makes a new one. */
function machineIdPart(
  system: Machine,
  distro: Pick<Distro, "removeMachineId">,
  remove: (...patterns: readonly SystemPath[]) => DeprovisionAction[],
): Part {
  if (distro.removeMachineId)
    return {
      warnings: ["WARNING! /etc/machine-id will be removed."],
      actions: remove("/etc/machine-id"),
    };
  if ((system.files.stat("/etc/machine-id")?.size ?? 0) === 0) return {};
  return {
    warnings: ["WARNING! /etc/machine-id will be emptied; the next boot makes a new one."],
    actions: [
      { do: "empty-file", file: "/etc/machine-id" },
      ...(system.files.lstat("/var/lib/dbus/machine-id")?.kind === "file"
        ? remove("/var/lib/dbus/machine-id")
        : []),
    ],
  };
}

function cloudInitPart(system: Machine): Part {
  if (system.exec.find("cloud-init") === undefined) return {};
  return {
    warnings: ["WARNING! The state and logs of cloud-init will be deleted."],
    actions: [{ do: "run", argv: ["cloud-init", "clean", "--logs"] }],
  };
}

/** The persistent journal names users, addresses and keys; it begins anew with the next boot (DB-22). */
function journalPart(system: Machine): Part {
  const directory: SystemPath = "/var/log/journal";
  if (system.files.list(directory).length === 0) return {};
  return {
    warnings: ["WARNING! The system's journal in /var/log/journal will be deleted."],
    actions: [{ do: "empty-directory", directory }],
  };
}
