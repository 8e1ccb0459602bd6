import { AgentError } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readInterfaces } from "./network.ts";
import { type Process, processes } from "./process-list.ts";

/** Who got the address of an interface, and can be asked to get it again under another name. */
export type LeaseHolder =
  | { readonly kind: "networkd" }
  | { readonly kind: "NetworkManager" }
  | { readonly kind: "wicked" }
  | { readonly kind: "dhcpcd"; readonly pid: number }
  | { readonly kind: "udhcpc"; readonly pid: number }
  | { readonly kind: "dhclient"; readonly process: Process };

type Needs = Pick<System, "exec" | "files" | "clock" | "log">;

const TIMEOUT_MS = 60_000;
/** A dhclient that hears nothing gives up after a minute by default. */
const DHCLIENT_TIMEOUT_MS = 90_000;
const ADDRESS_WAITS = 20;
const ADDRESS_WAIT_MS = 500;

/**
 * Lets DHCP announce the machine's new name at once (`system.md` BET-10, BET-11; `provisioning.md` DB-14): the
 * program that holds the interface's lease asks for the same address again. The link stays up and the address
 * stays on it. Returns the holder, or undefined when nobody holds a lease (static address).
 * Errors: AgentError "exec" when the program refuses; "os-utility" when the address is gone afterwards.
 */
export async function announceHostName(
  system: Needs,
  distro: Pick<Distro, "renewLease">,
  name: string,
  options: { readonly interfaceName: string },
): Promise<LeaseHolder["kind"] | undefined> {
  if (distro.renewLease === "none") return undefined;
  const { interfaceName } = options;
  const holder = await findLeaseHolder(system, interfaceName);
  if (holder === undefined) return undefined;
  const before = await addressesOf(system, interfaceName);
  await renew(system, holder, name, interfaceName);
  if (before.length > 0) await waitForAddress(system, interfaceName);
  system.log.info(`${holder.kind} announces the host name ${name} on ${interfaceName}`);
  return holder.kind;
}

/**
 * Looks at who really runs and really manages the interface; the name of the distribution only says who usually does.
 */
export async function findLeaseHolder(
  system: Pick<System, "exec" | "files">,
  interfaceName: string,
): Promise<LeaseHolder | undefined> {
  const running = processes(system);
  const named = (name: string): Process[] => running.filter((one) => one.name === name);
  if (
    named("NetworkManager").length > 0 &&
    (await isManagedByNetworkManager(system, interfaceName))
  )
    return { kind: "NetworkManager" };
  if (named("systemd-network").length > 0 && isManagedByNetworkd(system, interfaceName))
    return { kind: "networkd" };
  if (named("wickedd-dhcp4").length > 0) return { kind: "wicked" };
  // dhcpcd has helpers of the same name; signals go to the one that is nobody's helper.
  const dhcpcd = named("dhcpcd");
  const master = dhcpcd.find((one) => !dhcpcd.some((other) => other.pid === one.parent));
  if (master !== undefined) return { kind: "dhcpcd", pid: master.pid };
  const dhclient = [...named("dhclient"), ...named("dhclient3")].find(
    // Without interface in its arguments it serves all of them.
    (one) =>
      one.argv.includes(interfaceName) || !one.argv.some((word) => isInterface(system, word)),
  );
  if (dhclient !== undefined) return { kind: "dhclient", process: dhclient };
  const udhcpc = named("udhcpc").find((one) => one.argv.includes(interfaceName));
  return udhcpc === undefined ? undefined : { kind: "udhcpc", pid: udhcpc.pid };
}

async function renew(
  system: Needs,
  holder: LeaseHolder,
  name: string,
  interfaceName: string,
): Promise<void> {
  const run = (...argv: readonly string[]) => system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
  switch (holder.kind) {
    case "NetworkManager":
      // Changes what is applied to the device now, not the profile; the next activation takes the system's own name.
      await run(
        ...["nmcli", "device", "modify", interfaceName],
        ...["ipv4.dhcp-hostname", name, "ipv6.dhcp-hostname", name],
      );
      return;
    case "networkd":
      // `networkctl renew` sends the name of the start; `reconfigure` drops the address for a moment. A restart by
      // systemd (RestartKillSignal=) keeps addresses and asks for the same one again.
      await run("systemctl", "restart", "systemd-networkd.service");
      return;
    case "wicked":
      await run("ifup", interfaceName);
      return;
    case "dhcpcd":
      makeDhcpcdSendName(system);
      await run("kill", "-HUP", `${holder.pid}`); // reads its file again and rebinds
      return;
    case "udhcpc":
      system.log.info(
        "udhcpc renews its lease; the name that it sends is an argument of its start",
      );
      await run("kill", "-USR1", `${holder.pid}`);
      return;
    case "dhclient":
      await restartDhclient(system, holder.process);
  }
}

