import { AgentError, describe, errnoOf } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { pid } from "../system/process.ts";
import { join, nameOf, parentOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

/** ROOT-01: no password fits, and login programs say so. */
export const LOCKED_ROOT = "root:*LOCK*:14600::::::";

const LOCK_TRIES = 15;
const LOCK_WAIT_MS = 1000;

/**
 * Makes root's password unusable (ROOT-01, ROOT-02, DEPROV-14). The password database is replaced as a whole under
 * the lock of the shadow tools, with owner, mode and label kept (DB-26).
 * Errors: AgentError "os-utility" when the database is missing or locked.
 */
export async function lockRootPassword(
  system: Machine,
  distro: Pick<Distro, "userTool" | "adapter">,
  config: Pick<Config, "OS.PasswordPath">,
): Promise<void> {
  if (distro.userTool === "pw") {
    await system.exec.run({ argv: ["pw", "usermod", "root", "-h", "-"] });
    return;
  }
  if (distro.userTool === "openbsd-useradd") {
    await system.exec.run({ argv: ["usermod", "-p", "*", "root"] });
    return;
  }
  if (distro.userTool === "unsupported") {
    system.log.warning(`root's password cannot be removed on ${distro.adapter}`);
    return;
  }
  const file = config["OS.PasswordPath"] as SystemPath;
  if (!system.files.exists(file) && distro.adapter !== "Clear")
    throw new AgentError("os-utility", `${file} does not exist: root's password was not removed`);
  await withPasswordLock(system, file, async () => {
    const info = system.files.stat(file);
    const text = system.files.readTextIfExists(file) ?? "";
    const lines = text.split("\n").filter((line) => !line.startsWith("root:"));
    const next = [LOCKED_ROOT, ...lines].join("\n");
    const whole = next.endsWith("\n") ? next : `${next}\n`;
    if (whole === text) return;
    system.files.write(file, whole, {
      mode: info?.mode ?? 0o600,
      ...(info === undefined ? {} : { owner: { uid: info.uid, gid: info.gid } }),
    });
    if (system.exec.find("restorecon") !== undefined)
      await system.exec.run({ argv: ["restorecon", file], okCodes: "any" });
  });
}

/** The lock of useradd, chpasswd and passwd: `<file>.lock` holds the owner's pid and appears by link(2). */
async function withPasswordLock(
  system: Machine,
  file: SystemPath,
  action: () => Promise<void>,
): Promise<void> {
  const lock = join(parentOf(file), `${nameOf(file)}.lock`);
  for (let attempt = 1; ; attempt += 1) {
    try {
      system.files.write(lock, `${pid()}\0`, { mode: 0o600, exclusive: true });
      break;
    } catch (error) {
      if (errnoOf(error) !== "EEXIST")
        throw new AgentError("os-utility", `Could not lock ${file}`, { cause: error });
      if (isStale(system, lock)) system.files.remove(lock);
      else if (attempt >= LOCK_TRIES)
        throw new AgentError("os-utility", `${file} is locked by another program (${lock})`);
      else await system.clock.sleep(LOCK_WAIT_MS);
    }
  }
  try {
    await action();
  } finally {
    try {
      system.files.remove(lock);
    } catch (error) {
      system.log.warning(`The lock ${lock} was left behind: ${describe(error)}`);
    }
  }
}

/** Its owner is gone, e.g. we ourselves before a crash. */
function isStale(system: Pick<System, "files">, lock: SystemPath): boolean {
  const pid = /^\d+/.exec(system.files.readTextIfExists(lock) ?? "")?.[0];
  return pid !== undefined && !system.files.exists(`/proc/${pid}`);
}
