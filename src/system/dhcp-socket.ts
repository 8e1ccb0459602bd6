import dgram from "node:dgram";
import { AgentError } from "../base/error.ts";

/** UDP port 68 for one DHCP exchange (`wire-protocol.md` DHCP-10). Tests bring their own. */
export interface DhcpSocket {
  /** To the broadcast address, port 67. Errors: AgentError "dhcp". */
  send(packet: Uint8Array): Promise<void>;
  /** The next datagram, at most 1024 bytes of it; undefined when none came in time. */
  receive(timeoutMs: number, signal?: AbortSignal): Promise<Uint8Array | undefined>;
  close(): void;
}

export type OpenDhcpSocket = () => Promise<DhcpSocket>;

const MAX_BYTES = 1024;
/** Datagrams nobody has asked for yet; on a noisy network the rest is dropped. */
const MAX_WAITING = 64;

/** Errors: AgentError "dhcp" when the port is taken or may not be used. */
export function openDhcpSocket(
  ports: { readonly local?: number; readonly remote?: number; readonly address?: string } = {},
): Promise<DhcpSocket> {
  const { local = 68, remote = 67, address = "255.255.255.255" } = ports;
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket({ type: "udp4", reuseAddr: true });
    const waiting: Uint8Array[] = [];
    let receiver: ((packet: Uint8Array | undefined) => void) | undefined;
    const fail = (error: Error): void => {
      reject(new AgentError("dhcp", `UDP port ${local} cannot be used`, { cause: error }));
      receiver?.(undefined);
    };
    socket.on("error", fail);
    socket.on("message", (message) => {
      const packet = Uint8Array.from(message.subarray(0, MAX_BYTES));
      if (receiver !== undefined) receiver(packet);
      else if (waiting.length < MAX_WAITING) waiting.push(packet);
    });
    socket.bind({ port: local, address: "0.0.0.0" }, () => {
      try {
        socket.setBroadcast(true);
      } catch (error) {
        fail(error as Error);
        return;
      }
      resolve({
        send: (packet) =>
          new Promise((sent, failed) => {
            socket.send(packet, remote, address, (error) => {
              if (error === null || error === undefined) sent();
              else
                failed(new AgentError("dhcp", "The DHCP request cannot be sent", { cause: error }));
            });
          }),
        receive: (timeoutMs, signal) =>
          new Promise((received, cancelled) => {
            const first = waiting.shift();
            if (first !== undefined) {
              received(first);
              return;
            }
            const settle = (packet: Uint8Array | undefined): void => {
              clearTimeout(timer);
              signal?.removeEventListener("abort", abort);
              receiver = undefined;
              received(packet);
            };
            const abort = (): void => {
              clearTimeout(timer);
              receiver = undefined;
              cancelled(new AgentError("cancelled", "Waiting for a DHCP answer was cancelled"));
            };
            const timer = setTimeout(() => settle(undefined), timeoutMs);
            receiver = settle;
            signal?.addEventListener("abort", abort, { once: true });
          }),
        close: () => socket.close(),
      });
    });
  });
}
