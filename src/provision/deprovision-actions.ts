import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { setDhcpHostName } from "../machine/hostname-dhcp.ts";
import { removeHostsEntry } from "../machine/hostname-hosts.ts";
import { setHostName } from "../machine/hostname.ts";
import { primaryInterface } from "../machine/network.ts";
import { readRoutes } from "../machine/routes.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { deleteAccount, findAccount } from "./accounts.ts";
import { contentOf } from "./changed-vm.ts";
import { lockRootPassword } from "./root-password.ts";
import { removeSudo } from "./sudoers.ts";

/** One thing that deprovisioning does: a value, so that it can be shown before it is done. */
export type DeprovisionAction =
  | { readonly do: "run"; readonly argv: readonly string[] }
  | { readonly do: "remove"; readonly file: SystemPath }
  /** Everything in it goes, the directory stays. */
  | { readonly do: "empty-directory"; readonly directory: SystemPath }
  /** The file stays, because programs expect it, but has no content. */
  | { readonly do: "empty-file"; readonly file: SystemPath }
  | { readonly do: "host-name"; readonly name: string }
  | { readonly do: "remove-hosts-entry" }
  | { readonly do: "lock-root-password" }
  | { readonly do: "delete-user"; readonly name: string }
  | { readonly do: "remove-sudo"; readonly name: string };

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

/** The line that stands for it, in the plan and in the run alike. */
export function describeAction(action: DeprovisionAction): string {
  switch (action.do) {
    case "run":
      return `run ${action.argv.join(" ")}`;
    case "remove":
      return `remove ${action.file}`;
    case "empty-directory":
      return `remove everything in ${action.directory}`;
    case "empty-file":
      return `empty ${action.file}`;
    case "host-name":
      return `set the host name to ${action.name}`;
    case "remove-hosts-entry":
      return "remove the line of waagent from /etc/hosts";
    case "lock-root-password":
      return "disable the password of root";
    case "delete-user":
      return `delete the user ${action.name} and the home directory`;
    case "remove-sudo":
      return `remove the sudo rule of ${action.name}`;
  }
}

/** Errors: AgentError; what could be done of the action is done. */
export async function runAction(
  system: Machine,
  config: Config,
  distro: Distro,
  options: { readonly action: DeprovisionAction },
): Promise<void> {
  const { action } = options;
  switch (action.do) {
    case "run":
      await system.exec.run({ argv: action.argv, timeoutMs: 120_000 });
      return;
    case "remove":
      system.files.remove(action.file);
      return;
    case "empty-directory":
      emptyDirectory(system, action.directory);
      return;
    case "empty-file": {
      const info = system.files.stat(action.file);
      if (info === undefined || info.size === 0) return;
      system.files.write(action.file, "", {
        mode: info.mode,
        owner: { uid: info.uid, gid: info.gid },
      });
      return;
    }
    case "host-name":
      await setHostName(system, distro, action.name);
      setDhcpHostName(system, distro, action.name, {
        interfaceName: primaryInterface(readRoutes(system)),
      });
      return;
    case "remove-hosts-entry":
      removeHostsEntry(system);
      return;
    case "lock-root-password":
      await lockRootPassword(system, distro, config);
      return;
    case "delete-user": {
      const account = await findAccount(system, action.name);
      if (account !== undefined) await deleteAccount(system, distro, account);
      return;
    }
    case "remove-sudo":
      await removeSudo(system, distro, config, action.name);
  }
}

/** One file that cannot be removed does not keep the others (DB-22). */
function emptyDirectory(system: Machine, directory: SystemPath): void {
  const failures: string[] = [];
  for (const file of contentOf(system, directory)) {
    try {
      system.files.remove(file);
    } catch (error) {
      failures.push(describe(error));
    }
  }
  if (failures.length > 0) throw new AgentError("io", failures.join("; "));
}