/**
 * dhclient reads its configuration at its start only. Ended politely it runs its script, which takes the address
 * away; killed it leaves everything as it is, and its successor, with the same arguments, asks for the same lease.
 */
async function restartDhclient(system: Needs, old: Process): Promise<void> {
  const argv = old.argv.filter((word) => word !== "-r" && word !== "-x");
  await system.exec.run({ argv: ["kill", "-KILL", `${old.pid}`], timeoutMs: TIMEOUT_MS });
  // A child of ours would end with our service; systemd makes it a service of its own.
  const command = system.files.exists("/run/systemd/system")
    ? [
        "systemd-run",
        ...["--collect", "--quiet", "--service-type=forking", "--slice=system.slice"],
        "--description=DHCP client (restarted by waagent)",
        "--",
        ...argv,
      ]
    : argv;
  await system.exec.run({ argv: command, timeoutMs: DHCLIENT_TIMEOUT_MS });
}

const DHCPCD_FILE = "/etc/dhcpcd.conf";

/**
 * The bare option means "send the system's name"; Debian ships it commented out. The file keeps its time: dhcpcd
 * throws away a lease, and with it the address, that is older than its configuration.
 */
function makeDhcpcdSendName(system: Needs): void {
  const text = system.files.readTextIfExists(DHCPCD_FILE);
  if (text === undefined || /^\s*(?:no)?hostname(?:\s|$)/m.test(text)) return;
  const info = system.files.stat(DHCPCD_FILE);
  const separator = text === "" || text.endsWith("\n") ? "" : "\n";
  system.files.write(DHCPCD_FILE, `${text}${separator}hostname\n`, {
    mode: info?.mode ?? 0o644,
    ...(info === undefined ? {} : { owner: { uid: info.uid, gid: info.gid } }),
  });
  if (info !== undefined) system.files.setTimes(DHCPCD_FILE, info.modifiedMs);
}

async function isManagedByNetworkManager(
  system: Pick<System, "exec">,
  interfaceName: string,
): Promise<boolean> {
  try {
    const result = await system.exec.run({
      argv: ["nmcli", "-g", "GENERAL.STATE", "device", "show", interfaceName],
      timeoutMs: 10_000,
    });
    return /^100\b/.test(result.stdout.trim());
  } catch {
    return false; // no nmcli, or it does not know the device: then it manages nothing there
  }
}

/** networkd's own notes on the link, by index. */
function isManagedByNetworkd(system: Pick<System, "files">, interfaceName: string): boolean {
  const index = system.files.readTextIfExists(`/sys/class/net/${interfaceName}/ifindex`)?.trim();
  const notes = system.files.readTextIfExists(`/run/systemd/netif/links/${index ?? "0"}`) ?? "";
  return /^NETWORK_FILE=./m.test(notes);
}

function isInterface(system: Pick<System, "files">, word: string): boolean {
  return /^[\w.-]+$/.test(word) && system.files.exists(`/sys/class/net/${word}` as SystemPath);
}

async function addressesOf(
  system: Pick<System, "exec" | "files">,
  interfaceName: string,
): Promise<readonly string[]> {
  const nic = (await readInterfaces(system)).find((one) => one.name === interfaceName);
  return nic?.ipv4 ?? [];
}

async function waitForAddress(system: Needs, interfaceName: string): Promise<void> {
  for (let wait = 0; wait < ADDRESS_WAITS; wait += 1) {
    if ((await addressesOf(system, interfaceName)).length > 0) return;
    await system.clock.sleep(ADDRESS_WAIT_MS);
  }
  throw new AgentError(
    "os-utility",
    `${interfaceName} has no IPv4 address any more after the DHCP lease was renewed`,
  );
}
