import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { isPeerAddress, parseIpv4 } from "../../../src/base/address.ts";
import {
  detectEndpoint,
  findEndpoint,
  forgetEndpoint,
  hasEndpointRoute,
  savedEndpoint,
} from "../../../src/azure/endpoint.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { createMachine, ENDPOINT, LIB } from "./platform.ts";

const PROTOCOL = `${LIB}/Protocol` as const;
const FILE = `${LIB}/WireServerEndpoint` as const;
const never = async (): Promise<string> => expect.unreachable();

function routes(system: FakeSystem, text: string): void {
  system.files.makeDirectory("/proc/net");
  system.files.write("/proc/net/route", text);
}

test("wire-protocol.md DHCP-02 provisioning.md PROT-02 system.md NET-21: without DHCP it is the saved endpoint, else the fixed address", async () => {
  using system = createMachine();
  expect(await findEndpoint(system, LIB, { discovery: "static", exchange: never })).toBe(ENDPOINT);
  expect(await findEndpoint(system, LIB, { discovery: "dhcp" })).toBe(ENDPOINT);
  system.files.write(FILE, "10.1.2.3");
  expect(await findEndpoint(system, LIB, { discovery: "static", exchange: never })).toBe(
    "10.1.2.3",
  );
});

test("wire-protocol.md DHCP-03 system.md NET-20: a route to the fixed address, in any column, is enough", async () => {
  using system = createMachine();
  routes(system, "Iface\tDestination\tGateway\neth0\t00000000\t10813FA8\n");
  expect(
    await findEndpoint(system, LIB, {
      discovery: "dhcp",
      exchange: never,
      lease: () => "10.0.0.9",
    }),
  ).toBe(ENDPOINT);
  expect(hasEndpointRoute("eth0\t10813FA8\t00000000")).toBe(true);
  expect(hasEndpointRoute("eth0\t00000000\t0100000A")).toBe(false);
});

test("wire-protocol.md DHCP-03 DHCP-20: then a lease, then our own exchange; addresses nobody can have are refused", async () => {
  using system = createMachine();
  const find = (lease: string | undefined, offered: string): Promise<string> =>
    findEndpoint(system, LIB, {
      discovery: "dhcp",
      lease: () => lease,
      exchange: async () => offered,
    });
  expect(await find("10.0.0.9", "10.0.0.10")).toBe("10.0.0.9");
  expect(await find(undefined, "10.0.0.10")).toBe("10.0.0.10");
  expect(await find("127.0.0.1", "10.0.0.10")).toBe("10.0.0.10");
  await expect(find(undefined, "0.0.0.0")).rejects.toThrow("no endpoint");
});

test("wire-protocol.md DHCP-01 DHCP-05 DHCP-06 FILE-02 FILE-03 provisioning.md PROT-01 PROT-04: detection forgets, then writes endpoint and protocol without a line end", async () => {
  using system = createMachine();
  system.files.write(PROTOCOL, "WireProtocol");
  system.files.write(FILE, "10.9.9.9");
  forgetEndpoint(system, LIB);
  expect(system.files.list(LIB)).toEqual([]);
  const session = await detectEndpoint(system, LIB, {
    discovery: "dhcp",
    exchange: async () => "10.0.0.10",
    connect: async (endpoint) => `session ${endpoint}`,
  });
  expect(session).toBe("session 10.0.0.10");
  expect(system.files.readText(FILE)).toBe("10.0.0.10");
  expect(system.files.readText(PROTOCOL)).toBe("WireProtocol");
  expect(system.events).toEqual([
    { operation: "ProtocolEndpoint", success: true, message: "10.0.0.10" },
  ]);
  expect(savedEndpoint(system, LIB)).toBe("10.0.0.10");
});

test("wire-protocol.md DHCP-06: the usual endpoint is no event", async () => {
  using system = createMachine();
  await detectEndpoint(system, LIB, { discovery: "static", connect: async () => 1 });
  expect(system.events).toEqual([]);
});

