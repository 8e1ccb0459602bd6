import { expect, test } from "bun:test";
import { createDhcpProbe } from "../../../src/machine/dhcp.ts";
import { openDhcpSocket, type OpenDhcpSocket } from "../../../src/system/dhcp-socket.ts";
import dgram from "node:dgram";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { answerTo } from "./dhcp-answers.ts";

const MANAGE = { "Network.Manage": true } as const;

/** A machine whose eth0 has an address, and maybe a default route. */
function machine(options: { defaultRoute: boolean }): FakeSystem {
  const system = createFakeSystem();
  system.files.makeDirectory("/sys/class/net/eth0");
  system.files.write("/sys/class/net/eth0/flags", "0x1003\n");
  system.files.write("/sys/class/net/eth0/address", "00:0d:3a:01:02:03\n");
  system.files.write("/sys/class/net/eth0/operstate", "up\n");
  system.files.makeDirectory("/proc/net");
  const header =
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
  const route = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
  system.files.write("/proc/net/route", header + (options.defaultRoute ? route : ""));
  const addresses = [
    { ifname: "eth0", addr_info: [{ family: "inet", local: "10.0.0.4", prefixlen: 24 }] },
  ];
  system.programs.set("ip", (argv) =>
    argv.includes("addr") || argv.includes("address") ? { stdout: JSON.stringify(addresses) } : {},
  );
  return system;
}

/** A network that answers the n-th request with what `reply` makes of it. */
function network(
  system: FakeSystem,
  reply: (request: Uint8Array, count: number) => readonly Uint8Array[],
): { open: OpenDhcpSocket; requests: Uint8Array[]; waits: number[] } {
  const requests: Uint8Array[] = [];
  const waits: number[] = [];
  const open: OpenDhcpSocket = async () => {
    let pending: Uint8Array[] = [];
    return {
      send: async (packet) => {
        requests.push(packet);
        pending = [...reply(packet, requests.length)];
      },
      receive: async (timeoutMs) => {
        const packet = pending.shift();
        if (packet === undefined) {
          waits.push(timeoutMs);
          await system.clock.sleep(timeoutMs);
        }
        return packet;
      },
      close: () => undefined,
    };
  };
  return { open, requests, waits };
}

const ENDPOINT: readonly (readonly [number, readonly number[]])[] = [[245, [10, 62, 144, 140]]];

test("wire-protocol.md DHCP-12 DHCP-25 system.md NET-25 NET-28: without a default route broadcasts are routed meanwhile, and the answer's routes are added", async () => {
  using system = machine({ defaultRoute: false });
  const { open } = network(system, (request) => [
    answerTo(request, [...ENDPOINT, [3, [10, 0, 0, 1]], [249, [16, 172, 16, 10, 0, 0, 2]]]),
  ]);
  const probe = createDhcpProbe(system, MANAGE, { openSocket: open });
  expect(await probe.exchange()).toBe("10.62.144.140");
  const ip = system.commands.filter(([name, verb]) => name === "ip" && verb === "route");
  expect(ip).toEqual([
    ["ip", "route", "add", "255.255.255.255", "dev", "eth0"],
    ["ip", "route", "del", "255.255.255.255", "dev", "eth0"],
    ["ip", "route", "add", "172.16.0.0/16", "via", "10.0.0.2"],
    ["ip", "route", "add", "default", "via", "10.0.0.1"],
  ]);
  expect(probe.lastAnswer()?.routes.interface).toBe("eth0");
});

test("wire-protocol.md DHCP-11 DHCP-13 DHCP-15 system.md NET-23: five tries with growing waits, the broadcast flag from the second exchange on", async () => {
  using system = machine({ defaultRoute: true });
  const silent = network(system, () => []);
  const probe = createDhcpProbe(system, MANAGE, { openSocket: silent.open });
  const start = system.clock.monotonic();
  const error = await probe.exchange().catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "dhcp" });
  expect(silent.requests.length).toBe(5);
  expect(silent.requests.every((packet) => packet[0x0a] === 0)).toBe(true);
  expect(new Set(silent.requests.map((packet) => packet.subarray(4, 8).join()))).toHaveProperty(
    "size",
    1,
  );
  expect(silent.waits).toEqual([10_000, 10_000, 10_000, 10_000, 10_000]);
  expect(system.clock.monotonic() - start).toBe(5 * 10_000 + 10_000 + 30_000 + 60_000);
  await probe.exchange().catch(() => undefined);
  expect(silent.requests[5]?.[0x0a]).toBe(0x80);
});

