import fs from "node:fs";
import { journal } from "../e2e/journal.ts";
import { createSandbox } from "../e2e/sandbox.ts";
import { installReference } from "../e2e/reference.ts";
import { isEvent } from "../fabric/fabric.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { binary } from "../support/binary.ts";
import { type Running, start } from "./candidate.ts";
import { agentProcesses, cpuSeconds, memoryOf, watchEffects } from "./process.ts";
import { measureHundred, measureLarge, measureNoop } from "./goals.ts";
import { measureMonitors } from "./monitors.ts";
import { figures, type Measured, type Phase, type Plan, together } from "./rows.ts";
import { measureSoak } from "./soak.ts";
import { type AgentName, type Figure, median } from "./table.ts";

/** In this order; each makes and removes its own machines. */
export const PHASES: Readonly<Record<string, Phase>> = {
  version: measureVersion,
  boot: measureBoot,
  noop: measureNoop,
  ten: measureTen,
  hundred: measureHundred,
  large: measureLarge,
  idle: measureIdle,
  monitors: measureMonitors,
  polls: measurePolls,
  soak: (_agents, plan) => measureSoak(plan.soak),
};

async function measureVersion(agents: readonly AgentName[]): Promise<Figure[]> {
  const measured = new Map<AgentName, Measured>();
  await using sandbox = await createSandbox({
    binds: [{ from: await binary(), to: "/opt/waagent" }],
  });
  if (agents.includes("reference")) await installReference(sandbox);
  // Timed inside the sandbox: entering it costs more than the program.
  const timed = async (command: string, times: number) => {
    const script = `for i in $(seq ${times}); do s=$(date +%s%N); ${command} >/dev/null 2>&1; e=$(date +%s%N); echo $((e-s)); done; s=$(date +%s%N); e=$(date +%s%N); echo $((e-s))`;
    const { stdout } = await sandbox.run(["bash", "-c", script], { timeoutMs: 120_000 });
    const values = stdout.trim().split("\n").map(Number);
    const overhead = values.pop() ?? 0;
    // The first runs warm the page cache.
    return Math.max(0, median(values.slice(2)) - overhead) / 1e6;
  };
  for (const name of agents) {
    const command =
      name === "ours" ? "/opt/waagent -version" : "/usr/bin/python3 -u /usr/sbin/waagent -version";
    measured.set(name, { version: await timed(command, name === "ours" ? 40 : 12) });
  }
  return figures(measured, [["version", "-version", "ms", { ratio: 0.1 }]]);
}

async function measureBoot(agents: readonly AgentName[], plan: Plan): Promise<Figure[]> {
  const rounds = new Map<AgentName, Measured[]>();
  // One after the other and in turns: each has the whole machine.
  for (let round = 0; round < plan.rounds; round += 1) {
    for (const name of agents) {
      await using running = await start(name, firstBoot());
      rounds.set(name, [...(rounds.get(name) ?? []), await timesOfBoot(running)]);
    }
  }
  const measured = new Map(
    [...rounds].map(([name, results]) => {
      const keys = Object.keys(results[0] ?? {});
      const values = keys.map((key) => [key, median(results.map((one) => one[key] ?? 0))] as const);
      return [name, Object.fromEntries(values)] as const;
    }),
  );
  return figures(measured, [
    ["firstRequest", "start → first request", "s"],
    ["ready", "start → Ready", "s", { ratio: 0.5 }],
    ["firstEnable", "first goal state → extension enabled", "s", { ratio: 0.15 }],
    ["firstStatus", "first goal state → status uploaded", "s"],
    ["overhead", "Ready → first extension enabled", "s"],
  ]);
}

async function timesOfBoot(running: Running): Promise<Measured> {
  const ready = await running.until("ready", 60_000);
  const status = await running.until("status:Fabric.Demo=success", 60_000);
  const { fabric, startedAt, sandbox } = running;
  const at = (kind: string) => {
    const event = fabric.events.find((one) => isEvent(one, kind));
    return fabric.startedAt + (event?.at ?? 0) - startedAt;
  };
  const first = fabric.events.find((event) => event.type === "request");
  const enabled = journal(sandbox).find(({ command }) => command === "enable")?.time ?? 0;
  const goal = at("goal-state");
  return {
    firstRequest: (fabric.startedAt + (first?.at ?? 0) - startedAt) / 1000,
    ready: ready / 1000,
    firstEnable: (enabled - startedAt - goal) / 1000,
    firstStatus: (status - goal) / 1000,
    overhead: (enabled - startedAt - ready) / 1000,
  };
}

