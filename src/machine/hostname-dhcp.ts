import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { rewriteSetting } from "./hostname-rewrite.ts";

type Machine = Pick<System, "files" | "log">;

const DHCLIENT_FILES: readonly SystemPath[] = [
  "/etc/dhcp/dhclient.conf",
  "/etc/dhcp3/dhclient.conf",
  "/etc/dhclient.conf",
];
const SUSE_FILE = "/etc/sysconfig/network/dhcp";

/**
 * The name that the DHCP client sends from its next lease on, in the client's own configuration
 * (`provisioning.md` HOST-11..13). Clients without such a file ask the system for its name and need nothing.
 * `interfaceName` is only needed where the file belongs to an interface. Errors: AgentError "io".
 */
export function setDhcpHostName(
  system: Machine,
  distro: Pick<Distro, "dhcpHostName">,
  name: string,
  options: { readonly interfaceName: string | undefined },
): void {
  switch (distro.dhcpHostName) {
    case "dhclient-conf":
      setInDhclient(system, name);
      return;
    case "ifcfg":
      setInIfcfg(system, name, options.interfaceName);
      return;
    case "suse-dhcp":
      setInSuse(system, name);
      return;
    case "none":
  }
}

function setInDhclient(system: Machine, name: string): void {
  for (const file of DHCLIENT_FILES) {
    const text = system.files.readTextIfExists(file);
    if (text === undefined) continue;
    if (text.split("\n").some(asksTheSystem)) {
      system.log.verbose(`${file} already sends the system's own name`);
      return;
    }
    replace(
      system,
      file,
      rewriteSetting(text, "send host-name", `send host-name "${name}";`),
      text,
    );
  }
}

/** `send host-name = gethostname();` and `send host-name "<hostname>";` follow the system (HOST-11). */
function asksTheSystem(line: string): boolean {
  return (
    !line.trimStart().startsWith("#") &&
    /send host-name.*(?:<hostname>|gethostname[(,)])/.test(line)
  );
}

/** Releases without ifcfg files use keyfiles, whose default is to send the name (HOST-12, DB-14). */
function setInIfcfg(system: Machine, name: string, interfaceName: string | undefined): void {
  if (interfaceName === undefined) return;
  const file = `/etc/sysconfig/network-scripts/ifcfg-${interfaceName}` as const;
  const text = system.files.readTextIfExists(file);
  if (text === undefined) {
    system.log.verbose(`There is no ${file}: the DHCP client sends the system's own name`);
    return;
  }
  replace(system, file, rewriteSetting(text, "DHCP_HOSTNAME=", `DHCP_HOSTNAME=${name}`), text);
}

const SUSE_KEY = "DHCLIENT_HOSTNAME_OPTION";

function setInSuse(system: Machine, name: string): void {
  const text = system.files.readTextIfExists(SUSE_FILE);
  if (text === undefined) return;
  const value = new RegExp(`^${SUSE_KEY}=(.*)$`, "m").exec(text)?.[1]?.trim();
  if (value !== undefined && /^(["']?)AUTO\1$/.test(value)) return;
  replace(system, SUSE_FILE, rewriteSetting(text, `${SUSE_KEY}=`, `${SUSE_KEY}="${name}"`), text);
}

function replace(system: Machine, file: SystemPath, text: string, old: string): void {
  if (text === old) return;
  const info = system.files.stat(file);
  system.files.write(file, text, {
    mode: info?.mode ?? 0o644,
    ...(info === undefined ? {} : { owner: { uid: info.uid, gid: info.gid } }),
  });
}
