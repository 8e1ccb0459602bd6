import type { ArgsDef } from "citty";
import { type AnyCommand, OPERATOR_COMMANDS } from "./operator-commands.ts";
import { FLAGS, VERBS } from "./verbs.ts";

interface Word {
  readonly word: string;
  readonly doc: string;
}

/** A script for the shell, or undefined for one we do not know. Made from the same tables as the usage text. */
export function completionFor(shell: "bash" | "zsh" | "fish"): string;
export function completionFor(shell: string): string | undefined;
export function completionFor(shell: string): string | undefined {
  switch (shell) {
    case "bash":
      return bash();
    case "zsh":
      return zsh();
    case "fish":
      return fish();
    default:
      return undefined;
  }
}

/** What may follow the program's name. */
function firstWords(): readonly Word[] {
  const classic = [...Object.values(VERBS), ...FLAGS].map(({ usage, doc }) => ({
    word: (usage.split(" ")[0] ?? usage).replace(/<.*$/, ""),
    doc,
  }));
  const operators = visible(OPERATOR_COMMANDS).map(([word, command]) => ({
    word,
    doc: describeCommand(command),
  }));
  return [...classic, ...operators];
}

/** What may follow an operator word: sub-commands or flags. */
function nextWords(): readonly (readonly [path: string, words: readonly Word[]])[] {
  return visible(OPERATOR_COMMANDS).flatMap(([name, command]) => {
    const children = Object.entries((command.subCommands ?? {}) as typeof OPERATOR_COMMANDS);
    if (children.length === 0) return [[name, flagsOf(command)] as const];
    return [
      [name, children.map(([word, child]) => ({ word, doc: describeCommand(child) }))] as const,
      ...children.map(([word, child]) => [`${name} ${word}`, flagsOf(child)] as const),
    ];
  });
}

function visible(commands: typeof OPERATOR_COMMANDS) {
  return Object.entries(commands).filter(
    ([, { meta }]) => (meta as { hidden?: boolean }).hidden !== true,
  );
}

function describeCommand(command: AnyCommand): string {
  return (command.meta as { description?: string }).description ?? "";
}

function flagsOf(command: AnyCommand): readonly Word[] {
  if (command === OPERATOR_COMMANDS["completion"]) {
    return ["bash", "zsh", "fish"].map((word) => ({ word, doc: "" }));
  }
  return Object.entries((command.args ?? {}) as ArgsDef)
    .filter(([, { type }]) => type !== "positional")
    .map(([name, { type, description }]) => ({
      word: type === "string" ? `--${name}=` : `--${name}`,
      doc: description ?? "",
    }));
}

function bash(): string {
  const cases = nextWords()
    .map(([path, words]) => `    ${quote(path)}) words=${quote(list(words))} ;;\n`)
    .join("");
  return `# bash completion for waagent
_waagent() {
  local words current="\${COMP_WORDS[COMP_CWORD]}" path="\${COMP_WORDS[*]:1:COMP_CWORD-1}"
  case "$path" in
    '') words=${quote(list(firstWords()))} ;;
${cases}    -*) words=${quote(list(firstWords().filter(({ word }) => word.startsWith("-"))))} ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  # More is to be typed behind these: a blank would end the word.
  case "\${COMPREPLY[*]}" in
    *=|*:) compopt -o nospace ;;
  esac
}
complete -o bashdefault -o default -F _waagent waagent
`;
}

function zsh(): string {
  const described = (words: readonly Word[]): string =>
    words
      .map(({ word, doc }) => quote(`${word.replaceAll(":", "\\:")}:${doc.replaceAll(":", "\\:")}`))
      .join(" ");
  const cases = nextWords()
    .map(([path, words]) => `    ${quote(path)}) choices=(${described(words)}) ;;\n`)
    .join("");
  return `#compdef waagent
_waagent() {
  local -a choices
  case "\${words[2,CURRENT-1]}" in
    '') choices=(${described(firstWords())}) ;;
${cases}    *) choices=(${described(firstWords().filter(({ word }) => word.startsWith("-")))}) ;;
  esac
  _describe 'waagent' choices
}
# In a folder of fpath this file is the function; sourced, it only defines it.
if [ "$funcstack[1]" = "_waagent" ]; then _waagent "$@"; else compdef _waagent waagent; fi
`;
}

function fish(): string {
  const line = (condition: string, { word, doc }: Word): string =>
    `complete -c waagent -f -n ${quote(condition)} -a ${quote(word)} -d ${quote(doc)}\n`;
  const first = firstWords().map((word) => line("test (count (commandline -opc)) -eq 1", word));
  const next = nextWords().flatMap(([path, words]) =>
    words.map((word) => line(`test "$(commandline -opc)[2..]" = "${path}"`, word)),
  );
  return `# fish completion for waagent\n${[...first, ...next].join("")}`;
}

function list(words: readonly Word[]): string {
  return words.map(({ word }) => word).join(" ");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
