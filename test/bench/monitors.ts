import { firstBoot } from "../fabric/scenarios.ts";
import { start } from "./candidate.ts";
import { agentProcesses, watchEffects } from "./process.ts";
import { figures, type Measured } from "./rows.ts";
import type { AgentName, Figure } from "./table.ts";

/** Everything that looks at the machine periodically, at the periods that ship. */
const EVERY_MONITOR = [
  "OS.EnableFirewall=y",
  "OS.EnableFirewallPeriod=30",
  "OS.RootDeviceScsiTimeout=300",
  "OS.RemovePersistentNetRulesPeriod=30",
  "OS.MonitorDhcpClientRestartPeriod=30",
  "Provisioning.MonitorHostName=y",
  "Monitor.NetworkConfigurationChanges=y",
  "Logs.Collect=y",
];
const SETTLE_MS = 40_000;
const WATCHED_MS = 65_000;

/** Ours alone, at rest for more than twice 30 s. Logs are collected hourly, so that no collection falls into it. */
export async function measureMonitors(agents: readonly AgentName[]): Promise<Figure[]> {
  const measured = new Map<AgentName, Measured>();
  if (agents.includes("ours")) {
    await using running = await start("ours", firstBoot(), { lines: EVERY_MONITOR });
    await running.until("ready", 60_000);
    await running.until("status:Fabric.Demo=success", 60_000);
    await Bun.sleep(SETTLE_MS);
    const [main = 0] = agentProcesses(running.agent.pid);
    const effects = await watchEffects(main, WATCHED_MS, running.sandbox.scratch);
    for (const file of effects.paths) console.error(`#   ours wrote ${file}`);
    for (const command of effects.started) console.error(`#   ours ran ${command}`);
    const perMinute = (value: number) => value / (WATCHED_MS / 60_000);
    measured.set("ours", {
      monitorsPrograms: perMinute(effects.programs),
      monitorsWrites: perMinute(effects.writes),
    });
  }
  return figures(measured, [
    ["monitorsPrograms", "idle, every monitor on: child processes per minute", "", { absolute: 0 }],
    ["monitorsWrites", "idle, every monitor on: disk writes per minute", "", { absolute: 0 }],
  ]);
}
