import net from "node:net";
import type { Root } from "./root.ts";

/**
 * Single-instance lock: an abstract unix socket, which the kernel frees when its owner dies, so there is no stale
 * state to judge (`system.md` BET-15). One name per root directory and network namespace.
 * Resolves to undefined when another live process holds it.
 */
export function acquireInstanceLock(
  root: Root,
  name: string,
): Promise<{ release(): void } | undefined> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen(`\0waagent:${name}:${root.directory}`, () => {
      server.unref();
      resolve({ release: () => server.close() });
    });
  });
}