const TEN = Array.from({ length: 10 }, (_, index) => `Fabric.Bench${index}`);

/** Ten handlers that do nothing and depend on nothing. */
function tenHandlers(): Scenario {
  return {
    ...firstBoot(),
    packages: TEN.map((name) => ({ name, version: "1.0.0" })),
    goalStates: [
      {
        incarnation: "1",
        extensions: TEN.map((name) => ({
          name,
          version: "1.0.0",
          settings: { sequence: 0, public: {} },
        })),
      },
    ],
  };
}

async function measureTen(agents: readonly AgentName[]): Promise<Figure[]> {
  const measured = new Map<AgentName, Measured>();
  for (const name of agents) {
    await using running = await start(name, tenHandlers());
    const ready = await running.until("ready", 60_000);
    const { fabric, startedAt } = running;
    const all = await fabric.waitFor(
      (event) =>
        event.type === "status" && TEN.every((one) => isEvent(event, `status:${one}=success`)),
      120_000,
      "the success of ten extensions",
    );
    const enables = journal(running.sandbox).filter(({ command }) => command === "enable");
    const tenEnable = (Math.max(...enables.map(({ time }) => time)) - startedAt - ready) / 1000;
    const tenStatus = (fabric.startedAt + all.at - startedAt - ready) / 1000;
    measured.set(name, { tenEnable, tenStatus, tenReport: tenStatus - tenEnable });
  }
  return figures(measured, [
    ["tenEnable", "ten handlers: Ready → last enable", "s", { absolute: 1.5 }],
    ["tenStatus", "ten handlers: Ready → all reported", "s"],
    ["tenReport", "ten handlers: last enable → all reported", "s", { absolute: 1 }],
  ]);
}

async function measureIdle(agents: readonly AgentName[], plan: Plan): Promise<Figure[]> {
  const measured = await together(agents, async (name) => {
    await using running = await start(name, firstBoot());
    await running.until("ready", 60_000);
    await running.until("status:Fabric.Demo=success", 60_000);
    const change = await timeChanges(running, plan.changes);
    // What follows a goal state (telemetry, archives, the runtime's collections) is not idling.
    await Bun.sleep(60_000);
    const polls = () => countPolls(running);
    const pids = agentProcesses(running.agent.pid);
    const before = { cpu: cpuSeconds(pids), polls: polls(), at: performance.now() };
    await Bun.sleep(plan.idleSeconds * 1000);
    const cpu = cpuSeconds(agentProcesses(running.agent.pid)) - before.cpu;
    const minutes = (performance.now() - before.at) / 60_000;
    const memory = memoryOf(agentProcesses(running.agent.pid));
    const counted = polls() - before.polls;

    const traced = { polls: polls() };
    const [main = 0] = agentProcesses(running.agent.pid);
    const targets = name === "reference" ? agentProcesses(running.agent.pid) : [main];
    const effects = await Promise.all(
      targets.map((pid) => watchEffects(pid, plan.traceSeconds * 1000, running.sandbox.scratch)),
    );
    const tracedPolls = Math.max(1, polls() - traced.polls);
    const sum = (key: "programs" | "writes" | "bytes") =>
      effects.reduce((total, one) => total + one[key], 0);
    const perMinute = (value: number) => value / (plan.traceSeconds / 60);
    if (name === "ours") notePaths(effects.flatMap(({ paths }) => paths));
    return {
      ...change,
      idleCpu: cpu / minutes,
      cpuPerPoll: (cpu * 1000) / Math.max(1, counted),
      idlePrograms: perMinute(sum("programs")),
      idleWrites: perMinute(sum("writes")),
      idleBytes: perMinute(sum("bytes")) / 1000,
      writesPerPoll: sum("writes") / tracedPolls,
      idlePss: memory.pss,
      idleAnonymous: memory.anonymous,
      processes: pids.length,
    };
  });
  return figures(measured, [
    ["changeEnable", "new settings → enabled (period 6 s)", "s"],
    ["changeStatus", "new settings → status uploaded", "s"],
    ["changeReport", "enabled → status uploaded", "s", { absolute: 1 }],
    ["idleCpu", "idle: CPU per minute", "s", { ratio: 0.5 }],
    ["cpuPerPoll", "idle: CPU per unchanged poll", "ms"],
    ["idlePrograms", "idle: child processes per minute", "", { absolute: 0 }],
    ["idleWrites", "idle: disk writes per minute", ""],
    ["writesPerPoll", "idle: disk writes per unchanged poll", "", { absolute: 0 }],
    ["idleBytes", "idle: written per minute", "kB"],
    ["idlePss", "idle: PSS", "MB", { ratio: 1 }],
    ["idleAnonymous", "idle: anonymous memory", "MB", { ratio: 0.4 }],
    ["processes", "processes", ""],
  ]);
}

