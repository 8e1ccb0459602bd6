import {
  configKeys,
  type ConfigKey,
  definitionOf,
  INERT_KEYS,
  type KeyDefinition,
} from "./table.ts";

/** The reference of all keys as Markdown, for the README and `waagent config reference`. Pure. */
export function configReference(): string {
  const groups: readonly (readonly [string, readonly ConfigKey[]])[] = [
    [
      "Keys of the Python agent",
      configKeys().filter((key) => definitionOf(key).kind === undefined),
    ],
    ["Keys of this agent only", configKeys().filter((key) => definitionOf(key).kind === "own")],
    [
      "Experimental keys, which may change",
      configKeys().filter((key) => definitionOf(key).kind === "debug"),
    ],
  ];
  const parts = groups.map(([title, keys]) => `### ${title}\n\n${table(keys)}`);
  const inert = INERT_KEYS.map((key) => `\`${key}\``).join(", ");
  return `${parts.join("\n")}\n### Accepted and without effect\n\n${inert}\n`;
}

function table(keys: readonly ConfigKey[]): string {
  const rows = keys
    .toSorted()
    .map((key) => {
      const definition = definitionOf(key);
      return `| \`${key}\` | ${kindOf(definition)} | ${defaultOf(definition)} | ${cell(definition.doc)} |\n`;
    })
    .join("");
  return `| Key | Value | Default | Meaning |\n|---|---|---|---|\n${rows}`;
}

function kindOf(definition: KeyDefinition): string {
  const { minimum, maximum, values } = definition;
  switch (definition.type) {
    case "boolean":
      return "`y` or `n`";
    case "path":
      return "absolute path";
    case "string":
      return values === undefined ? "text" : values.map((value) => `\`${value}\``).join(", ");
    case "integer":
      if (minimum !== undefined && maximum !== undefined) return `${minimum} to ${maximum}`;
      return minimum === undefined ? "whole number" : `${minimum} or more`;
  }
}

function defaultOf(definition: KeyDefinition): string {
  const { follows } = definition;
  const own =
    definition.default === undefined
      ? "unset"
      : typeof definition.default === "boolean"
        ? `\`${definition.default ? "y" : "n"}\``
        : `\`${definition.default}\``;
  return follows === undefined
    ? own
    : `${own}, or as ${follows.map((key) => `\`${key}\``).join(" or ")}`;
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}
