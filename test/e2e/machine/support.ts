import path from "node:path";
import { createSandbox, type RunOptions, type Sandbox, type SandboxOptions } from "../sandbox.ts";

const REPOSITORY = path.resolve(import.meta.dir, "../../..");

/** A sandbox in which operations of src/machine can be run from source. */
export async function createMachineSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  return createSandbox({
    ...options,
    binds: [
      { from: REPOSITORY, to: "/srv/waagent" },
      { from: process.execPath, to: "/srv/bun" },
      ...(options.binds ?? []),
    ],
  });
}

/** What the operation returned, and what it logged. */
export async function operate(
  sandbox: Pick<Sandbox, "run">,
  operation: string,
  input: Readonly<Record<string, unknown>> = {},
  options: RunOptions = {},
): Promise<{ readonly result: unknown; readonly log: string; readonly code: number }> {
  const run = await sandbox.run(
    ["/srv/bun", "/srv/waagent/test/e2e/machine/driver.ts", operation, JSON.stringify(input)],
    { ...options, env: { WAAGENT_SANDBOX: "1", ...options.env } },
  );
  return {
    result: run.stdout === "" ? undefined : JSON.parse(run.stdout),
    log: run.stderr,
    code: run.code,
  };
}
