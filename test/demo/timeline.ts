import type { FabricEvent } from "../fabric/fabric.ts";

const REQUESTS: Readonly<Record<string, string>> = {
  versions: "negotiates the protocol version",
  "goal-state": "reads the goal state",
  "vm-settings": "reads vmSettings of the host plugin",
  "extensions-config": "reads the extensions configuration",
  certificates: "gets the tenant certificates, encrypted for its transport certificate",
  manifest: "reads a manifest",
  package: "downloads a package",
  "plugin-artifact": "downloads through the host plugin",
  "imds-compute": "asks the instance metadata service",
  telemetry: "sends telemetry",
};

/**
 * Turns events of the host into lines for people: every first time, every change, and not the same poll each second.
 */
export function eventsToLine(): (event: FabricEvent) => string | undefined {
  const seen = new Set<string>();
  let lastStatus = "";
  return (event) => {
    switch (event.type) {
      case "dhcp":
        return once(seen, "dhcp", "asks DHCP for the endpoint (option 245)");
      case "request": {
        const { kind, url, status } = event.request;
        const text = REQUESTS[kind];
        if (text === undefined || status === 304) return undefined;
        const name =
          kind === "manifest" || kind === "package" ? `${text}: ${url.split("/").at(-1)}` : text;
        return once(seen, name, name);
      }
      case "health": {
        const { state, subStatus } = event.health;
        return `reports ${state}${subStatus === undefined ? "" : ` (${subStatus})`}`;
      }
      case "status": {
        const handlers = event.status.document.aggregateStatus.handlerAggregateStatus.map(
          (handler) =>
            `${handler.handlerName} ${handler.runtimeSettingsStatus?.settingsStatus.status.status ?? handler.status} (settings ${handler.runtimeSettingsStatus?.sequenceNumber ?? "none"})`,
        );
        const text = `uploads status: ${handlers.join(", ") || "no extensions yet"}`;
        if (text === lastStatus) return undefined;
        lastStatus = text;
        return text;
      }
      case "violation":
        return `BREAKS A RULE: ${event.violation.rule}: ${event.violation.message}`;
      case "goal-state":
        // The platform's next goal is read anew.
        for (const name of ["goal-state", "vm-settings", "extensions-config"])
          seen.delete(REQUESTS[name]!);
        return undefined;
      case "telemetry":
        return undefined;
    }
  };
}

function once(seen: Set<string>, key: string, text: string): string | undefined {
  if (seen.has(key)) return undefined;
  seen.add(key);
  return text;
}
