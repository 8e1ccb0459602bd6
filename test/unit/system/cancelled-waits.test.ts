import { expect, test } from "bun:test";
import { withCancelledWaits } from "../../../src/system/cancelled-waits.ts";
import { createFakeSystem } from "../../fakes/system.ts";

test("every sleep ends when the signal aborts, with or without a signal of its own", async () => {
  using system = createFakeSystem({ automatic: false });
  const stop = new AbortController();
  const machine = withCancelledWaits(system, stop.signal);
  const own = new AbortController();
  const plain = machine.clock.sleep(1000);
  const both = machine.clock.sleep(1000, own.signal);
  const early = machine.clock.sleep(1000, own.signal);
  own.abort();
  await expect(early).rejects.toMatchObject({ code: "cancelled" });
  await expect(both).rejects.toMatchObject({ code: "cancelled" });
  stop.abort();
  await expect(plain).rejects.toMatchObject({ code: "cancelled" });
  await expect(machine.clock.sleep(1)).rejects.toMatchObject({ code: "cancelled" });
});

test("a sleep that is not cancelled ends in its time", async () => {
  using system = createFakeSystem({ automatic: false });
  const machine = withCancelledWaits(system, new AbortController().signal);
  let awake = false;
  const sleep = machine.clock.sleep(1000).then(() => (awake = true));
  await system.clock.advance(999);
  expect(awake).toBe(false);
  await system.clock.advance(1);
  await sleep;
  expect(machine.clock.monotonic()).toBe(1000);
});
