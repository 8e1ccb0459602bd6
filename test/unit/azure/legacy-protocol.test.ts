import { expect, test } from "bun:test";
import { detectEndpoint } from "../../../src/azure/endpoint.ts";
import { removeLegacyProtocol } from "../../../src/azure/legacy-protocol.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { createMachine, LIB } from "./platform.ts";

/** An iptables whose security table holds rules; the answer to deleting one that is not there is 1. */
function firewall(system: FakeSystem, version: string, rules: string[]): void {
  system.programs.set("iptables", (argv) => {
    if (argv[1] === "--version") return { stdout: `iptables ${version} (nf_tables)` };
    const index = rules.indexOf(argv.slice(argv.indexOf("OUTPUT") + 1).join(" "));
    if (index === -1) return { code: 1, stderr: "Bad rule" };
    rules.splice(index, 1);
    return {};
  });
}
const OURS = [
  "-d 169.254.169.254 -p tcp -m conntrack --ctstate INVALID,NEW -j ACCEPT",
  "-d 169.254.169.254 -p tcp --destination-port 53 -j ACCEPT",
  "-d 169.254.169.254 -p tcp -m owner --uid-owner 0 -j ACCEPT",
  "-d 169.254.169.254 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP",
];

test("wire-protocol.md DHCP-07 provisioning.md PROT-06: after detection the old protocol's keys and every copy of its rules go", async () => {
  using system = createMachine();
  const rules = ["-d 10.0.0.1 -j ACCEPT", ...OURS, ...OURS, ...OURS];
  firewall(system, "v1.8.7", rules);
  for (const name of [
    "V2TransportPrivate.pem",
    "V2TransportCert.pem",
    "Certificates.p7b",
    "Certificates.xml",
  ])
    system.files.write(`${LIB}/${name}`, "x");
  await detectEndpoint(system, LIB, {
    discovery: "static",
    connect: async () => expect(rules).toHaveLength(13),
  });
  expect(rules).toEqual(["-d 10.0.0.1 -j ACCEPT"]);
  expect(system.files.list(LIB)).toEqual(["Certificates.xml", "Protocol", "WireServerEndpoint"]);
  expect(system.commands[1]?.slice(0, 6)).toEqual([
    "iptables",
    "-w",
    "-t",
    "security",
    "-D",
    "OUTPUT",
  ]);
});

test("wire-protocol.md DHCP-07: at most 99 copies are deleted, and an old iptables gets no -w", async () => {
  using system = createMachine();
  firewall(system, "v1.4.20", Array<string>(150).fill(OURS[1] ?? ""));
  system.files.write(`${LIB}/V2TransportCert.pem`, "x");
  await removeLegacyProtocol(system, LIB);
  expect(system.commands.filter((argv) => argv.includes("53"))).toHaveLength(99);
  expect(system.commands.every((argv) => !argv.includes("-w"))).toBe(true);
});

test("wire-protocol.md DHCP-07: without the old certificate nothing is run or removed", async () => {
  using system = createMachine();
  firewall(system, "v1.8.7", [...OURS]);
  system.files.write(`${LIB}/Certificates.p7b`, "x");
  await removeLegacyProtocol(system, LIB);
  expect(system.commands).toEqual([]);
  expect(system.files.exists(`${LIB}/Certificates.p7b`)).toBe(true);
});

test("a firewall that does not answer is a warning, and the files go all the same", async () => {
  using system = createMachine();
  system.programs.set("iptables", () => ({ code: 4, stderr: "locked" }));
  system.files.write(`${LIB}/V2TransportCert.pem`, "x");
  await removeLegacyProtocol(system, LIB);
  expect(system.lines.some((line) => line.startsWith("WARNING"))).toBe(true);
  expect(system.files.list(LIB)).toEqual([]);
});
