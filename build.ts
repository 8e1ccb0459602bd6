/**
 * Compiles the agent: `bun build.ts [--target NAME]... [--all] [--out DIR] [--entry FILE]`. Without a target, for this
 * machine. Each executable lies in `OUT/NAME/waagent`; the one for this machine is also `OUT/waagent`, and has been run
 * in a hostile directory before it gets there.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { zstdCompressSync } from "node:zlib";

export const TARGETS = ["linux-x64", "linux-arm64", "linux-x64-musl", "linux-arm64-musl"] as const;
/** Compiles, but nobody has run it: only when asked for by name. */
const UNTESTED_TARGETS = ["freebsd-x64"] as const;
export type Target = (typeof TARGETS)[number] | (typeof UNTESTED_TARGETS)[number];

/**
 * `bun-facts.md` §1-3. Without the autoload switches a compiled program runs code it finds in its working directory;
 * a high JIT threshold halves private memory and costs little. With splitting, a command loads only the modules it
 * imports: `-version` takes 6 ms instead of 9.
 */
export const FLAGS: readonly string[] = [
  "--compile",
  "--production",
  "--minify",
  "--keep-names",
  "--bytecode",
  "--splitting",
  "--format=esm",
  "--sourcemap",
  "--reject-unresolved",
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-bunfig",
  "--no-compile-autoload-tsconfig",
  "--no-compile-autoload-package-json",
  "--compile-jit-policy=1000",
];

const project = import.meta.dir;

export interface Built {
  readonly target: Target;
  readonly file: string;
  readonly bytes: number;
  readonly sha256: string;
}

/** What the executable is made of: a change of this value means that it is out of date. */
export function inputsDigest(): string {
  const hash = createHash("sha256");
  const files = ["build.ts", "package.json", "bun.lock"];
  for (const file of new Bun.Glob("src/**").scanSync(project)) files.push(file);
  for (const file of files.sort()) {
    hash
      .update(`${file}\0`)
      .update(fs.readFileSync(path.join(project, file)))
      .update("\0");
  }
  return hash.update(Bun.version).digest("hex");
}

/** The target that runs on this machine. Errors: a machine none of the targets is for. */
export function nativeTarget(): Target {
  const musl = isMuslProgram(process.execPath);
  const name = `${process.platform}-${process.arch}${musl ? "-musl" : ""}`;
  const target = [...TARGETS, ...UNTESTED_TARGETS].find((candidate) => candidate === name);
  if (target === undefined) throw new Error(`No target for this machine (${name})`);
  return target;
}

/** Whether the program asks for musl's loader; its name stands near the beginning of the file. */
function isMuslProgram(file: string): boolean {
  const descriptor = fs.openSync(file, "r");
  try {
    const head = Buffer.alloc(4096);
    fs.readSync(descriptor, head, 0, head.length, 0);
    return head.includes("/ld-musl-");
  } finally {
    fs.closeSync(descriptor);
  }
}

export interface CompileOptions {
  readonly out: string;
  /** Default src/main.ts. */
  readonly entry?: string;
  /** Default FLAGS; others only to prove that the proof below finds something. */
  readonly flags?: readonly string[];
}

