import { expect, test } from "bun:test";
import { compareDistroVersions } from "../../../src/distro/version-order.ts";

const ASCENDING = [
  "",
  "6.10",
  "7",
  "7.0",
  "7.9.2009",
  "8",
  "8.6",
  "8.10",
  "10.0_RC2",
  "10.0.2",
  "12.0-updates",
  "12.0.1",
  "18.04",
  "24.04",
  "bookworm/sid",
  "n/a",
  "rolling",
  "trixie/sid",
];

test("provisioning.md DIST-05 DB-17: the order is total, numeric by part, also where words meet numbers", () => {
  for (const [i, left] of ASCENDING.entries()) {
    for (const [j, right] of ASCENDING.entries()) {
      expect([left, right, Math.sign(compareDistroVersions(left, right))]).toEqual([
        left,
        right,
        Math.sign(i - j),
      ]);
    }
  }
});

test("provisioning.md DIST-05: dots only separate, numbers of any length compare as numbers", () => {
  expect(compareDistroVersions("8.06", "8.6")).toBe(0);
  expect(compareDistroVersions("8..6", "8.6")).toBe(0);
  expect(compareDistroVersions("1.4-rolling-202402090309", "1.4-rolling-99")).toBe(1);
});
