import { AgentError } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import { nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { prefixFromMask, readRoutes, type Route } from "./routes.ts";

/** One network interface of the machine, as the kernel shows it. */
export interface NetworkInterface {
  readonly name: string;
  /** Upper-case hex without separators (`system.md` NET-06); empty when it has none. */
  readonly mac: string;
  readonly up: boolean;
  readonly loopback: boolean;
  /** "up", "down", "unknown", ... as in /sys/class/net/NAME/operstate. */
  readonly state: string;
  readonly ipv4: readonly string[];
  readonly ipv6: readonly string[];
  /** The lower half of an accelerated NIC: never a NIC of its own (`system.md` PEER-16). */
  readonly virtualFunction: boolean;
}

const NET = "/sys/class/net";
const VF_DRIVERS = new Set(["mana", "mlx4_core", "mlx5_core"]);
const FLAG_UP = 0x1;
const FLAG_LOOPBACK = 0x8;
const FLAG_SLAVE = 0x800;
const WAIT_STEP_MS = 2000;
const DEFAULT_WAIT_MS = 5 * 60_000;

type Reads = Pick<System, "files">;

/**
 * Every interface with its addresses. Names, flags and MACs come from sysfs, addresses from `ip -j`, or from procfs
 * where that program or its JSON is missing (busybox). Errors: never; what cannot be read is empty.
 */
export async function readInterfaces(
  system: Pick<System, "files" | "exec">,
): Promise<NetworkInterface[]> {
  const addresses = await readAddresses(system);
  return system.files.list(NET).flatMap((name) => {
    const flags = readFlags(system, name);
    if (flags === undefined) return []; // bonding_masters and the like, or gone meanwhile
    return [
      {
        name,
        mac: (readSysfs(system, `${NET}/${name}/address`) ?? "").replaceAll(":", "").toUpperCase(),
        up: (flags & FLAG_UP) !== 0,
        loopback: (flags & FLAG_LOOPBACK) !== 0,
        state: readSysfs(system, `${NET}/${name}/operstate`) ?? "unknown",
        ipv4: addresses.ipv4.get(name) ?? [],
        ipv6: addresses.ipv6.get(name) ?? [],
        virtualFunction: isVirtualFunction(system, name),
      },
    ];
  });
}

/**
 * Text that differs when addresses, routes or links do, from procfs and sysfs alone: what a periodic look costs while
 * nothing changes is no program.
 */
export function networkFingerprint(system: Reads): string {
  const tables = ["/proc/net/fib_trie", "/proc/net/route"] as const;
  // The flags of an address change while the kernel looks whether somebody else has it, and with its age.
  const ipv6 = (system.files.readTextIfExists("/proc/net/if_inet6") ?? "").replaceAll(
    /^((?:\S+ +){4})\S+/gm,
    "$1",
  );
  const links = system.files
    .list(NET)
    .map((name) => `${name} ${readSysfs(system, `${NET}/${name}/operstate`) ?? ""}`);
  const texts = tables.map((file) => system.files.readTextIfExists(file) ?? "");
  return [...texts, ipv6, ...links].join("\n");
}

/** True for the PCI half of an accelerated NIC: a slave with a Mellanox or MANA driver (`system.md` PEER-16). */
export function isVirtualFunction(system: Reads, name: string): boolean {
  const flags = readFlags(system, name) ?? 0;
  const driver = nameOf(system.files.readLink(`${NET}/${name}/device/driver`) ?? "");
  return (flags & FLAG_SLAVE) !== 0 && VF_DRIVERS.has(driver);
}

/** Interface of the default route with the lowest metric (`system.md` NET-02); undefined when there is none. */
export function primaryInterface(routes: readonly Route[]): string | undefined {
  return routes
    .filter((route) => route.destination === "0.0.0.0" && route.gatewayFlag)
    .toSorted((a, b) => a.metric - b.metric)[0]?.interface;
}

/**
 * The interface that talks to the platform: the primary one when it is up and has an IPv4 address, else the first
 * other one that does (`system.md` NET-01, NET-03). undefined when there is none yet.
 */
export async function findInterface(
  system: Pick<System, "files" | "exec" | "log">,
): Promise<NetworkInterface | undefined> {
  const routes = readRoutes(system);
  const primary = primaryInterface(routes);
  const usable = (await readInterfaces(system)).filter(
    (nic) => nic.up && nic.ipv4.length > 0 && !nic.virtualFunction,
  );
  const found = usable.find((nic) => nic.name === primary);
  if (found !== undefined) return found;
  if (primary === undefined) {
    // Told once, not at every step of a wait (`system.md` NET-04).
    const table = system.files.readTextIfExists("/proc/net/route")?.trimEnd() ?? "no route table";
    system.log.periodically(
      "WARNING",
      3_600_000,
      `Could not determine the primary interface: no default route with a gateway. Routes:\n${table}`,
      "no primary interface",
    );
  }
  const other = usable.find((nic) => !nic.loopback);
  if (other !== undefined)
    system.log.periodically("INFO", 3_600_000, `Choosing non-primary interface ${other.name}`);
  return other;
}

/**
 * Waits for an interface in steps of 2 s, but not for ever (`provisioning.md` DB-37).
 * Errors: AgentError "not-supported" that says how long was waited; "cancelled".
 */
export async function waitForInterface(
  system: Pick<System, "files" | "exec" | "log" | "clock">,
  options: { readonly limitMs?: number; readonly signal?: AbortSignal } = {},
): Promise<NetworkInterface> {
  const limit = options.limitMs ?? DEFAULT_WAIT_MS;
  const start = system.clock.monotonic();
  for (;;) {
    const found = await findInterface(system);
    if (found !== undefined) return found;
    if (system.clock.monotonic() - start >= limit)
      throw new AgentError(
        "not-supported",
        `No network interface with an IPv4 address appeared within ${Math.round(limit / 1000)} s`,
      );
    await system.clock.sleep(WAIT_STEP_MS, options.signal);
  }
}

/** `{ "name": ..., "link": ..., "ipv4": [...], "ipv6": [...] }` for the log (`system.md` NET-07). */
export function formatInterface(nic: NetworkInterface): string {
  const list = (values: readonly string[]): string =>
    `[${values.map((value) => JSON.stringify(value)).join(", ")}]`;
  return `{ "name": ${JSON.stringify(nic.name)}, "link": ${JSON.stringify(nic.state)}, "ipv4": ${list(nic.ipv4)}, "ipv6": ${list(nic.ipv6)} }`;
}

interface Addresses {
  readonly ipv4: ReadonlyMap<string, string[]>;
  readonly ipv6: ReadonlyMap<string, string[]>;
}

async function readAddresses(system: Pick<System, "files" | "exec">): Promise<Addresses> {
  try {
    const result = await system.exec.run({
      argv: ["ip", "-j", "address", "show"],
      timeoutMs: 10_000,
    });
    return parseAddresses(result.stdout);
  } catch {
    // No iproute2: the kernel's own tables know the same, though less comfortably.
    return {
      ipv4: localAddresses(
        system.files.readTextIfExists("/proc/net/fib_trie") ?? "",
        readRoutes(system),
      ),
      ipv6: parseIfInet6(system.files.readTextIfExists("/proc/net/if_inet6") ?? ""),
    };
  }
}

/** Output of `ip -j address show`. Errors: AgentError "bad-input". */
export function parseAddresses(text: string): Addresses {
  const ipv4 = new Map<string, string[]>();
  const ipv6 = new Map<string, string[]>();
  for (const link of JsonReader.parse(text, "The output of ip -j address show").items()) {
    // `ip` prints an empty object for a link that its filter left out.
    const name = link.get("ifname").optionalString();
    const addresses = link.get("addr_info");
    if (name === undefined || addresses.isAbsent) continue;
    for (const address of addresses.items()) {
      const local = address.get("local").optionalString();
      if (local === undefined) continue;
      const family = address.get("family").optionalString() === "inet6" ? ipv6 : ipv4;
      family.set(name, [...(family.get(name) ?? []), local]);
    }
  }
  return { ipv4, ipv6 };
}

/**
 * IPv4 addresses from /proc/net/fib_trie: leaves that are `/32 host LOCAL`, put on the interface of the longest
 * connected route that holds them (loopback otherwise).
 */
export function localAddresses(
  trie: string,
  routes: readonly Route[],
): ReadonlyMap<string, string[]> {
  const found = new Set<string>();
  let leaf: string | undefined;
  for (const line of trie.split("\n")) {
    const address = /\|-- (\d+\.\d+\.\d+\.\d+)/.exec(line)?.[1];
    if (address !== undefined) leaf = address;
    else if (leaf !== undefined && line.includes("/32 host LOCAL")) found.add(leaf);
  }
  const connected = routes
    .filter((route) => !route.gatewayFlag && route.destination !== "0.0.0.0")
    .toSorted((a, b) => prefixFromMask(b.mask) - prefixFromMask(a.mask));
  const byInterface = new Map<string, string[]>();
  for (const address of found) {
    const owner = address.startsWith("127.")
      ? "lo"
      : connected.find((route) => inSubnet(address, route.destination, route.mask))?.interface;
    if (owner !== undefined) byInterface.set(owner, [...(byInterface.get(owner) ?? []), address]);
  }
  return byInterface;
}

function parseIfInet6(text: string): ReadonlyMap<string, string[]> {
  const byInterface = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    const [hex, , , , , name] = line.trim().split(/\s+/);
    if (hex === undefined || name === undefined || !/^[0-9a-f]{32}$/.test(hex)) continue;
    const address = shortIpv6(hex);
    byInterface.set(name, [...(byInterface.get(name) ?? []), address]);
  }
  return byInterface;
}

/** RFC 5952 text of 32 hex digits. */
function shortIpv6(hex: string): string {
  const groups = (hex.match(/.{4}/g) ?? []).map((group) => group.replace(/^0{1,3}/, ""));
  return new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1);
}

function inSubnet(address: string, network: string, mask: string): boolean {
  const [a, n, m] = [address, network, mask].map((text) => text.split(".").map(Number));
  return (m ?? []).every(
    (bits, index) => ((a?.[index] ?? 0) & bits) === ((n?.[index] ?? 0) & bits),
  );
}

function readFlags(system: Reads, name: string): number | undefined {
  const text = readSysfs(system, `${NET}/${name}/flags`);
  const value = Number(text);
  return text === undefined || !Number.isInteger(value) ? undefined : value;
}

/** Trimmed text of a sysfs attribute; undefined when it cannot be read (an interface may vanish at any time). */
function readSysfs(system: Reads, file: SystemPath): string | undefined {
  try {
    return system.files.readText(file).trim();
  } catch {
    return undefined;
  }
}