/** Time from a new goal state to the command and to the status that the platform sees. */
async function timeChanges(running: Running, changes: number): Promise<Measured> {
  const enables: number[] = [];
  const statuses: number[] = [];
  for (let sequence = 1; sequence <= changes; sequence += 1) {
    const at = Date.now();
    await running.fabric.setGoalState({
      incarnation: String(sequence + 1),
      extensions: [demoExtension(sequence)],
    });
    const { fabric } = running;
    const seen = await fabric.waitFor(
      (event) =>
        event.type === "status" &&
        isEvent(event, "status:Fabric.Demo=success") &&
        event.status.document.aggregateStatus.handlerAggregateStatus[0]?.runtimeSettingsStatus
          ?.sequenceNumber === sequence,
      60_000,
      `the status of settings ${sequence}`,
    );
    const enable = journal(running.sandbox).findLast(({ command }) => command === "enable");
    enables.push((enable?.time ?? 0) - at);
    statuses.push(fabric.startedAt + seen.at - at);
    // Another moment between two polls each time.
    await Bun.sleep(1700);
  }
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length / 1000;
  const [changeEnable, changeStatus] = [mean(enables), mean(statuses)];
  return { changeEnable, changeStatus, changeReport: changeStatus - changeEnable };
}

async function measurePolls(agents: readonly AgentName[], plan: Plan): Promise<Figure[]> {
  const speed = 40;
  const measured = await together(agents, async (name) => {
    await using running = await start(name, firstBoot(), { period: 1, speed });
    await running.until("status:Fabric.Demo=success", 60_000);
    const begin = countPolls(running);
    let last = begin;
    let since = performance.now();
    while (countPolls(running) - begin < plan.polls) {
      await Bun.sleep(500);
      if (countPolls(running) > last) [last, since] = [countPolls(running), performance.now()];
      if (performance.now() - since > 60_000) {
        throw new Error(
          `${name} stopped polling after ${last - begin}:\n${running.agent.output().slice(-2000)}`,
        );
      }
    }
    const memory = memoryOf(agentProcesses(running.agent.pid));
    const state = [
      ...fs.readdirSync(`${running.sandbox.root}/var/lib/waagent`, { recursive: true }),
    ];
    return { pollsPss: memory.pss, pollsAnonymous: memory.anonymous, stateFiles: state.length };
  });
  const label = `after ${plan.polls} polls`;
  return figures(measured, [
    ["pollsPss", `${label}: PSS`, "MB", { ratio: 1 }],
    ["pollsAnonymous", `${label}: anonymous memory`, "MB", { ratio: 0.4 }],
    ["stateFiles", `${label}: files and folders of state`, ""],
  ]);
}

function countPolls(running: Running): number {
  return running.fabric.events.filter(
    (event) => isEvent(event, "plugin-status") || isEvent(event, "status-blob"),
  ).length;
}

function notePaths(paths: readonly string[]): void {
  for (const file of new Set(paths)) console.error(`#   ours wrote ${file}`);
}
