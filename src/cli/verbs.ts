import type { LogIdentity } from "../system/log.ts";
import type { Verb } from "./arguments.ts";

/** One verb of the classic command line, for the usage text, the manual page and completions. */
export interface VerbDefinition {
  /** As it is written in the list of commands. */
  readonly usage: string;
  /** As it is written in the first lines of the usage text, where not the same; undefined leaves it out there. */
  readonly summary?: string | undefined;
  readonly doc: string;
  /** Field 3 and 4 of its log lines (`system.md` DAEMON-02). */
  readonly identity: LogIdentity & { readonly thread: string };
  /** Changes the machine, so only root may run it outside a scratch root (DB-19). */
  readonly needsRoot: boolean;
  /** Knows `--dry-run`. */
  readonly dryRun?: boolean;
}

const MAIN = { thread: "MainThread" } as const;

export const VERBS: Readonly<Record<Verb, VerbDefinition>> = {
  daemon: {
    usage: "-daemon",
    doc: "Run as the agent in the foreground; service managers call this.",
    identity: { thread: "Daemon", prefix: "Daemon" },
    needsRoot: true,
  },
  start: {
    usage: "-start",
    doc: "Start -daemon in the background and return at once.",
    identity: MAIN,
    needsRoot: false,
  },
  "run-exthandlers": {
    usage: "-run-exthandlers",
    doc: "Handle goal states without provisioning, below another daemon.",
    identity: { thread: "ExtHandler", prefix: "ExtHandler" },
    needsRoot: true,
  },
  "register-service": {
    usage: "-register-service",
    doc: "Enable the service, then stop and start it.",
    identity: MAIN,
    needsRoot: true,
  },
  deprovision: {
    usage: "-deprovision",
    summary: "-deprovision[+user]",
    doc: "Remove what makes this machine itself, before its disk becomes an image.",
    identity: MAIN,
    needsRoot: true,
    dryRun: true,
  },
  "deprovision+user": {
    usage: "-deprovision+user",
    summary: undefined,
    doc: "The same, and delete the user that was provisioned, with the home directory.",
    identity: MAIN,
    needsRoot: true,
    dryRun: true,
  },
  "show-configuration": {
    usage: "-show-configuration",
    doc: "Print the effective configuration, one `Key = value` on a line.",
    identity: MAIN,
    needsRoot: false,
  },
  "collect-logs": {
    usage: "-collect-logs [-full]",
    doc: "Collect the logs that support asks for into an archive.",
    identity: { thread: "MainThread", prefix: "LogCollector" },
    needsRoot: true,
  },
  "setup-firewall": {
    usage: "-setup-firewall=<IP>",
    doc: "Add the firewall rules that keep the WireServer at this address for root.",
    identity: { thread: "Firewall", prefix: "Firewall" },
    needsRoot: true,
  },
  serialconsole: {
    usage: "-serialconsole",
    doc: "Put the kernel's console on the serial port from the next boot on.",
    identity: MAIN,
    needsRoot: true,
    dryRun: true,
  },
  version: {
    usage: "-version",
    doc: "Print the versions of the agent, its runtime and the running goal-state agent.",
    identity: MAIN,
    needsRoot: false,
  },
  help: { usage: "-help", doc: "Print this text.", identity: MAIN, needsRoot: false },
};

/** Flags of the classic command line. */
export const FLAGS: readonly { readonly usage: string; readonly doc: string }[] = [
  { usage: "-configuration-path:<path>", doc: "Read this configuration file and no other." },
  { usage: "-verbose", doc: "Log at VERBOSE." },
  { usage: "-force", doc: "Do not ask before deprovisioning." },
  {
    usage: "--dry-run",
    doc: "Say what would be done, and do nothing (deprovisioning, serial console).",
  },
  { usage: "--root=<directory>", doc: "Work on this directory as if it were the whole machine." },
];

/** The operator commands of the usage text; their own arguments are in `operator.ts`. */
export const OPERATORS: readonly { readonly usage: string; readonly doc: string }[] = [
  { usage: "config check|show|default|reference", doc: "Judge, explain and print configuration." },
  {
    usage: "policy check [FILE]",
    doc: "Judge a policy file, and say what it means for extensions.",
  },
  { usage: "status [--json]", doc: "What the agent does now, and what failed." },
  {
    usage: "doctor [--report=FILE]",
    doc: "Find what keeps the agent from its work, and say what to do about it.",
  },
  { usage: "explain HANDLER", doc: "State, last operation and files of one extension." },
  { usage: "egress", doc: "Whom the agent talks to, why, and the key that stops it." },
  { usage: "completion bash|zsh|fish", doc: "Print completions for a shell." },
  { usage: "manual", doc: "Print the manual page." },
];
