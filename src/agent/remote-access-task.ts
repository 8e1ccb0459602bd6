import type { Session } from "../azure/session.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";
import { createRemoteAccessUsers } from "./remote-access-users.ts";
import { libDirectory } from "./settings.ts";
import type { Task } from "./tasks.ts";

const PERIOD_MS = 60_000;
const LIMIT_MS = 10 * 60_000;
/** The first status goes out before users are made (`wire-protocol.md` JIT-02). */
const DELAY_MS = 5000;

/** Just-in-time users of the current goal state; woken by a new one, and each minute for those that expire (DB-11). */
export function remoteAccessTask(system: System, context: AgentContext, session: Session): Task {
  const { config, distro } = context;
  const key = join(libDirectory(config), "TransportPrivate.pem");
  const users = createRemoteAccessUsers(system, distro, {
    config,
    keyFile: () => (system.files.exists(key) ? key : undefined),
  });
  return {
    thread: "ExtHandler",
    name: "RemoteAccess",
    delayMs: DELAY_MS,
    periodMs: () => PERIOD_MS,
    limitMs: LIMIT_MS,
    run: async (signal) => {
      const goal = session.goals.current();
      if (goal === undefined || goal.remoteAccess?.isUnknown === true) return;
      const { incarnation, remoteAccess } = goal;
      await users.update({ incarnation, remoteAccess }, signal);
    },
  };
}
