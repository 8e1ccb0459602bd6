import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  applyRoutes,
  formatRoute,
  isDefaultRouteMissing,
  parseRoutes,
  readRoutes,
  routeTo,
  withBroadcastRoute,
} from "../../../src/machine/routes.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant, routeTable } from "./support.ts";

const config = defaultConfig();
const CONNECTED = ["eth0", "0000000A", "00000000", "0001", "0", "00FFFFFF"] as const;
const DEFAULT = ["eth0", "00000000", "0100000A", "0003", "100", "00000000"] as const;

test("system.md NET-06 NET-07: little-endian hex becomes dotted, and a route is logged with every value quoted", () => {
  const [route] = parseRoutes(
    routeTable(["eth0", "10813FA8", "0100000A", "0007", "100", "FFFFFFFF"]),
  );
  expect(route?.destination).toBe("168.63.129.16");
  expect(formatRoute(route!)).toBe(
    '{"Iface": "eth0", "Destination": "168.63.129.16", "Gateway": "10.0.0.1", "Mask": "255.255.255.255", "Flags": "0x0007", "Metric": "100"}',
  );
});

test("system.md NET-02: columns are found by their names, and a missing one is an error and no routes", () => {
  const swapped =
    "Mask\tIface\tMetric\tFlags\tGateway\tDestination\n00FFFFFF\teth7\t3\t0001\t00000000\t0000000A\n";
  expect(parseRoutes(swapped)[0]).toMatchObject({
    interface: "eth7",
    destination: "10.0.0.0",
    mask: "255.255.255.0",
    metric: 3,
  });
  using system = createFakeSystem();
  plant(system, { "/proc/net/route": "Iface\tDestination\tGateway\tFlags\tMetric\neth0\t0\n" });
  expect(readRoutes(system)).toEqual([]);
  expect(system.lines).toEqual([
    "ERROR ExtHandler ExtHandler /proc/net/route has no column named Mask",
  ]);
});

test("the route to an address is the longest that covers it, unless that one refuses", () => {
  const to = (address: string, ...lines: (typeof CONNECTED)[]): string | undefined =>
    routeTo(parseRoutes(routeTable(...lines)), address)?.gateway;
  const host = ["eth0", "10813FA8", "0900000A", "0007", "0", "FFFFFFFF"] as const;
  expect(to("168.63.129.16", CONNECTED)).toBeUndefined();
  expect(to("168.63.129.16", CONNECTED, DEFAULT as never)).toBe("10.0.0.1");
  expect(to("168.63.129.16", DEFAULT as never, host as never)).toBe("10.0.0.9");
  expect(to("10.0.0.77", DEFAULT as never, CONNECTED)).toBe("0.0.0.0");
  const refusing = ["*", "10813FA8", "00000000", "0205", "0", "FFFFFFFF"] as const;
  expect(to("168.63.129.16", DEFAULT as never, refusing as never)).toBeUndefined();
});

test("system.md NET-09 provisioning.md OS-63: a default route is missing only when no line goes everywhere", () => {
  using system = createFakeSystem();
  plant(system, { "/proc/net/route": routeTable(CONNECTED) });
  expect(isDefaultRouteMissing(system)).toBe(true);
  plant(system, { "/proc/net/route": routeTable(CONNECTED, DEFAULT) });
  expect(isDefaultRouteMissing(system)).toBe(false);
});

test("system.md NET-28 BET-09 wire-protocol.md DHCP-25: classless routes are added as CIDR, the default only when there is none", async () => {
  using system = createFakeSystem();
  system.programs.set("ip", () => undefined);
  plant(system, { "/proc/net/route": routeTable(CONNECTED) });
  const wanted = {
    gateway: "10.0.0.1",
    interface: "eth0",
    classless: [
      { network: "168.63.129.16", prefix: 32, gateway: "10.0.0.1" },
      { network: "172.16.7.9", prefix: 12, gateway: "10.0.0.2" }, // host bits are cut
      { network: "192.168.0.0", prefix: 24, gateway: "0.0.0.0" },
    ],
  };
  await applyRoutes(system, config, wanted);
  expect(system.commands).toEqual([
    ["ip", "route", "add", "168.63.129.16/32", "via", "10.0.0.1"],
    ["ip", "route", "add", "192.168.0.0/24", "dev", "eth0"],
    ["ip", "route", "add", "172.16.0.0/12", "via", "10.0.0.2"],
    ["ip", "route", "add", "default", "via", "10.0.0.1"],
  ]);

  system.commands.length = 0;
  plant(system, {
    "/proc/net/route": routeTable(CONNECTED, DEFAULT, [
      "eth0",
      "10813FA8",
      "0100000A",
      "0007",
      "0",
      "FFFFFFFF",
    ]),
  });
  await applyRoutes(system, config, { ...wanted, classless: wanted.classless.slice(0, 1) });
  expect(system.commands).toEqual([]);
});

test("a refused route is a warning and the others are still added; Network.Manage=n adds none", async () => {
  using system = createFakeSystem();
  plant(system, { "/proc/net/route": routeTable(CONNECTED) });
  system.programs.set("ip", (argv) =>
    argv.includes("172.16.0.0/12")
      ? { code: 2, stderr: "RTNETLINK answers: Network is unreachable" }
      : undefined,
  );
  const wanted = {
    gateway: "10.0.0.1",
    classless: [{ network: "172.16.0.0", prefix: 12, gateway: "9.9.9.9" }],
  };
  expect(await applyRoutes(system, config, wanted)).toEqual(["default via 10.0.0.1"]);
  expect(system.lines.join("\n")).toContain("Network is unreachable");

  system.commands.length = 0;
  expect(await applyRoutes(system, { "Network.Manage": false }, wanted)).toEqual([]);
  expect(system.commands).toEqual([]);
});

test("system.md NET-25 wire-protocol.md DHCP-12 provisioning.md OS-63: broadcasting without a default route is routed through the interface and cleaned up, also after a failure", async () => {
  using system = createFakeSystem();
  system.programs.set("ip", () => undefined);
  plant(system, { "/proc/net/route": routeTable(CONNECTED) });
  const failure = withBroadcastRoute(system, config, "eth0", async () => {
    throw new Error("no answer");
  });
  await expect(failure).rejects.toThrow("no answer");
  expect(system.commands).toEqual([
    ["ip", "route", "add", "255.255.255.255", "dev", "eth0"],
    ["ip", "route", "del", "255.255.255.255", "dev", "eth0"],
  ]);

  system.commands.length = 0;
  plant(system, { "/proc/net/route": routeTable(CONNECTED, DEFAULT) });
  expect(await withBroadcastRoute(system, config, "eth0", async () => "answer")).toBe("answer");
  expect(system.commands).toEqual([]);
});
