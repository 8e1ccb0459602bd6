/** Runs a packaging tool. Errors: the command, and the end of what it said. Returns standard output. */
export function run(
  command: readonly string[],
  options: { cwd?: string; environment?: Readonly<Record<string, string>> } = {},
): string {
  const [program = ""] = command;
  if (Bun.which(program) === null) throw new MissingProgram(program);
  const done = Bun.spawnSync({
    cmd: [...command],
    cwd: options.cwd ?? "/",
    env: {
      PATH: process.env["PATH"],
      HOME: "/nonexistent",
      LC_ALL: "C.UTF-8",
      ...options.environment,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  if (done.exitCode !== 0) {
    const said = `${done.stdout.toString()}${done.stderr.toString()}`.trim().split("\n").slice(-20);
    throw new Error(`${command.join(" ")} ended with ${done.exitCode}:\n${said.join("\n")}`);
  }
  return done.stdout.toString();
}

/** A format that cannot be built here, and why. */
export class MissingProgram extends Error {
  constructor(program: string) {
    super(`the program ${program} is missing`);
  }
}
