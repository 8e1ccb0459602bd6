import { AgentError, describe, isAgentError } from "../base/error.ts";
import { withoutQuery } from "../base/redact.ts";
import type { HttpRequest } from "../system/http.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { HostPlugin } from "./host-plugin.ts";
import {
  downloadWithRetry,
  failedAtHostPlugin,
  requestWithRetry,
  type RetryOptions,
} from "./retry.ts";
import type { WireClient } from "./wire-client.ts";

/**
 * Reads from storage, directly or through the host plugin (`wire-protocol.md` §13.2, `extensions.md` EXT-42, EXT-43).
 * One value for the whole process, because the default channel is process-wide (DL-06).
 *
 *     const storage = createStorage(system, wire, hostPlugin);
 *     const { text, uri } = await storage.fetchManifest(handler.manifestUris, { what: "the manifest of X", verify });
 *     await storage.downloadPackage(uris, zip, { what, verify, manifestUri: uri, accept: (file) => unpack(file) });
 */
export interface Storage {
  /**
   * The first manifest that can be had and that `check` does not refuse by throwing: a sign-in page of a proxy is
   * answered with 200 too, and the other channel or URI may have the real one. Errors: AgentError "protocol" naming `what` (MAN-03).
   */
  fetchManifest(
    uris: readonly string[],
    options: FetchOptions & { readonly check?: (text: string) => void },
  ): Promise<{ readonly text: string; readonly uri: string }>;
  /** The artifacts profile with the on-hold flag (ECFG-10). Errors: AgentError "http". */
  fetchProfile(uri: string, signal?: AbortSignal): Promise<string>;
  /**
   * Streams a package into `file`, tries the next URI when `accept` rejects it (DL-07), and always removes the file
   * afterwards. `accept` stops everything by throwing AgentError "refused" (a signature that does not hold, DL-01).
   * Errors: AgentError "protocol" when no URI worked or five minutes have passed.
   */
  downloadPackage(
    uris: readonly string[],
    file: SystemPath,
    options: DownloadOptions,
  ): Promise<void>;
  /** The channel that is tried first. */
  defaultChannel(): Channel;
}

export type Channel = "direct" | "host";

