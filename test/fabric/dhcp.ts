import { createSocket } from "node:dgram";
import type { DhcpDescription } from "./scenario.ts";

/** What the server knows of the guest's interface. */
export interface Lease {
  readonly address: string;
  readonly netmask: string;
  readonly router: string;
  readonly server: string;
}

export interface DhcpServer {
  stop(): Promise<void>;
}

export const LEASE: Lease = {
  address: "10.0.0.4",
  netmask: "255.255.255.0",
  router: "10.0.0.1",
  server: "10.0.0.1",
};

const COOKIE = Buffer.from([0x63, 0x82, 0x53, 0x63]);
const DISCOVER = 1;
const REQUEST = 3;
const OFFER = 2;
const ACK = 5;

/** The answer to a DHCP datagram, or undefined when it asks nothing of us. Pure. */
export function dhcpReply(
  request: Buffer,
  description: DhcpDescription,
  lease: Lease,
): Buffer | undefined {
  if (request.length < 244 || request[0] !== 1 || !request.subarray(236, 240).equals(COOKIE))
    return undefined;
  const type = optionOf(request, 53)?.[0];
  if (type !== DISCOVER && type !== REQUEST) return undefined;
  const header = Buffer.alloc(240);
  request.copy(header, 0, 0, 44);
  header[0] = 2;
  bytesOf(lease.address).copy(header, 16);
  bytesOf(lease.server).copy(header, 20);
  COOKIE.copy(header, 236);
  const options: [number, Buffer][] = [
    [53, Buffer.from([type === DISCOVER ? OFFER : ACK])],
    [54, bytesOf(lease.server)],
    [51, Buffer.from([0xff, 0xff, 0xff, 0xff])],
    [1, bytesOf(lease.netmask)],
    [3, bytesOf(description.router ?? lease.router)],
    [6, bytesOf(lease.server)],
  ];
  const routes = Buffer.concat((description.routes ?? []).map(routeBytes));
  if (routes.length > 0) options.push([249, routes], [121, routes]);
  const endpoint = description.endpoint ?? "168.63.129.16";
  if (endpoint !== "") options.push([245, bytesOf(endpoint)]);
  const encoded = options.map(([code, value]) =>
    Buffer.concat([Buffer.from([code, value.length]), value]),
  );
  const reply = Buffer.concat([header, ...encoded, Buffer.from([255])]);
  return reply.length < 300 ? Buffer.concat([reply, Buffer.alloc(300 - reply.length)]) : reply;
}

/** Answers on UDP 67 of the platform's namespace, by broadcast as the guest may have no address. */
export async function startDhcp(
  description: DhcpDescription,
  seen: (text: string) => void,
): Promise<DhcpServer> {
  // The limited broadcast address needs a route of its own when there is no default route.
  Bun.spawnSync(["ip", "route", "replace", "255.255.255.255", "dev", "p0"]);
  const socket = createSocket({ type: "udp4", reuseAddr: true });
  socket.on("message", (message) => {
    const name = optionOf(message, 12)?.toString("utf8");
    const type = optionOf(message, 53)?.[0] ?? "?";
    seen(
      `request of type ${type}, ${message.length} bytes${name === undefined ? "" : `, from ${name}`}`,
    );
    const reply = description.silent === true ? undefined : dhcpReply(message, description, LEASE);
    if (reply === undefined) return;
    // A client that has its address listens on it only (RFC 2131, 4.1).
    const client = message.subarray(12, 16);
    socket.send(reply, 68, client.some(Boolean) ? client.join(".") : "255.255.255.255");
  });
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    socket.bind(67, "0.0.0.0", () => {
      socket.setBroadcast(true);
      resolve();
    });
  });
  return { stop: () => new Promise((resolve) => socket.close(() => resolve())) };
}

function optionOf(message: Buffer, wanted: number): Buffer | undefined {
  for (let at = 240; at + 1 < message.length && message[at] !== 255;) {
    if (message[at] === 0) {
      at += 1;
      continue;
    }
    const length = message[at + 1]!;
    if (message[at] === wanted) return message.subarray(at + 2, at + 2 + length);
    at += 2 + length;
  }
  return undefined;
}

/** "10.1.0.0/16 via 10.0.0.1" as RFC 3442 writes it. */
function routeBytes(route: string): Buffer {
  const match = /^([\d.]+)\/(\d+) via ([\d.]+)$/.exec(route);
  if (match === null) throw new Error(`No classless route: ${route}`);
  const bits = Number(match[2]);
  return Buffer.concat([
    Buffer.from([bits]),
    bytesOf(match[1]!).subarray(0, Math.ceil(bits / 8)),
    bytesOf(match[3]!),
  ]);
}

function bytesOf(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}
