import type { AgentContext } from "./context.ts";

/** Exit code of a command that this version does not have yet (EX_SOFTWARE). */
const NOT_BUILT = 70;

/** Runs `-daemon` or `-run-exthandlers` until it is told to stop; resolves to the exit code. */
export function runDaemon(context: AgentContext): Promise<number> {
  context.system.log.error(`-${context.arguments.verb} is not part of this version yet`);
  return Promise.resolve(NOT_BUILT);
}
