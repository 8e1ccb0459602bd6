import type { AgentContext } from "../agent/context.ts";
import { applyBootPlan, describeBootPlan, planSerialConsole } from "../machine/serial-console.ts";
import { kernelRelease } from "../report/os-info.ts";
import { architecture, writeStdout } from "../system/process.ts";
import { EXIT } from "./exit-codes.ts";

/** `-serialconsole [--dry-run]` (`system.md` CON-01, BET-32): prints what it does. Resolves to the exit code. */
export async function serialConsole(
  context: Pick<AgentContext, "system" | "distro">,
  options: { readonly dryRun: boolean },
): Promise<number> {
  const { system, distro } = context;
  const machine = { architecture: architecture(), kernelRelease: kernelRelease(system) };
  const plan = planSerialConsole(system, distro, machine);
  writeStdout(describeBootPlan(plan));
  if (!options.dryRun) await applyBootPlan(system, plan);
  return EXIT.ok;
}
