import { expect, test } from "bun:test";
import {
  buildDiscover,
  findOption,
  isAnswerTo,
  parseAnswer,
  parseClasslessRoutes,
} from "../../../src/machine/dhcp-packet.ts";
import { answerTo } from "./dhcp-answers.ts";

const MAC = Uint8Array.of(0, 0x0d, 0x3a, 1, 2, 3);
const ID = Uint8Array.of(9, 8, 7, 6);

test("wire-protocol.md DHCP-13 system.md NET-22: a discover has 244 bytes, and only the stated ones are not zero", () => {
  const packet = buildDiscover({ transactionId: ID, mac: MAC, broadcast: false });
  expect(packet.length).toBe(244);
  expect([...packet.subarray(0, 4)]).toEqual([1, 1, 6, 0]);
  expect([...packet.subarray(4, 8)]).toEqual([9, 8, 7, 6]);
  expect(packet[0x0a]).toBe(0);
  expect([...packet.subarray(0x1c, 0x22)]).toEqual([...MAC]);
  expect([...packet.subarray(0xec)]).toEqual([0x63, 0x82, 0x53, 0x63, 0x35, 1, 1, 0xff]);
  const others = packet.filter(
    (byte, at) => byte !== 0 && !(at < 8 || (at >= 0x1c && at < 0x22) || at >= 0xec),
  );
  expect(others.length).toBe(0);
  expect(buildDiscover({ transactionId: ID, mac: MAC, broadcast: true })[0x0a]).toBe(0x80);
});

test("wire-protocol.md DHCP-14 system.md NET-26: an answer must repeat cookie, transaction and MAC, and be long enough", () => {
  const request = buildDiscover({ transactionId: ID, mac: MAC, broadcast: false });
  const good = answerTo(request, [[245, [168, 63, 129, 16]]]);
  expect(isAnswerTo(request, good)).toBe(true);
  for (const at of [0, 4, 7, 0x1c, 0x21, 0xec, 0xef]) {
    const bad = good.slice();
    bad[at] = (bad[at] ?? 0) ^ 0xff;
    expect(isAnswerTo(request, bad)).toBe(false);
  }
  expect(isAnswerTo(request, good.subarray(0, 0xf5))).toBe(false);
});

test("wire-protocol.md DHCP-20 DHCP-21 DHCP-22 DHCP-23 DHCP-24 system.md NET-27: options 245, 3 and 249 are read, others and pads skipped", () => {
  const request = buildDiscover({ transactionId: ID, mac: MAC, broadcast: false });
  const answer = answerTo(request, [
    [53, [2]],
    0,
    0,
    [15, [1, 2, 3]],
    [3, [10, 0, 0, 1]],
    [249, [16, 172, 16, 10, 0, 0, 1, 0, 10, 0, 0, 254, 32, 168, 63, 129, 16, 10, 0, 0, 1]],
    [245, [10, 62, 144, 140]],
    255,
    [245, [10, 0, 0, 99]],
  ]);
  expect(parseAnswer(answer)).toEqual({
    endpoint: "10.62.144.140",
    routes: {
      gateway: "10.0.0.1",
      classless: [
        { network: "172.16.0.0", prefix: 16, gateway: "10.0.0.1" },
        { network: "0.0.0.0", prefix: 0, gateway: "10.0.0.254" },
        { network: "168.63.129.16", prefix: 32, gateway: "10.0.0.1" },
      ],
    },
  });
  expect([...(findOption(answer, 15) ?? [])]).toEqual([1, 2, 3]);
  expect(findOption(answer, 99)).toBeUndefined();
});

test("wire-protocol.md DHCP-20: an endpoint of the wrong length, cut short or that no peer can have is ignored", () => {
  const request = buildDiscover({ transactionId: ID, mac: MAC, broadcast: false });
  const endpointOf = (value: number[]): string | undefined =>
    parseAnswer(answerTo(request, [[245, value]])).endpoint;
  expect(endpointOf([168, 63, 129, 16])).toBe("168.63.129.16");
  for (const rogue of [
    [168, 63, 129],
    [168, 63, 129, 16, 1],
    [127, 0, 0, 1],
    [0, 0, 0, 0],
    [255, 255, 255, 255],
    [224, 0, 0, 1],
  ])
    expect(endpointOf(rogue)).toBeUndefined();
  const whole = answerTo(request, [[245, [168, 63, 129, 16]]]);
  expect(parseAnswer(whole.subarray(0, 0xf0 + 4)).endpoint).toBeUndefined();
});

test("wire-protocol.md DHCP-25: classless routes are networks with their bits, host bits cleared, broken tails dropped", () => {
  expect(parseClasslessRoutes(Uint8Array.of(20, 10, 1, 0xff, 10, 0, 0, 1))).toEqual([
    { network: "10.1.240.0", prefix: 20, gateway: "10.0.0.1" },
  ]);
  expect(parseClasslessRoutes(Uint8Array.of(33, 1, 2, 3, 4, 5, 10, 0, 0, 1))).toEqual([]);
  expect(parseClasslessRoutes(Uint8Array.of(8, 10, 10, 0, 0, 1, 24, 10, 1))).toEqual([
    { network: "10.0.0.0", prefix: 8, gateway: "10.0.0.1" },
  ]);
  // a gateway nobody can be, and a network on the link itself
  expect(parseClasslessRoutes(Uint8Array.of(8, 10, 127, 0, 0, 1, 8, 11, 0, 0, 0, 0))).toEqual([
    { network: "11.0.0.0", prefix: 8, gateway: "0.0.0.0" },
  ]);
});

test("option 121 is preferred to 249 when both are there", () => {
  const request = buildDiscover({ transactionId: ID, mac: MAC, broadcast: false });
  const { routes } = parseAnswer(
    answerTo(request, [
      [249, [8, 11, 10, 0, 0, 1]],
      [121, [8, 12, 10, 0, 0, 1]],
    ]),
  );
  expect(routes.classless.map((route) => route.network)).toEqual(["12.0.0.0"]);
});

test("any bytes are parsed without an error", () => {
  let seed = 7;
  const random = (): number => (seed = (seed * 1103515245 + 12345) & 0x7fffffff);
  for (let round = 0; round < 3000; round += 1) {
    const packet = Uint8Array.from({ length: random() % 700 }, () => random() >> 8);
    const { endpoint, routes } = parseAnswer(packet);
    expect(endpoint === undefined || /^\d+\.\d+\.\d+\.\d+$/.test(endpoint)).toBe(true);
    for (const route of routes.classless) expect(route.prefix).toBeLessThanOrEqual(32);
  }
});
