import { type CommandDef, defineCommand } from "citty";
import { writeStderr, writeStdout } from "../system/process.ts";
import { EXIT } from "./exit-codes.ts";

/** Commands with whatever arguments: citty's types of a tree of them. */
export type AnyCommand = CommandDef<any>;

/** What a command for people is told besides its arguments. */
export interface OperatorData {
  /** Directory of `--root=`; undefined for the machine itself. */
  readonly root: string | undefined;
}

const JSON_FLAG = { type: "boolean", description: "Print one JSON document." } as const;
const FILE = {
  type: "positional",
  required: false,
  description: "Configuration file; without one, the file that the agent reads.",
} as const;

const configCheck = defineCommand({
  meta: { name: "check", description: "Name every line that does not mean what it seems to mean" },
  args: { file: FILE, json: JSON_FLAG },
  run: async ({ args, data }) => {
    const { checkConfig } = await import("./operator-config.ts");
    return await checkConfig(data as OperatorData, args);
  },
});

const configShow = defineCommand({
  meta: { name: "show", description: "Print effective values and where each one comes from" },
  args: {
    key: { type: "positional", required: false, description: "Only this key." },
    changed: { type: "boolean", description: "Only keys that differ from their default." },
    json: JSON_FLAG,
  },
  run: async ({ args, data }) => {
    const { showConfig } = await import("./operator-config.ts");
    return await showConfig(data as OperatorData, args);
  },
});

const configDefault = defineCommand({
  meta: { name: "default", description: "Print the configuration file that packages install" },
  args: {
    distro: {
      type: "string",
      valueHint: "name",
      description: "ubuntu, suse, ...; without it, the file of this machine's distribution.",
    },
  },
  run: async ({ args, data }) => {
    const { printDefault } = await import("./operator-config.ts");
    return await printDefault(data as OperatorData, args.distro);
  },
});

const configReference = defineCommand({
  meta: { name: "reference", description: "Print every key with its meaning, as Markdown" },
  run: async () => {
    const { configReference: text } = await import("../config/docs.ts");
    writeStdout(text());
    return EXIT.ok;
  },
});

const completion = defineCommand({
  meta: { name: "completion", description: "Print completions for a shell" },
  args: { shell: { type: "positional", required: true, description: "bash, zsh or fish." } },
  run: async ({ args }) => {
    const { completionFor } = await import("./completion.ts");
    const text = completionFor(args.shell);
    if (text === undefined) {
      writeStderr(`There are completions for bash, zsh and fish, not for ${args.shell}\n`);
      return EXIT.usage;
    }
    writeStdout(text);
    return EXIT.ok;
  },
});

const manual = defineCommand({
  meta: { name: "manual", description: "Print the manual page, for man(1)" },
  run: async () => {
    const { manualPage } = await import("./manual.ts");
    writeStdout(manualPage());
    return EXIT.ok;
  },
});

const status = defineCommand({
  meta: { name: "status", description: "What the agent does now, and what failed" },
  args: { json: JSON_FLAG },
  run: async ({ args, data }) => {
    const { showStatus } = await import("./operator-status.ts");
    return await showStatus(data as OperatorData, args);
  },
});

const explain = defineCommand({
  meta: { name: "explain", description: "State, last operation and files of one extension" },
  args: {
    handler: { type: "positional", required: true, description: "Its name, or a part of it." },
    json: JSON_FLAG,
  },
  run: async ({ args, data }) => {
    const { explainHandler } = await import("./operator-status.ts");
    return await explainHandler(data as OperatorData, args);
  },
});

const egress = defineCommand({
  meta: { name: "egress", description: "Whom the agent talks to, why, and the key that stops it" },
  args: { json: JSON_FLAG },
  run: async ({ args, data }) => {
    const { showEgress } = await import("./operator-egress.ts");
    return await showEgress(data as OperatorData, args);
  },
});

const doctor = defineCommand({
  meta: { name: "doctor", description: "Find what keeps the agent from its work" },
  args: {
    all: { type: "boolean", description: "Also say what is well." },
    report: {
      type: "string",
      valueHint: "file",
      description: "Write a report for others, without secrets, to this file.",
    },
    json: JSON_FLAG,
  },
  run: async ({ args, data }) => {
    const { runDoctor } = await import("./operator-doctor.ts");
    return await runDoctor(data as OperatorData, args);
  },
});

const policyCheck = defineCommand({
  meta: { name: "check", description: "Name everything that is wrong with a policy file" },
  args: {
    file: {
      type: "positional",
      required: false,
      description: "Policy file; without one, the file that the agent reads.",
    },
    json: JSON_FLAG,
  },
  run: async ({ args, data }) => {
    const { checkPolicyFile } = await import("./operator-policy.ts");
    return await checkPolicyFile(data as OperatorData, args);
  },
});

/** First words and what they run; the words themselves are `OPERATOR_WORDS`. */
export const OPERATOR_COMMANDS: Readonly<Record<string, AnyCommand>> = {
  config: defineCommand({
    meta: { name: "config", description: "Judge, explain and print configuration" },
    subCommands: {
      check: configCheck,
      show: configShow,
      default: configDefault,
      reference: configReference,
    },
  }),
  policy: defineCommand({
    meta: { name: "policy", description: "Judge a policy for extensions" },
    subCommands: { check: policyCheck },
  }),
  status,
  doctor,
  explain,
  egress,
  completion,
  manual,
};
