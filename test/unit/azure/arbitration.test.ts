import { expect, test } from "bun:test";
import { arbitrate } from "../../../src/azure/arbitration.ts";
import { emptyExtensions } from "../../../src/azure/extensions-config.ts";
import type { ExtensionsGoalState } from "../../../src/azure/goal-state.ts";
import { compareTimestamps, normalizeTimestamp } from "../../../src/azure/timestamps.ts";

const at = (day: number): string => `2030-01-${String(day).padStart(2, "0")}T00:00:00.000000Z`;
const fabric = (day: number, id = `incarnation_${day}`): ExtensionsGoalState => ({
  ...emptyExtensions("1"),
  id,
  source: "Fabric",
  createdAt: at(day),
});
const fast = (day: number, id = `etag_${day}`): ExtensionsGoalState => ({
  ...fabric(day, id),
  source: "FastTrack",
});
const choose = (parts: Partial<Parameters<typeof arbitrate>[0]>): string =>
  arbitrate({
    current: undefined,
    fabric: undefined,
    fastTrack: undefined,
    lastFastTrack: undefined,
    ...parts,
  }).id;

test("wire-protocol.md ARB-01: without Fast Track content ExtensionsConfig is in force", () => {
  expect(choose({ fabric: fabric(1) })).toBe("incarnation_1");
  expect(choose({ fabric: fabric(2), current: fabric(1) })).toBe("incarnation_2");
});

test("wire-protocol.md ARB-02 ARB-03: with both, Fast Track wins only when it is strictly newer", () => {
  expect(choose({ fabric: fabric(2), fastTrack: fast(3) })).toBe("etag_3");
  expect(choose({ fabric: fabric(3), fastTrack: fast(3) })).toBe("incarnation_3");
  expect(choose({ fabric: fabric(4), fastTrack: fast(3) })).toBe("incarnation_4");
});

test("wire-protocol.md ARB-04 ARB-05: alone, Fast Track is adopted unless it is older than what is in force", () => {
  expect(choose({ fastTrack: fast(3), current: fabric(2) })).toBe("etag_3");
  expect(choose({ fastTrack: fast(2, "etag_new"), current: fabric(2) })).toBe("etag_new");
  expect(choose({ fastTrack: fast(1), current: fabric(2) })).toBe("incarnation_2");
  expect(choose({ fabric: fabric(1), current: fast(2) })).toBe("etag_2");
});

test("wire-protocol.md ARB-07: ExtensionsConfig without metadata loses to any Fast Track content", () => {
  const bare = { ...fabric(9, "bare"), createdAt: emptyExtensions("1").createdAt };
  expect(choose({ fabric: bare, fastTrack: fast(1) })).toBe("etag_1");
});

test("wire-protocol.md ARB-06 VMS-17 VMS-18: when Fast Track is gone, an older ExtensionsConfig is in force but outdated", () => {
  const stopped = (day: number): ExtensionsGoalState =>
    arbitrate({
      current: fast(5),
      fabric: fabric(day),
      fastTrack: undefined,
      lastFastTrack: at(5),
    });
  expect(stopped(4)).toMatchObject({ id: "incarnation_4", outdated: true });
  expect(stopped(5)).toMatchObject({ id: "incarnation_5", outdated: false });
  expect(stopped(6)).toMatchObject({ outdated: false });
});

test("wire-protocol.md DB-25: times are compared as instants, whatever fraction they were written with", () => {
  expect(compareTimestamps("2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000000Z")).toBe(0);
  expect(compareTimestamps("2030-01-01T00:00:00.5Z", "2030-01-01T00:00:00.499999Z")).toBe(1);
  expect(compareTimestamps("garbage", "0001-01-01T00:00:00.000001Z")).toBe(-1);
  expect(normalizeTimestamp("2030-01-01T00:00:00.12")).toBe("2030-01-01T00:00:00.120000Z");
  expect(normalizeTimestamp("01/01/2030")).toBeUndefined();
});
