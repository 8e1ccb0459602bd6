import type { Sandbox } from "../sandbox.ts";

/** Programs that are found before the machine's own. */
const FOLDER = "/usr/local/sbin";
/** In a stand-in: tells the test where it is, and stays there. */
const STAY = "echo $$ >/run/reached; exec sleep 1000";

/**
 * Runs an operation until a program is at the given point of its work, then kills the agent and the program, as a
 * reset would. In the script `$real` is the program itself. Afterwards everything is as before.
 */
export async function killAt(
  sandbox: Sandbox,
  request: readonly [operation: string, input: Readonly<Record<string, unknown>>],
  point: {
    readonly program: string;
    readonly script: string;
    /** The program goes on without its agent; its script tells by itself that it was reached. */
    readonly outlives?: boolean;
  },
): Promise<void> {
  const { program, script, outlives = false } = point;
  const place = `${FOLDER}/${program}`;
  const earlier = sandbox.exists(place) ? sandbox.read(place) : undefined;
  if (earlier !== undefined) sandbox.write(`${place}.real`, earlier, 0o755);
  const real =
    earlier === undefined
      ? (Bun.which(program, { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }) ?? program)
      : `${place}.real`;
  const end = outlives ? "" : STAY;
  sandbox.write(place, `#!/bin/bash\nreal=${real}\n${script}\n${end}\n`, 0o755);
  const agent = sandbox.spawn(
    ["/srv/bun", "/srv/waagent/test/e2e/machine/driver.ts", request[0], JSON.stringify(request[1])],
    { env: { WAAGENT_SANDBOX: "1" } },
  );
  try {
    for (let waited = 0; reached(sandbox) === ""; waited += 10) {
      if (waited > 60_000) throw new Error(`${program} was not reached: ${agent.output()}`);
      await Bun.sleep(10);
    }
  } finally {
    agent.signal("SIGKILL");
    await agent.exited;
  }
  if (!outlives) await sandbox.run(["kill", "-KILL", reached(sandbox)]);
  await sandbox.run(["rm", "/run/reached", place]);
  if (earlier !== undefined) sandbox.write(place, earlier, 0o755);
}

/** The number of the program that was reached; empty until it is written as a whole. */
function reached(sandbox: Sandbox): string {
  return sandbox.exists("/run/reached") ? sandbox.read("/run/reached").trim() : "";
}

/** mkfs is ended some milliseconds after its start, so that every stretch of its work is hit now and then. */
export const cutShort = (ms: number): string =>
  `$real "$@" & sleep ${ms / 1000}; kill -KILL $!; wait $! 2>/dev/null`;
