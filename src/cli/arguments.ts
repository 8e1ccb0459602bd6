/** What the classic command line can ask for (`provisioning.md` §18). */
export type Verb =
  | "help"
  | "version"
  | "daemon"
  | "start"
  | "register-service"
  | "run-exthandlers"
  | "deprovision"
  | "deprovision+user"
  | "show-configuration"
  | "collect-logs"
  | "setup-firewall"
  | "serialconsole";

export interface Arguments {
  readonly verb: Verb;
  readonly verbose: boolean;
  readonly debug: boolean;
  readonly force: boolean;
  /** For collect-logs. */
  readonly full: boolean;
  /** Ours: say what would be done. */
  readonly dryRun: boolean;
  /** Every path given with `-configuration-path:`; the last one counts, each must exist (CLI-04). */
  readonly configurationPaths: readonly string[];
  /** Text after `setup-firewall=`, as it is (CLI-05). */
  readonly endpoint: string | undefined;
  /** Ours: the directory that stands for the machine. */
  readonly root: string | undefined;
}

/** A word of ours that stands alone in front, and what follows it: `config check --json`. */
export interface OperatorCall {
  readonly operator: string;
  readonly rest: readonly string[];
  readonly root: string | undefined;
}

/** First words of the operator commands. The Python agent knows none of them and prints its usage. */
export const OPERATOR_WORDS = [
  "status",
  "doctor",
  "explain",
  "config",
  "egress",
  "policy",
  "completion",
  "manual",
] as const;

interface Rule {
  readonly pattern: RegExp;
  readonly apply: (found: RegExpExecArray, before: Arguments) => Partial<Arguments>;
}

const verb = (name: Verb): Partial<Arguments> => ({ verb: name });

/**
 * In the order in which they are tried (CLI-03). Each is a prefix test after any run of `-` and `/` (CLI-01), so
 * `-versionfoo` is version and `-deprovision-user` is deprovision.
 */
const RULES: readonly Rule[] = [
  {
    // The value is the longest run of word characters, `/`, `.` and `-`; the rest is dropped (CLI-04).
    pattern: /^[-/]*configuration-path:([\p{L}\p{N}_/.-]+)/u,
    apply: (found, before) => ({
      configurationPaths: [...before.configurationPaths, found[1] ?? ""],
    }),
  },
  { pattern: /^[-/]*deprovision\+user/, apply: () => verb("deprovision+user") },
  { pattern: /^[-/]*deprovision/, apply: () => verb("deprovision") },
  { pattern: /^[-/]*daemon/, apply: () => verb("daemon") },
  { pattern: /^[-/]*start/, apply: () => verb("start") },
  { pattern: /^[-/]*register-service/, apply: () => verb("register-service") },
  { pattern: /^[-/]*run-exthandlers/, apply: () => verb("run-exthandlers") },
  { pattern: /^[-/]*version/, apply: () => verb("version") },
  { pattern: /^[-/]*verbose/, apply: () => ({ verbose: true }) },
  { pattern: /^[-/]*debug/, apply: () => ({ debug: true }) },
  { pattern: /^[-/]*force/, apply: () => ({ force: true }) },
  { pattern: /^[-/]*show-configuration/, apply: () => verb("show-configuration") },
  { pattern: /^[-/]*(?:help|usage|\?)/, apply: () => verb("help") },
  { pattern: /^[-/]*collect-logs/, apply: () => verb("collect-logs") },
  { pattern: /^[-/]*full/, apply: () => ({ full: true }) },
  {
    pattern: /^[-/]*setup-firewall=([0-9.]{7,})/,
    apply: (found) => ({ verb: "setup-firewall", endpoint: found[1] }),
  },
  // A command of the 2.0 agent that later ones promised and lost (`system.md` CON-01).
  { pattern: /^[-/]*serialconsole/, apply: () => verb("serialconsole") },
  // Ours, spelled in full so that no argument of the Python agent changes its meaning.
  { pattern: /^--dry-run$/, apply: () => ({ dryRun: true }) },
];

const NOTHING: Arguments = {
  verb: "help",
  verbose: false,
  debug: false,
  force: false,
  full: false,
  dryRun: false,
  configurationPaths: [],
  endpoint: undefined,
  root: undefined,
};

/**
 * Reads a command line. The last command wins; an argument that no rule knows makes it help and ends the scan
 * (CLI-02); an empty argument is skipped. Pure: whether paths exist is the caller's question.
 */
export function parseArguments(argv: readonly string[]): Arguments | OperatorCall {
  const root = argv.find((argument) => ROOT.test(argument));
  const words = argv.filter((argument) => !ROOT.test(argument));
  const directory = root === undefined ? undefined : root.slice(root.indexOf("=") + 1);
  const [first, ...rest] = words.filter((argument) => argument !== "");
  if (first !== undefined && OPERATOR_WORDS.some((word) => word === first)) {
    return { operator: first, rest, root: directory };
  }
  return { ...scan(words), root: directory };
}

const ROOT = /^--root=./;

function scan(words: readonly string[]): Arguments {
  let result = NOTHING;
  for (const word of words) {
    if (word === "") continue;
    const change = changeOf(word, result);
    if (change === undefined) return { ...result, verb: "help" };
    result = { ...result, ...change };
  }
  return result;
}

function changeOf(word: string, before: Arguments): Partial<Arguments> | undefined {
  for (const { pattern, apply } of RULES) {
    const found = pattern.exec(word);
    if (found !== null) return apply(found, before);
  }
  return undefined;
}
