import path from "node:path";
import { compile, nativeTarget } from "../../build.ts";
import { AGENT_CONF } from "../e2e/guest.ts";
import { insertDvd, startHost } from "../e2e/host.ts";
import { installReference, startReference } from "../e2e/reference.ts";
import { createSandbox, type Sandbox, type SandboxProcess } from "../e2e/sandbox.ts";
import { type Fabric, isEvent } from "../fabric/fabric.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { binary } from "../support/binary.ts";
import type { AgentName } from "./table.ts";

/** One agent in its own throw-away VM. */
export interface Running extends AsyncDisposable {
  readonly name: AgentName;
  readonly sandbox: Sandbox;
  readonly fabric: Fabric;
  readonly agent: SandboxProcess;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  /** Milliseconds from the agent's start to an event that a scenario would name so. Errors: not within the limit. */
  until(event: string, timeoutMs: number): Promise<number>;
}

export interface StartOptions {
  /** Seconds between polls; default 6, as shipped. */
  readonly period?: number;
  /** Waits are that many times shorter, in both agents. */
  readonly speed?: number;
  /** Lines added to the end of waagent.conf. */
  readonly lines?: readonly string[];
}

/** Starts an agent on the scenario's first boot. */
export async function start(
  name: AgentName,
  scenario: Scenario,
  options: StartOptions = {},
): Promise<Running> {
  const { period = 6, speed = 1, lines = [] } = options;
  const configuration = [benchConfiguration(period), ...lines.map((line) => `${line}\n`)].join("");
  const executable = name === "ours" ? (speed === 1 ? await binary() : fastBinary()) : undefined;
  const sandbox = await createSandbox({
    network: "pair",
    binds: executable === undefined ? [] : [{ from: executable, to: "/usr/sbin/waagent" }],
  });
  try {
    await insertDvd(sandbox, scenario);
    if (name === "reference") {
      await installReference(sandbox, configuration);
      if (speed !== 1) sandbox.write("/opt/bench/sitecustomize.py", FAST_PYTHON);
    } else {
      sandbox.write("/etc/waagent.conf", configuration);
    }
    const fabric = await startHost(sandbox, scenario);
    const startedAt = Date.now();
    const env = { WAAGENT_BENCH_SPEED: String(speed), PYTHONPATH: "/opt/bench" };
    const agent =
      name === "reference"
        ? speed === 1
          ? startReference(sandbox)
          : sandbox.spawn(["/usr/bin/python3", "-u", "/usr/sbin/waagent", "-daemon"], { env })
        : sandbox.spawn(["/usr/sbin/waagent", "-daemon"], { env });
    return {
      name,
      sandbox,
      fabric,
      agent,
      startedAt,
      until: async (event, timeoutMs) => {
        const ended = agent.exited.then((code) => {
          throw new Error(`${name} ended with ${code}:\n${agent.output().slice(-3000)}`);
        });
        const seen = fabric.waitFor((candidate) => isEvent(candidate, event), timeoutMs, event);
        const { at } = await Promise.race([seen, ended]).catch((error: Error) => {
          throw new Error(`${name}: ${error.message}\n${agent.output().slice(-3000)}`);
        });
        return fabric.startedAt + at - startedAt;
      },
      [Symbol.asyncDispose]: async () => {
        await fabric.stop();
        await sandbox[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await sandbox[Symbol.asyncDispose]();
    throw error;
  }
}

/** What both agents run with; `period` in seconds. */
export function benchConfiguration(period: number): string {
  return AGENT_CONF.replaceAll(
    /^(Extensions\.(?:Initial)?GoalStatePeriod)=.*$/gm,
    `$1=${period}`,
  ).replace("Logs.Console=y", "Logs.Console=n");
}

let fast: string | undefined;

/** Our agent with quicker timers (`fast.ts`). */
export function fastBinary(): string {
  fast ??= compile(nativeTarget(), {
    out: path.resolve(import.meta.dir, "../../dist/bench"),
    entry: path.join(import.meta.dir, "fast.ts"),
  }).file;
  return fast;
}

/** The same for the Python agent: every module sees the quicker sleep. */
const FAST_PYTHON = `import os, time
_speed = float(os.environ.get("WAAGENT_BENCH_SPEED", "1"))
_sleep = time.sleep
time.sleep = lambda seconds: _sleep(seconds / _speed)
`;
