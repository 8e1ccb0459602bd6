import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { announceHostName } from "./announce-hostname.ts";
import { setDhcpHostName } from "./hostname-dhcp.ts";
import { primaryInterface } from "./network.ts";
import { readRoutes } from "./routes.ts";

type Needs = Pick<System, "exec" | "files" | "clock" | "log">;
type Keys = Pick<Config, "Lib.Dir" | "Network.Manage">;

/** Other software reads this file: the bare name, without newline (`provisioning.md` HOST-15). */
export const PUBLISHED_FILE = "published_hostname";

/**
 * Tells the network the machine's name: in the DHCP client's configuration, in `published_hostname`, and by a renewed
 * lease (`provisioning.md` HOST-10). With `Network.Manage=n` only the file is written.
 * Errors: AgentError of the file or program; the file is written in any case.
 */
export async function publishHostName(
  system: Needs,
  config: Keys,
  distro: Pick<Distro, "dhcpHostName" | "renewLease">,
  name: string,
): Promise<void> {
  recordHostName(system, config, name);
  if (!config["Network.Manage"]) return;
  const interfaceName = primaryInterface(readRoutes(system));
  setDhcpHostName(system, distro, name, { interfaceName });
  if (interfaceName !== undefined) await announceHostName(system, distro, name, { interfaceName });
}

export function recordHostName(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
  name: string,
): void {
  const file = join(config["Lib.Dir"], PUBLISHED_FILE);
  if (system.files.readTextIfExists(file) !== name) system.files.write(file, name, { mode: 0o644 });
}
