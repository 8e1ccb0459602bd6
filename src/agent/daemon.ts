import { createEventSpool } from "../report/events.ts";
import { readEventFacts } from "../report/os-info.ts";
import { describe, isAgentError } from "../base/error.ts";
import { acquireInstanceLock } from "../system/lock.ts";
import { onSignal, parentPid, pid, runtimeVersion } from "../system/process.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { boot, bootSteps, isDisabled } from "./boot.ts";
import { createConnection } from "./connection.ts";
import type { AgentContext } from "./context.ts";
import { claimHandlerPidFile, runningDaemon, writePidFile } from "./instance.ts";
import { profileOf } from "./profile.ts";
import { createOperatorView } from "./operator-view.ts";
import { isOrphan } from "./orphan.ts";
import { serve } from "./serve.ts";
import { libDirectory } from "./settings.ts";
import { markFailure } from "./start-up.ts";

const LOCK_POLL_MS = 50;
const LOCK_PATIENCE_MS = 3000;

/**
 * `waagent -daemon`: one instance, boot steps, then all tasks until a signal (design D1). `-run-exthandlers` is the same
 * without boot steps, below another daemon. Resolves to the exit code: 0 after SIGTERM or when another daemon runs, 1
 * when the agent cannot go on; the service manager then starts it afresh.
 */
export async function runDaemon(context: AgentContext): Promise<number> {
  const { config, distro, version, system: base } = context;
  const { release } = distro;
  base.log.info(`Azure Linux Agent Version:${version}`);
  base.log.info(`OS: ${release.name} ${release.version}`);
  base.log.info(`Bun: ${runtimeVersion()}`);
  return context.arguments.verb === "daemon" ? asDaemon(context) : asExtensionHandler(context);

  async function asDaemon(given: AgentContext): Promise<number> {
    const lock = await becomeOnly();
    if (lock === undefined) return 0;
    prepareLibrary();
    writePidFile(base, config, pid());
    try {
      return await live(given, true);
    } finally {
      lock.release();
    }
  }

  /** undefined when another daemon runs. One that was killed keeps the lock until the kernel has cleared it away. */
  async function becomeOnly(): Promise<{ release(): void } | undefined> {
    for (let waited = 0; ; waited += LOCK_POLL_MS) {
      const other = runningDaemon(base, config, pid());
      const lock = other === undefined ? await acquireInstanceLock(base.root, "daemon") : undefined;
      if (lock !== undefined) return lock;
      if (other !== undefined || waited >= LOCK_PATIENCE_MS) {
        base.log.info(`Daemon is already running: ${other ?? "another process holds the lock"}`);
        return undefined;
      }
      await base.clock.sleep(LOCK_POLL_MS);
    }
  }

  async function asExtensionHandler(given: AgentContext): Promise<number> {
    if (!given.arguments.debug && isOrphan(base, config, parentPid())) {
      base.log.info("The daemon that started this process is gone, ending");
      return 0;
    }
    prepareLibrary();
    return await live(given, false);
  }

  function prepareLibrary(): void {
    const libDir = libDirectory(config);
    if (!base.files.exists(libDir)) base.files.makeDirectory(libDir, { mode: 0o700 });
  }
}

/** From the first event to the last one. */
async function live(context: AgentContext, isDaemon: boolean): Promise<number> {
  const { config, system: base } = context;
  const libDir = libDirectory(config);
  const spool = createEventSpool(base, {
    facts: readEventFacts(base, context.distro, context.version),
    directory: join(libDir, "events"),
    statusFile: join(libDir, "event_status.json"),
    enabled: config["Telemetry.Enabled"],
  });
  const system: System = { ...base, emit: spool.emit };

  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    onSignal(signal, () => {
      system.log.info(`${signal} received, the agent ends`);
      stop.abort();
    });
  }
  const connection = createConnection(system, context);
  const view = createOperatorView(system, context.version);
  try {
    if (isDaemon) {
      await boot(system, bootSteps(system, context, { connection, view }), stop.signal);
      if (isDisabled(system, context)) await aborted(stop.signal);
      system.log.stopConsole();
    }
    if (!profileOf(config).reports) {
      system.log.info(`Agent.Profile is ${config["Agent.Profile"]}: nothing else is done`);
      await aborted(stop.signal);
    }
    const older = claimHandlerPidFile(system, config, pid());
    await serve(system, context, { connection, spool, view, older, stop });
    return 0;
  } catch (error) {
    if (stop.signal.aborted && (isAgentError(error, "cancelled") || error === stop.signal.reason))
      return 0;
    const message = describe(error);
    system.log.error(`The agent ends: ${message}`);
    markFailure(system, context, message);
    return 1;
  }
}

/** Never resolves; rejects when the signal aborts, also when it has already. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const end = (): void => reject(signal.reason as Error);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  });
}
