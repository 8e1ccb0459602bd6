/** Set-up of a machine that has Node and npm and nothing else. Plain Node, because Bun is one of the things it brings. */
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { CI_PACKAGES, DEBIAN_PACKAGES } from "./programs.mjs";

export const project = path.resolve(import.meta.dirname, "../..");

/** Errors that a person can act on: printed without a stack. */
export class SetupError extends Error {}

/** Runs a command with its output kept; errors name the command and end with what it said. */
export function run(command, options = {}) {
  const done = spawnSync(command[0], command.slice(1), {
    cwd: project,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    maxBuffer: 64 << 20,
    ...options,
  });
  if (done.error !== undefined || done.status !== 0) {
    const said = `${done.stdout ?? ""}${done.stderr ?? ""}`
      .trim()
      .split("\n")
      .slice(-15)
      .join("\n");
    const reason = done.error?.message ?? (said || `exit code ${done.status ?? done.signal}`);
    throw new SetupError(`${command.join(" ")}\n${reason}`);
  }
  return done.stdout;
}

/**
 * Path of the pinned Bun, fetched from the npm registry into `.cache/bun` when it is not there. Install scripts are not
 * run (npm 11 refuses them anyway): the program is taken from the platform's own package.
 */
export function provideBun() {
  const lock = path.join(project, "test/support/bun");
  const home = path.join(project, ".cache/bun");
  const { version } = JSON.parse(fs.readFileSync(path.join(lock, "package-lock.json"), "utf8"))
    .packages["node_modules/bun"];
  const found = findBun(home, version);
  if (found !== undefined) return found;
  say(`fetching Bun ${version} from the npm registry`);
  fs.rmSync(home, { recursive: true, force: true });
  fs.mkdirSync(home, { recursive: true });
  for (const name of ["package.json", "package-lock.json"]) {
    fs.copyFileSync(path.join(lock, name), path.join(home, name));
  }
  run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: home,
    // npm hands its own settings down to scripts; a prefix or a production switch would change what is installed here.
    env: withoutNpmSettings(process.env),
  });
  const fetched = findBun(home, version);
  if (fetched !== undefined) return fetched;
  run([process.execPath, "node_modules/bun/install.js"], { cwd: home });
  const installed = findBun(home, version);
  if (installed === undefined) {
    throw new SetupError(
      `The npm package bun ${version} brought no program that runs on ${process.platform} ${process.arch}`,
    );
  }
  return installed;
}

function findBun(home, version) {
  const scope = path.join(home, "node_modules/@oven");
  const packages = fs.existsSync(scope) ? fs.readdirSync(scope) : [];
  const candidates = [
    ...packages.map((name) => path.join(scope, name, "bin/bun")),
    path.join(home, "node_modules/bun/bin/bun.exe"),
  ];
  return candidates.find((file) => {
    if (!fs.existsSync(file)) return false;
    const asked = spawnSync(file, ["--version"], { encoding: "utf8", cwd: "/" });
    return asked.status === 0 && asked.stdout.trim() === version;
  });
}

function withoutNpmSettings(environment) {
  const kept =
    /^npm_config_(registry|cafile|proxy|https_proxy|noproxy|cache|userconfig|globalconfig)$/i;
  return Object.fromEntries(
    Object.entries(environment).filter(([name]) => !/^npm_/i.test(name) || kept.test(name)),
  );
}

/** The npm packages of the lock file, exactly. */
export function installDependencies(bun) {
  run([bun, "install", "--frozen-lockfile"]);
}

/**
 * Installs the Debian packages that are missing, without starting a service. Returns a sentence when that cannot be
 * done here; tests that need them then skip with the program's name.
 */
