import { expect, test } from "bun:test";
import {
  findInterface,
  formatInterface,
  localAddresses,
  primaryInterface,
  networkFingerprint,
  readInterfaces,
  waitForInterface,
} from "../../../src/machine/network.ts";
import { parseRoutes } from "../../../src/machine/routes.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { ipJson, plant, plantInterface, routeTable } from "./support.ts";

const DEFAULT_ETH0 = ["eth0", "00000000", "0100000A", "0003", "100", "00000000"] as const;
const DEFAULT_ETH1 = ["eth1", "00000000", "0101000A", "0003", "50", "00000000"] as const;

function withAddresses(system: FakeSystem, addresses: Record<string, string>): void {
  system.programs.set("ip", () => ({ stdout: ipJson(addresses) }));
}

test("system.md NET-02: the primary interface has a default route with a gateway and the lowest metric", () => {
  const routes = parseRoutes(
    routeTable(
      DEFAULT_ETH0,
      DEFAULT_ETH1,
      ["eth2", "00000000", "00000000", "0001", "0", "00000000"], // no gateway flag
      ["eth3", "0000000A", "0100000A", "0003", "0", "00FFFFFF"], // not the default route
    ),
  );
  expect(primaryInterface(routes)).toBe("eth1");
  expect(primaryInterface([])).toBeUndefined();
});

test("system.md NET-01 NET-03 NET-06 provisioning.md HOST-16 wire-protocol.md DHCP-12: the primary interface is taken when it is up and has an address, else the first other that is no loopback", async () => {
  using system = createFakeSystem();
  plant(system, { "/proc/net/route": routeTable(DEFAULT_ETH0, DEFAULT_ETH1) });
  plantInterface(system, "lo", { flags: "0x9", mac: "00:00:00:00:00:00" });
  plantInterface(system, "eth0");
  plantInterface(system, "eth1", { mac: "00:0d:3a:aa:bb:cc" });
  withAddresses(system, { lo: "127.0.0.1", eth0: "10.0.0.4", eth1: "10.0.1.4" });
  const primary = await findInterface(system);
  expect(primary?.name).toBe("eth1");
  expect(primary?.mac).toBe("000D3AAABBCC");

  withAddresses(system, { lo: "127.0.0.1", eth0: "10.0.0.4" });
  expect((await findInterface(system))?.name).toBe("eth0");
  expect(system.lines).toContain("INFO ExtHandler ExtHandler Choosing non-primary interface eth0");

  withAddresses(system, { lo: "127.0.0.1" });
  expect(await findInterface(system)).toBeUndefined();
});

test("system.md NET-04: a missing primary interface is told once with the whole route table", async () => {
  using system = createFakeSystem();
  plant(system, {
    "/proc/net/route": routeTable(["eth0", "0000000A", "00000000", "0001", "0", "00FFFFFF"]),
  });
  withAddresses(system, {});
  await findInterface(system);
  await findInterface(system);
  const warnings = system.lines.filter((line) => line.startsWith("WARNING"));
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("eth0\t0000000A");
});

test("system.md PEER-16: the lower half of an accelerated NIC is never chosen", async () => {
  using system = createFakeSystem();
  plant(system, { "/proc/net/route": routeTable(DEFAULT_ETH0) });
  plantInterface(system, "eth0", { flags: "0x1803", driver: "mlx5_core" });
  plantInterface(system, "eth1");
  // An InfiniBand or bare-metal port with the same driver is not a slave, and stays a NIC.
  plantInterface(system, "eth2", { flags: "0x1003", driver: "mlx5_core" });
  withAddresses(system, { eth0: "10.0.0.4", eth1: "10.0.0.4", eth2: "10.0.2.4" });
  const all = await readInterfaces(system);
  expect(all.filter((nic) => nic.virtualFunction).map((nic) => nic.name)).toEqual(["eth0"]);
  expect((await findInterface(system))?.name).toBe("eth1");
});

test("system.md NET-05 provisioning.md DB-37: waiting for an interface goes in steps of 2 s and ends with an error", async () => {
  using system = createFakeSystem();
  withAddresses(system, {});
  const started = system.clock.monotonic();
  const failure = waitForInterface(system, { limitMs: 10_000 });
  await expect(failure).rejects.toThrow(
    /No network interface with an IPv4 address appeared within 10 s/,
  );
  expect(system.clock.monotonic() - started).toBe(10_000);

  plantInterface(system, "eth0");
  let asked = 0;
  system.programs.set("ip", () => ({
    stdout: ipJson((asked += 1) < 3 ? {} : { eth0: "10.0.0.4" }),
  }));
  const before = system.clock.monotonic();
  expect((await waitForInterface(system)).name).toBe("eth0");
  expect(system.clock.monotonic() - before).toBe(4000);
});

test("system.md NET-07 BET-13: an interface is logged with both kinds of addresses, also with odd names", async () => {
  using system = createFakeSystem();
  plantInterface(system, "br-0.12");
  withAddresses(system, { "br-0.12": "10.0.0.4" });
  const [nic] = await readInterfaces(system);
  expect(formatInterface(nic!)).toBe(
    '{ "name": "br-0.12", "link": "up", "ipv4": ["10.0.0.4"], "ipv6": ["fe80::1"] }',
  );
});

test("addresses come from procfs where ip or its JSON is missing", async () => {
  using system = createFakeSystem();
  plantInterface(system, "eth0");
  plantInterface(system, "lo", { flags: "0x9" });
  plant(system, {
    "/proc/net/route": routeTable(DEFAULT_ETH0, [
      "eth0",
      "0000000A",
      "00000000",
      "0001",
      "0",
      "00FFFFFF",
    ]),
    "/proc/net/fib_trie": `Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.0.0.0/24 2 0 2
        |-- 10.0.0.0
           /24 link UNICAST
        |-- 10.0.0.4
           /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 127.255.255.255
        /32 link BROADCAST
`,
    "/proc/net/if_inet6":
      "fe80000000000000020d3afffe112233 02 40 20 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n",
  });
  const byName = new Map((await readInterfaces(system)).map((nic) => [nic.name, nic]));
  expect(byName.get("eth0")?.ipv4).toEqual(["10.0.0.4"]);
  expect(byName.get("eth0")?.ipv6).toEqual(["fe80::20d:3aff:fe11:2233"]);
  expect(byName.get("lo")?.ipv4).toEqual(["127.0.0.1"]);
  expect(byName.get("lo")?.ipv6).toEqual(["::1"]);
  expect(localAddresses("", []).size).toBe(0);
});

test("the network's fingerprint moves with addresses, routes and links, and costs no program", () => {
  using system = createFakeSystem();
  plantInterface(system, "eth0");
  const seen = new Set([networkFingerprint(system)]);
  plant(system, { "/proc/net/route": routeTable(DEFAULT_ETH0) });
  seen.add(networkFingerprint(system));
  plant(system, { "/proc/net/fib_trie": "|-- 10.0.0.4\n /32 host LOCAL\n" });
  seen.add(networkFingerprint(system));
  plant(system, { "/sys/class/net/eth0/operstate": "down\n" });
  seen.add(networkFingerprint(system));
  const linkLocal = "fe80000000000000000000fffe000001 02 40 20";
  for (const flags of ["c0", "80"]) {
    plant(system, { "/proc/net/if_inet6": `${linkLocal} ${flags}     eth0\n` });
    seen.add(networkFingerprint(system));
  }
  expect(seen.size).toBe(5);
  expect(system.commands).toEqual([]);
});
