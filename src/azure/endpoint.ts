import { AgentError, describe, isAgentError } from "../base/error.ts";
import { isPeerAddress, parseIpv4 } from "../base/address.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { removeLegacyProtocol } from "./legacy-protocol.ts";
import { DEFAULT_ENDPOINT } from "./wire-client.ts";

/**
 * Where the WireServer is (`wire-protocol.md` §3, `provisioning.md` §4). Nearly everywhere it is 168.63.129.16; where it
 * is not, DHCP option 245 says so.
 *
 *     forgetEndpoint(system, libDir);                       // daemon start: discovery runs each boot (DHCP-01)
 *     const session = await detectEndpoint(system, libDir, {
 *       discovery: config["Protocol.EndpointDiscovery"], lease, exchange,
 *       connect: (endpoint) => openSession(system, endpoint, ...),
 *     });
 */
export interface DetectOptions<Session> {
  /** `Protocol.EndpointDiscovery`; DHCP is used for "dhcp" only, and only when `exchange` is there (DHCP-02). */
  readonly discovery: string;
  /** Endpoint of a lease that some DHCP client of the machine holds. */
  readonly lease?: (() => string | undefined | Promise<string | undefined>) | undefined;
  /** Our own DHCP exchange. Errors: AgentError "dhcp". Absent where the system has no DHCP. */
  readonly exchange?: ((signal?: AbortSignal) => Promise<string>) | undefined;
  /** Talks to the endpoint: versions, transport keys, first goal state. Errors: AgentError "protocol" is tried again. */
  readonly connect: (endpoint: string, signal?: AbortSignal) => Promise<Session>;
  readonly signal?: AbortSignal | undefined;
}

const ATTEMPTS = 360;
const DELAY_MS = 10_000;
const PROTOCOL_FILE = "Protocol";
const PROTOCOL_NAME = "WireProtocol";
const ENDPOINT_FILE = "WireServerEndpoint";
/** 168.63.129.16 as /proc/net/route writes it. */
const ROUTE_HEX = "10813FA8";

/** Detection begins again: both files go (DHCP-01, PROT-04). */
export function forgetEndpoint(system: Pick<System, "files">, libDir: SystemPath): void {
  for (const name of [PROTOCOL_FILE, ENDPOINT_FILE]) system.files.remove(join(libDir, name));
}

/**
 * The endpoint an earlier detection saved, for a process that is not the daemon; undefined when detection has to run:
 * no Protocol file, or one of another protocol (DHCP-01, DHCP-08). A bad endpoint file means the fixed address (DHCP-05).
 */
export function savedEndpoint(
  system: Pick<System, "files" | "log">,
  libDir: SystemPath,
): string | undefined {
  if (readQuietly(system, join(libDir, PROTOCOL_FILE)) !== PROTOCOL_NAME) return undefined;
  return readEndpointFile(system, libDir);
}

/**
 * Up to 360 tries, 10 s apart (DHCP-04, PROT-03). After a failed try leases are no longer believed.
 * Errors: AgentError "protocol-not-found" after the last try, "cancelled", or anything else `connect` throws.
 */
export async function detectEndpoint<Session>(
  system: Pick<System, "files" | "exec" | "clock" | "log" | "emit">,
  libDir: SystemPath,
  options: DetectOptions<Session>,
): Promise<Session> {
  let failure: unknown;
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    try {
      const endpoint = await findEndpoint(system, libDir, {
        ...options,
        lease: attempt === 1 ? options.lease : undefined,
      });
      const session = await options.connect(endpoint, options.signal);
      system.files.write(join(libDir, ENDPOINT_FILE), endpoint, { mode: 0o644 });
      system.files.write(join(libDir, PROTOCOL_FILE), PROTOCOL_NAME, { mode: 0o644 });
      if (endpoint !== DEFAULT_ENDPOINT)
        system.emit({ operation: "ProtocolEndpoint", success: true, message: endpoint });
      await removeLegacyProtocol(system, libDir);
      return session;
    } catch (error) {
      // "bad-input": a document cut or replaced on the way; the next try gets the right one.
      if (!isAgentError(error, "protocol", "protocol-not-found", "gone", "dhcp", "bad-input"))
        throw error;
      failure = error;
      system.files.remove(join(libDir, ENDPOINT_FILE));
      system.log.info(
        `The platform does not answer yet (try ${attempt} of ${ATTEMPTS}): ${describe(error)}`,
      );
    }
    if (attempt < ATTEMPTS) await system.clock.sleep(DELAY_MS, options.signal);
  }
  throw new AgentError(
    "protocol-not-found",
    `The platform did not answer in ${ATTEMPTS} tries: ${describe(failure)}`,
  );
}

/** One look: route table, lease, DHCP (DHCP-03), or the saved or fixed address (DHCP-02). */
export async function findEndpoint(
  system: Pick<System, "files" | "log">,
  libDir: SystemPath,
  options: Pick<DetectOptions<unknown>, "discovery" | "lease" | "exchange" | "signal">,
): Promise<string> {
  if (options.discovery !== "dhcp" || options.exchange === undefined) {
    return system.files.exists(join(libDir, ENDPOINT_FILE))
      ? readEndpointFile(system, libDir)
      : DEFAULT_ENDPOINT;
  }
  if (hasEndpointRoute(readQuietly(system, "/proc/net/route") ?? "")) return DEFAULT_ENDPOINT;
  const leased = await options.lease?.();
  if (leased !== undefined && isPeerAddress(leased)) return leased;
  const offered = await options.exchange(options.signal);
  if (isPeerAddress(offered)) return offered;
  throw new AgentError("dhcp", `DHCP offered ${JSON.stringify(offered)}, which is no endpoint`);
}

/** Any line, any column (DHCP-03). */
export function hasEndpointRoute(routeTable: string): boolean {
  return routeTable.includes(ROUTE_HEX);
}

function readEndpointFile(system: Pick<System, "files" | "log">, libDir: SystemPath): string {
  const file = join(libDir, ENDPOINT_FILE);
  const text = readQuietly(system, file)?.trim() ?? "";
  if (parseIpv4(text) !== undefined) return text;
  system.log.error(`${file} holds no endpoint, using ${DEFAULT_ENDPOINT}`);
  return DEFAULT_ENDPOINT;
}

/** undefined when it is absent or cannot be read: both mean that there is nothing to go by. */
function readQuietly(system: Pick<System, "files">, file: SystemPath): string | undefined {
  try {
    return system.files.readTextIfExists(file, { maxBytes: 1024 * 1024 });
  } catch {
    return undefined;
  }
}
