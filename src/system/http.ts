import * as fs from "node:fs";
import { AgentError, describe } from "../base/error.ts";
import { redact, withoutQuery } from "../base/redact.ts";
import { selectProxy, type ProxySettings } from "./proxy.ts";
import type { Root, SystemPath } from "./root.ts";

/** One attempt at one request. Retries, and what a status means, are the caller's business. */
export interface HttpRequest {
  readonly method: "GET" | "PUT" | "POST" | "HEAD";
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | { readonly file: SystemPath };
  /** WireServer, host plugin and IMDS are "never"; storage is "allowed" (`wire-protocol.md` HTTP-15). */
  readonly proxy: "never" | "allowed";
  /** Limit for everything, connect to last byte. Default 10 s. */
  readonly deadlineMs?: number;
  /**
   * Limit for each wait on the network: for the answer, then for the next bytes (`wire-protocol.md` HTTP-04). Makes
   * sense where the whole may take long. Default: only `deadlineMs` counts.
   */
  readonly stallMs?: number;
  /** A larger response body is an error. Default 8 MiB. */
  readonly maxBodyBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  readonly status: number;
  readonly reason: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
  /** UTF-8 without BOM; AgentError "bad-input" when it is not UTF-8. */
  text(): string;
}

export interface Http {
  /**
   * Any status is a result. Redirects are not followed, nothing is decompressed, every request has its own
   * connection (HTTP-01, HTTP-03). Errors: AgentError "http" with method, origin and path, never the query;
   * `errno` is "ETIMEDOUT" when the deadline passed, "EMSGSIZE" when the body was too large.
   */
  request(request: HttpRequest): Promise<HttpResponse>;
  /**
   * Streams a body into a new file of mode 0600 and fsyncs it. With a status other than 200 nothing is written and
   * the body is the first KiB of what came. The partial file is removed on failure.
   */
  download(
    request: HttpRequest,
    file: SystemPath,
  ): Promise<HttpResponse & { readonly bytes: number }>;
}

export interface HttpOptions {
  readonly root: Root;
  readonly userAgent: string;
  readonly proxy: ProxySettings;
  /** PEM certificates trusted besides the built-in ones. */
  readonly certificateAuthorities?: readonly string[] | undefined;
  /**
   * Where to connect for an origin, like curl's --connect-to; the request itself stays the same. Only for
   * scratch roots: it lets an emulated host listen on unprivileged loopback ports.
   */
  readonly connectTo?: ReadonlyMap<string, string> | undefined;
}

const DEFAULT_DEADLINE_MS = 10_000;
const DEFAULT_MAX_BODY = 8 * 1024 * 1024;

