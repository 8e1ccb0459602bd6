/** Shell completions, from one list of words. */

/** Verbs of the command line as people type them. */
export const VERBS: readonly (readonly [string, string])[] = [
  ["-version", "print the versions of the agent and of what runs it"],
  ["-help", "print the usage"],
  ["-daemon", "run the agent in the foreground"],
  ["-start", "start the agent in the background"],
  ["-run-exthandlers", "run the agent without provisioning"],
  ["-register-service", "enable and start the service"],
  ["-deprovision", "make the machine an image"],
  ["-deprovision+user", "the same, and delete the provisioned user"],
  ["-show-configuration", "print the effective configuration"],
  ["-collect-logs", "put logs and state into an archive"],
  ["-setup-firewall=", "protect the platform's address"],
];

/** Flags that go with a verb. */
export const FLAGS: readonly (readonly [string, string])[] = [
  ["-verbose", "log more"],
  ["-force", "do not ask"],
  ["-configuration-path:", "read this configuration file"],
];

export function bashCompletion(): string {
  const words = [...VERBS, ...FLAGS].map(([word]) => word).join(" ");
  return [
    "# bash completion for waagent",
    "_waagent() {",
    "  local word=${COMP_WORDS[COMP_CWORD]}",
    `  mapfile -t COMPREPLY < <(compgen -W "${words}" -- "$word")`,
    "}",
    "complete -o default -F _waagent waagent",
    "",
  ].join("\n");
}

export function zshCompletion(): string {
  const word = ([name, meaning]: readonly [string, string]) =>
    `    '${name.replaceAll(":", "\\:")}:${meaning}'`;
  return [
    "#compdef waagent",
    "_waagent() {",
    "  local -a words",
    "  words=(",
    ...[...VERBS, ...FLAGS].map(word),
    "  )",
    "  _describe 'waagent' words",
    "}",
    '_waagent "$@"',
    "",
  ].join("\n");
}

export function fishCompletion(): string {
  return [
    "# fish completion for waagent",
    "complete -c waagent -f",
    ...[...VERBS, ...FLAGS].map(
      ([word, meaning]) => `complete -c waagent -a '${word}' -d '${meaning}'`,
    ),
    "",
  ].join("\n");
}
