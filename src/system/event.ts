/** One telemetry event of the agent or of a handler (`wire-protocol.md` TEL-01, §16.6). */
export interface TelemetryEvent {
  /** Wire value of `wire-protocol.md` §16.6, e.g. "HeartBeat". */
  readonly operation: string;
  readonly success: boolean;
  readonly message: string;
  readonly durationMs?: number;
  /** Handler or `handler.extension`; the agent itself when absent. */
  readonly name?: string;
  /** Handler version; the agent's when absent. */
  readonly version?: string;
  /** An identical event is dropped while it was sent within this time (TEL-26). */
  readonly periodMs?: number;
  /** Failed events are logged too, unless false (TEL-55). */
  readonly log?: boolean;
  /** Task that emits it (TEL-04 `TaskName`), e.g. "MonitorHandler"; the process's main task when absent. */
  readonly task?: string;
}
