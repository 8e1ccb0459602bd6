import { removeLegacyFiles, restrictSecrets } from "../azure/state-files.ts";
import { AGENT_LONG_NAME } from "../base/identity.ts";
import { describe } from "../base/error.ts";
import { reportConfigurationChanges, reportRestart, SENTINEL_FILE } from "../report/os-info.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";
import { isAgent, type OlderAgent } from "./instance.ts";
import { libDirectory, seconds } from "./settings.ts";

/** What is done once before the tasks start, in the role that handles goal states (`extensions.md` RUN-11). */

const ORPHAN_POLL_MS = 3000;
const ORPHAN_LIMIT_MS = 15 * 60_000;
const TERM_GRACE_MS = 10_000;

/** Puts the state directory in order and reports how the last run ended. */
export function prepareState(
  system: Pick<System, "files" | "log" | "emit">,
  context: AgentContext,
): void {
  const libDir = libDirectory(context.config);
  restrictSecrets(system, libDir);
  const removed = removeLegacyFiles(system, libDir);
  if (removed.length > 0)
    system.log.info(`Removed state files of older agents: ${removed.join(", ")}`);
  const sentinel = join(libDir, SENTINEL_FILE);
  reportRestart(system, sentinel);
  system.files.remove(sentinel);
  reportConfigurationChanges(system, context.config);
}

/** Leaves the sentinel for the next start. A clean end leaves none. */
export function markFailure(
  system: Pick<System, "files">,
  context: AgentContext,
  message: string,
): void {
  try {
    system.files.write(
      join(libDirectory(context.config), SENTINEL_FILE),
      `[${AGENT_LONG_NAME}] [${message}]`,
    );
  } catch {
    // the agent is ending because of an error already; a note more or less does not change that
  }
}

/**
 * Waits for agents of an earlier start to end by themselves, then ends them (`extensions.md` RUN-12, DB-23): two
 * agents must never run commands of the same handler. Errors: AgentError "cancelled".
 */
export async function waitForOlderAgents(
  system: Pick<System, "files" | "log" | "clock" | "exec">,
  older: readonly OlderAgent[],
  signal: AbortSignal,
): Promise<void> {
  for (const { file, pid } of older) {
    const started = system.clock.monotonic();
    let told = false;
    let signalled: number | undefined;
    while (isAgent(system, pid)) {
      const waited = system.clock.monotonic() - started;
      if (!told) system.log.info(`Waiting for the agent of an earlier start, pid ${pid}, to end`);
      told = true;
      if (waited >= ORPHAN_LIMIT_MS) {
        const hard =
          signalled !== undefined && system.clock.monotonic() - signalled >= TERM_GRACE_MS;
        system.log.warning(
          `The agent with pid ${pid} did not end in ${ORPHAN_LIMIT_MS / 60_000} min; sending ${hard ? "SIGKILL" : "SIGTERM"}`,
        );
        signalled ??= system.clock.monotonic();
        await system.exec.run({
          argv: ["kill", hard ? "-KILL" : "-TERM", String(pid)],
          okCodes: "any",
          signal,
        });
      }
      await system.clock.sleep(ORPHAN_POLL_MS, signal);
    }
    system.files.remove(file);
  }
}

/** `Extensions.WaitForCloudInit` (`extensions.md` RUN-18). Whatever comes of it, extensions go on afterwards. */
export async function waitForCloudInit(
  system: Pick<System, "exec" | "log" | "emit">,
  context: Pick<AgentContext, "config">,
  signal: AbortSignal,
): Promise<void> {
  if (!context.config["Extensions.WaitForCloudInit"]) return;
  const report = (success: boolean, message: string): void =>
    system.emit({ operation: "CloudInit", success, message, log: false });
  system.log.info("Waiting for cloud-init to complete...");
  try {
    const { stdout } = await system.exec.run({
      argv: ["cloud-init", "status", "--wait"],
      timeoutMs: seconds(context.config["Extensions.WaitForCloudInitTimeout"]),
      // 2 is "done, with warnings" of newer versions.
      okCodes: [0, 2],
      signal,
    });
    const message = `cloud-init completed\n${stdout.trim()}`;
    system.log.info(message);
    report(true, message);
  } catch (error) {
    if (signal.aborted) throw error;
    const message = `Waiting for cloud-init ended, extensions are processed all the same: ${describe(error)}`;
    system.log.error(message);
    report(false, message);
  }
}
