import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { OPERATOR_WORDS } from "../../../src/cli/arguments.ts";
import { completionFor } from "../../../src/cli/completion.ts";
import { manualPage } from "../../../src/cli/manual.ts";
import { OPERATOR_COMMANDS } from "../../../src/cli/operator-commands.ts";
import { OPERATORS, VERBS } from "../../../src/cli/verbs.ts";
import { configKeys, definitionOf } from "../../../src/config/table.ts";

test("the words of the grammar, the commands and the usage text agree", () => {
  expect(Object.keys(OPERATOR_COMMANDS).toSorted()).toEqual([...OPERATOR_WORDS].toSorted());
  const shown = Object.entries(OPERATOR_COMMANDS).filter(
    ([, { meta }]) => (meta as { hidden?: boolean }).hidden !== true,
  );
  expect(OPERATORS.map(({ usage }) => usage.split(" ")[0] ?? "")).toEqual(
    shown.map(([word]) => word),
  );
  const config = OPERATORS.find(({ usage }) => usage.startsWith("config "));
  expect(config?.usage).toBe(
    `config ${Object.keys(OPERATOR_COMMANDS["config"]?.subCommands ?? {}).join("|")}`,
  );
});

function bash(...words: readonly string[]): readonly string[] {
  const script = `${completionFor("bash")}
    compopt() { :; }
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _waagent; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["-c", script, "bash", ...words], {
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  return stdout.split("\n").filter((line) => line !== "");
}

test("bash completes commands, sub-commands and flags", () => {
  expect(bash("waagent", "-ver")).toEqual(["-version", "-verbose"]);
  expect(bash("waagent", "-verbose", "-da")).toEqual(["-daemon"]);
  expect(bash("waagent", "config", "")).toEqual(["check", "show", "default", "reference"]);
  expect(bash("waagent", "config", "show", "--")).toEqual(["--changed", "--json"]);
  expect(bash("waagent", "completion", "z")).toEqual(["zsh"]);
  expect(bash("waagent", "doc")).toEqual(["doctor"]);
  expect(bash("waagent", "doctor", "--")).toEqual(["--all", "--report=", "--json"]);
  expect(bash("waagent", "policy", "")).toEqual(["check"]);
});

test("zsh and fish know every command; other shells are unknown", () => {
  for (const shell of ["zsh", "fish"]) {
    const text = completionFor(shell) ?? "";
    for (const { usage } of Object.values(VERBS)) {
      expect(text).toContain((usage.split(" ")[0] ?? "").replace(/<.*/, ""));
    }
    expect(text).not.toContain("undefined");
  }
  expect(completionFor("toString")).toBeUndefined();
});

test("the manual page has every command and key, with minus signs that can be copied", () => {
  const page = manualPage();
  for (const { usage } of Object.values(VERBS)) {
    expect(page).toContain(`.B ${usage.replaceAll("-", "\\-")}\n`);
  }
  for (const key of configKeys().filter((name) => definitionOf(name).kind !== "debug")) {
    expect(page).toContain(`.B ${key}\n`);
  }
  const requests = page.split("\n").filter((line) => line.startsWith("."));
  expect(requests.every((line) => /^\.(TH|SH|TP|PP|B|BR|br)\b/.test(line))).toBe(true);
});
