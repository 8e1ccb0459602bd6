import type { FabricEvent } from "./fabric.ts";

/** One line for people about an event; undefined when it is not worth one. */
export function eventLine(event: FabricEvent): string | undefined {
  const time = `${(event.at / 1000).toFixed(2).padStart(7)} s`;
  const text = describe(event);
  return text === undefined ? undefined : `${time}  ${text}`;
}

function describe(event: FabricEvent): string | undefined {
  switch (event.type) {
    case "request": {
      const { kind, method, url, status, fault } = event.request;
      const shown = kind === "unknown" ? url : url.replace(/\?.*(sig)=.*/, "?...");
      return `${String(status || "---").padStart(3)} ${kind.padEnd(20)} ${method} ${shown}${fault === undefined ? "" : ` (fault: ${fault})`}`;
    }
    case "violation":
      return `!!! ${event.violation.rule}: ${event.violation.message}`;
    case "health": {
      const { state, subStatus, description } = event.health;
      return `  > the agent says ${state}${subStatus === undefined ? "" : ` (${subStatus}: ${description ?? ""})`}`;
    }
    case "status": {
      const handlers = event.status.document.aggregateStatus.handlerAggregateStatus.map(
        (handler) =>
          `${handler.handlerName} ${handler.runtimeSettingsStatus?.settingsStatus.status.status ?? handler.status}`,
      );
      return `  > status: ${handlers.join(", ") || "no extensions"}`;
    }
    case "telemetry":
      return `  > ${event.records.length} telemetry events`;
    case "goal-state":
      return `  = goal state ${event.index} is in force`;
    case "dhcp":
      return `  > DHCP ${event.text}`;
  }
}
