import fs from "node:fs";
import path from "node:path";
import { insertDvd } from "../e2e/host.ts";
import { createSandbox, type Sandbox } from "../e2e/sandbox.ts";
import { benchConfiguration, fastBinary } from "./candidate.ts";
import { agentProcesses, cpuSeconds, memoryOf } from "./process.ts";
import { soakScenario, type SoakProgress } from "./soak-host.ts";
import { slope, type Figure } from "./table.ts";

const HOST = path.join(import.meta.dir, "soak-host.ts");
const STATE = "/var/lib/waagent";
/** Ten times what the longest retry needs. */
const PATIENCE_MS = 60_000;
/** A poll takes a period of 1 s / SPEED. */
const SPEED = 40;
/** The first part of the run, in which the heap finds its size. */
const WARM_UP = 0.2;

interface Sample {
  readonly goalStates: number;
  /** MB. */
  readonly anonymous: number;
}

/**
 * The compiled agent alone, on a disk of 64 MB and 4,096 inodes for its state and logs, with thousands of changed goal
 * states and no upload that succeeds: what it keeps in memory and on disk must not depend on how many there were.
 */
export async function measureSoak(goalStates: number): Promise<Figure[]> {
  await using sandbox = await createSandbox({
    network: "pair",
    binds: [{ from: fastBinary(), to: "/usr/sbin/waagent" }],
  });
  await insertDvd(sandbox, soakScenario());
  sandbox.write("/etc/waagent.conf", `${benchConfiguration(1)}Logs.Collect=n\n`);
  await smallDisk(sandbox);
  const progressFile = path.join(sandbox.scratch, "progress.json");
  const host = sandbox.platform.spawn([process.execPath, HOST, String(goalStates), progressFile], {
    env: { TMPDIR: sandbox.scratch },
  });
  while (!fs.existsSync(progressFile)) await Bun.sleep(20);
  const agent = sandbox.spawn(["/usr/sbin/waagent", "-daemon"], {
    env: { WAAGENT_BENCH_SPEED: String(SPEED) },
  });
  const progress = () => JSON.parse(fs.readFileSync(progressFile, "utf8")) as SoakProgress;
  const processes = () => agentProcesses(agent.pid).slice(0, 1);

  const samples: Sample[] = [];
  let last = progress();
  let since = performance.now();
  let warm: { cpu: number; processed: number } | undefined;
  let inodes = 0;
  while (last.processed < goalStates) {
    await Bun.sleep(500);
    const now = progress();
    if (now.processed > last.processed) since = performance.now();
    last = now;
    if (performance.now() - since > PATIENCE_MS) {
      const said = `${agent.output().slice(-1000)}\n${host.output().slice(-1000)}`;
      throw new Error(`The agent did not report goal state ${now.processed + 1}:\n${said}`);
    }
    const { anonymous } = memoryOf(processes());
    samples.push({ goalStates: now.processed, anonymous });
    if (samples.length % 60 === 0)
      console.error(`#   ${now.processed} goal states, ${anonymous.toFixed(1)} MB`);
    inodes = Math.max(inodes, disk(sandbox).inodes);
    if (warm === undefined && now.processed >= goalStates * WARM_UP)
      warm = { cpu: cpuSeconds(processes()), processed: now.processed };
  }
  const cpu = cpuSeconds(processes()) - (warm?.cpu ?? 0);
  const settled = samples.filter((sample) => sample.goalStates >= goalStates * WARM_UP);
  const perGoalState = slope(settled.map((one) => [one.goalStates, one.anonymous]));
  const root = sandbox.root + STATE;
  const events = contents(`${root}/events`);
  const history = contents(`${root}/history`);
  const { bytes } = disk(sandbox);
  const label = `${goalStates} goal states`;
  const row = (
    id: string,
    what: string,
    unit: string,
    ours: number,
    absolute?: number,
  ): Figure => ({
    id,
    label: `${label}: ${what}`,
    unit,
    values: { ours },
    ...(absolute === undefined ? {} : { limit: { absolute } }),
  });
  return [
    row("soakLost", "lost or failed", "", goalStates - last.processed + last.failed, 0),
    row("soakRefused", "uploads refused", "", sum(Object.values(last.refused))),
    row("soakSlope", "memory per 1,000", "MB", perGoalState * 1000, 0.5),
    row("soakFirst", "anonymous memory after a fifth", "MB", settled[0]?.anonymous ?? 0),
    row("soakLast", "anonymous memory at the end", "MB", settled.at(-1)?.anonymous ?? 0),
    row(
      "soakCpu",
      "CPU for each",
      "ms",
      (cpu * 1000) / Math.max(1, last.processed - (warm?.processed ?? 0)),
    ),
    row("soakSpoolFiles", "events waiting", "", events.files, 1000),
    row("soakSpoolBytes", "events waiting", "MB", events.bytes, (8 * 1024 * 1024) / 1e6),
    row("soakHistoryEntries", "history entries", "", history.entries, 50),
    row("soakHistoryBytes", "history", "MB", history.bytes, (16 * 1024 * 1024) / 1e6),
    row("soakDiskBytes", "disk of 67 MB in use", "MB", bytes),
    row("soakInodes", "most inodes of 4,096 in use", "", inodes, 4095),
  ];
}

/** State and logs together on one file system that is soon full. */
async function smallDisk(sandbox: Sandbox): Promise<void> {
  const script = `set -e
mkdir -p /mnt/small ${STATE}
mount -t tmpfs -o size=64m,nr_inodes=4096,mode=0755 tmpfs /mnt/small
mkdir -m 0700 /mnt/small/lib
mkdir /mnt/small/log
mount --bind /mnt/small/lib ${STATE}
mount --bind /mnt/small/log /var/log`;
  await sandbox.run(["sh", "-c", script]);
}

function disk(sandbox: Sandbox): { readonly bytes: number; readonly inodes: number } {
  const info = fs.statfsSync(sandbox.root + STATE);
  return {
    bytes: ((info.blocks - info.bfree) * info.bsize) / 1e6,
    inodes: info.files - info.ffree,
  };
}

function contents(folder: string) {
  const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" });
  const infos = names.map((name) => fs.lstatSync(path.join(folder, name)));
  const files = infos.filter((info) => info.isFile());
  return {
    entries: fs.readdirSync(folder).length,
    files: files.length,
    bytes: sum(files.map(({ size }) => size)) / 1e6,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
