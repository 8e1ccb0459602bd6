import { createServer, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { Delivery } from "./fault.ts";

/** A request as the socket delivered it: nothing normalised, so that the rules see what was really sent. */
export interface RawRequest {
  readonly method: string;
  /** Request target as sent: path and query, or an absolute URL when the client took us for a proxy. */
  readonly target: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: Buffer;
}

export interface ListenOptions {
  readonly hostname: string;
  /** 0 takes any free port. */
  readonly port: number;
  readonly tls?: { readonly key: string; readonly cert: string };
  readonly handle: (request: RawRequest) => Promise<Delivery>;
  /** See `Scenario.clockOffsetMs`. Default 0. */
  readonly clockOffsetMs?: number;
}

export interface Listener {
  readonly port: number;
  close(): Promise<void>;
}

const MAX_HEADER_BYTES = 256 * 1024;
const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  302: "Found",
  304: "Not Modified",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  410: "Gone",
  416: "Range Not Satisfiable",
  429: "Too Many Requests",
  500: "Internal Server Error",
  502: "Bad Gateway",
  503: "Service Unavailable",
};

/**
 * A small HTTP/1.1 server of our own, one request per connection: a ready-made one neither keeps the case of header
 * names nor lets a test cut, stall or reset an answer.
 */
export async function listen(options: ListenOptions): Promise<Listener> {
  const sockets = new Set<Socket>();
  const serve = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.setNoDelay(true);
    void readRequest(socket)
      .then((request) => (request === undefined ? undefined : options.handle(request)))
      .then((delivery) =>
        delivery === undefined
          ? void socket.destroy()
          : send(socket, delivery, options.clockOffsetMs ?? 0),
      )
      .catch((error: unknown) => {
        process.stderr.write(`fabric: ${error instanceof Error ? error.stack : String(error)}\n`);
        socket.end(
          "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
      });
  };
  const server: Server =
    options.tls === undefined ? createServer(serve) : createTlsServer({ ...options.tls }, serve);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.hostname, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The listener has no port");
  return {
    port: address.port,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Undefined when the peer left before the request was whole. */
async function readRequest(socket: Socket): Promise<RawRequest | undefined> {
  let buffer = Buffer.alloc(0);
  let head:
    { method: string; target: string; headers: [string, string][]; size: number } | undefined;
  for await (const chunk of chunksOf(socket)) {
    buffer = Buffer.concat([buffer, chunk]);
    if (head === undefined) {
      const end = buffer.indexOf("\r\n\r\n");
      if (end < 0) {
        if (buffer.length > MAX_HEADER_BYTES) throw new Error("The request headers do not end");
        continue;
      }
      head = { ...parseHead(buffer.subarray(0, end).toString("latin1")), size: end + 4 };
      if (
        head.headers.some(
          ([name, value]) => name.toLowerCase() === "expect" && /100-continue/i.test(value),
        )
      )
        socket.write("HTTP/1.1 100 Continue\r\n\r\n");
    }
    const body = bodyOf(head.headers, buffer.subarray(head.size));
    if (body !== undefined) return { ...head, body };
  }
  return undefined;
}

/** Data of a socket without ending the socket when reading stops. */
async function* chunksOf(socket: Socket): AsyncGenerator<Buffer> {
  const queue: Buffer[] = [];
  let ended = false;
  let wake = (): void => undefined;
  const onData = (chunk: Buffer): void => {
    queue.push(chunk);
    wake();
  };
  const onEnd = (): void => {
    ended = true;
    wake();
  };
  socket.on("data", onData);
  socket.once("end", onEnd);
  socket.once("close", onEnd);
  try {
    for (;;) {
      const chunk = queue.shift();
      if (chunk !== undefined) yield chunk;
      else if (ended) return;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    socket.off("data", onData);
  }
}

function parseHead(text: string): { method: string; target: string; headers: [string, string][] } {
  const [requestLine = "", ...lines] = text.split("\r\n");
  const match = /^([A-Z]+) (\S+) HTTP\/1\.[01]$/.exec(requestLine);
  if (match === null)
    throw new Error(`No HTTP request line: ${JSON.stringify(requestLine.slice(0, 200))}`);
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
  return { method: match[1]!, target: match[2]!, headers };
}

/** Undefined while bytes are missing. */
function bodyOf(
  headers: readonly (readonly [string, string])[],
  bytes: Buffer,
): Buffer | undefined {
  const value = (name: string) => headers.find(([key]) => key.toLowerCase() === name)?.[1];
  if (/chunked/i.test(value("transfer-encoding") ?? "")) return dechunk(bytes);
  const length = Number(value("content-length") ?? 0);
  return bytes.length >= length ? Buffer.from(bytes.subarray(0, length)) : undefined;
}

function dechunk(bytes: Buffer): Buffer | undefined {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = bytes.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = Number.parseInt(bytes.subarray(at, lineEnd).toString("latin1"), 16);
    const start = lineEnd + 2;
    if (bytes.length < start + size + 2) return undefined;
    if (size === 0) return Buffer.concat(parts);
    parts.push(bytes.subarray(start, start + size));
    at = start + size + 2;
  }
}

async function send(socket: Socket, delivery: Delivery, clockOffsetMs: number): Promise<void> {
  if (delivery.how === "silence") return; // the connection stays open until the client gives up
  if (delivery.how === "reset") {
    socket.resetAndDestroy();
    return;
  }
  const { status, headers, body } = delivery.answer;
  const date = new Date(Date.now() + clockOffsetMs).toUTCString();
  const withoutBody = status === 304 || status === 204;
  const lines = [
    `HTTP/1.1 ${status} ${REASONS[status] ?? "Status"}`,
    ...Object.entries({ Server: "Microsoft-IIS/10.0", Date: date, ...headers }).map(
      ([name, value]) => `${name}: ${value}`,
    ),
    ...(withoutBody ? [] : [`Content-Length: ${body.length}`]),
    "Connection: close",
  ];
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  if (withoutBody) {
    socket.end();
  } else if (delivery.how === "whole") {
    socket.end(body);
  } else if (delivery.how === "partial") {
    socket.write(body.subarray(0, delivery.sent));
    if (delivery.then === "close") socket.end();
  } else {
    const step = Math.max(1, Math.floor(delivery.bytesPerSecond / 10));
    for (let at = 0; at < body.length && !socket.destroyed; at += step) {
      socket.write(body.subarray(at, at + step));
      await Bun.sleep(100);
    }
    socket.end();
  }
}
