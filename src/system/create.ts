import { createClock } from "./clock.ts";
import { createExec } from "./exec.ts";
import { createFiles } from "./files.ts";
import { createHttp, type HttpOptions } from "./http.ts";
import { createLaunch } from "./launch.ts";
import { createLog, type LogOptions } from "./log.ts";
import type { Root } from "./root.ts";
import type { System } from "./system.ts";

export interface SystemOptions {
  readonly root: Root;
  readonly log: Omit<LogOptions, "root" | "clock">;
  readonly http: Omit<HttpOptions, "root">;
  /** Variables for every helper program, e.g. OPENSSL_FIPS (`system.md` DAEMON-07). */
  readonly environment?: Readonly<Record<string, string>>;
  readonly emit: System["emit"];
}

/** The real machine, or a scratch tree that stands for it. */
export function createSystem(options: SystemOptions): System {
  const { root } = options;
  const clock = createClock();
  return {
    root,
    clock,
    files: createFiles(root),
    exec: createExec(
      root,
      options.environment === undefined ? {} : { environment: options.environment },
    ),
    launch: createLaunch(root),
    http: createHttp({ root, ...options.http }),
    log: createLog({ root, clock, ...options.log }),
    emit: options.emit,
  };
}
