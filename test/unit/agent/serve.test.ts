import { expect, test } from "bun:test";
import { openPatiently } from "../../../src/agent/serve.ts";
import type { Session } from "../../../src/azure/session.ts";
import { AgentError } from "../../../src/base/error.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const config = { ...defaultConfig(), "Extensions.GoalStatePeriod": 7 };
const SESSION = {} as Session;

test("wire-protocol.md GS-19: the start waits until the platform has answered once, and asks again after each period", async () => {
  using system = createFakeSystem();
  const asked: number[] = [];
  const open = async (): Promise<Session> => {
    asked.push(system.clock.monotonic());
    if (asked.length < 4) throw new AgentError("protocol", "the platform is away");
    return SESSION;
  };
  const session = await openPatiently(system, { config }, { open }, new AbortController().signal);
  expect(session).toBe(SESSION);
  expect(asked).toEqual([0, 7000, 14_000, 21_000]);
  expect(system.lines).toEqual(
    Array.from(
      { length: 3 },
      () => "ERROR ExtHandler ExtHandler Could not get the first goal state: the platform is away",
    ),
  );
});

test("a stop ends the wait for the platform", async () => {
  using system = createFakeSystem();
  const stop = new AbortController();
  const open = async (): Promise<Session> => {
    stop.abort();
    throw new AgentError("protocol", "the platform is away");
  };
  const waiting = openPatiently(system, { config }, { open }, stop.signal);
  expect(await waiting.catch((error: unknown) => error)).toMatchObject({ code: "protocol" });
  expect(system.lines).toEqual([]);
});
