import type { EventFacts } from "../../../src/report/event-parameters.ts";

/** A made-up machine for events. */
export const facts: EventFacts = {
  agentVersion: "2.15.0.1",
  processId: 4711,
  osVersion: "Linux:ubuntu-22.04-jammy:6.8.0",
  ramMiB: 3912,
  processors: 4,
  architecture: "x86_64",
};
