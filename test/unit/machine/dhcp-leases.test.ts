import { expect, test } from "bun:test";
import {
  endpointFromLeases,
  findLeasedEndpoint,
  parseDhclientLeases,
  parseNetworkdLease,
  parseNmcli,
  parseRawLease,
} from "../../../src/machine/dhcp-leases.ts";
import { buildDiscover } from "../../../src/machine/dhcp-packet.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { answerTo } from "./dhcp-answers.ts";

const NOW = Date.UTC(2030, 0, 1);

function lease(option: string, expire?: string): string {
  return `lease {
  interface "eth0";
  fixed-address 10.0.1.4;
  option routers 10.0.1.1;
  ${option}
  renew 4 2015/06/16 16:58:54;
${expire === undefined ? "" : `  expire ${expire};\n`}}
`;
}

test("wire-protocol.md DHCP-35 system.md NET-60: of the dhclient leases that are valid the last counts", () => {
  const first = lease("option unknown-245 a8:3f:81:10;", "0 never");
  const second = lease("option unknown-245 a:3e:90:8c;", "4 2031/06/16 16:58:54");
  const expired = lease("option unknown-245 0b:0b:0b:0b;", "4 2029/12/31 23:59:59");
  const endless = lease("option unknown-245 0c:0c:0c:0c;");
  const without = lease("option domain-name-servers 10.0.0.1;", "never");
  expect(parseDhclientLeases(first, NOW)).toBe("168.63.129.16");
  expect(parseDhclientLeases(first + second + expired + endless + without, NOW)).toBe(
    "10.62.144.140",
  );
  expect(parseDhclientLeases(expired + endless + without, NOW)).toBeUndefined();
  expect(parseDhclientLeases("lease { option unknown-245", NOW)).toBeUndefined();
});

test("the date of a lease may stand in other forms, and the option in quotes", () => {
  const at = (expire: string): string | undefined =>
    parseDhclientLeases(lease("option unknown-245 a8:3f:81:10;", expire), NOW);
  expect(at("2  2030/01/02 00:00:00")).toBe("168.63.129.16");
  expect(at("epoch 1900000000; # comment")).toBe("168.63.129.16");
  expect(at("epoch 1000000000")).toBeUndefined();
  expect(at("someday")).toBeUndefined();
  expect(parseDhclientLeases(lease('option unknown-245 "ABC\\177";', "never"), NOW)).toBe(
    "65.66.67.127",
  );
});

test("wire-protocol.md DHCP-34: OpenBSD's leases name the option otherwise", () => {
  expect(parseDhclientLeases(lease("option option-245 a8:3f:81:10;", "0 never"), NOW)).toBe(
    "168.63.129.16",
  );
});

test("wire-protocol.md DHCP-31: networkd keeps eight hex digits", () => {
  expect(parseNetworkdLease("ADDRESS=10.0.0.4\nOPTION_245=a83f8110\nX=1\n")).toBe("168.63.129.16");
  expect(parseNetworkdLease("OPTION_245=a83f81\n")).toBeUndefined();
  expect(parseNetworkdLease("OPTION_245=7f000001\n")).toBeUndefined();
});

test("NetworkManager and dhcpcd leases are understood as well", () => {
  expect(parseNmcli("DHCP4.OPTION[3]: private_245 = a8:3f:81:10\n")).toBe("168.63.129.16");
  expect(parseNmcli("DHCP4.OPTION[17]:   unknown_245 = a8:3f:81:10\n")).toBe("168.63.129.16");
  expect(parseNmcli("DHCP4.OPTION[1]: ip_address = 10.0.0.4\n")).toBeUndefined();
  const request = buildDiscover({
    transactionId: new Uint8Array(4),
    mac: new Uint8Array(6),
    broadcast: false,
  });
  const packet = answerTo(request, [
    [51, [0, 0, 0x0e, 0x10]],
    [245, [168, 63, 129, 16]],
  ]);
  expect(parseRawLease(packet, { modifiedMs: NOW - 1000, now: NOW })).toBe("168.63.129.16");
  expect(parseRawLease(packet, { modifiedMs: NOW - 3_601_000, now: NOW })).toBeUndefined();
  const endless = answerTo(request, [
    [51, [255, 255, 255, 255]],
    [245, [168, 63, 129, 16]],
  ]);
  expect(parseRawLease(endless, { modifiedMs: 0, now: NOW })).toBe("168.63.129.16");
});