export function createHttp(options: HttpOptions): Http {
  const send = async (
    request: HttpRequest,
  ): Promise<{
    response: Response;
    /** Bytes came: the next wait begins. */
    progress: () => void;
    done: () => void;
    fail: (error: unknown) => AgentError;
  }> => {
    const target = parseUrl(request);
    const label = `${request.method} ${withoutQuery(request.url)}`;
    const limits = watch(request);
    const fail = (error: unknown): AgentError => {
      if (error instanceof AgentError) return error;
      switch (limits.ended()) {
        case "cancelled":
          return new AgentError("cancelled", `${label} was cancelled`);
        case "stalled": {
          const seconds = (request.stallMs ?? 0) / 1000;
          return new AgentError("http", `${label} timed out: nothing came for ${seconds} s`, {
            errno: "ETIMEDOUT",
          });
        }
        case "late": {
          const seconds = (request.deadlineMs ?? DEFAULT_DEADLINE_MS) / 1000;
          return new AgentError("http", `${label} timed out after ${seconds} s`, {
            errno: "ETIMEDOUT",
          });
        }
        case undefined:
      }
      const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
      const reason = REASONS[code ?? ""] ?? redact(describe(error));
      return new AgentError("http", `${label} failed: ${reason}`, { errno: code });
    };

    const route = connection(target, options, label);
    const proxy = request.proxy === "allowed" ? selectProxy(target, options.proxy) : undefined;
    try {
      const payload = payloadOf(request, options.root);
      const response = await fetch(route.url, {
        method: request.method,
        headers: {
          "User-Agent": options.userAgent,
          "Accept-Encoding": "identity",
          Connection: "close",
          ...route.headers,
          ...payload.headers,
          ...request.headers,
        },
        body: payload.body,
        redirect: "manual",
        keepalive: false,
        decompress: false,
        signal: limits.signal,
        proxy: proxy === undefined ? false : { url: proxy, respectNoProxy: false },
        ...(options.certificateAuthorities === undefined
          ? {}
          : { tls: { ca: [...options.certificateAuthorities] } }),
      } as unknown as BunFetchRequestInit);
      limits.progress();
      return { response, progress: limits.progress, done: limits.stop, fail };
    } catch (error) {
      limits.stop();
      throw fail(error);
    }
  };

  const request = async (input: HttpRequest): Promise<HttpResponse> => {
    const { response, progress, done, fail } = await send(input);
    try {
      return toResponse(response, await boundedBody(response, input, progress));
    } catch (error) {
      throw fail(error);
    } finally {
      done();
    }
  };

  const download = async (
    input: HttpRequest,
    file: SystemPath,
  ): Promise<HttpResponse & { bytes: number }> => {
    const { response, progress, done, fail } = await send(input);
    if (response.status !== 200) {
      const limited = { ...input, maxBodyBytes: 64 * 1024 };
      const body = await boundedBody(response, limited, progress).catch(() => new Uint8Array());
      done();
      return { ...toResponse(response, body.subarray(0, 1024)), bytes: 0 };
    }
    const realPath = options.root.real(file);
    let descriptor: number | undefined;
    try {
      fs.rmSync(realPath, { force: true });
      descriptor = fs.openSync(realPath, "wx", 0o600);
      let bytes = 0;
      for await (const chunk of bodyChunks(response)) {
        progress();
        bytes += chunk.length;
        checkSize(bytes, input);
        fs.writeSync(descriptor, chunk);
      }
      checkLength(response, bytes, input);
      fs.fsyncSync(descriptor);
      return { ...toResponse(response, new Uint8Array()), bytes };
    } catch (error) {
      fs.rmSync(realPath, { force: true });
      throw isFileError(error)
        ? new AgentError("io", `Could not write ${file}: ${describe(error)}`, { cause: error })
        : fail(error);
    } finally {
      done();
      if (descriptor !== undefined) fs.closeSync(descriptor);
    }
  };

  return { request, download };
}

/**
 * The limits of one request. Their timers go with the request: one that is left over would wake an idle process up
 * later for nothing, as those of AbortSignal.timeout do.
 */
function watch(request: Pick<HttpRequest, "deadlineMs" | "stallMs" | "signal">): {
  readonly signal: AbortSignal;
  /** Why it was aborted, if it was. */
  ended(): "cancelled" | "stalled" | "late" | undefined;
  /** Bytes came: the next wait begins. */
  progress(): void;
  stop(): void;
} {
  const controller = new AbortController();
  let why: "cancelled" | "stalled" | "late" | undefined;
  const end = (reason: typeof why): void => {
    why ??= reason;
    controller.abort();
  };
  const { stallMs, signal } = request;
  const deadline = setTimeout(() => end("late"), request.deadlineMs ?? DEFAULT_DEADLINE_MS);
  let stall: ReturnType<typeof setTimeout> | undefined;
  const progress = (): void => {
    if (stallMs === undefined) return;
    clearTimeout(stall);
    stall = setTimeout(() => end("stalled"), stallMs);
  };
  const cancel = (): void => end("cancelled");
  signal?.addEventListener("abort", cancel, { once: true });
  if (signal?.aborted === true) cancel();
  progress();
  return {
    signal: controller.signal,
    ended: () => why,
    progress,
    stop: () => {
      clearTimeout(deadline);
      clearTimeout(stall);
      signal?.removeEventListener("abort", cancel);
    },
  };
}

