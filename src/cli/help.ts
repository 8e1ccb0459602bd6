import { FLAGS, OPERATORS, VERBS } from "./verbs.ts";

/**
 * The usage text (`provisioning.md` CLI-22): an empty line, `usage: <program> ...` with every flag and command that the
 * Python agent lists, then what each one does. `-debug` and `-full` alone stay unmentioned, as there (CLI-07).
 */
export function helpText(program: string): string {
  const verbs = Object.values(VERBS);
  const commands = verbs
    .map((verb) => ("summary" in verb ? verb.summary : verb.usage))
    .filter((text) => text !== undefined)
    .join(" | ");
  const lines = [
    "",
    `usage: ${program} [-verbose] [-force] [-help] [-configuration-path:<path>]`,
    ...wrap(`       ${"".padEnd(program.length)} `, commands),
    "",
    "Commands:",
    ...table(verbs),
    "",
    "Flags:",
    ...table(FLAGS),
    "",
    "For operators:",
    ...table(OPERATORS),
    "",
  ];
  return `${lines.join("\n")}\n`;
}

const WIDTH = 100;
const COLUMN = 30;

function table(rows: readonly { readonly usage: string; readonly doc: string }[]): string[] {
  return rows.flatMap(({ usage, doc }) =>
    usage.length < COLUMN - 1
      ? [`  ${usage.padEnd(COLUMN)}${doc}`]
      : [`  ${usage}`, `  ${"".padEnd(COLUMN)}${doc}`],
  );
}

/** Words behind an indent, broken between alternatives. */
function wrap(indent: string, text: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" | ")) {
    const next = line === "" ? word : `${line} | ${word}`;
    if (line !== "" && indent.length + next.length > WIDTH) {
      lines.push(`${indent}${line} |`);
      line = word;
    } else line = next;
  }
  return [...lines, `${indent}${line}`];
}
