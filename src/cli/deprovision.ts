import type { AgentContext } from "../agent/context.ts";
import { planDeprovision } from "../provision/deprovision-plan.ts";
import { runDeprovision } from "../provision/deprovision.ts";
import { onSignal, readStdinLine, writeStdout } from "../system/process.ts";

/** `-deprovision[+user] [-force] [--dry-run]` (`provisioning.md` §17, CLI-27). Resolves to the exit code. */
export async function deprovision(
  context: Pick<AgentContext, "system" | "config" | "distro">,
  options: { readonly user: boolean; readonly force: boolean; readonly dryRun: boolean },
): Promise<number> {
  const { system, config, distro } = context;
  const plan = await planDeprovision(system, config, { distro, user: options.user });
  return runDeprovision(system, config, {
    distro,
    plan,
    force: options.force,
    dryRun: options.dryRun,
    terminal: {
      print: (line) => writeStdout(`${line}\n`),
      ask: (prompt) => {
        writeStdout(prompt);
        return readStdinLine();
      },
      onInterrupt: (handler) => onSignal("SIGINT", handler),
    },
  });
}