export function installDebianPackages() {
  const missing = missingPackages();
  if (missing === undefined) {
    return "this machine has no dpkg: tests that need Debian's programs are skipped where one is missing";
  }
  if (missing.length === 0) return undefined;
  if (process.getuid?.() !== 0) {
    return `not root, so these Debian packages stay missing: ${missing.join(" ")}`;
  }
  say(`installing Debian packages: ${missing.join(" ")}`);
  const environment = {
    ...process.env,
    DEBIAN_FRONTEND: "noninteractive",
    DEBIAN_PRIORITY: "critical",
    RUNLEVEL: "1",
    LC_ALL: "C.UTF-8",
  };
  const apt = [
    "apt-get",
    "-q",
    "-y",
    "--no-install-recommends",
    "--no-remove",
    "-o",
    "DPkg::Lock::Timeout=300",
  ];
  const install = (names) =>
    run([...apt, "install", ...names], { env: environment, timeout: 900_000 });
  return withoutServices(() => {
    if (attempt(() => install(missing))) return undefined;
    // No or an old package list.
    attempt(() => run(["apt-get", "-q", "update"], { env: environment, timeout: 300_000 }));
    if (attempt(() => install(missing))) return undefined;
    // One of them does not go with what the machine has.
    for (const name of missing) {
      try {
        install([name]);
      } catch (error) {
        say(`${name}: ${error.message.split("\n").at(-1)}`);
      }
    }
    const still = missingPackages() ?? missing;
    return still.length === 0 ? undefined : `apt-get could not install ${still.join(" ")}`;
  });
}

function attempt(action) {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

/** First of the alternatives of each package that is not there in any of them. */
function missingPackages() {
  const asked = spawnSync("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Status}\n"], {
    encoding: "utf8",
  });
  if (asked.status !== 0) return undefined;
  const installed = new Set(
    asked.stdout
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  const wanted = [...DEBIAN_PACKAGES, ...(process.env.CI === undefined ? [] : CI_PACKAGES)];
  return wanted
    .map((entry) => entry.split("|"))
    .filter((alternatives) => !alternatives.some((name) => installed.has(name)))
    .map(([first]) => first);
}

/** Debian's own switch against services started by an installation (exit code 101: not allowed). */
function withoutServices(action) {
  const file = "/usr/sbin/policy-rc.d";
  const own = !fs.existsSync(file);
  if (own) fs.writeFileSync(file, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    return action();
  } finally {
    if (own) fs.rmSync(file, { force: true });
  }
}

/**
 * Debian's own agent as a package file in `.cache/debian`, for the tests that go from it to ours and back. Without it
 * they skip.
 */
export function fetchDebianAgent() {
  const folder = path.join(project, ".cache/debian");
  const there =
    fs.existsSync(folder) && fs.readdirSync(folder).some((name) => name.endsWith(".deb"));
  if (there || spawnSync("apt-get", ["--version"]).status !== 0) return;
  fs.mkdirSync(folder, { recursive: true });
  // Its sandboxed user cannot write here; only a warning, but not one for our output.
  spawnSync("apt-get", ["-q", "-o", "APT::Sandbox::User=root", "download", "waagent"], {
    cwd: folder,
    stdio: "ignore",
    timeout: 120_000,
  });
}

/** dist/waagent for this machine, built when its inputs changed. */
export function build(bun) {
  process.stdout.write(run([bun, "test/support/binary.ts"]));
}

/**
 * Runs a program in its own process group with its output in a file, and ends the group when time is up.
 * Resolves to its exit code, or undefined when it was ended.
 */
export function runToFile(command, file, options) {
  const output = fs.openSync(file, "w");
  return new Promise((resolve, reject) => {
    const child = spawn(command[0], command.slice(1), {
      cwd: project,
      env: options.env,
      stdio: ["ignore", output, output],
      detached: true,
    });
    const endGroup = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // The group is gone already.
      }
    };
    const onStop = () => {
      endGroup("SIGTERM");
      setTimeout(() => endGroup("SIGKILL"), 10_000).unref();
    };
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      onStop();
    }, options.timeoutMs);
    process.once("SIGINT", onStop).once("SIGTERM", onStop);
    child.once("error", reject);
    child.once("exit", (code) => {
      clearTimeout(timer);
      process.off("SIGINT", onStop).off("SIGTERM", onStop);
      fs.closeSync(output);
      resolve(late ? undefined : (code ?? 128));
    });
  });
}

export function say(sentence) {
  console.log(`# ${sentence}`);
}