test("wire-protocol.md DHCP-08 provisioning.md PROT-01: another protocol than ours means detection", () => {
  using system = createMachine();
  system.files.write(FILE, "10.0.0.10");
  expect(savedEndpoint(system, LIB)).toBeUndefined();
  system.files.write(PROTOCOL, "MetadataProtocol");
  expect(savedEndpoint(system, LIB)).toBeUndefined();
  system.files.write(PROTOCOL, "WireProtocol\n");
  expect(savedEndpoint(system, LIB)).toBeUndefined();
});

test("wire-protocol.md DHCP-05 provisioning.md PROT-02: an endpoint file that is absent, empty or no address means the fixed address, with an error in the log", () => {
  using system = createMachine();
  system.files.write(PROTOCOL, "WireProtocol");
  for (const content of [undefined, "", "not an address", "300.1.1.1"]) {
    if (content !== undefined) system.files.write(FILE, content);
    system.lines.length = 0;
    expect(savedEndpoint(system, LIB)).toBe(ENDPOINT);
    expect(system.lines[0]).toStartWith("ERROR");
  }
});

test("wire-protocol.md DHCP-04 provisioning.md PROT-03 system.md NET-21: 360 tries ten seconds apart, leases only for the first", async () => {
  using system = createMachine();
  let leases = 0;
  const connects: string[] = [];
  const error: AgentError = await detectEndpoint(system, LIB, {
    discovery: "dhcp",
    lease: () => {
      leases += 1;
      return "10.0.0.9";
    },
    exchange: async () => "10.0.0.10",
    connect: async (endpoint) => {
      connects.push(endpoint);
      throw new AgentError("protocol", "nobody there");
    },
  }).then(
    () => expect.unreachable(),
    (reason: AgentError) => reason,
  );
  expect(error.code).toBe("protocol-not-found");
  expect(error.message).toContain("nobody there");
  expect(connects).toHaveLength(360);
  expect(connects.slice(0, 3)).toEqual(["10.0.0.9", "10.0.0.10", "10.0.0.10"]);
  expect(leases).toBe(1);
  expect(system.clock.monotonic()).toBe(359 * 10_000);
  expect(system.files.list(LIB)).toEqual([]);
});

test("wire-protocol.md DHCP-04 DHCP-15: a failed exchange is tried again, anything that is not the platform's fault ends detection", async () => {
  using system = createMachine();
  let tries = 0;
  const session = await detectEndpoint(system, LIB, {
    discovery: "dhcp",
    exchange: async () => {
      tries += 1;
      if (tries < 3) throw new AgentError("dhcp", "no answer");
      return "10.0.0.10";
    },
    connect: async () => "session",
  });
  expect(session).toBe("session");
  expect(tries).toBe(3);
  const full = new AgentError("io", "disk full");
  const ended = detectEndpoint(system, LIB, {
    discovery: "static",
    connect: () => Promise.reject(full),
  });
  await expect(ended).rejects.toBe(full);
});

test("wire-protocol.md DHCP-04: a document that was damaged on the way is asked for again", async () => {
  using system = createMachine();
  let tries = 0;
  const session = await detectEndpoint(system, LIB, {
    discovery: "static",
    connect: () => {
      tries += 1;
      if (tries === 1) throw new AgentError("bad-input", "ExtensionsConfig has a DOCTYPE");
      return Promise.resolve("session");
    },
  });
  expect(session).toBe("session");
  expect(tries).toBe(2);
});

test("addresses: dotted quads only, and a peer is no loopback, multicast or nothing", () => {
  expect(parseIpv4("168.63.129.16")).toEqual([168, 63, 129, 16]);
  for (const text of ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", " 1.2.3.4", "a.b.c.d"])
    expect(parseIpv4(text)).toBeUndefined();
  expect(
    ["10.0.0.1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"].map(isPeerAddress),
  ).toEqual([true, false, false, false, false]);
});
