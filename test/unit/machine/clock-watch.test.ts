import { expect, test } from "bun:test";
import { clockJump, readClocks } from "../../../src/machine/clock-watch.ts";
import { createFakeSystem } from "../../fakes/system.ts";

test("system.md HIB-04: a jump of the wall clock is seen, ordinary time and small corrections are not", async () => {
  using system = createFakeSystem();
  const start = readClocks(system);
  await system.clock.sleep(600_000);
  expect(clockJump(start, readClocks(system))).toBe(0);
  system.clock.step(900);
  expect(clockJump(start, readClocks(system))).toBe(0);
  const before = readClocks(system);
  system.clock.step(3_600_000);
  expect(clockJump(before, readClocks(system))).toBe(3_600_000);
  system.clock.step(-7_200_000);
  expect(clockJump(before, readClocks(system))).toBe(-3_600_000);
});
