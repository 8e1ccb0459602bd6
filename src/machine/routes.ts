import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";

/** One line of /proc/net/route; addresses dotted. */
export interface Route {
  readonly interface: string;
  readonly destination: string;
  readonly gateway: string;
  readonly mask: string;
  readonly flags: number;
  readonly metric: number;
  /** RTF_GATEWAY, 0x2. */
  readonly gatewayFlag: boolean;
}

/** Routes that a DHCP answer told us to have: option 3, and options 121 or 249 (`wire-protocol.md` DHCP-25). */
export interface WantedRoutes {
  readonly gateway: string | undefined;
  readonly classless: readonly ClasslessRoute[];
  /** Where the answer came in; needed for networks that are on the link (gateway 0.0.0.0). */
  readonly interface?: string | undefined;
}

export interface ClasslessRoute {
  readonly network: string;
  /** Bits of the network, 0 to 32. */
  readonly prefix: number;
  readonly gateway: string;
}

const HEADERS = ["Iface", "Destination", "Gateway", "Flags", "Metric", "Mask"] as const;
const IP_TIMEOUT_MS = 10_000;
/** `ip` answers 2 when the kernel refused; "File exists" among others. */
const KERNEL_REFUSED = 2;

/** The IPv4 route table. A table that cannot be read or understood is an ERROR in the log and empty (`system.md` NET-02). */
export function readRoutes(system: Pick<System, "files"> & Partial<Pick<System, "log">>): Route[] {
  const text = system.files.readTextIfExists("/proc/net/route");
  if (text === undefined) return [];
  try {
    return parseRoutes(text);
  } catch (error) {
    system.log?.periodically("ERROR", 3_600_000, describe(error));
    return [];
  }
}

/**
 * /proc/net/route: tab separated, columns found by the names in its first line, numbers in hexadecimal, addresses
 * little-endian. Errors: AgentError "bad-input" when a column is missing (`system.md` NET-02, NET-06).
 */
export function parseRoutes(text: string): Route[] {
  const [first = "", ...lines] = text.split("\n");
  const names = first.split("\t").map((name) => name.trim());
  const column = (name: (typeof HEADERS)[number]): number => {
    const index = names.indexOf(name);
    if (index < 0) throw new AgentError("bad-input", `/proc/net/route has no column named ${name}`);
    return index;
  };
  const at = Object.fromEntries(HEADERS.map((name) => [name, column(name)])) as Record<
    (typeof HEADERS)[number],
    number
  >;
  return lines.flatMap((line) => {
    const fields = line.split("\t").map((field) => field.trim());
    const field = (name: (typeof HEADERS)[number]): string => fields[at[name]] ?? "";
    if (field("Iface") === "" || !/^[0-9A-Fa-f]{8}$/.test(field("Destination"))) return [];
    const flags = Number.parseInt(field("Flags"), 16);
    return [
      {
        interface: field("Iface"),
        destination: dottedFromHex(field("Destination")),
        gateway: dottedFromHex(field("Gateway")),
        mask: dottedFromHex(field("Mask")),
        flags,
        metric: Number.parseInt(field("Metric"), 10) || 0,
        gatewayFlag: (flags & 0x2) !== 0,
      },
    ];
  });
}

/**
 * The route that packets to an address take: of those that cover it the one with the longest prefix, of equal ones the
 * one with the lowest metric. undefined when none does, or the one that does refuses (RTF_REJECT, 0x200).
 */
export function routeTo(routes: readonly Route[], address: string): Route | undefined {
  const [best] = routes
    .filter(
      (route) =>
        networkOf({ network: address, prefix: prefixFromMask(route.mask), gateway: "" }) ===
        route.destination,
    )
    .toSorted((a, b) => prefixFromMask(b.mask) - prefixFromMask(a.mask) || a.metric - b.metric);
  return best === undefined || (best.flags & 0x200) !== 0 ? undefined : best;
}

/** `10813FA8` is 168.63.129.16: the kernel prints addresses as it keeps them, little-endian. */
function dottedFromHex(hex: string): string {
  const bytes = hex.match(/../g)?.toReversed() ?? [];
  return bytes.map((byte) => Number.parseInt(byte, 16)).join(".");
}

/** Bits of a dotted mask; 0 for 0.0.0.0. */
export function prefixFromMask(mask: string): number {
  const bits = mask
    .split(".")
    .map((part) => Number(part).toString(2).padStart(8, "0"))
    .join("");
  const end = bits.indexOf("0");
  return end < 0 ? 32 : end;
}

