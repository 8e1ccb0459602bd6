/**
 * One process of the extensions runner, for tests that kill it: brings a scratch machine to the goal in a file, writes
 * what it would report, and exits. Arguments: root directory, file with the goal, file for the reports.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { ExtensionsGoalState, HandlerGoal } from "../../../src/azure/goal-state.ts";
import { AgentError } from "../../../src/base/error.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createExtensionsRunner } from "../../../src/extensions/runner.ts";
import type { PackageSource } from "../../../src/extensions/package-source.ts";
import { createSystem } from "../../../src/system/create.ts";
import { Root } from "../../../src/system/root.ts";

const [directory = "", goalFile = "", reportFile = ""] = process.argv.slice(2);
const root = new Root(directory);
const system = createSystem({
  root,
  log: {
    identity: { thread: "ExtHandler", prefix: "ExtHandler" },
    stdout: undefined,
    file: { level: "VERBOSE", path: "/agent.log" },
    console: undefined,
  },
  http: { userAgent: "test", proxy: { environment: {} } },
  emit: () => undefined,
});

/** Packages lie as `<name> <version>.zip` in the folder `packages`. */
const source: PackageSource = {
  versions: (handler) =>
    Promise.resolve({
      packages: system.files
        .list("/packages")
        .filter((name) => name.startsWith(`${handler.name} `))
        .map((name) => {
          const version = name.slice(handler.name.length + 1, -".zip".length);
          return { version, uris: [path.join("/packages", name)] };
        }),
    }),
  download: async ({ uris, file, accept, what }) => {
    const [uri] = uris;
    if (uri === undefined) throw new AgentError("protocol", `No source had ${what}`);
    system.files.write(file, system.files.read(uri as `/${string}`));
    try {
      await accept(file);
    } finally {
      system.files.remove(file);
    }
  },
};

const runner = createExtensionsRunner(system, defaultConfig(), {
  source,
  wireServerAddress: "127.0.0.1",
  environment: { PATH: process.env["PATH"] },
});
const goal = JSON.parse(readFileSync(goalFile, "utf8")) as ExtensionsGoalState & {
  handlers: HandlerGoal[];
};
process.stdout.write("ready\n");
runner.prepare();
const aggregate = await runner.process(goal);
const reports = runner.reports(goal).map((report) => ({
  ...report,
  extensions: report.extensions.map((entry) => ({
    sequence: entry.sequence,
    status: entry.status.status,
  })),
}));
writeFileSync(`${reportFile}.new`, JSON.stringify({ aggregate, reports }));
process.stdout.write("done\n");
