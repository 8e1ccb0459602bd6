import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  HOSTNAME_PERIOD,
  initialHostNameState,
  monitorHostName,
  publishedHostName,
} from "../../../src/machine/hostname-monitor.ts";
import { publishHostName } from "../../../src/machine/publish-hostname.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { ipJson, plant, plantInterface, routeTable } from "./support.ts";

const config = { ...defaultConfig(), "Provisioning.MonitorHostName": true };
const distro = {
  adapter: "Debian",
  setHostName: "etc-hostname",
  dhcpHostName: "dhclient-conf",
  renewLease: "ifupdown",
} as const;
const RECORD = "/var/lib/waagent/published_hostname";

function prepare(system: FakeSystem, name: string): void {
  plant(system, {
    "/proc/sys/kernel/hostname": `${name}\n`,
    "/var/lib/waagent/.keep": "",
    "/proc/net/route": routeTable(["eth0", "00000000", "0100000A", "0003", "100", "00000000"]),
    "/proc/700/comm": "dhclient\n",
    "/proc/700/stat": "700 (dhclient) S 1 700 700 0",
    "/proc/700/cmdline": "/sbin/dhclient\0-4\0-pf\0/run/dhclient.eth0.pid\0eth0\0",
    "/etc/dhcp/dhclient.conf": '# mine\n\nsend host-name "old";\n',
  });
  plantInterface(system, "eth0");
  system.programs.set("ip", () => ({ stdout: ipJson({ eth0: "10.0.0.4" }) }));
  for (const program of ["hostname", "kill", "dhclient"])
    system.programs.set(program, () => undefined);
}

const rename = (system: FakeSystem, name: string): void =>
  plant(system, { "/proc/sys/kernel/hostname": `${name}\n` });

test("system.md NET-40 NET-42 NET-43 NET-44 NET-45 ENV-05 provisioning.md HOST-10 HOST-17 LOG-07: a changed name is set, recorded and announced, once", async () => {
  using system = createFakeSystem();
  prepare(system, "first");
  expect(config[HOSTNAME_PERIOD]).toBe(30);
  let state = await monitorHostName(system, config, initialHostNameState, distro);
  expect(system.commands).toEqual([]);
  rename(system, "second");
  state = await monitorHostName(system, config, state, distro);
  expect(system.lines).toContain(
    "INFO ExtHandler ExtHandler EnvMonitor: Detected hostname change: first -> second",
  );
  expect(system.files.readText("/etc/hostname")).toBe("second");
  expect(system.files.readText(RECORD)).toBe("second");
  expect(system.files.readText("/etc/dhcp/dhclient.conf")).toBe(
    '# mine\n\nsend host-name "second";\n',
  );
  expect(system.commands.filter((argv) => argv[0] !== "ip")).toEqual([
    ["hostname", "second"],
    ["kill", "-KILL", "700"],
    ["/sbin/dhclient", "-4", "-pf", "/run/dhclient.eth0.pid", "eth0"],
  ]);
  system.commands.length = 0;
  await monitorHostName(system, config, state, distro);
  expect(system.commands).toEqual([]);
});

test("system.md NET-40: without Provisioning.MonitorHostName, the default, names are not looked at", async () => {
  using system = createFakeSystem();
  prepare(system, "first");
  expect(defaultConfig()["Provisioning.MonitorHostName"]).toBe(false);
  await monitorHostName(system, defaultConfig(), initialHostNameState, distro);
  expect(system.files.exists(RECORD)).toBe(false);
});

test("system.md NET-40 provisioning.md HOST-15: a name that changed while the agent was down is noticed by the record", async () => {
  using system = createFakeSystem();
  prepare(system, "now");
  plant(system, { [RECORD]: "before" });
  await monitorHostName(system, config, initialHostNameState, distro);
  expect(system.lines.join("\n")).toContain("Detected hostname change: before -> now");
});

test("system.md NET-41 provisioning.md HOST-15: without a record it is cloud-init's name, else the running one, and the record is made", () => {
  using system = createFakeSystem();
  prepare(system, "kernel");
  plant(system, { "/var/lib/cloud/data/set-hostname": '{"fqdn": "cloud.x", "hostname": "cloud"}' });
  expect(publishedHostName(system, config)).toBe("cloud");
  expect(system.files.readText(RECORD)).toBe("cloud");

  using other = createFakeSystem();
  prepare(other, "kernel");
  plant(other, { "/var/lib/cloud/data/set-hostname": "not json" });
  expect(publishedHostName(other, config)).toBe("kernel");
  expect(other.files.readText(RECORD)).toBe("kernel");
  expect(other.lines.join("\n")).toContain("Ignoring /var/lib/cloud/data/set-hostname");
});

test("system.md BET-11 provisioning.md HOST-17 LOG-14: a failure is an event and is tried again, later and later, until it succeeds", async () => {
  using system = createFakeSystem();
  prepare(system, "first");
  let state = await monitorHostName(system, config, initialHostNameState, distro);
  rename(system, "second");
  system.programs.set("dhclient", () => ({ code: 2, stderr: "no DHCPOFFERS received" }));
  state = await monitorHostName(system, config, state, distro);
  expect(system.events).toMatchObject([{ operation: "HostnamePublishing", success: false }]);
  expect(state.pending?.attempts).toBe(1);
  state = await monitorHostName(system, config, state, distro);
  expect(system.events).toHaveLength(1);
  await system.clock.sleep(30_000);
  state = await monitorHostName(system, config, state, distro);
  expect(state.pending).toEqual({ attempts: 2, notBefore: system.clock.monotonic() + 60_000 });

  await system.clock.sleep(60_000);
  system.programs.set("dhclient", () => undefined);
  state = await monitorHostName(system, config, state, distro);
  expect(state).toEqual({ known: "second", pending: undefined });
  expect(system.events).toHaveLength(2);
});

test("with Network.Manage=n the name is recorded for other software and the network is left alone", async () => {
  using system = createFakeSystem();
  prepare(system, "first");
  await publishHostName(system, { ...config, "Network.Manage": false }, distro, "second");
  expect(system.files.readText(RECORD)).toBe("second");
  expect(system.commands).toEqual([]);
  expect(system.files.readText("/etc/dhcp/dhclient.conf")).toContain("old");
});

test("system.md NET-45: a dhclient.conf that already follows the system's name is left alone, and the others too", async () => {
  for (const line of ["send host-name = gethostname();", 'send host-name "<hostname>(";']) {
    using system = createFakeSystem();
    prepare(system, "first");
    const other = 'send host-name "old";\n';
    plant(system, { "/etc/dhcp/dhclient.conf": `${line}\n`, "/etc/dhclient.conf": other });
    await publishHostName(system, config, distro, "second");
    expect(system.files.readText("/etc/dhcp/dhclient.conf")).toBe(`${line}\n`);
    expect(system.files.readText("/etc/dhclient.conf")).toBe(other);
  }
});