/** One route for the log, every value quoted (`system.md` NET-07). */
export function formatRoute(route: Route): string {
  const flags = `0x${route.flags.toString(16).padStart(4, "0")}`;
  return `{"Iface": "${route.interface}", "Destination": "${route.destination}", "Gateway": "${route.gateway}", "Mask": "${route.mask}", "Flags": "${flags}", "Metric": "${route.metric}"}`;
}

/** No route to everywhere in the table (`system.md` NET-09, read from the kernel instead of from `ip route show`). */
export function isDefaultRouteMissing(system: Pick<System, "files">): boolean {
  return !readRoutes(system).some((route) => isRoute(route, "0.0.0.0", 0));
}

/**
 * Adds what is wanted and missing: the default route only when there is none, classless routes always
 * (`wire-protocol.md` DHCP-25, DB-16). Returns the routes that were added. A route that the kernel refuses is a
 * WARNING, the others are still added. Does nothing with `Network.Manage=n`.
 */
export async function applyRoutes(
  system: Pick<System, "files" | "exec" | "log">,
  config: Pick<Config, "Network.Manage">,
  wanted: WantedRoutes,
): Promise<string[]> {
  if (!config["Network.Manage"]) return [];
  const present = readRoutes(system);
  const missing: ClasslessRoute[] = wanted.classless
    .map((route) => ({ ...route, network: networkOf(route) }))
    .filter(
      (route) =>
        !present.some((other) => isRoute(other, route.network, route.prefix, route.gateway)),
    );
  const hasDefault =
    present.some((route) => isRoute(route, "0.0.0.0", 0)) ||
    missing.some((route) => route.prefix === 0);
  if (wanted.gateway !== undefined && !hasDefault)
    missing.push({ network: "0.0.0.0", prefix: 0, gateway: wanted.gateway });

  const added: string[] = [];
  // Routes to gateways come before the routes that use them.
  for (const route of missing.toSorted((a, b) => b.prefix - a.prefix)) {
    const target = route.prefix === 0 ? "default" : `${route.network}/${route.prefix}`;
    const argv = ["ip", "route", "add", target, ...nextHop(route, wanted.interface)];
    try {
      const result = await system.exec.run({
        argv,
        timeoutMs: IP_TIMEOUT_MS,
        okCodes: [0, KERNEL_REFUSED],
      });
      if (result.code === 0) {
        added.push(`${target} via ${route.gateway}`);
        system.log.info(`Added the route ${target} via ${route.gateway}`);
      } else if (!result.stderr.includes("File exists"))
        system.log.warning(
          `The kernel refused the route ${target} via ${route.gateway}: ${result.stderr.trim()}`,
        );
    } catch (error) {
      system.log.warning(
        `Could not add the route ${target} via ${route.gateway}: ${describe(error)}`,
      );
    }
  }
  return added;
}

/** A gateway of 0.0.0.0 means that the network is on the link itself (RFC 3442). */
function nextHop(route: ClasslessRoute, device: string | undefined): readonly string[] {
  if (route.gateway !== "0.0.0.0") return ["via", route.gateway];
  return device === undefined ? [] : ["dev", device];
}

/**
 * Runs an action while 255.255.255.255 is routed through an interface, which only a machine without a default
 * route needs in order to broadcast (`wire-protocol.md` DHCP-12, `provisioning.md` OS-63). The route is removed
 * afterwards, also when the action fails.
 */
export async function withBroadcastRoute<Result>(
  system: Pick<System, "files" | "exec" | "log">,
  config: Pick<Config, "Network.Manage">,
  interfaceName: string,
  action: () => Promise<Result>,
): Promise<Result> {
  if (!config["Network.Manage"] || !isDefaultRouteMissing(system)) return action();
  const route = ["255.255.255.255", "dev", interfaceName];
  const change = async (verb: "add" | "del"): Promise<void> => {
    try {
      await system.exec.run({ argv: ["ip", "route", verb, ...route], timeoutMs: IP_TIMEOUT_MS });
    } catch (error) {
      system.log.warning(
        `Could not ${verb} the broadcast route on ${interfaceName}: ${describe(error)}`,
      );
    }
  };
  await change("add");
  try {
    return await action();
  } finally {
    await change("del");
  }
}

function isRoute(route: Route, network: string, prefix: number, gateway?: string): boolean {
  return (
    route.destination === network &&
    prefixFromMask(route.mask) === prefix &&
    (gateway === undefined || route.gateway === gateway)
  );
}

/** Host bits cleared: the kernel refuses a network that has some, and DHCP servers send such. */
function networkOf(route: ClasslessRoute): string {
  return route.network
    .split(".")
    .map((part, index) => {
      const bits = Math.min(8, Math.max(0, route.prefix - index * 8));
      return Number(part) & (0xff << (8 - bits)) & 0xff;
    })
    .join(".");
}
