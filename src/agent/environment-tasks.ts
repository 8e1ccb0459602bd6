import type { Session } from "../azure/session.ts";
import {
  DHCP_MONITOR_PERIOD,
  initialDhcpMonitorState,
  monitorDhcpClient,
} from "../machine/dhcp-monitor.ts";
import {
  checkFirewall,
  FIREWALL_PERIOD,
  initialFirewallState,
} from "../machine/firewall-monitor.ts";
import type { Config, ConfigKey } from "../config/table.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";
import { seconds } from "./settings.ts";
import type { Task } from "./tasks.ts";

const LIMIT_MS = 5 * 60_000;
const ROOT = 0;

/** The jobs that keep the VM itself right (`system.md` §6), each with the key that holds its period. */
export function environmentTasks(
  base: System,
  context: AgentContext,
  session: Session,
): readonly Task[] {
  const { config, distro } = context;
  const system = { ...base, log: base.log.named({ thread: "EnvHandler" }) };
  const tasks: (Task | false)[] = [
    config["OS.EnableFirewall"] &&
      keeping(config, "EnableFirewall", FIREWALL_PERIOD, initialFirewallState, (state) =>
        checkFirewall(system, config, state, {
          address: session.endpoint,
          userId: ROOT,
          probe: () => reaches(session),
        }),
      ),
    keeping(
      config,
      "MonitorDhcpClientRestart",
      DHCP_MONITOR_PERIOD,
      initialDhcpMonitorState(undefined),
      (state) => monitorDhcpClient(system, config, state, distro),
    ),
  ];
  return tasks.filter((task) => task !== false);
}

/** A periodic job as a function from its last state to its next one. */
function keeping<State>(
  config: Config,
  name: string,
  periodKey: ConfigKey,
  initial: State,
  run: (state: State) => Promise<State>,
): Task {
  let state = initial;
  return {
    thread: "EnvHandler",
    name,
    periodMs: () => seconds(Number(config[periodKey])),
    limitMs: LIMIT_MS,
    run: async () => {
      state = await run(state);
    },
  };
}

/** Whether this process still gets through to the WireServer. */
async function reaches(session: Session): Promise<boolean> {
  try {
    await session.wire.negotiate();
    return true;
  } catch {
    return false; // the firewall takes its rules back and says so
  }
}