function parseUrl(request: HttpRequest): URL {
  try {
    const url = new URL(request.url);
    if (url.protocol === "http:" || url.protocol === "https:") return url;
  } catch {
    // falls through to the one error for both cases
  }
  throw new AgentError(
    "bad-input",
    `${request.method}: ${JSON.stringify(withoutQuery(request.url))} is not an http URL`,
  );
}

function connection(
  target: URL,
  options: HttpOptions,
  label: string,
): { url: string; headers: Record<string, string> } {
  if (options.root.isMachine) return { url: target.href, headers: {} };
  const origin = `${target.hostname}:${target.port || (target.protocol === "https:" ? "443" : "80")}`;
  const instead = options.connectTo?.get(origin);
  const url = new URL(target.href);
  if (instead !== undefined) url.host = instead;
  if (!/^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(url.hostname)) {
    throw new AgentError(
      "refused",
      `${label} was refused: with --root only loopback addresses are reached`,
    );
  }
  return { url: url.href, headers: instead === undefined ? {} : { Host: target.host } };
}

/** A file goes as a stream with a length: as a file the runtime would add a content type made from its name. */
function payloadOf(
  request: HttpRequest,
  root: Root,
): {
  readonly body: string | Uint8Array | ReadableStream | undefined;
  readonly headers: Record<string, string>;
} {
  const { body } = request;
  if (body === undefined || typeof body === "string" || body instanceof Uint8Array)
    return { body, headers: {} };
  const file = root.real(body.file);
  const { size } = fs.statSync(file);
  return { body: Bun.file(file).stream(), headers: { "Content-Length": String(size) } };
}

async function* bodyChunks(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) yield chunk;
}

async function boundedBody(
  response: Response,
  request: HttpRequest,
  progress: () => void,
): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of bodyChunks(response)) {
    progress();
    size += chunk.length;
    checkSize(size, request);
    chunks.push(chunk);
  }
  if (request.method !== "HEAD") checkLength(response, size, request);
  return Buffer.concat(chunks);
}

function checkSize(size: number, request: HttpRequest): void {
  const limit = request.maxBodyBytes ?? DEFAULT_MAX_BODY;
  if (size <= limit) return;
  const label = `${request.method} ${withoutQuery(request.url)}`;
  throw new AgentError("http", `${label} answered more than the ${limit} bytes allowed`, {
    errno: "EMSGSIZE",
  });
}

function checkLength(response: Response, size: number, request: HttpRequest): void {
  const declared = response.headers.get("content-length");
  if (declared === null || response.status === 304 || Number(declared) === size) return;
  const label = `${request.method} ${withoutQuery(request.url)}`;
  throw new AgentError("http", `${label} ended after ${size} of ${declared} bytes`, {
    errno: "EPIPE",
  });
}

function toResponse(response: Response, body: Uint8Array): HttpResponse {
  return {
    status: response.status,
    reason: response.statusText,
    headers: new Map(response.headers),
    body,
    text: () => {
      try {
        return new TextDecoder("utf-8", { fatal: true }).decode(body);
      } catch (error) {
        throw new AgentError(
          "bad-input",
          `The response of ${withoutQuery(response.url)} is not UTF-8 text`,
          { cause: error },
        );
      }
    },
  };
}

function isFileError(error: unknown): boolean {
  return (
    error instanceof Error &&
    "syscall" in error &&
    ["write", "open", "fsync", "close"].includes(String(error.syscall))
  );
}

const REASONS: Readonly<Record<string, string>> = {
  ConnectionRefused: "connection refused",
  ECONNREFUSED: "connection refused",
  ConnectionClosed: "the connection was closed before the answer was complete",
  ECONNRESET: "the connection was reset",
  FailedToOpenSocket: "could not open a connection",
};
