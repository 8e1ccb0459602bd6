import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { startGuest } from "../e2e/guest.ts";
import { insertDvd, startHost } from "../e2e/host.ts";
import { canSandbox, createSandbox, type Sandbox } from "../e2e/sandbox.ts";
import { startControlledFabric } from "./control.ts";
import { eventLine } from "./event-line.ts";
import type { Fabric, FabricEvent } from "./fabric.ts";
import type { Scenario } from "./scenario.ts";
import { firstBoot } from "./scenarios.ts";

const USAGE = `An emulated Azure host: WireServer, host plugin, instance metadata, blob store, DHCP.

usage: bun run fabric [--scenario FILE.json] [--agent] [--shell] [--json-log]
       bun run fabric --extension PACKAGE.zip [--settings FILE.json] [--protected FILE.json] [--name NAME] [--keep-logs DIR]
  --scenario FILE  what the host does (type Scenario in test/fabric/scenario.ts); default: one VM, one extension
  --agent          also provisions the guest with the compiled agent and lets it run
  --shell          opens a shell in the guest: a throw-away copy of this machine that reaches the host
  --json-log       one JSON object per event instead of a line of text
  --loopback       no namespaces: listens on free ports of 127.0.0.1 and prints which stands for which address
  --extension FILE takes one package through install, enable, update, disable and uninstall by the compiled agent, and
                   prints what it ran and what the platform would see; exit code 1 when a step does not succeed
  --settings FILE  public settings for --extension;  --protected FILE  protected ones, encrypted on the way
  --name NAME      handler name; default: from the file's name (Publisher.Type__1.2.3.zip) or the handler manifest
  --keep-logs DIR  where logs and output of the extension are copied to
  --inside SOCKET  (used by the tests) runs in this network namespace and is steered through SOCKET
`;

const { values } = parseArgs({
  options: {
    scenario: { type: "string" },
    agent: { type: "boolean" },
    shell: { type: "boolean" },
    "json-log": { type: "boolean" },
    loopback: { type: "boolean" },
    inside: { type: "string" },
    extension: { type: "string" },
    settings: { type: "string" },
    protected: { type: "string" },
    name: { type: "string" },
    "keep-logs": { type: "string" },
    help: { type: "boolean" },
  },
});

if (values.help === true) {
  process.stdout.write(USAGE);
  process.exit(0);
}
if (values.extension !== undefined) {
  // Only here: the tests' guest needs a compiled agent.
  const { runExtension } = await import("./author.ts");
  const code = await runExtension({
    file: values.extension,
    settings: values.settings,
    protected: values.protected,
    name: values.name,
    keepLogs: values["keep-logs"],
    write: (text) => void process.stdout.write(text),
  });
  process.exit(code);
}
const scenario: Scenario =
  values.scenario === undefined
    ? firstBoot()
    : (JSON.parse(readFileSync(values.scenario, "utf8")) as Scenario);
const show = (event: FabricEvent): void => {
  const line = values["json-log"] === true ? JSON.stringify(event) : eventLine(event);
  if (line !== undefined) process.stdout.write(`${line}\n`);
};

if (values.inside !== undefined || values.loopback === true) {
  const fabric = await startControlledFabric(scenario, {
    listen: values.loopback === true ? "loopback" : "platform",
    ...(values.inside === undefined ? {} : { socket: values.inside }),
    onStop: () => void fabric.stop().then(() => process.exit(0)),
    ...(values.inside === undefined ? { onEvent: show } : {}),
  });
  if (values.inside === undefined)
    process.stdout.write(`${JSON.stringify(fabric.connectTo, null, 2)}\n`);
  process.once("SIGINT", () => void fabric.stop().then(() => process.exit(130)));
  process.once("SIGTERM", () => void fabric.stop().then(() => process.exit(143)));
} else {
  await runWithGuest();
}

interface World {
  readonly sandbox: Sandbox;
  readonly fabric: Fabric;
  /** Resolves when there is nothing left to watch. */
  readonly ended: Promise<unknown>;
}

async function withAgent(options: { onEvent?: (event: FabricEvent) => void }): Promise<World> {
  const { sandbox, fabric, agent } = await startGuest(scenario, options);
  return { sandbox, fabric, ended: agent.exited };
}

async function withoutAgent(options: { onEvent?: (event: FabricEvent) => void }): Promise<World> {
  const sandbox = await createSandbox({ network: "pair" });
  try {
    if (scenario.provisioning !== undefined) await insertDvd(sandbox, scenario);
    const fabric = await startHost(sandbox, scenario, options);
    return { sandbox, fabric, ended: new Promise(() => undefined) };
  } catch (error) {
    await sandbox[Symbol.asyncDispose]();
    throw error;
  }
}

/** For people: makes the namespaces, keeps the host running, and gives a shell in the guest on request. */
async function runWithGuest(): Promise<void> {
  const able = canSandbox();
  if (!able.ok) {
    process.stderr.write(`fabric: ${able.reason}\n`);
    process.exit(1);
  }
  // In a shell the lines would get between the prompt and what is typed.
  const onEvent = values.shell === true ? {} : { onEvent: show };
  const { sandbox, fabric, ended } =
    values.agent === true ? await withAgent(onEvent) : await withoutAgent(onEvent);
  const end = async (code: number): Promise<void> => {
    await fabric.stop();
    await sandbox[Symbol.asyncDispose]();
    process.exit(code);
  };
  process.once("SIGINT", () => void end(130));
  process.once("SIGTERM", () => void end(143));
  if (values.shell !== true) {
    process.stdout.write(
      `The host is up. Enter its guest:  nsenter -t ${sandbox.pid} -m -n -p -u -i -- /bin/bash\n`,
    );
    await ended;
    return end(1);
  }
  process.stdout.write("A shell in the guest; 168.63.129.16 answers. End it with exit.\n");
  const shell = Bun.spawn(
    ["nsenter", "-t", String(sandbox.pid), "-m", "-n", "-p", "-u", "-i", "--", "/bin/bash", "-i"],
    {
      stdio: ["inherit", "inherit", "inherit"],
      env: { ...process.env, PS1: "guest# ", HOME: "/root" },
    },
  );
  await shell.exited;
  for (const event of fabric.events) show(event);
  await end(fabric.violations.length === 0 ? 0 : 1);
}
