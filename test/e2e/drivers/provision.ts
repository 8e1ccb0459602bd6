import { appendFileSync, existsSync } from "node:fs";
import { KEYS, type Config } from "../../../src/config/table.ts";
import { detectDistro } from "../../../src/distro/detect.ts";
import { rowOf } from "../../../src/distro/rows.ts";
import { provision } from "../../../src/provision/provision.ts";
import { createSystem } from "../../../src/system/create.ts";
import { Root } from "../../../src/system/root.ts";

/**
 * Provisions the machine it runs on, so only ever inside of a sandbox. The platform is a file that is written to.
 * Argument: JSON of DriverOptions. Standard output: log lines, last the outcome as JSON.
 */
export interface DriverOptions {
  readonly config?: Readonly<Record<string, boolean | number | string>>;
  /** SIGKILL ourselves after this step. */
  readonly dieAfter?: string;
  /** What the platform was told, one JSON array a line. */
  readonly reports: string;
  /** Adapter to take instead of the one that fits this machine. */
  readonly adapter?: string;
}

if (!existsSync("/run/waagent-sandbox"))
  throw new Error("This program changes users and keys: it only runs in a sandbox");
const options = JSON.parse(process.argv[2] ?? "{}") as DriverOptions;
const tell = (...words: string[]): void =>
  appendFileSync(options.reports, `${JSON.stringify(words)}\n`);
const config = {
  ...Object.fromEntries(Object.entries(KEYS).map(([key, { default: value }]) => [key, value])),
  ...options.config,
} as Config;

const root = new Root();
const system = createSystem({
  root,
  log: {
    identity: { thread: "Daemon", prefix: "Daemon" },
    stdout: { level: "VERBOSE", write: (line) => void process.stdout.write(line) },
    file: { level: "INFO", path: "/var/log/waagent.log" },
    console: undefined,
  },
  http: { userAgent: "driver", proxy: { environment: {} } },
  emit: (event) => tell("event", event.operation, String(event.success), event.message),
});

const detected = await detectDistro(system);
const distro =
  options.adapter === undefined
    ? detected
    : { ...detected, ...rowOf(options.adapter), restartSsh: undefined };
const outcome = await provision(system, config, {
  distro,
  agent: "WALinuxAgent/2.15.0.1",
  platform: {
    identify: async () => undefined,
    detect: async () => tell("detect"),
    reportNotReady: async (subStatus, description) => {
      tell("NotReady", subStatus, description);
      return true;
    },
    reportReady: async () => {
      tell("Ready");
      return true;
    },
    reportFingerprint: async (fingerprint) => tell("fingerprint", fingerprint),
  },
  publishHostName: async (name) => {
    system.files.write("/var/lib/waagent/published_hostname", name, { mode: 0o644 });
  },
  afterStep: (name) => {
    process.stdout.write(`step ${name}\n`);
    if (name === options.dieAfter) process.kill(process.pid, "SIGKILL");
  },
});
process.stdout.write(
  `${JSON.stringify({ status: outcome.status, failure: outcome.failure, unreported: outcome.unreported !== undefined })}\n`,
);
