/**
 * `npm start` and `npm test` on a machine with Node and npm only: brings the pinned Bun, the locked packages, the Debian
 * packages the tests use, builds the agent, and runs.
 *
 *   node test/run.mjs start          the demo
 *   node test/run.mjs test [SUITE…]  the tests; ends with `N passed, N failed, N skipped`
 *   node test/run.mjs bench|fabric|package|contract|build
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { readJunit } from "./support/junit.mjs";
import {
  SetupError,
  build,
  fetchDebianAgent,
  installDebianPackages,
  installDependencies,
  project,
  provideBun,
  runToFile,
  say,
} from "./support/setup.mjs";

/** Cheapest first. `perTestMs` is the limit of one test, `limitMs` of the whole suite. */
const SUITES = [
  {
    name: "unit",
    paths: ["test/unit", "test/layers.test.ts"],
    perTestMs: 20_000,
    limitMs: 300_000,
  },
  { name: "rooted", paths: ["test/rooted"], perTestMs: 60_000, limitMs: 600_000 },
  { name: "conformance", paths: ["test/conformance"], perTestMs: 60_000, limitMs: 300_000 },
  // Mostly waiting, for timers of the protocol: several files at once, each in a process of its own.
  { name: "e2e", paths: ["test/e2e"], perTestMs: 240_000, limitMs: 1_080_000, parallel: 3 },
  // Booted machines, one after another: their control groups and loop devices are the host's.
  { name: "boot", paths: ["test/boot"], perTestMs: 120_000, limitMs: 480_000 },
  { name: "packaging", paths: ["test/packaging"], perTestMs: 180_000, limitMs: 600_000 },
];

async function test(bun, wanted) {
  const unknown = wanted.filter((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown.length > 0) throw new SetupError(`There is no test suite ${unknown.join(", ")}`);
  const folder = path.join(project, "dist/test");
  fs.mkdirSync(folder, { recursive: true });
  const reasons = path.join(folder, "skip-reasons");
  fs.writeFileSync(reasons, "");
  const sum = { passed: 0, failed: 0, skipped: [] };
  for (const suite of SUITES) {
    if (wanted.length > 0 && !wanted.includes(suite.name)) continue;
    const result = await runSuite(bun, suite, folder, reasons);
    sum.passed += result.passed;
    sum.failed += result.failed;
    sum.skipped.push(...result.skipped);
  }
  if (sum.skipped.length > 0) {
    say(`skipped: ${sum.skipped.length}`);
    for (const name of sum.skipped) console.log(`  ${name}`);
    for (const reason of new Set(fs.readFileSync(reasons, "utf8").split("\n").filter(Boolean))) {
      console.log(`  because ${reason}`);
    }
  }
  console.log(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped.length} skipped`);
  return sum.failed > 0 || sum.passed === 0 ? 1 : 0;
}

async function runSuite(bun, suite, folder, reasons) {
  const paths = suite.paths.filter((name) => holdsTests(path.join(project, name)));
  if (paths.length === 0) return { passed: 0, failed: 0, skipped: [] };
  const junit = path.join(folder, `${suite.name}.xml`);
  const log = path.join(folder, `${suite.name}.log`);
  fs.rmSync(junit, { force: true });
  const started = Date.now();
  const code = await runToFile(
    [
      bun,
      "test",
      `--timeout=${suite.perTestMs}`,
      ...(suite.parallel === undefined ? [] : [`--parallel=${suite.parallel}`]),
      "--reporter=junit",
      `--reporter-outfile=${junit}`,
      ...paths.map((name) => `./${name}`),
    ],
    log,
    {
      env: { ...process.env, WAAGENT_SKIP_REASONS: reasons, NO_COLOR: "1" },
      timeoutMs: suite.limitMs,
    },
  );
  const result = fs.existsSync(junit)
    ? readJunit(fs.readFileSync(junit, "utf8"))
    : { passed: 0, failed: 0, skipped: [] };
  const problem =
    code === undefined
      ? `was ended after ${suite.limitMs / 1000} s`
      : code !== 0 && result.failed === 0
        ? `ended with exit code ${code}`
        : undefined;
  if (problem !== undefined) result.failed += 1;
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  say(
    `${suite.name}: ${result.passed} passed, ${result.failed} failed, ${result.skipped.length} skipped (${seconds} s)`,
  );
  if (result.failed > 0) {
    const lines = fs.readFileSync(log, "utf8").split("\n");
    console.log(
      lines
        .filter((line) => !line.startsWith("(pass)"))
        .slice(-400)
        .join("\n"),
    );
    say(
      `${suite.name} ${problem ?? "failed"}; all of its output is in ${path.relative(project, log)}`,
    );
  }
  return result;
}

function holdsTests(where) {
  if (!fs.existsSync(where)) return false;
  if (fs.statSync(where).isFile()) return true;
  return fs
    .readdirSync(where, { recursive: true })
    .some((name) => String(name).endsWith(".test.ts"));
}

function handOver(bun, script, words) {
  const file = path.join(project, script);
  if (!fs.existsSync(file)) throw new SetupError(`${script} is not there yet`);
  const done = spawnSync(bun, [file, ...words], { cwd: project, stdio: "inherit" });
  return done.status ?? 1;
}

/** Verbs besides `test`: the script each hands over to, and what has to be there first. */
const VERBS = {
  start: { script: "test/demo/main.ts", machine: true, built: true },
  bench: { script: "test/bench/main.ts", machine: true, built: true },
  fabric: { script: "test/fabric/main.ts", machine: true },
  package: { script: "packaging/build.ts", machine: true },
  contract: { script: "test/contract/report.ts" },
  build: { script: "build.ts" },
};

async function main([verb, ...words]) {
  const known = verb === "test" ? { machine: true, built: true } : VERBS[verb];
  if (known === undefined) {
    throw new SetupError(
      `usage: node test/run.mjs test [SUITE…] | ${Object.keys(VERBS).join(" | ")}`,
    );
  }
  const [major] = process.versions.node.split(".").map(Number);
  if (major < 20) throw new SetupError(`Node ${process.versions.node} is too old: 20.11 or newer`);
  const bun = provideBun();
  installDependencies(bun);
  if (known.machine === true) {
    const trouble = installDebianPackages();
    if (trouble !== undefined) say(trouble);
    if (verb === "test") fetchDebianAgent();
  }
  if (known.built === true) build(bun);
  return verb === "test" ? test(bun, words) : handOver(bun, known.script, words);
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof SetupError ? error.message : error);
  process.exitCode = 1;
}
