import { describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import type { Logger } from "../system/log.ts";
import type { System } from "../system/system.ts";
import { describeAction, runAction } from "./deprovision-actions.ts";
import type { DeprovisionPlan } from "./deprovision-plan.ts";

/** The person, or the script, in front of the command. */
export interface Terminal {
  /** One line to standard output. */
  print(line: string): void;
  /** Writes the prompt without a line end and reads one line; undefined at the end of the input. */
  ask(prompt: string): Promise<string | undefined>;
  /** Calls the handler at every interrupt (Ctrl-C) from now on. */
  onInterrupt(handler: () => void): void;
}

export interface DeprovisionOptions {
  readonly distro: Distro;
  readonly plan: DeprovisionPlan;
  readonly terminal: Terminal;
  /** Skips the question, not the warnings (DEPROV-02). */
  readonly force: boolean;
  /** Prints what a run would print, and does nothing. */
  readonly dryRun: boolean;
}

/** Identical to the Python agent's: scripts wait for it (DEPROV-02). */
const PROMPT = "Do you want to proceed (y/n)";

/**
 * Tells, asks, and undoes what provisioning did (DEPROV-01..06). Resolves to the exit code: 0 when all was done or the
 * answer was no, 1 when an action failed or there was nobody to answer (DB-22). A failing action is named and the
 * others are still done.
 */
export async function runDeprovision(
  system: System,
  config: Config,
  options: DeprovisionOptions,
): Promise<number> {
  const { plan, terminal, distro } = options;
  let state: "asking" | "interrupted" | "running" = "asking";
  let interrupt: () => void = () => {};
  const interrupted = new Promise<"interrupted">((resolve) => {
    interrupt = () => resolve("interrupted");
  });
  terminal.onInterrupt(() => {
    if (state === "running") {
      terminal.print("Deprovision may not be interrupted.");
      return;
    }
    state = "interrupted";
    interrupt();
  });

  for (const warning of plan.warnings) terminal.print(warning);
  if (!options.force && !options.dryRun) {
    const answer = await Promise.race([
      terminal.ask(PROMPT).then((line) => ({ line })),
      interrupted,
    ]);
    if (answer === "interrupted") {
      terminal.print("Deprovision is interrupted.");
      return 0;
    }
    if (answer.line === undefined) {
      terminal.print("There is no answer: nothing was done. Use -force to go on without asking.");
      return 1;
    }
    if (!answer.line.toLowerCase().startsWith("y")) return 0;
  }
  state = "running";
  if (options.dryRun) {
    for (const action of plan.actions) terminal.print(describeAction(action));
    return 0;
  }
  // Whatever is logged from here on would bring back the log that is being removed.
  const machine: System = { ...system, log: terminalLog(terminal) };
  let failures = 0;
  for (const action of plan.actions) {
    const line = describeAction(action);
    terminal.print(line);
    try {
      await runAction(machine, config, distro, { action });
    } catch (error) {
      failures += 1;
      terminal.print(`FAILED to ${line}: ${describe(error)}`);
    }
  }
  if (failures > 0)
    terminal.print(`${failures} of ${plan.actions.length} actions failed; the others were done.`);
  return failures === 0 ? 0 : 1;
}

/** Warnings and errors for the person; the rest is noise here. */
function terminalLog(terminal: Pick<Terminal, "print">): Logger {
  const silent = (): void => {};
  const log: Logger = {
    verbose: silent,
    info: silent,
    warning: (message) => terminal.print(message),
    error: (message) => terminal.print(message),
    periodically: silent,
    named: () => log,
    become: silent,
    stopConsole: silent,
    resetPeriodic: silent,
  };
  return log;
}
