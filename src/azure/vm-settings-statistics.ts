import type { System } from "../system/system.ts";

export type VmSettingsError =
  "ClientError" | "HttpError" | "RequestFailed" | "ServerError" | "Timeout";

const PERIOD_MS = 3600_000;
const MAX_EVENTS = 3;

/** Bounded error events and the hourly summary of vmSettings requests (`wire-protocol.md` VMS-12, VMS-13). */
export function createVmSettingsStatistics(system: Pick<System, "clock" | "log" | "emit">): {
  request(): void;
  error(
    category: VmSettingsError,
    details: {
      readonly correlationId: string;
      readonly etag: string | undefined;
      readonly detail: string;
    },
  ): void;
  summarizeWhenDue(): void;
} {
  let counts = zero();
  let periodStart = system.clock.monotonic();

  return {
    request: () => {
      counts.requests += 1;
    },
    error: (category, { correlationId, etag, detail }) => {
      counts.errors += 1;
      if (category === "ServerError") counts.serverErrors += 1;
      if (category === "ClientError") counts.clientErrors += 1;
      if (category === "Timeout") counts.timeouts += 1;
      if (category === "RequestFailed") counts.failedRequests += 1;
      if (counts.errors > MAX_EVENTS) return;
      const message = `[${category}] GET vmSettings [correlation ID: ${correlationId} eTag: ${etag ?? "None"}]: ${detail}`;
      system.emit({ operation: "VmSettings", success: true, message });
    },
    summarizeWhenDue: () => {
      const now = system.clock.monotonic();
      if (now - periodStart < PERIOD_MS) return;
      const message = JSON.stringify(counts);
      if (counts.errors > 0) system.log.info(`vmSettings in the last hour: ${message}`);
      system.emit({ operation: "VmSettingsSummary", success: true, message });
      counts = zero();
      periodStart = now;
    },
  };
}

function zero() {
  return {
    requests: 0,
    errors: 0,
    serverErrors: 0,
    clientErrors: 0,
    timeouts: 0,
    failedRequests: 0,
  };
}
