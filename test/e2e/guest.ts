import { binary } from "../support/binary.ts";
import { isEvent, type Fabric, type FabricEvent } from "../fabric/fabric.ts";
import { JOURNAL } from "../fabric/package.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { insertDvd, startHost } from "./host.ts";
import { createSandbox, type Sandbox, type SandboxProcess } from "./sandbox.ts";

/** Period of one second, and nothing that needs disks; good for the Python agent too. */
export const AGENT_CONF = `Provisioning.Agent=waagent
Provisioning.RegenerateSshHostKeyPair=y
Provisioning.SshHostKeyPairType=ed25519
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
AutoUpdate.Enabled=n
OS.EnableFirewall=n
Extensions.GoalStatePeriod=1
Extensions.InitialGoalStatePeriod=1
Logs.Console=y
`;

/** A VM with the compiled agent, and the emulated host it talks to. */
export interface Guest extends AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly fabric: Fabric;
  /** The agent's process; replaced by `restart`. */
  readonly agent: SandboxProcess;
  /** Starts the agent again after it ended, as the service manager does. */
  restart(): void;
  /**
   * Resolves with the event, past or coming, that a scenario would name so (`isEvent`). Errors: the limit passed or
   * the agent ended; the agent's last words are part of the message.
   */
  until(name: string, options?: UntilOptions): Promise<FabricEvent>;
}

export interface UntilOptions {
  /** Default 20 s. */
  readonly timeoutMs?: number;
  /** Only events after this moment of the host's clock. */
  readonly after?: number;
}

export interface GuestOptions {
  /** Replaces `AGENT_CONF`. */
  readonly configuration?: string;
  readonly onEvent?: (event: FabricEvent) => void;
  /** Started in the agent's place, e.g. one that watches it. Default /usr/sbin/waagent. */
  readonly program?: string;
  /** The agent that is installed: path on this machine. Default dist/waagent. */
  readonly executable?: string;
  /** false: the guest does not know the root of the storage's certificate. Default true. */
  readonly trusted?: boolean;
  /** Called before the agent starts. */
  readonly prepare?: (sandbox: Sandbox) => Promise<void> | void;
}

/** Boots a VM of the scenario: DVD in, agent installed and started. */
export async function startGuest(scenario: Scenario, options: GuestOptions = {}): Promise<Guest> {
  const sandbox = await createSandbox({
    network: "pair",
    binds: [{ from: options.executable ?? (await binary()), to: "/usr/sbin/waagent" }],
  });
  try {
    // The guest is this machine's own root: what a test extension may have left there is no part of the scenario.
    await sandbox.run(["rm", "-f", JOURNAL, "/var/lib/fabric-secret"]);
    if (scenario.provisioning !== undefined) await insertDvd(sandbox, scenario);
    sandbox.write("/etc/waagent.conf", options.configuration ?? AGENT_CONF);
    await options.prepare?.(sandbox);
    const fabric = await startHost(sandbox, scenario, {
      ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
      trusted: options.trusted ?? true,
    });
    const start = () => sandbox.spawn([options.program ?? "/usr/sbin/waagent", "-daemon"]);
    let agent = start();
    return {
      sandbox,
      fabric,
      get agent() {
        return agent;
      },
      restart: () => {
        agent = start();
      },
      until: (name, { timeoutMs = 20_000, after = 0 } = {}) => {
        const found = fabric.waitFor(
          (event) => event.at >= after && isEvent(event, name),
          timeoutMs,
          name,
        );
        const ended = agent.exited.then((code) => {
          throw new Error(`The agent ended with code ${code} before ${name} was seen`);
        });
        return Promise.race([found, ended]).catch((error: Error) => {
          throw new Error(`${error.message}\n${agent.output().slice(-4000)}`);
        });
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