test("wire-protocol.md DHCP-14: datagrams that answer somebody else are passed over", async () => {
  using system = machine({ defaultRoute: true });
  const { open } = network(system, (request) => {
    const foreign = answerTo(request, [[245, [10, 9, 9, 9]]]);
    foreign[5] = (foreign[5] ?? 0) ^ 1;
    return [Uint8Array.of(1, 2, 3), foreign, answerTo(request, ENDPOINT)];
  });
  const probe = createDhcpProbe(system, MANAGE, { openSocket: open });
  expect(await probe.exchange()).toBe("10.62.144.140");
});

test("an answer without an endpoint is an error that says so", async () => {
  using system = machine({ defaultRoute: true });
  const { open } = network(system, (request) => [answerTo(request, [[3, [10, 0, 0, 1]]])]);
  const probe = createDhcpProbe(system, MANAGE, { openSocket: open });
  expect(await probe.exchange().catch((error: Error) => error.message)).toContain("option 245");
});

test("system.md BET-14: the firewall lets the answer in only while we wait for it", async () => {
  using system = machine({ defaultRoute: true });
  system.programs.set("iptables", () => ({}));
  const { open } = network(system, (request) => [answerTo(request, ENDPOINT)]);
  await createDhcpProbe(system, MANAGE, { openSocket: open }).exchange();
  const rule = ["INPUT", "-p", "udp", "--dport", "68", "-j", "ACCEPT"];
  expect(system.commands.filter(([name]) => name === "iptables")).toEqual([
    ["iptables", "-I", ...rule],
    ["iptables", "-D", ...rule],
  ]);
});

test("wire-protocol.md DHCP-12: the DHCP client is stopped around the exchange where the distribution wants it, and started also after a failure", async () => {
  using system = machine({ defaultRoute: true });
  system.programs.set("service", () => ({}));
  const { open } = network(system, () => []);
  const probe = createDhcpProbe(system, MANAGE, {
    openSocket: open,
    stopClient: ["service", "dhcp", "stop"],
    startClient: ["service", "dhcp", "start"],
  });
  await probe.exchange().catch(() => undefined);
  expect(system.commands.filter(([name]) => name === "service")).toEqual([
    ["service", "dhcp", "stop"],
    ["service", "dhcp", "start"],
  ]);
});

test("with Network.Manage=n nothing of the machine is changed", async () => {
  using system = machine({ defaultRoute: false });
  system.programs.set("iptables", () => ({}));
  const { open } = network(system, (request) => [
    answerTo(request, [...ENDPOINT, [3, [10, 0, 0, 1]]]),
  ]);
  const probe = createDhcpProbe(
    system,
    { "Network.Manage": false },
    { openSocket: open, stopClient: ["service", "dhcp", "stop"] },
  );
  expect(await probe.exchange()).toBe("10.62.144.140");
  expect(system.commands.filter((argv) => !argv.includes("show"))).toEqual([]);
});

test("wire-protocol.md DHCP-10: the real socket sends, receives in time, and says when nothing came", async () => {
  const server = dgram.createSocket("udp4");
  await new Promise<void>((resolve) => server.bind(0, "127.0.0.1", resolve));
  server.on("message", (message, peer) =>
    server.send(Buffer.concat([message, Buffer.alloc(2000, 7)]), peer.port, peer.address),
  );
  const socket = await openDhcpSocket({
    local: 0,
    remote: server.address().port,
    address: "127.0.0.1",
  });
  try {
    await socket.send(Uint8Array.of(1, 2, 3));
    const answer = await socket.receive(2000);
    expect(answer?.length).toBe(1024);
    expect([...(answer?.subarray(0, 4) ?? [])]).toEqual([1, 2, 3, 7]);
    expect(await socket.receive(10)).toBeUndefined();
  } finally {
    socket.close();
    server.close();
  }
});
