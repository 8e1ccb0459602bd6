import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import path from "node:path";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  DHCP_MONITOR_PERIOD,
  findDhcpClients,
  initialDhcpMonitorState,
  monitorDhcpClient,
} from "../../../src/machine/dhcp-monitor.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant, routeTable } from "./support.ts";

const config = defaultConfig();
const distro = { dhcpClientPids: ["pidof", "dhclient"] };
const routes = {
  gateway: undefined,
  classless: [{ network: "168.63.129.16", prefix: 32, gateway: "10.0.0.1" }],
};

function start(system: FakeSystem, pid: number, name: string): void {
  plant(system, { [`/proc/${pid}/comm`]: `${name}\n` });
}

function stop(system: FakeSystem, pid: number): void {
  rmSync(path.join(system.root.directory, `/proc/${pid}`), { recursive: true });
}

test("system.md NET-30 BET-09 ENV-02: a restarted DHCP client gets its routes back, once", async () => {
  using system = createFakeSystem();
  system.programs.set("ip", () => undefined);
  plant(system, {
    "/proc/net/route": routeTable(["eth0", "0000000A", "00000000", "0001", "0", "00FFFFFF"]),
  });
  expect(config[DHCP_MONITOR_PERIOD]).toBe(30);
  start(system, 700, "dhclient");
  let state = await monitorDhcpClient(system, config, initialDhcpMonitorState(routes), distro);
  expect(state.pids).toEqual([700]);
  expect(system.commands).toEqual([]);

  stop(system, 700);
  start(system, 812, "dhclient");
  state = await monitorDhcpClient(system, config, state, distro);
  expect(system.commands).toEqual([["ip", "route", "add", "168.63.129.16/32", "via", "10.0.0.1"]]);
  state = await monitorDhcpClient(system, config, state, distro);
  expect(system.commands).toHaveLength(1);
});

test("system.md NET-31: a client that does not run is told once, again after it was seen", async () => {
  using system = createFakeSystem();
  const told = (): number => system.lines.filter((line) => line.includes("not running")).length;
  let state = await monitorDhcpClient(system, config, initialDhcpMonitorState(undefined), distro);
  state = await monitorDhcpClient(system, config, state, distro);
  expect(told()).toBe(1);
  expect(system.lines).toContain("WARNING ExtHandler ExtHandler Dhcp client is not running.");
  start(system, 5, "dhclient");
  state = await monitorDhcpClient(system, config, state, distro);
  stop(system, 5);
  await monitorDhcpClient(system, config, state, distro);
  expect(told()).toBe(2);
});

test("system.md BET-12: the distribution's client comes first, else any client that runs; pids are sorted", () => {
  using system = createFakeSystem();
  start(system, 30, "systemd-network");
  start(system, 9, "sshd");
  expect(findDhcpClients(system, distro)).toEqual([30]);
  start(system, 100, "dhclient");
  start(system, 20, "dhclient");
  expect(findDhcpClients(system, distro)).toEqual([20, 100]);
  expect(findDhcpClients(system, { dhcpClientPids: ["pidof", "systemd-networkd"] })).toEqual([30]);
});

test("a reused pid is not the client, and Network.Manage=n looks at nothing", async () => {
  using system = createFakeSystem();
  start(system, 700, "dhclient");
  const state = await monitorDhcpClient(system, config, initialDhcpMonitorState(undefined), distro);
  start(system, 700, "postgres");
  start(system, 701, "dhclient");
  expect((await monitorDhcpClient(system, config, state, distro)).pids).toEqual([701]);
  expect(await monitorDhcpClient(system, { "Network.Manage": false }, state, distro)).toBe(state);
});
