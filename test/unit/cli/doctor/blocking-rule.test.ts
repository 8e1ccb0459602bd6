import { expect, test } from "bun:test";
import { blockingIptablesRule, blockingNftRule } from "../../../../src/cli/doctor/blocking-rule.ts";

const WIRE = "168.63.129.16";
const rule = (...lines: readonly string[]): string | undefined =>
  blockingIptablesRule(["-P OUTPUT ACCEPT", ...lines].join("\n"), WIRE);
const DROP = `-A OUTPUT -d ${WIRE}/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP`;
const ROOT = `-A OUTPUT -d ${WIRE}/32 -p tcp -m owner --uid-owner 0 -j ACCEPT`;
const DNS = `-A OUTPUT -d ${WIRE}/32 -p tcp -m tcp --dport 53 -j ACCEPT`;

test("the agent's own rules do not block it; without, or before, the one for root they do", () => {
  expect(rule(DNS, ROOT, DROP)).toBeUndefined();
  expect(rule(DNS, DROP)).toBe(DROP);
  expect(rule(DROP, ROOT)).toBe(DROP);
});

test("rules of others count when they apply to root's connection", () => {
  const other = (match: string): string =>
    `-A OUTPUT ${match} -j REJECT --reject-with icmp-port-unreachable`;
  expect(rule(other("-d 168.63.0.0/16"))).toBe(other("-d 168.63.0.0/16"));
  expect(rule(other("-p tcp -m tcp --dport 80"))).toBeDefined();
  expect(rule(other("-m owner ! --uid-owner 1000"))).toBeDefined();
  for (const harmless of [
    "-d 168.64.0.0/16",
    `! -d ${WIRE}/32`,
    "-p udp",
    "-p tcp -m tcp --dport 443",
    "-o docker0",
    "-m owner --uid-owner 1000",
    "-m owner ! --uid-owner 0",
    "-m set --match-set bad dst",
    "-m conntrack --ctstate INVALID",
  ])
    expect(rule(other(harmless))).toBeUndefined();
});

test("chains are followed, and a policy of DROP counts when nothing accepts", () => {
  const blocked = `-A hole -d ${WIRE}/32 -j DROP`;
  expect(rule("-A OUTPUT -j hole", blocked)).toBe(blocked);
  expect(rule("-A OUTPUT -j hole", "-A hole -j RETURN", blocked)).toBeUndefined();
  expect(rule("-A OUTPUT -j a", "-A a -j b", "-A b -j a")).toBeUndefined();
  expect(blockingIptablesRule("-P OUTPUT DROP\n", WIRE)).toBe("-P OUTPUT DROP");
  expect(blockingIptablesRule(`-P OUTPUT DROP\n${ROOT}\n`, WIRE)).toBeUndefined();
});

test("nft: a drop of the address is found, the agent's own rule is none", () => {
  const listing = (line: string): string =>
    `table ip t {\n\tchain output {\n\t\ttype filter hook output priority 0; policy accept;\n\t\t${line}\n\t}\n}\n`;
  const own = `ip daddr ${WIRE} tcp dport != 53 meta skuid != 0 ct state invalid,new counter packets 0 bytes 0 drop`;
  expect(blockingNftRule(listing(own), WIRE)).toBeUndefined();
  const bad = `ip daddr ${WIRE} counter packets 3 bytes 180 drop`;
  expect(blockingNftRule(listing(bad), WIRE)).toBe(bad);
  expect(blockingNftRule(listing(bad.replace(WIRE, "10.0.0.1")), WIRE)).toBeUndefined();
  expect(blockingNftRule(listing(`ip daddr ${WIRE} meta skuid 1000 drop`), WIRE)).toBeUndefined();
});
