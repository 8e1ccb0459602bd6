import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { ExtensionsGoalState } from "../../src/azure/goal-state.ts";
import { buildExtension } from "../fixtures/extensions/package.ts";
import { goal, handler, settings } from "../unit/extensions/world.ts";

/** WAAGENT_KILL_RUNS=200 is the long form; every run is a whole life of two handlers. */
const RUNS = Number(process.env["WAAGENT_KILL_RUNS"] ?? "30");
const SIDE_BY_SIDE = 3;
const DRIVER = path.join(import.meta.dir, "drivers/extensions-runner.ts");

const SCRIPT = `#!/bin/sh
name=$(basename "$PWD")
echo "begin $name $1 $ConfigExtensionName" >>../../../../calls
sleep 0.0$(( $$ % 9 + 1 ))
[ "$1" = enable ] && echo '[{"status": {"status": "success", "code": 0}}]' >"status/\${ConfigExtensionName:+$ConfigExtensionName.}$ConfigSequenceNumber.status"
echo "end $name $1 $ConfigExtensionName" >>../../../../calls
`;

const multi = (version: string, ...names: string[]) =>
  handler("Multi", version, {
    multiConfig: true,
    settings: names.map((name, index) => settings(index, { name })),
  });
const uninstall = (name: string, version: string, multiConfig: boolean) => ({
  ...(multiConfig ? multi(version, "a", "b") : handler(name, version)),
  state: "uninstall" as const,
});

/** Goals of one life, and what must have happened exactly once and in this order for each handler. */
const LIFE: readonly { readonly goal: ExtensionsGoalState; readonly once: readonly string[] }[] = [
  {
    goal: goal([handler("Single", "1.0"), multi("1.0", "a", "b")]),
    once: ["Single-1.0 install", "Multi-1.0 install a"],
  },
  {
    goal: goal([handler("Single", "1.1"), multi("1.1", "a", "b")]),
    once: [
      "Single-1.0 disable",
      "Single-1.1 update",
      "Single-1.0 uninstall",
      "Single-1.1 install",
      "Multi-1.0 disable a",
      "Multi-1.0 disable b",
      "Multi-1.1 update a",
      "Multi-1.0 uninstall a",
      "Multi-1.1 install a",
    ],
  },
  {
    goal: goal([uninstall("Single", "1.1", false), uninstall("Multi", "1.1", true)]),
    once: [
      "Single-1.1 disable",
      "Single-1.1 uninstall",
      "Multi-1.1 disable a",
      "Multi-1.1 disable b",
      "Multi-1.1 uninstall a",
    ],
  },
];

let scratch = "";
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), "waagent-kill-"));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Resolves to whether the process came to its end before it was killed. */
function drive(root: string, goalFile: string, killAfterMs: number | undefined): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [DRIVER, root, goalFile, path.join(root, "reports")], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let errors = "";
    child.stderr.on("data", (data: Buffer) => (errors += data.toString()));
    child.stdout.on("data", (data: Buffer) => {
      const first = out === "";
      out += data.toString();
      if (first && killAfterMs !== undefined) setTimeout(() => child.kill("SIGKILL"), killAfterMs);
    });
    child.on("close", (code, signal) => {
      if (code !== 0 && signal !== "SIGKILL") reject(new Error(`driver failed: ${errors}`));
      else resolve(code === 0);
    });
  });
}

async function life(index: number, seed: number): Promise<{ kills: number; starts: number }> {
  const root = path.join(scratch, `run-${index}`);
  mkdirSync(path.join(root, "packages"), { recursive: true });
  const manifest = { supportsMultipleExtensions: true };
  for (const version of ["1.0", "1.1"]) {
    for (const name of ["Single", "Multi"]) {
      const bytes = buildExtension({ name, version, script: SCRIPT, manifest });
      writeFileSync(path.join(root, "packages", `${name} ${version}.zip`), bytes);
    }
  }
  let state = seed;
  const random = (): number => (state = (state * 1103515245 + 12345) % 2147483648) / 2147483648;
  let kills = 0;
  let starts = 0;
  let seen = 0;
  for (const [step, stage] of LIFE.entries()) {
    const goalFile = path.join(root, `goal-${step}`);
    writeFileSync(goalFile, JSON.stringify(stage.goal));
    let startsHere = 0;
    for (let done = false; !done;) {
      starts += 1;
      startsHere += 1;
      // After some deaths it may live, so that every life ends.
      const limit = startsHere > 6 ? undefined : Math.floor(random() * 350);
      done = await drive(root, goalFile, limit);
      if (!done) kills += 1;
    }
    renameSync(path.join(root, "reports.new"), path.join(root, "reports"));
    const report = JSON.parse(readFileSync(path.join(root, "reports"), "utf8"));
    const calls = readFileSync(path.join(root, "calls"), "utf8").trim().split("\n").slice(seen);
    seen += calls.length;
    check(
      stage.once,
      calls,
      startsHere,
      `run ${index} (seed ${seed}) goal ${step}: ${calls.join(", ")}`,
    );
    const wanted =
      step === 2
        ? []
        : [
            { name: "Single", status: "Ready", extensions: [{ status: "success" }] },
            {
              name: "Multi",
              status: "Ready",
              extensions: [{ status: "success" }, { status: "success" }],
            },
          ];
    expect(report.aggregate).toMatchObject({ status: "Success" });
    expect(report.reports).toMatchObject(wanted);
  }
  rmSync(root, { recursive: true, force: true });
  return { kills, starts };
}

function check(
  once: readonly string[],
  calls: readonly string[],
  starts: number,
  what: string,
): void {
  for (const name of ["Single", "Multi"]) {
    const own = calls.filter((line) => line.split(" ")[1]?.startsWith(name));
    // One command of a handler at a time, and every one that began also ended.
    for (const [index, line] of own.entries()) {
      const expected = index % 2 === 0 ? "begin" : "end";
      if (!line.startsWith(expected)) throw new Error(`commands of ${name} overlap: ${what}`);
    }
    const begun = own
      .filter((line) => line.startsWith("begin"))
      .map((line) => line.slice(6).trim());
    const forbidden = begun.filter((line) => !line.includes(" enable"));
    expect([what, forbidden]).toEqual([what, once.filter((line) => line.startsWith(name))]);
    const enables = begun.filter((line) => line.includes(" enable"));
    const most = starts * (name === "Multi" ? 2 : 1);
    expect([what, enables.length <= most]).toEqual([what, true]);
  }
}

test(
  `extensions.md EXT-11 E2E-51: the runner is killed at random points in ${RUNS} lives; nothing forbidden runs twice, no state is lost`,
  async () => {
    const seed = Number(process.env["WAAGENT_KILL_SEED"] ?? Math.floor(Math.random() * 1e9));
    let next = 0;
    let kills = 0;
    let starts = 0;
    const worker = async (): Promise<void> => {
      while (next < RUNS) {
        const index = next;
        next += 1;
        const result = await life(index, seed + index);
        kills += result.kills;
        starts += result.starts;
      }
    };
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
    console.log(`${RUNS} lives, ${starts} starts, ${kills} kills, seed ${seed}`);
    expect(kills).toBeGreaterThan(RUNS);
  },
  RUNS * 20_000,
);