export interface FetchOptions {
  /** For texts, e.g. "the manifest of Contoso.Agent". */
  readonly what: string;
  /** The current goal state is FastTrack (HGAP-05). */
  readonly verify: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface DownloadOptions extends FetchOptions {
  readonly manifestUri?: string | undefined;
  readonly accept: (file: SystemPath) => Promise<void>;
  /** Order of the URIs; default is a random one. */
  readonly shuffle?: (uris: readonly string[]) => readonly string[];
}

const BUDGET_MS = 5 * 60_000;
/** HTTP-04: each read of a package may take this long, so a server that fell silent does not eat the budget. */
const PACKAGE_STALL_MS = 10_000;
const MAX_TEXT_BYTES = 16 * 1024 * 1024;
/** Larger than any package there is; the disk is checked by whoever unpacks. */
const MAX_PACKAGE_BYTES = 4 * 1024 * 1024 * 1024;
const HOST_EVENT_PERIOD_MS = 6 * 3600_000;
const CHANNEL_NAMES: Readonly<Record<Channel, string>> = {
  direct: "Direct",
  host: "HostGAPlugin",
};

export function createStorage(
  system: Pick<System, "http" | "clock" | "log" | "emit" | "files">,
  wire: WireClient,
  hostPlugin: HostPlugin,
): Storage {
  let preferred: Channel = "direct";
  const shared: RetryOptions = { endpoint: wire.endpoint, errors: wire.errors };

  /** DL-03, DL-04: the default channel, then the other one, which becomes the default when it works. */
  const withChannels = async <Result>(
    attempt: (channel: Channel) => Promise<Result>,
  ): Promise<Result> => {
    const first = preferred;
    const second: Channel = first === "direct" ? "host" : "direct";
    let failure: unknown;
    try {
      return await attempt(first);
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      failure = error;
    }
    try {
      const result = await attempt(second);
      if (preferred !== second) {
        preferred = second;
        const message = `Default channel changed to ${CHANNEL_NAMES[second]} channel.`;
        system.log.info(message);
        system.emit({ operation: "DefaultChannelChange", success: true, message });
      }
      return result;
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      throw new AgentError(
        "http",
        `Both channels failed. ${CHANNEL_NAMES[first]}: ${describe(failure)}. ${CHANNEL_NAMES[second]}: ${describe(error)}`,
      );
    }
  };

  /** HGAP-06: stale ids are renewed once by reading the goal state. */
  const throughHost = async <Result>(
    build: () => Promise<HttpRequest>,
    send: (request: HttpRequest) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result> => {
    await hostPlugin.ensureAvailable(signal);
    const observed = async (): Promise<Result> => {
      try {
        const result = await send(await build());
        hostPlugin.observe({ name: "GuestAgentPluginArtifact", healthy: true, value: "" });
        return result;
      } catch (error) {
        const healthy = isAgentError(error) && !failedAtHostPlugin(error.status);
        const value = healthy ? "" : describe(error);
        hostPlugin.observe({ name: "GuestAgentPluginArtifact", healthy, value });
        throw error;
      }
    };
    try {
      return await observed();
    } catch (error) {
      if (!isAgentError(error, "gone", "invalid-container")) throw error;
      system.log.verbose(
        `The host plugin says our ids are stale, reading the goal state: ${describe(error)}`,
      );
      const report = (success: boolean, message: string): void =>
        system.emit({
          operation: "HostPlugin",
          success,
          message,
          periodMs: HOST_EVENT_PERIOD_MS,
          log: false,
        });
      await hostPlugin.refreshIds(signal);
      try {
        const result = await observed();
        report(true, "A request to the host plugin succeeded after its headers were refreshed");
        return result;
      } catch (second) {
        report(false, `A request failed also with fresh headers: ${describe(second)}`);
        throw second;
      }
    }
  };

  /** DL-08. */
  const countFailure = (error: unknown): never => {
    if (!isAgentError(error, "cancelled"))
      system.emit({ operation: "HttpGet", success: false, message: describe(error), log: false });
    throw error;
  };

  const fetchText = (
    uri: string,
    options: Omit<FetchOptions, "what"> & { readonly check?: (text: string) => void },
  ): Promise<string> =>
    withChannels(async (channel) => {
      const { verify, signal, check } = options;
      const send = (request: HttpRequest, retry: RetryOptions): Promise<string> =>
        requestWithRetry(system, { ...request, maxBodyBytes: MAX_TEXT_BYTES }, retry)
          .then((response) => {
            const text = response.text();
            check?.(text);
            return text;
          })
          .catch(countFailure);
      if (channel === "direct")
        return send({ method: "GET", url: uri, proxy: "allowed", signal }, shared);
      return throughHost(
        () => hostPlugin.artifactRequest(uri, { verify, signal }),
        (request) => send(request, { ...shared, alsoRetry: [400] }),
        signal,
      );
    });

  const download = (uri: string, file: SystemPath, options: DownloadOptions): Promise<number> =>
    withChannels(async (channel) => {
      const { verify, manifestUri, signal } = options;
      const limits = {
        maxBodyBytes: MAX_PACKAGE_BYTES,
        deadlineMs: BUDGET_MS,
        stallMs: PACKAGE_STALL_MS,
      };
      const send = (request: HttpRequest): Promise<number> =>
        downloadWithRetry(system, { ...request, ...limits }, file, {
          ...shared,
          totalMs: BUDGET_MS,
        }).catch(countFailure);
      if (channel === "direct") return send({ method: "GET", url: uri, proxy: "allowed", signal });
      return throughHost(
        () => hostPlugin.artifactRequest(uri, { verify, manifestUri, signal }),
        send,
        signal,
      );
    });

  /** DL-01: five minutes in all, looked at between two URIs. */
  const eachUri = async <Result>(
    uris: readonly string[],
    options: Pick<DownloadOptions, "what" | "shuffle"> & { readonly failure: string },
    attempt: (uri: string) => Promise<Result>,
  ): Promise<Result> => {
    const started = system.clock.monotonic();
    const failures: string[] = [];
    for (const uri of (options.shuffle ?? shuffled)(uris)) {
      if (system.clock.monotonic() - started > BUDGET_MS) {
        failures.push(`five minutes have passed`);
        break;
      }
      try {
        return await attempt(uri);
      } catch (error) {
        if (isAgentError(error, "cancelled", "refused")) throw error;
        failures.push(`${withoutQuery(uri)}: ${describe(error)}`);
        system.log.verbose(`Could not get ${options.what}: ${failures.at(-1)}`);
      }
    }
    const reason = failures.length === 0 ? "there is no URI for it" : failures.join("; ");
    throw new AgentError("protocol", `${options.failure} ${options.what}: ${reason}`);
  };

  return {
    defaultChannel: () => preferred,
    fetchProfile: (uri, signal) => fetchText(uri, { verify: false, signal }),
    fetchManifest: (uris, options) =>
      eachUri(uris, { ...options, failure: "Failed to retrieve" }, async (uri) => ({
        text: await fetchText(uri, options),
        uri,
      })),
    downloadPackage: (uris, file, options) =>
      eachUri(uris, { ...options, failure: "Failed to download" }, async (uri) => {
        try {
          await download(uri, file, options);
          await options.accept(file);
        } finally {
          system.files.remove(file);
        }
      }),
  };
}

function shuffled(uris: readonly string[]): readonly string[] {
  return uris
    .map((uri) => ({ uri, key: Math.random() }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ uri }) => uri);
}
