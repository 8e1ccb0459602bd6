import { appendFileSync, existsSync } from "node:fs";
import { createRemoteAccessUsers } from "../../../src/agent/remote-access-users.ts";
import { parseRemoteAccess } from "../../../src/azure/remote-access.ts";
import { KEYS, type Config } from "../../../src/config/table.ts";
import { detectDistro } from "../../../src/distro/detect.ts";
import { createSystem } from "../../../src/system/create.ts";
import { Root } from "../../../src/system/root.ts";

/** Lets the agent's just-in-time users come and go on the machine it runs on, so only ever inside of a sandbox. */
export interface RemoteAccessStep {
  readonly incarnation: string;
  /** The platform's document; null when the goal state has none. */
  readonly document: string | null;
  /** Moves the agent's clock, ms. */
  readonly laterMs?: number;
}

if (!existsSync("/run/waagent-sandbox"))
  throw new Error("This program changes users: it only runs in a sandbox");
const steps = JSON.parse(process.argv[2] ?? "[]") as RemoteAccessStep[];
const config = Object.fromEntries(
  Object.entries(KEYS).map(([key, { default: value }]) => [key, value]),
) as unknown as Config;

const real = createSystem({
  root: new Root(),
  log: {
    identity: { thread: "ExtHandler", prefix: "ExtHandler" },
    stdout: { level: "VERBOSE", write: (line) => void process.stdout.write(line) },
    file: undefined,
    console: undefined,
  },
  http: { userAgent: "driver", proxy: { environment: {} } },
  emit: (event) => appendFileSync("/run/events", `${event.operation} ${event.message}\n`),
});
let laterMs = 0;
const system = { ...real, clock: { ...real.clock, now: () => real.clock.now() + laterMs } };
const users = createRemoteAccessUsers(
  system,
  { ...(await detectDistro(system)), justInTimeUsers: true },
  { config, keyFile: () => "/var/lib/waagent/TransportPrivate.pem" },
);
for (const step of steps) {
  laterMs += step.laterMs ?? 0;
  const remoteAccess = step.document === null ? undefined : parseRemoteAccess(step.document);
  await users.update({ incarnation: step.incarnation, remoteAccess });
}
