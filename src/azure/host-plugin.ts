import { randomUUID } from "node:crypto";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { HttpRequest, HttpResponse } from "../system/http.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { failedAtHostPlugin, requestWithRetry, type RetryPolicy } from "./retry.ts";
import { AGENT_NAME, hostPluginUrl, type HostIds, type WireClient } from "./wire-client.ts";

/**
 * The host plugin: the platform's proxy on the host for storage, and where vmSettings come from
 * (`wire-protocol.md` §12). Its headers are made of the ids the WireServer client knows.
 */
export interface HostPlugin {
  readonly url: string;
  /**
   * Errors: AgentError "not-supported" when the plugin does not speak our version; a negative answer is kept for a
   * minute, so that one status report does not wait for it again and again (HGAP-02, DB-04).
   */
  ensureAvailable(signal?: AbortSignal): Promise<void>;
  /** HGAP-03; asks for the goal state first when no ids are known yet. */
  headers(signal?: AbortSignal): Promise<Readonly<Record<string, string>>>;
  /** The request of a storage GET through the host (HGAP-05). */
  artifactRequest(url: string, options: ArtifactOptions): Promise<HttpRequest>;
  /** PUT /status with the headers of HGAP-03 (STAT-45). Errors: those of requestWithRetry. */
  putStatus(body: string, signal?: AbortSignal): Promise<void>;
  /** PUT /vmAgentLog (HGAP-07). Errors: those of requestWithRetry. */
  putLog(file: SystemPath, options: PutLogOptions): Promise<void>;
  /** GET /health, one attempt (HGAP-04). Resolves to the reason when it is not healthy. */
  health(signal?: AbortSignal): Promise<string | undefined>;
  /** Reads the goal state again, which is what brings fresh ids (GS-11). */
  refreshIds(signal?: AbortSignal): Promise<void>;
  /** Feeds the health bookkeeping of HGAP-09. */
  observe(observation: HostObservation): void;
}

