import type { Session } from "../azure/session.ts";
import {
  DHCP_MONITOR_PERIOD,
  initialDhcpMonitorState,
  monitorDhcpClient,
} from "../machine/dhcp-monitor.ts";
import {
  checkFirewall,
  FIREWALL_PERIOD,
  firewallPause,
  initialFirewallState,
} from "../machine/firewall-monitor.ts";
import {
  HOSTNAME_PERIOD,
  initialHostNameState,
  monitorHostName,
} from "../machine/hostname-monitor.ts";
import { SCSI_TIMEOUT_PERIOD, setScsiTimeouts } from "../machine/scsi-timeout.ts";
import { removePersistentNetRules, UDEV_RULES_PERIOD } from "../machine/udev-rules.ts";
import type { Config, ConfigKey } from "../config/table.ts";
import { firewallRules } from "../machine/firewall.ts";
import { persistFirewall, withdrawFirewall } from "../machine/firewall-persist.ts";
import { executablePath } from "../system/process.ts";
import type { System } from "../system/system.ts";
import type { AgentContext } from "./context.ts";
import type { Connection } from "./connection.ts";
import type { OperatorView } from "./operator-view.ts";
import { libDirectory, seconds } from "./settings.ts";
import type { Task } from "./tasks.ts";

const LIMIT_MS = 5 * 60_000;
const ROOT = 0;
/** Done at the start of the agent; the next one is at its next start. */
const ONCE_MS = 2 ** 40;

/** The jobs that keep the VM itself right (`system.md` §6), each with the key that holds its period. */
export function environmentTasks(
  base: System,
  context: AgentContext,
  session: Session,
  { connection, view }: { readonly connection: Connection; readonly view: OperatorView },
): readonly Task[] {
  const { config, distro } = context;
  const system = { ...base, log: base.log.named({ thread: "EnvHandler" }) };
  const tasks: (Task | false)[] = [
    config["OS.EnableFirewall"] &&
      keeping(
        config,
        "EnableFirewall",
        FIREWALL_PERIOD,
        initialFirewallState,
        async (before) => {
          const state = await checkFirewall(system, config, before, {
            address: session.endpoint,
            userId: ROOT,
            periodMs: seconds(config[FIREWALL_PERIOD]),
            probe: (abort) => reaches(session, abort),
          });
          const { trouble, tool } = state;
          view.component(
            "firewall",
            trouble === undefined ? "ok" : "failed",
            trouble ?? tool?.kind,
          );
          return state;
        },
        firewallPause,
      ),
    config["OS.EnableFirewall"] && {
      thread: "EnvHandler",
      name: "PersistFirewall",
      periodMs: () => ONCE_MS,
      limitMs: LIMIT_MS,
      run: async () => {
        const rules = firewallRules(config, session.endpoint, ROOT);
        const options = { executable: executablePath(), libDirectory: libDirectory(config) };
        await persistFirewall(system, distro, rules, options);
      },
    },
    !config["OS.EnableFirewall"] && {
      thread: "EnvHandler",
      name: "WithdrawFirewall",
      periodMs: () => ONCE_MS,
      limitMs: LIMIT_MS,
      run: async () => {
        await withdrawFirewall(system, distro, libDirectory(config), ROOT);
        view.component("firewall", "off", "OS.EnableFirewall=n");
      },
    },
    keeping(
      config,
      "MonitorDhcpClientRestart",
      DHCP_MONITOR_PERIOD,
      initialDhcpMonitorState(connection.dhcp?.lastAnswer()?.routes),
      (state) => monitorDhcpClient(system, config, state, distro),
    ),
    keeping(config, "RemovePersistentNetworkRules", UDEV_RULES_PERIOD, undefined, async () => {
      removePersistentNetRules(system, config, distro);
      return undefined;
    }),
    config["OS.RootDeviceScsiTimeout"] !== undefined &&
      keeping(config, "SetRootDeviceScsiTimeout", SCSI_TIMEOUT_PERIOD, undefined, async () => {
        setScsiTimeouts(system, config);
        return undefined;
      }),
    config["Provisioning.MonitorHostName"] &&
      keeping(config, "MonitorHostNameChanges", HOSTNAME_PERIOD, initialHostNameState, (state) =>
        monitorHostName(system, config, state, distro),
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
  pause: (state: State, periodMs: number) => number = (_state, periodMs) => periodMs,
): Task {
  let state = initial;
  return {
    thread: "EnvHandler",
    name,
    periodMs: () => pause(state, seconds(Number(config[periodKey]))),
    limitMs: LIMIT_MS,
    run: async () => {
      state = await run(state);
    },
  };
}

/** Whether this process still gets through to the WireServer. */
async function reaches(session: Session, signal: AbortSignal): Promise<boolean> {
  try {
    await session.wire.negotiate(signal);
    return true;
  } catch {
    return false; // the firewall takes its rules back and says so
  }
}
