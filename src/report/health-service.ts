import { describe, isAgentError } from "../base/error.ts";
import { formatJson, toJson, type Json } from "../base/json.ts";
import { requestWithRetry, type HttpErrorCounts } from "../azure/retry.ts";
import { AGENT_NAME } from "../azure/wire-client.ts";
import type { System } from "../system/system.ts";

/** One thing the platform's health service is told (`wire-protocol.md` HSVC-10..14). */
export interface Observation {
  readonly name:
    | "GuestAgentPluginHeartbeat"
    | "GuestAgentPluginStatus"
    | "GuestAgentPluginVersions"
    | "GuestAgentPluginArtifact"
    | "InstanceMetadataHeartbeat";
  readonly healthy: boolean;
  readonly description?: string;
  readonly value?: string;
}

/** Collects observations and hands them over together; a failure costs nothing but the observations (HSVC-02). */
export interface HealthService {
  observe(observation: Observation): void;
  /** Sends what waits, if anything. Errors: only AgentError "cancelled". */
  report(signal?: AbortSignal): Promise<void>;
}

const MAX_NAME = 64;
const MAX_TEXT = 128;
const MAX_QUEUED = 10;
const TOTAL_MS = 60_000;

export function createHealthService(
  system: Pick<System, "http" | "clock" | "log" | "emit">,
  endpoint: string,
  options: { readonly errors?: HttpErrorCounts | undefined } = {},
): HealthService {
  let queue: Json[] = [];

  return {
    observe: (observation) => {
      const document = observationDocument(observation);
      if (queue.length >= MAX_QUEUED) queue = queue.slice(MAX_QUEUED - 1);
      queue.push(document);
      if (observation.healthy) return;
      system.emit({
        operation: "HealthObservation",
        success: false,
        message: formatJson(document),
        log: false,
        task: "MonitorHandler",
      });
    },
    report: async (signal) => {
      if (queue.length === 0) return;
      const observations = queue;
      queue = [];
      try {
        await requestWithRetry(
          system,
          {
            method: "POST",
            url: `http://${endpoint}:80/HealthService`,
            headers: { "Content-Type": "application/json" },
            body: formatJson(
              toJson({
                Api: "reporttargethealth",
                Version: "1.0",
                Source: AGENT_NAME,
                Observations: observations,
              }),
            ),
            proxy: "never",
            signal,
          },
          { endpoint, errors: options.errors, totalMs: TOTAL_MS },
        );
      } catch (error) {
        if (isAgentError(error, "cancelled")) throw error;
        system.log.periodically(
          "WARNING",
          3_600_000,
          `Could not report to the health service: ${describe(error)}`,
          "health service",
        );
      }
    },
  };
}

function observationDocument(observation: Observation): Json {
  return toJson({
    ObservationName: observation.name.slice(0, MAX_NAME),
    IsHealthy: observation.healthy,
    Description: (observation.description ?? usualDescription(observation.name)).slice(0, MAX_TEXT),
    Value: (observation.value ?? "").slice(0, MAX_TEXT),
  });
}

/** Downloads have always been described by the part of the agent that does them (HSVC-13). */
function usualDescription(name: Observation["name"]): string {
  return name === "GuestAgentPluginArtifact" ? "WireClient" : "";
}
