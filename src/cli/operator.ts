import { type ArgsDef, parseArgs, renderUsage, runCommand } from "citty";
import { describe } from "../base/error.ts";
import { writeStderr, writeStdout } from "../system/process.ts";
import type { OperatorCall } from "./arguments.ts";
import { EXIT } from "./exit-codes.ts";
import { type AnyCommand, OPERATOR_COMMANDS, type OperatorData } from "./operator-commands.ts";

/**
 * The commands for people: `waagent config check --json`. citty reads arguments and renders usage; what it lets pass
 * (unknown flags, words too many, names of built-in properties as commands) is refused here. Resolves to the exit code.
 */
export async function runOperator(call: OperatorCall): Promise<number> {
  const path = [call.operator];
  let rest = call.rest;
  let command: AnyCommand | undefined = childOf(OPERATOR_COMMANDS, call.operator);
  let parent: AnyCommand = { meta: { name: "waagent" } };
  while (command?.subCommands !== undefined) {
    const [word = "", ...others] = rest;
    const next = childOf(command.subCommands as Children, word);
    if (next === undefined) return await refuse(command, parent, unknownCommand(path, word));
    parent = { meta: { name: `waagent ${path.join(" ")}` } };
    path.push(word);
    rest = others;
    command = next;
  }
  // The command line's grammar hands over only words of OPERATOR_WORDS.
  if (command === undefined) return EXIT.notBuilt;
  if (rest.includes("--help") || rest.includes("-h")) {
    writeStdout(`${await renderUsage(command, parent)}\n`);
    return EXIT.ok;
  }
  const problem = problemWith(rest, (command.args ?? {}) as ArgsDef);
  if (problem !== undefined) return await refuse(command, parent, problem);
  try {
    const data: OperatorData = { root: call.root };
    const { result } = await runCommand(command, { rawArgs: [...rest], data });
    return result as number;
  } catch (error) {
    writeStderr(`waagent ${path.join(" ")}: ${describe(error)}\n`);
    return EXIT.failure;
  }
}

type Children = Readonly<Record<string, AnyCommand>>;

function childOf(commands: Children, word: string): AnyCommand | undefined {
  return Object.hasOwn(commands, word) ? commands[word] : undefined;
}

function unknownCommand(path: readonly string[], word: string): string | undefined {
  if (word === "" || word === "--help" || word === "-h") return undefined;
  return `waagent ${path.join(" ")} has no command ${JSON.stringify(word)}`;
}

/** Usage, after the reason where there is one; asking for help is no error. */
async function refuse(
  command: AnyCommand,
  parent: AnyCommand,
  reason: string | undefined,
): Promise<number> {
  const usage = `${await renderUsage(command, parent)}\n`;
  if (reason === undefined) {
    writeStdout(usage);
    return EXIT.ok;
  }
  writeStderr(`${reason}\n\n${usage}`);
  return EXIT.usage;
}

/** Why these arguments do not fit, in words; undefined when they do. */
function problemWith(rest: readonly string[], known: ArgsDef): string | undefined {
  let parsed: Readonly<Record<string, unknown>> & { readonly _: readonly string[] };
  try {
    parsed = parseArgs([...rest], known);
  } catch (error) {
    return describe(error);
  }
  const unknown = Object.keys(parsed).find((name) => name !== "_" && !Object.hasOwn(known, name));
  if (unknown !== undefined) return `--${unknown} is unknown`;
  for (const [name, definition] of Object.entries(known)) {
    if (definition.type === "string" && parsed[name] === "") return `--${name} needs a value`;
  }
  const places = Object.values(known).filter(({ type }) => type === "positional").length;
  const extra = parsed._[places];
  return extra === undefined ? undefined : `${JSON.stringify(extra)} is one word too many`;
}
