import { expect, test } from "bun:test";
import { announceHostName, findLeaseHolder } from "../../../src/machine/announce-hostname.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { ipJson, plant, plantInterface } from "./support.ts";

interface FakeProcess {
  readonly pid: number;
  readonly name: string;
  readonly parent?: number;
  readonly argv?: readonly string[];
}

function prepare(system: FakeSystem, ...running: readonly FakeProcess[]): void {
  plantInterface(system, "eth0");
  plantInterface(system, "eth1");
  plant(system, {
    "/sys/class/net/eth0/ifindex": "2\n",
    "/proc/1/comm": "init\n",
    "/proc/1/stat": "1 (init) S 0",
    "/proc/1/cmdline": "init\0",
  });
  for (const { pid, name, parent = 1, argv = [name] } of running)
    plant(system, {
      [`/proc/${pid}/comm`]: `${name}\n`,
      [`/proc/${pid}/stat`]: `${pid} (${name} (x) ) S ${parent} 1 1`,
      [`/proc/${pid}/cmdline`]: `${argv.join("\0")}\0`,
    });
  system.programs.set("ip", () => ({ stdout: ipJson({ eth0: "10.0.0.4" }) }));
  for (const program of ["kill", "nmcli", "systemctl", "systemd-run", "ifup", "dhclient"])
    system.programs.set(program, () => undefined);
}

const announce = (system: FakeSystem) =>
  announceHostName(system, { renewLease: "ifupdown" }, "new", { interfaceName: "eth0" });
const changes = (system: FakeSystem): string[] =>
  system.commands
    .filter((argv) => argv[0] !== "ip" && !argv.includes("GENERAL.STATE"))
    .map((argv) => argv.join(" "));

test("system.md BET-10 PKG-11: NetworkManager is asked through its applied configuration, only for a device that it has connected", async () => {
  using system = createFakeSystem();
  prepare(system, { pid: 5, name: "NetworkManager" }, { pid: 6, name: "systemd-network" });
  system.programs.set("nmcli", () => ({ stdout: "100 (connected)\n" }));
  expect(await announce(system)).toBe("NetworkManager");
  expect(changes(system)).toEqual([
    "nmcli device modify eth0 ipv4.dhcp-hostname new ipv6.dhcp-hostname new",
  ]);

  system.programs.set("nmcli", () => ({ stdout: "10 (unmanaged)\n" }));
  plant(system, {
    "/run/systemd/netif/links/2": "ADMIN_STATE=configured\nNETWORK_FILE=/etc/x.network\n",
  });
  expect((await findLeaseHolder(system, "eth0"))?.kind).toBe("networkd");
  plant(system, { "/run/systemd/netif/links/2": "ADMIN_STATE=unmanaged\nNETWORK_FILE=\n" });
  expect(await findLeaseHolder(system, "eth0")).toBeUndefined();
});

test("system.md NET-50 BET-10 provisioning.md HOST-22 DB-14: networkd is restarted by systemd exactly once, and the link is never bounced", async () => {
  using system = createFakeSystem();
  prepare(system, { pid: 6, name: "systemd-network" });
  plant(system, { "/run/systemd/netif/links/2": "NETWORK_FILE=/etc/x.network\n" });
  expect(await announce(system)).toBe("networkd");
  expect(changes(system)).toEqual(["systemctl restart systemd-networkd.service"]);
});

test("system.md NET-49 NET-50 provisioning.md HOST-21: wicked's interface is brought up again once, without down", async () => {
  using system = createFakeSystem();
  prepare(system, { pid: 6, name: "wickedd-dhcp4" });
  expect(await announce(system)).toBe("wicked");
  expect(changes(system)).toEqual(["ifup eth0"]);
});

test("system.md BET-12: dhcpcd's master gets SIGHUP, not its helpers, and sends the name from then on", async () => {
  using system = createFakeSystem();
  prepare(
    system,
    { pid: 40, name: "dhcpcd", parent: 44 },
    { pid: 44, name: "dhcpcd" },
    { pid: 46, name: "dhcpcd", parent: 44 },
  );
  plant(system, { "/etc/dhcpcd.conf": "#hostname\nduid" });
  expect(await announce(system)).toBe("dhcpcd");
  expect(changes(system)).toEqual(["kill -HUP 44"]);
  expect(system.files.readText("/etc/dhcpcd.conf")).toBe("#hostname\nduid\nhostname\n");
  await announce(system);
  expect(system.files.readText("/etc/dhcpcd.conf")).toBe("#hostname\nduid\nhostname\n");
});

test("dhclient of this interface is replaced with its own arguments; under systemd as a service of its own", async () => {
  using system = createFakeSystem();
  const argv = ["/sbin/dhclient", "-4", "-v", "-lf", "/var/lib/x.leases", "eth0"];
  prepare(
    system,
    { pid: 20, name: "dhclient", argv: ["dhclient", "eth1"] },
    { pid: 30, name: "dhclient", argv },
  );
  expect(await announce(system)).toBe("dhclient");
  expect(changes(system)).toEqual(["kill -KILL 30", argv.join(" ")]);

  system.commands.length = 0;
  plant(system, { "/run/systemd/system/x": "" });
  await announce(system);
  const [, command] = changes(system);
  expect(command).toStartWith("systemd-run --collect --quiet --service-type=forking");
  expect(command).toEndWith(`-- ${argv.join(" ")}`);
});

test("udhcpc is told to renew; a static address needs nothing; the adapter may say that nothing is to be done", async () => {
  using system = createFakeSystem();
  prepare(system);
  expect(await announce(system)).toBeUndefined();
  prepare(system, { pid: 9, name: "udhcpc", argv: ["udhcpc", "-i", "eth0"] });
  expect(await announce(system)).toBe("udhcpc");
  expect(changes(system)).toEqual(["kill -USR1 9"]);
  expect(
    await announceHostName(system, { renewLease: "none" }, "new", { interfaceName: "eth0" }),
  ).toBeUndefined();
});

test("an address that does not come back is an error", async () => {
  using system = createFakeSystem();
  prepare(system, { pid: 30, name: "dhclient", argv: ["dhclient", "eth0"] });
  let gone = false;
  system.programs.set("dhclient", () => {
    gone = true;
  });
  system.programs.set("ip", () => ({ stdout: ipJson(gone ? {} : { eth0: "10.0.0.4" }) }));
  await expect(announce(system)).rejects.toThrow("eth0 has no IPv4 address any more");
});
