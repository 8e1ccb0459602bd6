/**
 * The bench: `npm run bench [-- --quick | --polls N | --soak N | --only NAME,… | --readme]`. Ours and Debian's Python agent 2.7.3 against the
 * same emulated host in the same run; prints a table and writes dist/bench.json. Limits are shown as reached or missed,
 * and never fail the run: this machine is not that one.
 */
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { project, withPart } from "../contract/load.ts";
import { referenceMissing } from "../e2e/reference.ts";
import { canSandbox } from "../e2e/sandbox.ts";
import { PHASES } from "./phases.ts";
import type { Plan } from "./rows.ts";
import { AGENTS, type AgentName, type Figure, ratioOf, renderTable, verdictOf } from "./table.ts";

const FULL: Plan = {
  ...{ rounds: 3, idleSeconds: 120, traceSeconds: 60 },
  ...{ polls: 5000, changes: 3, soak: 20_000 },
};
const QUICK: Plan = {
  ...{ rounds: 1, idleSeconds: 40, traceSeconds: 20 },
  ...{ polls: 300, changes: 1, soak: 500 },
};

function parse(words: readonly string[]): {
  plan: Plan;
  only: readonly string[];
  readme: boolean;
} {
  const rest = words.flatMap((word) => word.split(/=(.*)/s, 2));
  let plan = FULL;
  let only: readonly string[] = Object.keys(PHASES);
  let readme = false;
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--quick") plan = { ...QUICK };
    else if (word === "--polls") plan = { ...plan, polls: Number(rest.shift()) };
    else if (word === "--soak") plan = { ...plan, soak: Number(rest.shift()) };
    else if (word === "--only") only = (rest.shift() ?? "").split(",");
    else if (word === "--readme") readme = true;
    else
      throw new Error(
        "usage: npm run bench [-- --quick | --polls N | --soak N | --only NAME,… | --readme]",
      );
  }
  const unknown = only.filter((name) => !(name in PHASES));
  if (unknown.length > 0) {
    throw new Error(
      `There is no phase ${unknown.join(", ")}; there are ${Object.keys(PHASES).join(", ")}`,
    );
  }
  return { plan, only, readme };
}

const { plan, only, readme } = parse(Bun.argv.slice(2));
const able = canSandbox();
if (!able.ok) throw new Error(able.reason);
const without = referenceMissing();
if (without !== undefined) console.error(`# without the Python agent: ${without}`);
const agents: readonly AgentName[] = without === undefined ? AGENTS : ["ours"];

// A freshly written executable counts as private memory until the kernel has written it back.
spawnSync("sync");
const figures: Figure[] = [];
for (const [name, phase] of Object.entries(PHASES)) {
  if (!only.includes(name)) continue;
  console.error(`# ${name}`);
  try {
    figures.push(...(await phase(agents, plan)));
  } catch (error) {
    console.error(`# ${name} failed: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

const folder = path.join(project, "dist");
fs.mkdirSync(folder, { recursive: true });
fs.writeFileSync(
  path.join(folder, "bench.json"),
  `${JSON.stringify(
    {
      machine: { kernel: os.release(), processors: os.cpus().length, model: os.cpus()[0]?.model },
      plan,
      figures: figures.map((figure) => ({
        ...figure,
        ratio: ratioOf(figure),
        verdict: verdictOf(figure),
      })),
    },
    undefined,
    2,
  )}\n`,
);
const table = renderTable(figures);
console.log(table);
if (readme) {
  const file = path.join(project, "README.md");
  fs.writeFileSync(
    file,
    withPart(fs.readFileSync(file, "utf8"), "bench", `\`\`\`\n${table}\n\`\`\``),
  );
}
