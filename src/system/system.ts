/**
 * Everything impure, as one value that is passed in. A signature such as `Pick<System, "exec" | "files">`
 * says what a function may touch. Only this folder uses `Bun.`, `process.`, `fetch` and the file system.
 */
import type { Clock } from "./clock.ts";
import type { Exec } from "./exec.ts";
import type { Files } from "./files.ts";
import type { Http } from "./http.ts";
import type { Launch } from "./launch.ts";
import type { Logger } from "./log.ts";
import type { Root } from "./root.ts";
import type { TelemetryEvent } from "./event.ts";

export interface System {
  readonly root: Root;
  readonly files: Files;
  readonly exec: Exec;
  readonly launch: Launch;
  readonly http: Http;
  readonly clock: Clock;
  readonly log: Logger;
  /** Records a telemetry event; never throws, never waits. */
  readonly emit: (event: TelemetryEvent) => void;
}
