import { expect, test } from "bun:test";
import { createGoalPoll } from "../../../src/agent/goal-poll.ts";
import type { GoalStateClient, GoalStateUpdate } from "../../../src/azure/goal-state-client.ts";
import { AgentError } from "../../../src/base/error.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const signal = new AbortController().signal;
const update = {
  goalState: {
    incarnation: "2",
    extensions: { id: "incarnation_2" },
    certificates: [{ thumbprint: "AB", hasPrivateKey: true }],
  },
  extensionsChanged: false,
  incarnationChanged: false,
  degraded: undefined,
} as unknown as GoalStateUpdate;

function clientThat(answers: (GoalStateUpdate | Error)[]): GoalStateClient {
  return {
    update: async () => {
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (answer instanceof Error || answer === undefined) throw answer;
      return answer;
    },
  } as unknown as GoalStateClient;
}

test("wire-protocol.md GS-20; system.md HIB-03; extensions.md RUN-16: three failures at once, the fourth as still failing, then one in six hours, and the recovery", async () => {
  using system = createFakeSystem();
  const refused = new AgentError("protocol", "Could not read the goal state: connection refused");
  const poll = createGoalPoll(
    system,
    clientThat([...Array<Error>(4).fill(refused), ...Array<Error>(10).fill(refused), update]),
  );
  for (let turn = 0; turn < 14; turn += 1) expect(await poll.poll(signal)).toBeUndefined();
  const messages = system.events.map(({ message }) => message);
  expect(messages).toHaveLength(4);
  expect(messages[3]).toContain("still failing (4 times in a row)");
  expect(
    system.events.every(({ operation, success }) => operation === "FetchGoalState" && !success),
  ).toBe(true);
  expect(await poll.poll(signal)).toBe(update);
  expect(system.events.at(-1)).toMatchObject({ operation: "FetchGoalState", success: true });
  expect(system.events.at(-1)?.message).toContain("incarnation_2");
  expect(system.events.at(-1)?.message).toContain("AB");
  expect(poll.takeFailures()).toBe(14);
  expect(poll.takeFailures()).toBe(0);
});

test("wire-protocol.md GS-20: after six hours of failures one is reported again", async () => {
  using system = createFakeSystem();
  const poll = createGoalPoll(system, clientThat([new AgentError("protocol", "no")]));
  for (let turn = 0; turn < 6; turn += 1) await poll.poll(signal);
  await system.clock.sleep(6 * 3_600_000);
  await poll.poll(signal);
  expect(system.events).toHaveLength(5);
});

test("wire-protocol.md DB-05: a degraded Fast Track is told once and does not stop the goal state", async () => {
  using system = createFakeSystem();
  const degraded = {
    ...update,
    degraded: new AgentError("protocol", "vmSettings cannot be parsed"),
  };
  const poll = createGoalPoll(system, clientThat([degraded, degraded, update]));
  expect(await poll.poll(signal)).toBe(degraded);
  await poll.poll(signal);
  await poll.poll(signal);
  expect(system.lines.filter((line) => line.includes("vmSettings cannot be parsed"))).toHaveLength(
    1,
  );
});
