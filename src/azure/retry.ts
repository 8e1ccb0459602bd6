import { AgentError, describe, isAgentError } from "../base/error.ts";
import { withoutQuery } from "../base/redact.ts";
import type { HttpRequest, HttpResponse } from "../system/http.ts";
import type { System } from "../system/system.ts";

/**
 * One request with the platform's retry rules (`wire-protocol.md` HTTP-05..11, HTTP-16, HTTP-17; DB-14, DB-15).
 * The result is always a success; everything else is an AgentError.
 */
export interface RetryPolicy {
  /** Default 6 (HTTP-08). */
  readonly attempts?: number;
  /** Base of the growing delay, ms: the wait before attempt n is base x 2, 3, 5, 8, 13, ... Default 1 s. */
  readonly delayMs?: number;
  /** Upper limit of one wait. Default 60 s. */
  readonly maxDelayMs?: number;
  /** Fixed delay once a response was throttled, ms. Default 1 s (HTTP-09). */
  readonly throttleDelayMs?: number;
  /** Attempt limit once throttled, where it is higher. Default 25; telemetry leaves its limit alone. */
  readonly throttledAttempts?: number;
  /** No new attempt begins, and none goes on, after this time. Default 2 min. */
  readonly totalMs?: number;
  /** Default 200, 201, 202 (HTTP-05). */
  readonly okStatuses?: readonly number[];
  /** Retryable besides those of HTTP-06. */
  readonly alsoRetry?: readonly number[];
}

/** I/O errors since the last drain, by peer (HTTP-17, MON-03). One for the whole process. */
export interface HttpErrorCounts {
  hostplugin: number;
  protocol: number;
  other: number;
}

export function createHttpErrorCounts(): HttpErrorCounts {
  return { hostplugin: 0, protocol: 0, other: 0 };
}

/** The counts so far; they start again from zero. */
export function drainHttpErrors(counts: HttpErrorCounts): HttpErrorCounts {
  const drained = { ...counts };
  Object.assign(counts, createHttpErrorCounts());
  return drained;
}

export const HOST_PLUGIN_PORT = 32526;
const OK = [200, 201, 202];
const RETRYABLE = [205, 206, 403, 429, 500, 501, 502, 503, 504, 507];
const THROTTLED = [403, 429, 503];
const MAX_RETRY_AFTER_MS = 60_000;
const MAX_BODY_IN_ERROR = 1000;

export interface RetryOptions extends RetryPolicy {
  /** Address of the WireServer, for the buckets of HTTP-17. */
  readonly endpoint?: string | undefined;
  readonly errors?: HttpErrorCounts | undefined;
  /** 0 <= x < 1; default Math.random. Spreads the delays after throttling (DB-14). */
  readonly random?: () => number;
}

/**
 * Errors: AgentError "gone" (410), "invalid-container" (400 that says so), "cancelled", or "http" with the last
 * status; texts have the shapes of HTTP-11 and HTTP-19, without the query of the URL.
 */
export function requestWithRetry(
  system: Pick<System, "http" | "clock">,
  request: HttpRequest,
  options: RetryOptions = {},
): Promise<HttpResponse> {
  return retry(system, request, options, (attempt) => system.http.request(attempt));
}

/** The same for a body that goes to a file. */
export async function downloadWithRetry(
  system: Pick<System, "http" | "clock">,
  request: HttpRequest,
  file: Parameters<System["http"]["download"]>[1],
  options: RetryOptions = {},
): Promise<number> {
  let bytes = 0;
  await retry(system, request, { ...options, okStatuses: [200] }, async (attempt) => {
    const response = await system.http.download(attempt, file);
    bytes = response.bytes;
    return response;
  });
  return bytes;
}

