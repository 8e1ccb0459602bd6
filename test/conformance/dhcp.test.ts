import { expect, test } from "bun:test";
import { parseDhclientLeases } from "../../src/machine/dhcp-leases.ts";
import { buildDiscover, isAnswerTo, parseAnswer } from "../../src/machine/dhcp-packet.ts";
import {
  areFixturesThere,
  readFixture,
  readFixtureBytes,
  skipWithoutFixtures,
} from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const now = Date.UTC(2026, 0, 1);

  test("wire-protocol.md DHCP-14 DHCP-20 DHCP-21 FIX-18: the recorded answer names endpoint and router, and no classless routes", () => {
    const answer = readFixtureBytes("dhcp");
    expect(answer.length).toBe(328);
    expect(parseAnswer(answer)).toEqual({
      endpoint: "10.62.144.140",
      routes: { gateway: "10.62.144.1", classless: [] },
    });
    const request = buildDiscover({
      transactionId: answer.slice(4, 8),
      mac: answer.slice(0x1c, 0x22),
      broadcast: false,
    });
    expect(isAnswerTo(request, answer)).toBe(true);
  });

  test("wire-protocol.md DHCP-35 FIX-19: of the recorded leases the last valid one wins", () => {
    expect(parseDhclientLeases(readFixture("dhcp.leases"), now)).toBe("168.63.129.16");
    expect(parseDhclientLeases(readFixture("dhcp.leases.multi"), now)).toBe("168.63.129.2");
    expect(parseDhclientLeases(readFixture("dhcp.leases.custom.dns"), now)).toBe("168.63.129.16");
  });
}