/** Compiles one executable. The runtime of a foreign target comes through the npm registry, once. */
export function compile(target: Target, options: CompileOptions): Built {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-build-"));
  try {
    const outfile = path.join(work, "waagent");
    const built = Bun.spawnSync({
      cmd: [
        process.execPath,
        "build",
        ...(options.flags ?? FLAGS),
        `--target=bun-${target}`,
        `--outfile=${outfile}`,
        options.entry ?? path.join(project, "src/main.ts"),
      ],
      cwd: project,
      stdout: "pipe",
      stderr: "pipe",
    });
    if (built.exitCode !== 0 || !fs.existsSync(outfile)) {
      const said = `${built.stdout.toString()}${built.stderr.toString()}`.trim();
      const offline =
        target === nativeTarget()
          ? ""
          : `\nThe Bun ${Bun.version} runtime for ${target} is fetched from the npm registry once; without a network` +
            " build it on a machine of that kind, or run this once with a network.";
      throw new Error(`Compiling for ${target} failed:\n${said}${offline}`);
    }
    const folder = path.join(options.out, target);
    const file = path.join(folder, "waagent");
    fs.mkdirSync(folder, { recursive: true });
    const bytes = fs.readFileSync(outfile);
    putInPlace(bytes, file);
    return {
      target,
      file,
      bytes: bytes.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    };
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

/** By rename, because the file in place may be running. */
function putInPlace(bytes: Uint8Array, file: string): void {
  const temporary = `${file}.${process.pid}`;
  fs.writeFileSync(temporary, bytes, { mode: 0o755 });
  fs.renameSync(temporary, file);
}

/**
 * Runs the executable in a directory full of files that a Bun program may load by itself, and proves that none was:
 * the traps leave no mark, and where strace is at hand no trap was even opened. Errors: names what was read.
 */
export function proveHardened(file: string): void {
  const trap = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-trap-"));
  try {
    const mark = path.join(trap, "mark");
    const spring = `require("node:fs").appendFileSync(${JSON.stringify(mark)}, "preload\\n");`;
    const traps: Readonly<Record<string, string>> = {
      ".env": "BUN_OPTIONS=--preload ./trap.cjs\nWAAGENT_TRAP=1\n",
      ".env.production": "WAAGENT_TRAP=1\n",
      ".env.local": "WAAGENT_TRAP=1\n",
      "bunfig.toml": 'preload = ["./trap.cjs"]\n[run]\npreload = ["./trap.cjs"]\n',
      "tsconfig.json": '{"compilerOptions":{"paths":{"*":["./trap.cjs"]}}}\n',
      "package.json": '{"name":"trap","type":"commonjs","imports":{"#*":"./trap.cjs"}}\n',
      "trap.cjs": spring,
      "node_modules/citty/index.js": spring,
      "node_modules/consola/index.js": spring,
    };
    for (const [name, text] of Object.entries(traps)) {
      fs.mkdirSync(path.dirname(path.join(trap, name)), { recursive: true });
      fs.writeFileSync(path.join(trap, name), text);
    }
    const strace = Bun.which("strace");
    const trace = path.join(trap, "trace");
    const command = [file, "-version"];
    const tracer = [strace ?? "", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace];
    const run = Bun.spawnSync({
      cmd: strace === null ? command : [...tracer, ...command],
      cwd: trap,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME: trap },
      stdout: "pipe",
      stderr: "pipe",
    });
    const said = `${run.stdout.toString()}${run.stderr.toString()}`;
    if (run.exitCode !== 0 || !said.includes(packageVersion())) {
      throw new Error(`${file} -version ended with ${run.exitCode} and printed:\n${said}`);
    }
    if (fs.existsSync(mark)) throw new Error(`${file} ran code of its working directory`);
    if (strace !== null) {
      const lines = fs.readFileSync(trace, "utf8").split("\n");
      if (lines.length < 3) throw new Error(`strace recorded nothing about ${file}`);
      const read = lines.filter((line) => {
        const opened = /"([^"]*)"/.exec(line)?.[1] ?? "/";
        return !opened.startsWith("/") || opened.startsWith(`${trap}/`);
      });
      if (read.length > 0)
        throw new Error(`${file} opened files of its working directory:\n${read.join("\n")}`);
    }
  } finally {
    fs.rmSync(trap, { recursive: true, force: true });
  }
}

/** Four numbers, one place (design D8). */
export function packageVersion(): string {
  const { version } = JSON.parse(fs.readFileSync(path.join(project, "package.json"), "utf8")) as {
    version: string;
  };
  return version;
}

interface Request {
  readonly targets: readonly Target[];
  readonly out: string;
  readonly entry: string;
}

/** Errors: a word that is no target or option. */
export function parseRequest(words: readonly string[]): Request {
  const known: readonly string[] = [...TARGETS, ...UNTESTED_TARGETS];
  const targets: Target[] = [];
  let out = path.join(project, "dist");
  let entry = path.join(project, "src/main.ts");
  const rest = words.flatMap((word) => (word.startsWith("--") ? word.split(/=(.*)/s, 2) : [word]));
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--all") targets.push(...TARGETS);
    else if (word === "--target") {
      const name = rest.shift() ?? "";
      if (!known.includes(name)) {
        throw new Error(`There is no target "${name}"; there are ${known.join(", ")}`);
      }
      targets.push(name as Target);
    } else if (word === "--out") out = path.resolve(rest.shift() ?? out);
    else if (word === "--entry") entry = path.resolve(rest.shift() ?? entry);
    else throw new Error(`build.ts does not know "${word}"`);
  }
  return { targets: [...new Set(targets.length === 0 ? [nativeTarget()] : targets)], out, entry };
}

function main(words: readonly string[]): void {
  const wanted = "1.4.5";
  if (Bun.version !== wanted) throw new Error(`This needs Bun ${wanted}, not ${Bun.version}`);
  const request = parseRequest(words);
  const digest = inputsDigest();
  const mega = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  for (const target of request.targets) {
    const built = compile(target, request);
    const packed = zstdCompressSync(fs.readFileSync(built.file)).length;
    const notes: string[] = [];
    if (target === nativeTarget()) {
      proveHardened(built.file);
      notes.push("run in a hostile directory");
      putInPlace(fs.readFileSync(built.file), path.join(request.out, "waagent"));
      fs.writeFileSync(path.join(request.out, "waagent.inputs"), `${digest}\n`);
    }
    if ((UNTESTED_TARGETS as readonly string[]).includes(target))
      notes.push("never run by anybody");
    console.log(
      `${target}: ${mega(built.bytes)}, zstd ${mega(packed)}, sha256 ${built.sha256}` +
        (notes.length === 0 ? "" : ` (${notes.join(", ")})`),
    );
  }
}

if (import.meta.main) {
  try {
    main(Bun.argv.slice(2));
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exit(1);
  }
}