async function retry(
  system: Pick<System, "clock">,
  request: HttpRequest,
  options: RetryOptions,
  send: (request: HttpRequest) => Promise<HttpResponse>,
): Promise<HttpResponse> {
  const ok = options.okStatuses ?? OK;
  const retryable = [...RETRYABLE, ...(options.alsoRetry ?? [])];
  const started = system.clock.monotonic();
  const totalMs = options.totalMs ?? 120_000;
  const label = `${request.method} ${withoutQuery(request.url)}`;
  let limit = options.attempts ?? 6;
  let throttled = false;
  let previous = 1;
  let factor = 2;

  for (let attempt = 1; ; attempt += 1) {
    const left = totalMs - (system.clock.monotonic() - started);
    let failure: AgentError;
    let wait = 0;
    try {
      const deadlineMs = Math.max(1, Math.min(request.deadlineMs ?? 10_000, left));
      const response = await send({ ...request, deadlineMs });
      if (ok.includes(response.status)) return response;
      if (!retryable.includes(response.status)) throw refusal(label, response);
      if (THROTTLED.includes(response.status)) {
        throttled = true;
        limit = Math.max(limit, options.throttledAttempts ?? 25);
        wait = retryAfterMs(response.headers.get("retry-after"), system.clock.now());
      }
      failure = new AgentError(
        "http",
        `[HTTP Retry] ${label} -- Status Code ${response.status} -- ${attempt} attempts made`,
        { status: response.status },
      );
    } catch (error) {
      if (!isTransient(error)) throw error;
      countError(request.url, options);
      failure = new AgentError(
        "http",
        `[HTTP Failed] ${label} -- IOError ${describe(error)} -- ${attempt} attempts made`,
        { errno: error.errno },
      );
    }
    if (attempt >= limit) throw failure;

    const random = options.random ?? Math.random;
    const delay = throttled
      ? Math.max(options.throttleDelayMs ?? 1000, wait) * (1 + random() / 4)
      : Math.min((options.delayMs ?? 1000) * factor, options.maxDelayMs ?? 60_000);
    [previous, factor] = [factor, previous + factor];
    if (system.clock.monotonic() - started + delay >= totalMs) throw failure;
    await system.clock.sleep(delay, request.signal);
  }
}

/** A failure of the connection; a refusal by ourselves, a body that is too large or a cancellation is final. */
function isTransient(error: unknown): error is AgentError {
  return isAgentError(error, "http") && error.status === undefined && error.errno !== "EMSGSIZE";
}

function refusal(label: string, response: HttpResponse): AgentError {
  const { status } = response;
  const body = new TextDecoder().decode(response.body.subarray(0, 64 * 1024));
  const text = body.replace(/[^\x20-\x7e\r\n\t]/g, "").slice(0, MAX_BODY_IN_ERROR);
  const message = `${label}: [HTTP Failed] [${status}: ${response.reason}] ${text}`.trimEnd();
  if (status === 410) return new AgentError("gone", message, { status });
  if (status === 400 && body.includes("InvalidContainerConfiguration"))
    return new AgentError("invalid-container", message, { status });
  return new AgentError("http", message, { status });
}

/** Seconds or an HTTP date, as ms from now; 0 when absent or unreadable; never more than a minute. */
export function retryAfterMs(value: string | undefined, now: number): number {
  if (value === undefined) return 0;
  const text = value.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), MAX_RETRY_AFTER_MS) : 0;
}

function countError(url: string, options: RetryOptions): void {
  if (options.errors === undefined) return;
  options.errors[bucketOf(url, options.endpoint)] += 1;
}

function bucketOf(url: string, endpoint: string | undefined): keyof HttpErrorCounts {
  const target = URL.parse(url);
  if (target === null || target.hostname !== endpoint) return "other";
  return target.port === String(HOST_PLUGIN_PORT) ? "hostplugin" : "protocol";
}

/** The request reached the host plugin and failed there, not behind it (HTTP-20). */
export function failedAtHostPlugin(status: number | undefined): boolean {
  return status !== undefined && status >= 500 && status !== 502;
}
