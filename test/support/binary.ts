import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { inputsDigest } from "../../build.ts";

const project = path.resolve(import.meta.dir, "../..");
const file = path.join(project, "dist/waagent");

/**
 * Path of the compiled agent for this machine, built first when it is missing or its sources changed. Several test
 * processes may ask at once: one builds, the others wait. Errors: what the build said.
 */
export function binary(): Promise<string> {
  pending ??= provide();
  return pending;
}

let pending: Promise<string> | undefined;

async function provide(): Promise<string> {
  if (isCurrent()) return file;
  fs.mkdirSync(path.dirname(file), { recursive: true });
  // The builder holds the lock; whoever waited for it finds the file current and is done.
  const built = spawnSync(
    "flock",
    [path.join(project, "dist/.lock"), process.execPath, import.meta.path, "--locked"],
    { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
  );
  if (built.status !== 0) {
    throw new Error(
      `dist/waagent could not be built: ${built.error ?? `${built.stdout}${built.stderr}`}`,
    );
  }
  if (import.meta.main) process.stdout.write(built.stdout);
  return file;
}

function isCurrent(): boolean {
  const note = `${file}.inputs`;
  return (
    fs.existsSync(file) &&
    fs.existsSync(note) &&
    fs.readFileSync(note, "utf8").trim() === inputsDigest()
  );
}

if (import.meta.main) {
  if (process.argv[2] !== "--locked") {
    await binary().catch((error: Error) => {
      console.error(error.message);
      process.exitCode = 1;
    });
  } else if (!isCurrent()) {
    const done = spawnSync(process.execPath, ["build.ts"], { cwd: project, stdio: "inherit" });
    process.exitCode = done.status ?? 1;
  }
}
