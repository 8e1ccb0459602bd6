import { AgentError, describe, isAgentError } from "../base/error.ts";
import { formatJson, toJson } from "../base/json.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { System } from "../system/system.ts";
import type { StatusBlob } from "./goal-state.ts";
import type { HostPlugin } from "./host-plugin.ts";
import { requestWithRetry } from "./retry.ts";
import type { WireClient } from "./wire-client.ts";

/**
 * Uploads a status document: through the host plugin first, directly when that fails (`wire-protocol.md` §14.5, STAT-03).
 *
 *     const outcome = await uploadStatus(system, { wire, hostPlugin }, { document, blob, signal });
 *
 * "stale-ids": the host plugin answered 410. The ids were refreshed, and the next report is the retry (STAT-03).
 * Errors: AgentError "protocol" when both channels failed, with both reasons.
 */
export async function uploadStatus(
  system: Pick<System, "http" | "clock" | "log" | "emit">,
  peers: { readonly wire: WireClient; readonly hostPlugin: HostPlugin },
  options: StatusUpload,
): Promise<"host" | "direct" | "stale-ids"> {
  const { hostPlugin, wire } = peers;
  const { blob, signal } = options;
  const content = Buffer.from(options.document, "utf8");
  const date = formatTimestamp0(system.clock.now());
  let hostFailure: unknown;
  try {
    await hostPlugin.ensureAvailable(signal);
    for (const put of blobRequests(blob, content, { date, padding: " " }))
      await hostPlugin.putStatus(toHostBody(put), signal);
    return "host";
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    if (isAgentError(error, "gone")) {
      system.log.info("The host plugin says our ids are stale, reading the goal state");
      await hostPlugin.refreshIds(signal);
      return "stale-ids";
    }
    hostFailure = error;
  }
  const message = `Status goes to storage directly, the host plugin failed: ${describe(hostFailure)}`;
  system.log.periodically("INFO", FALLBACK_PERIOD_MS, message, "status falls back");
  system.emit({
    operation: "ReportStatus",
    success: true,
    message,
    periodMs: FALLBACK_PERIOD_MS,
    log: false,
  });
  try {
    for (const { url, headers, body } of blobRequests(blob, content, { date, padding: "\0" })) {
      await requestWithRetry(
        system,
        { method: "PUT", url, headers, body, proxy: "allowed", signal },
        { okStatuses: [201], endpoint: wire.endpoint, errors: wire.errors, totalMs: 60_000 },
      );
    }
    return "direct";
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    throw new AgentError(
      "protocol",
      `The status could not be uploaded. Host plugin: ${describe(hostFailure)}. Directly: ${describe(error)}`,
    );
  }
}

export interface StatusUpload {
  /** JSON in ASCII (STAT-21). */
  readonly document: string;
  readonly blob: StatusBlob;
  readonly signal?: AbortSignal | undefined;
}

/** One PUT of a blob: what goes on the wire directly, or as a description to the host plugin. */
export interface BlobRequest {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

const BLOB_VERSION = "2014-02-14";
const PAGE_BYTES = 512;
const CHUNK_BYTES = 4 * 1024 * 1024;
const FALLBACK_PERIOD_MS = 6 * 3600_000;

/** The requests that make the blob (STAT-40..43). `padding` fills the last page. */
export function blobRequests(
  blob: StatusBlob,
  content: Uint8Array,
  options: { readonly date: string; readonly padding: " " | "\0" },
): readonly BlobRequest[] {
  const common = { "x-ms-date": options.date, "x-ms-version": BLOB_VERSION };
  if (blob.type === "BlockBlob") {
    const headers = {
      "Content-Length": String(content.length),
      "x-ms-blob-type": "BlockBlob",
      ...common,
    };
    return [{ url: blob.url, headers, body: content }];
  }
  const size = Math.ceil(content.length / PAGE_BYTES) * PAGE_BYTES;
  const requests: BlobRequest[] = [
    {
      url: blob.url,
      headers: {
        "Content-Length": "0",
        "x-ms-blob-content-length": String(size),
        "x-ms-blob-type": "PageBlob",
        ...common,
      },
      body: new Uint8Array(),
    },
  ];
  const padded = new Uint8Array(size).fill(options.padding.charCodeAt(0));
  padded.set(content);
  const pageUrl = `${blob.url}${blob.url.includes("?") ? "&" : "?"}comp=page`;
  for (let start = 0; start < size; start += CHUNK_BYTES) {
    const body = padded.subarray(start, Math.min(start + CHUNK_BYTES, size));
    requests.push({
      url: pageUrl,
      headers: {
        "Content-Length": String(body.length),
        ...common,
        "x-ms-range": `bytes=${start}-${start + body.length - 1}`,
        "x-ms-page-write": "update",
      },
      body,
    });
  }
  return requests;
}

/** The description of a blob request that the host plugin carries out (STAT-46): keys sorted, all values text. */
export function toHostBody(request: BlobRequest): string {
  const headers = Object.entries(request.headers)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .map(([headerName, headerValue]) => ({ headerName, headerValue }));
  const content =
    request.body.length === 0 ? undefined : Buffer.from(request.body).toString("base64");
  return formatJson(toJson({ content, headers, requestUri: request.url }));
}
