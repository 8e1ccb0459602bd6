import type { System } from "../system/system.ts";

/** What the agent's own heartbeat says (`wire-protocol.md` TEL-50, `system.md` DAEMON-18). */
export interface AgentHeartbeat {
  /** Counts from 0. */
  readonly counter: number;
  /** One UUID for each process. */
  readonly id: string;
  /** Goal state updates that failed since the last heartbeat. */
  readonly failedUpdates: number;
  readonly autoUpdate: boolean;
  readonly updateMode: "RSM" | "SelfUpdate";
}

/** On the first pass, then every 30 minutes. */
export const HEARTBEAT_PERIOD_MS = 30 * 60_000;

/** Text of the event; the last semicolon belongs to it. */
export function heartbeatText(heartbeat: AgentHeartbeat): string {
  return (
    `HeartbeatCounter: ${heartbeat.counter};HeartbeatId: ${heartbeat.id.toUpperCase()};` +
    `UpdateGSErrors: ${heartbeat.failedUpdates};AutoUpdate: ${heartbeat.autoUpdate ? 1 : 0};` +
    `UpdateMode: ${heartbeat.updateMode};`
  );
}

/** Sends the event and writes the line that support tools look for. */
export function sendHeartbeat(
  system: Pick<System, "log" | "emit">,
  agentName: string,
  heartbeat: AgentHeartbeat,
): void {
  const message = heartbeatText(heartbeat);
  system.emit({ operation: "HeartBeat", success: true, message });
  system.log.info(`[HEARTBEAT] Agent ${agentName} is running as the goal state agent [${message}]`);
}
