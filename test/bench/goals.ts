import fs from "node:fs";
import { journal } from "../e2e/journal.ts";
import { type FabricEvent, isEvent } from "../fabric/fabric.ts";
import type { PackageDescription } from "../fabric/package.ts";
import type { ExtensionDescription, Scenario } from "../fabric/scenario.ts";
import { demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { type Running, start } from "./candidate.ts";
import { figures, type Measured, type Plan, together } from "./rows.ts";
import { type AgentName, type Figure, median } from "./table.ts";

/** Goal states of one size or another that come while the agent runs. */

const OURS: readonly AgentName[] = ["ours"];
const STATUS_BYTES = 20_000;
const SETTINGS_BYTES = 20_000;
const PATIENCE_MS = 600_000;

/** The scenario of an ordinary first boot, with more packages to come. */
function bootWith(packages: readonly PackageDescription[]): Scenario {
  const boot = firstBoot();
  return { ...boot, packages: [...(boot.packages ?? []), ...packages] };
}

function named(count: number, prefix: string): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}`);
}

/** Puts the handlers in force and waits for the status that says all of them succeeded; its arrival. */
async function deploy(
  running: Running,
  extensions: readonly ExtensionDescription[],
): Promise<{ readonly setAt: number; readonly reportedAt: number }> {
  const { fabric } = running;
  await running.until("status:Fabric.Demo=success", 60_000);
  // Whatever belongs to the boot is over.
  await Bun.sleep(3000);
  const setAt = Date.now();
  await fabric.setGoalState({ incarnation: "2", extensions: [demoExtension(), ...extensions] });
  const all = await fabric.waitFor(
    (event) =>
      event.type === "status" &&
      extensions.every(({ name }) => isEvent(event, `status:${name}=success`)),
    PATIENCE_MS,
    `the success of ${extensions.length} extensions`,
  );
  return { setAt, reportedAt: fabric.startedAt + all.at };
}

/** Time of the last such line of the agent's log, milliseconds since 1970. */
function loggedAt(running: Running, text: RegExp): number {
  const log = fs.readFileSync(`${running.sandbox.root}/var/log/waagent.log`, "utf8");
  const line = log.split("\n").findLast((one) => text.test(one));
  if (line === undefined) throw new Error(`${running.name} did not log ${text.source}`);
  return Date.parse(line.split(" ", 1)[0] ?? "");
}

/** Older agents have one more word in it. */
const PASS_BEGINS = /ProcessExtensions(?:In)?GoalState started/;
const PASS_ENDS = /ProcessExtensions(?:In)?GoalState completed/;

/** The commands of this handler say when they end, too. */
const ENDS = "/var/lib/fabric-ends";
const NOTE_END = `date +%s.%N >>${ENDS}`;
const NOOP: PackageDescription = {
  name: "Fabric.Noop",
  version: "1.0.0",
  scripts: { install: NOTE_END, enable: `report success done\n${NOTE_END}\nexit 0` },
};

export async function measureNoop(agents: readonly AgentName[], plan: Plan): Promise<Figure[]> {
  const measured = new Map<AgentName, Measured>();
  for (const name of agents) {
    const overheads: number[] = [];
    for (let round = 0; round < plan.rounds; round += 1) {
      await using running = await start(name, bootWith([NOOP]));
      await deploy(running, [
        { name: NOOP.name, version: NOOP.version, settings: { sequence: 0, public: {} } },
      ]);
      const starts = journal(running.sandbox).filter(({ handler }) => handler === NOOP.name);
      const ends = running.sandbox.read(ENDS).trim().split("\n");
      const own = starts.reduce(
        (sum, { time }, index) => sum + Number(ends[index]) * 1000 - time,
        0,
      );
      overheads.push(loggedAt(running, PASS_ENDS) - loggedAt(running, PASS_BEGINS) - own);
    }
    measured.set(name, { noop: median(overheads) });
  }
  return figures(measured, [
    ["noop", "install and enable of one handler, without its commands", "ms", { absolute: 150 }],
  ]);
}

/** Ours alone, as the next: the Python agent needs ten minutes for so many handlers. */
export async function measureHundred(): Promise<Figure[]> {
  const period = 2;
  const names = named(100, "Fabric.Hundred");
  const scenario = bootWith(names.map((name) => ({ name, version: "1.0.0" })));
  const measured = await together(OURS, async (name) => {
    await using running = await start(name, scenario, { period });
    const { setAt, reportedAt } = await deploy(
      running,
      names.map((one) => ({ name: one, version: "1.0.0", settings: { sequence: 0, public: {} } })),
    );
    const polls = requests(running, "goal-state")
      .map(({ at }) => running.fabric.startedAt + at)
      .filter((at) => at <= reportedAt);
    const last = polls.findLastIndex((at) => at <= setAt);
    const gaps = polls.slice(last).map((at, index, all) => (all[index + 1] ?? reportedAt) - at);
    const missed = gaps.reduce(
      (sum, gap) => sum + Math.max(0, Math.round(gap / 1000 / period) - 1),
      0,
    );
    return {
      hundredMissed: missed,
      hundredGap: Math.max(...gaps) / 1000,
      hundredStatus: (reportedAt - setAt) / 1000,
    };
  });
  return figures(measured, [
    ["hundredMissed", `100 handlers, period ${period} s: polls missed`, "", { absolute: 0 }],
    ["hundredGap", "100 handlers: longest time between polls", "s"],
    ["hundredStatus", "100 handlers: new goal state → all reported", "s"],
  ]);
}

export async function measureLarge(): Promise<Figure[]> {
  const names = named(50, "Fabric.Large");
  const enable = `report success "$(head -c ${STATUS_BYTES} /dev/zero | tr '\\0' x)"\nexit 0`;
  const scenario = bootWith(names.map((name) => ({ name, version: "1.0.0", scripts: { enable } })));
  const measured = await together(OURS, async (name) => {
    await using running = await start(name, scenario);
    const filler = "x".repeat(SETTINGS_BYTES);
    const { setAt, reportedAt } = await deploy(
      running,
      names.map((one) => ({
        name: one,
        version: "1.0.0",
        settings: { sequence: 0, public: { filler } },
      })),
    );
    const { startedAt } = running.fabric;
    const seen = requests(running, "goal-state").find(({ at }) => startedAt + at > setAt);
    // Another few reports of the same, each right after a poll.
    await Bun.sleep(40_000);
    const reports = requests(running, "plugin-status").filter(
      ({ at }) => startedAt + at > reportedAt + 6000,
    );
    const waits = reports.map(({ at }) => {
      const before = requests(running).findLast(
        (one) => one.at < at && one.kind !== "plugin-status",
      );
      return at - (before?.at ?? at);
    });
    return {
      largeParsed: loggedAt(running, PASS_BEGINS) - startedAt - (seen?.at ?? 0),
      largeStatus: median(waits),
      largeBytes: median(reports.map(({ bodyBytes }) => bodyBytes)) / 1e6,
    };
  });
  return figures(measured, [
    ["largeParsed", "50 extensions × 20 kB of settings: incarnation seen → parsed", "ms"],
    ["largeStatus", "status of 50 × 20 kB: poll → written and uploaded", "ms"],
    ["largeBytes", "its size on the wire", "MB"],
  ]);
}

function requests(running: Running, kind?: string) {
  return running.fabric.events.flatMap((event: FabricEvent) =>
    event.type === "request" && (kind === undefined || event.request.kind === kind)
      ? [event.request]
      : [],
  );
}
