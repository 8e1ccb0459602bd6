import type { AgentContext } from "../agent/context.ts";
import type { Argv } from "../distro/distro.ts";
import { environment, selfCommand, spawnDetached } from "../system/process.ts";
import type { Arguments } from "./arguments.ts";

/**
 * `-register-service` (`provisioning.md` CLI-26, `system.md` INIT-05): one line before each of the three actions; an
 * action that the distribution does not have is skipped. Errors: AgentError of the program that failed; stopping a
 * service that does not run is no failure.
 */
export async function registerService(
  context: Pick<AgentContext, "system" | "distro">,
  say: (line: string) => void,
): Promise<void> {
  const { system, distro } = context;
  const run = async (argv: Argv | undefined, okCodes: "any" | readonly number[]): Promise<void> => {
    if (argv === undefined) return;
    await system.exec.run({ argv, okCodes, timeoutMs: SERVICE_TIMEOUT_MS });
  };
  say(`Register WALinuxAgent service\n`);
  await run(distro.registerService, [0]);
  say(`Stop WALinuxAgent service\n`);
  await run(distro.stopService, "any");
  say(`Start WALinuxAgent service\n`);
  await run(distro.startService, [0]);
}

/** Service managers wait up to 90 s for a unit to stop. */
const SERVICE_TIMEOUT_MS = 120_000;

/**
 * `-start` (`provisioning.md` CLI-23, DB-20): the daemon in its own session with its streams on /dev/null, not waited
 * for. Proxy variables and the like go along; -verbose does not. Returns the pid.
 */
export function startDaemon(given: Arguments, configurationPath: string | undefined): number {
  return spawnDetached(daemonCommand(selfCommand(), given, configurationPath), inherited());
}

/** Pure part of `startDaemon`. */
export function daemonCommand(
  self: readonly string[],
  given: Pick<Arguments, "root">,
  configurationPath: string | undefined,
): readonly string[] {
  return [
    ...self,
    ...(given.root === undefined ? [] : [`--root=${given.root}`]),
    "-daemon",
    ...(configurationPath === undefined ? [] : [`-configuration-path:${configurationPath}`]),
  ];
}

function inherited(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment()).flatMap(([name, value]): [string, string][] =>
      value === undefined ? [] : [[name, value]],
    ),
  );
}
