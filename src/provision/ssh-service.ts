import { describe } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { System } from "../system/system.ts";

const TIMEOUT_MS = 60_000;

/**
 * Lets sshd take its new keys and configuration (`provisioning.md` SSH-16). An image without host keys boots with an
 * sshd that fails at once, again and again, until systemd gives it up; reloading a service that has failed does
 * nothing, so that one is started. A failure is a line in the log.
 */
export async function restartSsh(
  system: Pick<System, "exec" | "log">,
  distro: Pick<Distro, "restartSsh">,
): Promise<void> {
  const argv = distro.restartSsh;
  if (argv === undefined) return;
  const run = (...words: readonly string[]) =>
    system.exec.run({ argv: words, timeoutMs: TIMEOUT_MS });
  try {
    const unit = argv[0] === "systemctl" ? argv.at(-1) : undefined;
    const state = unit === undefined ? "" : await activeState(system, unit);
    if (unit === undefined || (state !== "failed" && state !== "activating")) {
      await run(...argv);
      return;
    }
    // Takes back the count of failures too: an attempt that is under way may be the last one that is allowed.
    await run("systemctl", "reset-failed", unit);
    // Not waited for: during boot it may have to wait for units that wait for us.
    if (state === "failed") await run("systemctl", "--no-block", "start", unit);
    system.log.info(`${unit} could not start before it had its keys, it is started now`);
  } catch (error) {
    system.log.warning(`The SSH service was not restarted: ${describe(error)}`);
  }
}

async function activeState(system: Pick<System, "exec">, unit: string): Promise<string> {
  const { stdout } = await system.exec.run({
    argv: ["systemctl", "show", "--property=ActiveState", "--value", unit],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
  return stdout.trim();
}