export interface ArtifactOptions {
  /** The current goal state is FastTrack: the host checks the URL against the artifacts blob. */
  readonly verify: boolean;
  /** Where the manifest of this package came from. */
  readonly manifestUri?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface PutLogOptions {
  readonly agentVersion: string;
  readonly signal?: AbortSignal | undefined;
}

/** One result of a host plugin call, for the platform's health service (HSVC-11..13). */
export interface HostObservation {
  readonly name: "GuestAgentPluginStatus" | "GuestAgentPluginVersions" | "GuestAgentPluginArtifact";
  readonly healthy: boolean;
  /** Error text; empty when healthy. */
  readonly value: string;
}

export interface HostPluginOptions {
  /** Receives what HGAP-02 and HGAP-09 let through. */
  readonly onObservation?: ((observation: HostObservation) => void) | undefined;
}

export const HOST_API_VERSION = "2015-09-01";
const UNAVAILABLE_FOR_MS = 60_000;
const LOG_DEADLINE_MS = 30_000;
/** DB-04: a host plugin that hangs costs one upload at most this long before the direct channel is tried. */
const HANDSHAKE: RetryPolicy = { totalMs: 30_000 };
const STATUS: RetryPolicy = { totalMs: 60_000 };

export function createHostPlugin(
  system: Pick<System, "http" | "clock" | "emit">,
  wire: WireClient,
  options: HostPluginOptions = {},
): HostPlugin {
  const url = hostPluginUrl(wire.endpoint);
  const shared = { endpoint: wire.endpoint, errors: wire.errors };
  const observations = createObservationFilter(system, options.onObservation ?? (() => undefined));
  let available = false;
  let unavailable: { until: number; reason: AgentError } | undefined;

  const ids = async (signal?: AbortSignal): Promise<HostIds> => {
    const known = wire.ids();
    if (known !== undefined) return known;
    await wire.goalState(signal);
    const fresh = wire.ids();
    if (fresh === undefined) throw new AgentError("protocol", "The goal state carries no ids");
    return fresh;
  };
  const headers = async (signal?: AbortSignal): Promise<Readonly<Record<string, string>>> => {
    const { containerId, configName } = await ids(signal);
    return {
      "x-ms-version": HOST_API_VERSION,
      "x-ms-containerid": containerId,
      "x-ms-host-config-name": configName,
    };
  };

  const handshake = async (signal?: AbortSignal): Promise<void> => {
    const { containerId } = await ids(signal);
    const request: HttpRequest = {
      method: "GET",
      url: `${url}/versions`,
      headers: { "x-ms-containerid": containerId },
      proxy: "never",
      signal,
    };
    let response: HttpResponse;
    try {
      response = await requestWithRetry(system, request, { ...shared, ...HANDSHAKE });
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      const status = isAgentError(error) ? error.status : undefined;
      const value = describe(error);
      options.onObservation?.({
        name: "GuestAgentPluginVersions",
        healthy: status !== undefined && !failedAtHostPlugin(status),
        value: status !== undefined && !failedAtHostPlugin(status) ? "" : value,
      });
      throw new AgentError("not-supported", `The host plugin is not available: ${value}`);
    }
    options.onObservation?.({ name: "GuestAgentPluginVersions", healthy: true, value: "" });
    if (!response.text().includes(HOST_API_VERSION)) {
      throw new AgentError(
        "not-supported",
        `The host plugin does not offer version ${HOST_API_VERSION}`,
      );
    }
  };

  return {
    url,
    headers,
    ensureAvailable: async (signal) => {
      if (available) return;
      if (unavailable !== undefined && system.clock.monotonic() < unavailable.until)
        throw unavailable.reason;
      try {
        await handshake(signal);
        available = true;
        unavailable = undefined;
        system.emit({
          operation: "InitializeHostPlugin",
          success: true,
          message: `The host plugin offers version ${HOST_API_VERSION}`,
        });
      } catch (error) {
        if (!isAgentError(error, "not-supported")) throw error;
        unavailable = { until: system.clock.monotonic() + UNAVAILABLE_FOR_MS, reason: error };
        system.emit({
          operation: "InitializeHostPlugin",
          success: false,
          message: describe(error),
          log: false,
        });
        throw error;
      }
    },
    artifactRequest: async (location, { verify, manifestUri, signal }) => ({
      method: "GET",
      url: `${url}/extensionArtifact`,
      headers: {
        ...(await headers(signal)),
        "x-ms-artifact-location": location,
        ...(verify ? { "x-ms-verify-from-artifacts-blob": "true" } : {}),
        ...(manifestUri === undefined ? {} : { "x-ms-artifact-manifest-location": manifestUri }),
      },
      proxy: "never",
      signal,
    }),
    putStatus: async (body, signal) => {
      const request: HttpRequest = {
        method: "PUT",
        url: `${url}/status`,
        headers: { ...(await headers(signal)), "Content-type": "application/json" },
        body,
        proxy: "never",
        signal,
      };
      try {
        await requestWithRetry(system, request, { ...shared, ...STATUS });
        observations.add({ name: "GuestAgentPluginStatus", healthy: true, value: "" });
      } catch (error) {
        const healthy = isAgentError(error) && !failedAtHostPlugin(error.status);
        observations.add({
          name: "GuestAgentPluginStatus",
          healthy,
          value: healthy ? "" : describe(error),
        });
        throw error;
      }
    },
    putLog: async (file, { agentVersion, signal }) => {
      const { containerId, deploymentId } = await ids(signal);
      const request: HttpRequest = {
        method: "PUT",
        url: `${url}/vmAgentLog`,
        headers: {
          "x-ms-version": HOST_API_VERSION,
          "x-ms-containerid": containerId,
          "x-ms-vmagentlog-deploymentid": deploymentId,
          "x-ms-client-name": AGENT_NAME,
          "x-ms-client-version": agentVersion,
          "x-ms-client-correlationid": randomUUID(),
        },
        body: { file },
        deadlineMs: LOG_DEADLINE_MS,
        proxy: "never",
        signal,
      };
      await requestWithRetry(system, request, { ...shared, totalMs: 10 * LOG_DEADLINE_MS });
    },
    health: async (signal) => {
      const request: HttpRequest = { method: "GET", url: `${url}/health`, proxy: "never", signal };
      try {
        await requestWithRetry(system, request, { ...shared, attempts: 1, throttledAttempts: 1 });
        return undefined;
      } catch (error) {
        if (isAgentError(error, "cancelled")) throw error;
        return describe(error);
      }
    },
    refreshIds: async (signal) => {
      await wire.goalState(signal);
    },
    observe: (observation) => observations.add(observation),
  };
}

const OBSERVATION_PERIOD_MS = 60_000;
const ERROR_WINDOW_MS = 5 * 60_000;

/**
 * At most one observation a minute for each name; it says unhealthy only when errors have lasted for five minutes
 * without a success between them (HGAP-09).
 */
export function createObservationFilter(
  system: Pick<System, "clock">,
  deliver: (observation: HostObservation) => void,
): { add(observation: HostObservation): void } {
  const failingSince = new Map<string, number>();
  const deliveredAt = new Map<string, number>();
  return {
    add: ({ name, healthy, value }) => {
      const now = system.clock.monotonic();
      if (healthy) failingSince.delete(name);
      else if (!failingSince.has(name)) failingSince.set(name, now);
      const last = deliveredAt.get(name);
      if (last !== undefined && now - last < OBSERVATION_PERIOD_MS) return;
      deliveredAt.set(name, now);
      const since = failingSince.get(name);
      const unhealthy = since !== undefined && now - since >= ERROR_WINDOW_MS;
      deliver({ name, healthy: !unhealthy, value });
    },
  };
}
