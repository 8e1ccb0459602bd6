/**
 * Runs one operation of src/machine on the machine it is started on, which must be a sandbox:
 *   bun driver.ts OPERATION JSON
 * Prints what it returned as JSON. Log lines go to standard error.
 */
import { type Config, defaultConfig } from "../../../src/config/table.ts";
import {
  chooseFirewallTool,
  firewallRules,
  inspectFirewall,
  removeFirewallEverywhere,
  setUpFirewall,
} from "../../../src/machine/firewall.ts";
import { initialDhcpMonitorState, monitorDhcpClient } from "../../../src/machine/dhcp-monitor.ts";
import {
  persistFirewall,
  removePersistentFirewall,
} from "../../../src/machine/firewall-persist.ts";
import { applyRoutes, type WantedRoutes } from "../../../src/machine/routes.ts";
import { activateResourceDisk } from "../../../src/machine/resource-disk.ts";
import { activateSwap } from "../../../src/machine/swap.ts";
import { announceHostName } from "../../../src/machine/announce-hostname.ts";
import { setDhcpHostName } from "../../../src/machine/hostname-dhcp.ts";
import { Root, type SystemPath } from "../../../src/system/root.ts";
import { createSystem } from "../../../src/system/create.ts";
import type { System } from "../../../src/system/system.ts";

const OPERATIONS: Readonly<
  Record<string, (system: System, input: Record<string, unknown>) => Promise<unknown>>
> = {
  firewall: async (system, input) => {
    const rules = rulesFrom(input);
    const tool = await chooseFirewallTool(system);
    const outcome = await setUpFirewall(system, tool, rules);
    return { tool: tool.kind, ...outcome, after: await inspectFirewall(system, tool, rules) };
  },
  "resource-disk": async (system, input) =>
    activateResourceDisk(system, { ...defaultConfig(), ...input } as Config),
  /** Changes the host name again and again, each time announced. */
  "announce-names": async (system, input) => {
    const kinds: (string | undefined)[] = [];
    for (let round = 1; round <= Number(input["count"]); round += 1) {
      const name = `name-${round}`;
      await system.exec.run({ argv: ["hostname", name] });
      setDhcpHostName(system, { dhcpHostName: "dhclient-conf" }, name, { interfaceName: "eth0" });
      kinds.push(
        await announceHostName(system, { renewLease: "ifupdown" }, name, { interfaceName: "eth0" }),
      );
      if (input["pauseMs"] !== undefined) await system.clock.sleep(Number(input["pauseMs"]));
    }
    return kinds;
  },
  swap: async (system, input) =>
    activateSwap(
      system,
      { ...defaultConfig(), ...input } as Config,
      input["mountPoint"] as SystemPath,
    ),
  "firewall-persist": async (system, input) => {
    const distro = { serviceName: "waagent", unitDirectory: "/usr/lib/systemd/system" } as const;
    const options = { executable: "/usr/sbin/waagent", libDirectory: "/var/lib/waagent" } as const;
    if (input["remove"] === true) return removePersistentFirewall(system, distro, rulesFrom(input));
    return persistFirewall(system, distro, rulesFrom(input), options);
  },
  /** Two looks at the DHCP client, with a restart of it in between. */
  "dhcp-restart": async (system, input) => {
    const config = defaultConfig();
    const distro = { dhcpClientPids: ["pidof", "dhclient"] };
    const routes = input["routes"] as WantedRoutes;
    await applyRoutes(system, config, routes);
    let state = initialDhcpMonitorState(routes);
    state = await monitorDhcpClient(system, config, state, distro);
    const show = async (): Promise<string> =>
      (await system.exec.run({ argv: ["ip", "route", "show"] })).stdout;
    const before = await show();
    for (const argv of input["restart"] as string[][])
      await system.exec.run({ argv, okCodes: "any" });
    const between = await show();
    await monitorDhcpClient(system, config, state, distro);
    return { before, between, after: await show() };
  },
  "firewall-remove": async (system, input) => removeFirewallEverywhere(system, rulesFrom(input)),
};

function rulesFrom(input: Record<string, unknown>) {
  const config = { ...defaultConfig(), "Firewall.CoverForwarded": input["forward"] === true };
  return firewallRules(config, "168.63.129.16", 0);
}

const [name = "", json = "{}"] = process.argv.slice(2);
const operation = OPERATIONS[name];
if (operation === undefined) throw new Error(`There is no operation ${name}`);
if (process.env["WAAGENT_SANDBOX"] !== "1")
  throw new Error("The driver changes the machine it runs on: only start it in a sandbox");
const system = createSystem({
  root: new Root("/"),
  log: {
    identity: { thread: "MainThread" },
    stdout: { level: "VERBOSE", write: (line) => void process.stderr.write(line) },
    file: undefined,
    console: undefined,
  },
  http: { userAgent: "driver", proxy: { environment: {} } },
  emit: (event) => void process.stderr.write(`EVENT ${JSON.stringify(event)}\n`),
});
const result = await operation(system, JSON.parse(json) as Record<string, unknown>);
process.stdout.write(`${JSON.stringify(result ?? null)}\n`);