test("wire-protocol.md DHCP-30 DHCP-32 DHCP-33: the distribution's own lease files come first, over all of them the last valid lease wins", () => {
  using system = createFakeSystem({ now: NOW });
  system.files.makeDirectory("/var/lib/dhclient");
  system.files.makeDirectory("/var/lib/NetworkManager");
  system.files.makeDirectory("/run/systemd/netif/leases");
  system.files.write("/run/systemd/netif/leases/2", "OPTION_245=0a000063\n");
  const leases = {
    format: "dhclient",
    globs: ["/var/lib/dhclient/dhclient-*.lease", "/var/lib/NetworkManager/dhclient-*.lease"],
  } as const;
  expect(endpointFromLeases(system, leases)).toBe("10.0.0.99");
  system.files.write(
    "/var/lib/dhclient/dhclient-eth0.lease",
    lease("option unknown-245 a8:3f:81:10;", "never"),
  );
  expect(endpointFromLeases(system, leases)).toBe("168.63.129.16");
  system.files.write(
    "/var/lib/NetworkManager/dhclient-eth0.lease",
    lease("option unknown-245 0a:00:00:05;", "never"),
  );
  system.files.write("/var/lib/NetworkManager/dhclient-eth9.lease", Uint8Array.of(0xff, 0xfe));
  expect(endpointFromLeases(system, leases)).toBe("10.0.0.5");
  expect(endpointFromLeases(system, undefined)).toBe("10.0.0.99");
});

test("system.md BET-12: NetworkManager is asked only when no file names the endpoint, and need not answer", async () => {
  using system = createFakeSystem({ now: NOW });
  expect(await findLeasedEndpoint(system, undefined)).toBeUndefined();
  expect(system.commands).toEqual([]);
  system.programs.set("nmcli", () => ({ stdout: "DHCP4.OPTION[1]:  unknown_245 = a8:3f:81:10\n" }));
  expect(await findLeasedEndpoint(system, undefined)).toBe("168.63.129.16");
  system.programs.set("nmcli", () => ({ code: 8, stderr: "NetworkManager is not running" }));
  expect(await findLeasedEndpoint(system, undefined)).toBeUndefined();
  system.commands.length = 0;
  system.files.makeDirectory("/run/systemd/netif/leases");
  system.files.write("/run/systemd/netif/leases/2", "OPTION_245=a83f8110\n");
  expect(await findLeasedEndpoint(system, undefined)).toBe("168.63.129.16");
  expect(system.commands).toEqual([]);
});

test("leases of any shape and of megabytes are read or passed over in no time", () => {
  const whole = lease("option unknown-245 a8:3f:81:10;", "0 never");
  let seed = 11;
  const random = (limit: number): number =>
    (seed = (seed * 1103515245 + 12345) & 0x7fffffff) % limit;
  for (let round = 0; round < 2000; round += 1) {
    const at = random(whole.length);
    const damaged = `${whole.slice(0, at)}${String.fromCharCode(random(128))}${whole.slice(at + random(9))}`;
    const found = parseDhclientLeases(damaged + whole.slice(0, random(whole.length)), NOW);
    expect(found === undefined || /^[\d.]+$/.test(found)).toBe(true);
  }
  // A pattern that walks back would need minutes here: the limit of the test is the assertion.
  for (const text of [
    "\n".repeat(4e6),
    "lease {".repeat(5e5),
    `lease {${"\n".repeat(4e6)}`,
    " ".repeat(4e6),
    "option ".repeat(5e5),
  ]) {
    expect(parseDhclientLeases(text, NOW)).toBeUndefined();
    expect(parseNetworkdLease(text)).toBeUndefined();
    expect(parseNmcli(text)).toBeUndefined();
  }
});
