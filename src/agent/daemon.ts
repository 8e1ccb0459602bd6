import { createEventSpool } from "../report/events.ts";
import { describe, isAgentError } from "../base/error.ts";
import { onSignal, pid, runtimeVersion } from "../system/process.ts";
import { acquireInstanceLock } from "../system/lock.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { boot, bootSteps, isDisabled } from "./boot.ts";
import { createConnection } from "./connection.ts";
import type { AgentContext } from "./context.ts";
import { libDirectory } from "./settings.ts";
import { eventFacts } from "./facts.ts";
import { claimHandlerPidFile, runningDaemon, writePidFile } from "./instance.ts";
import { serve } from "./serve.ts";

/**
 * `waagent -daemon`: one instance, boot steps, then all tasks until a signal (design D1).
 * Resolves to the exit code: 0 after SIGTERM or when another daemon runs, 1 when the agent cannot go on.
 */
export async function runDaemon(context: AgentContext): Promise<number> {
  const { config, distro, version } = context;
  const { log } = context.system;
  const { release } = distro;
  log.info(`Azure Linux Agent Version:${version}`);
  log.info(`OS: ${release.name} ${release.version}`);
  log.info(`Bun: ${runtimeVersion()}`);

  const other = runningDaemon(context.system, config, pid());
  const lock =
    other === undefined ? await acquireInstanceLock(context.system.root, "daemon") : undefined;
  if (lock === undefined) {
    log.info(`Daemon is already running: ${other ?? "it holds the instance lock"}`);
    return 0;
  }

  const libDir = libDirectory(config);
  if (!context.system.files.exists(libDir))
    context.system.files.makeDirectory(libDir, { mode: 0o700 });
  writePidFile(context.system, config, pid());

  const spool = createEventSpool(context.system, {
    facts: eventFacts(context.system, context),
    directory: join(libDir, "events"),
    statusFile: join(libDir, "event_status.json"),
    enabled: config["Telemetry.Enabled"],
  });
  const system: System = { ...context.system, emit: spool.emit };

  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    onSignal(signal, () => {
      log.info(`${signal} received, the agent ends`);
      stop.abort();
    });
  }

  const connection = createConnection(system, context, {});
  try {
    await boot(system, bootSteps(system, context, connection), stop.signal);
    if (isDisabled(system, context)) await forever(stop.signal);
    log.stopConsole();
    claimHandlerPidFile(system, config, pid());
    await serve(system, context, { connection, spool, signal: stop.signal });
    return 0;
  } catch (error) {
    if (isAgentError(error, "cancelled") && stop.signal.aborted) return 0;
    log.error(`The agent ends: ${describe(error)}`);
    return 1;
  } finally {
    lock.release();
  }
}

function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) =>
    signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
  );
}
