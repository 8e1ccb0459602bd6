import { USER_AGENT } from "../base/identity.ts";
import { createSystem } from "../system/create.ts";
import type { System } from "../system/system.ts";
import { connectMap, type Ground } from "./context.ts";

/**
 * The machine for commands that only look: unlike `createContext` it makes no file, and what its parts would log goes
 * nowhere. `environment` may name a proxy.
 */
export function createQuietSystem(
  { root, early, loaded }: Ground,
  environment: Readonly<Record<string, string | undefined>>,
): System {
  const { config } = loaded;
  return createSystem({
    root,
    log: {
      identity: { thread: "MainThread" },
      stdout: undefined,
      file: undefined,
      console: undefined,
    },
    http: {
      userAgent: USER_AGENT,
      proxy: { host: config["HttpProxy.Host"], port: config["HttpProxy.Port"], environment },
      connectTo: root.isMachine ? undefined : connectMap(early),
    },
    emit: () => undefined,
  });
}
