import { AgentError } from "../base/error.ts";
import { isPeerAddress } from "../base/address.ts";
import type { ClasslessRoute, WantedRoutes } from "./routes.ts";

/** DHCP packets, as far as the endpoint and the routes are concerned (`wire-protocol.md` §3.1). Pure. */
export interface DiscoverOptions {
  /** Four bytes that the answer must repeat. */
  readonly transactionId: Uint8Array;
  /** Six bytes. */
  readonly mac: Uint8Array;
  /** The answer is asked to be a broadcast (DHCP-13). */
  readonly broadcast: boolean;
}

export interface DhcpAnswer {
  /** Option 245; undefined when it is absent or no address a peer can have. */
  readonly endpoint: string | undefined;
  readonly routes: WantedRoutes;
}

const REQUEST_BYTES = 244;
/** Shorter answers have no room for a single option (DHCP-14, DB-16). */
const MINIMUM_ANSWER_BYTES = 0xf6;
const COOKIE = [0x63, 0x82, 0x53, 0x63];
const AT = { operation: 0, transaction: 4, flags: 0x0a, mac: 0x1c, cookie: 0xec, options: 0xf0 };

/** A DHCPDISCOVER of 244 bytes. */
export function buildDiscover({ transactionId, mac, broadcast }: DiscoverOptions): Uint8Array {
  if (transactionId.length !== 4 || mac.length !== 6)
    throw new AgentError("bad-input", "A DHCP request needs a 4-byte id and a 6-byte MAC address");
  const packet = new Uint8Array(REQUEST_BYTES);
  packet.set([1, 1, 6, 0], AT.operation); // BOOTREQUEST, ethernet
  packet.set(transactionId, AT.transaction);
  packet[AT.flags] = broadcast ? 0x80 : 0;
  packet.set(mac, AT.mac);
  packet.set(COOKIE, AT.cookie);
  packet.set([0x35, 1, 1, 0xff], AT.options);
  return packet;
}

/** Whether a datagram answers this request (DHCP-14). */
export function isAnswerTo(request: Uint8Array, answer: Uint8Array): boolean {
  const same = (from: number, length: number): boolean =>
    answer.subarray(from, from + length).every((byte, index) => byte === request[from + index]);
  return (
    answer.length >= MINIMUM_ANSWER_BYTES &&
    answer[AT.operation] === 2 &&
    same(AT.transaction, 4) &&
    same(AT.mac, 6) &&
    same(AT.cookie, 4)
  );
}

/**
 * Endpoint and routes of an answer. An option that is cut short or has an impossible value is left out, the others
 * count (DHCP-20..24). Never throws.
 */
export function parseAnswer(answer: Uint8Array): DhcpAnswer {
  let endpoint: string | undefined;
  let gateway: string | undefined;
  const standard: ClasslessRoute[] = [];
  const microsoft: ClasslessRoute[] = [];
  for (const { code, value } of options(answer)) {
    if (code === 245 && value.length === 4) endpoint = peer(value) ?? endpoint;
    else if (code === 3 && value.length > 0 && value.length % 4 === 0)
      gateway = peer(value.subarray(0, 4)) ?? gateway;
    else if (code === 121) standard.push(...parseClasslessRoutes(value));
    else if (code === 249) microsoft.push(...parseClasslessRoutes(value));
  }
  // Both options say the same thing; 121 is the one with an RFC.
  return { endpoint, routes: { gateway, classless: standard.length > 0 ? standard : microsoft } };
}

/** Value of the first such option; undefined when it is absent. */
export function findOption(answer: Uint8Array, wanted: number): Uint8Array | undefined {
  for (const { code, value } of options(answer)) if (code === wanted) return value;
  return undefined;
}

/** Options 121 and 249: prefix bits, the significant bytes of the network, the gateway; repeated (DHCP-22, RFC 3442). */
export function parseClasslessRoutes(value: Uint8Array): readonly ClasslessRoute[] {
  const routes: ClasslessRoute[] = [];
  for (let at = 0; at < value.length;) {
    const prefix = value[at] ?? 0;
    const significant = Math.ceil(prefix / 8);
    const end = at + 1 + significant + 4;
    if (prefix > 32 || end > value.length) break;
    const network = new Uint8Array(4);
    network.set(value.subarray(at + 1, at + 1 + significant));
    const gateway = dotted(value.subarray(end - 4, end));
    if (gateway === "0.0.0.0" || isPeerAddress(gateway))
      routes.push({ network: dotted(masked(network, prefix)), prefix, gateway });
    at = end;
  }
  return routes;
}

/** Code and value of each option up to the end mark; pads are skipped, one that is cut short ends the walk. */
function* options(answer: Uint8Array): Generator<{ code: number; value: Uint8Array }> {
  for (let at = AT.options; at < answer.length;) {
    const code = answer[at] ?? 255;
    if (code === 255) return;
    if (code === 0) {
      at += 1;
      continue;
    }
    const length = answer[at + 1];
    if (length === undefined || at + 2 + length > answer.length) return;
    yield { code, value: answer.subarray(at + 2, at + 2 + length) };
    at += 2 + length;
  }
}

function peer(value: Uint8Array): string | undefined {
  const address = dotted(value);
  return isPeerAddress(address) ? address : undefined;
}

function masked(network: Uint8Array, prefix: number): Uint8Array {
  return network.map((byte, index) => {
    const bits = Math.max(0, Math.min(8, prefix - index * 8));
    return byte & (0xff << (8 - bits));
  });
}

export function dotted(bytes: Uint8Array): string {
  return [...bytes].join(".");
}
