import { describe, expect, test } from "bun:test";
import { boot, isDisabled, type BootStep } from "../../../src/agent/boot.ts";
import type { AgentContext } from "../../../src/agent/context.ts";
import { AgentError } from "../../../src/base/error.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const signal = new AbortController().signal;

describe("boot", () => {
  test("provisioning.md LIFE-03; system.md DAEMON-08; extensions.md RUN-04: an error nobody took care of starts the sequence over after 15 s", async () => {
    using system = createFakeSystem();
    const runs: string[] = [];
    let broken = true;
    const steps: BootStep[] = [
      { name: "First", wanted: true, run: async () => void runs.push("first") },
      { name: "Left out", wanted: false, run: async () => void runs.push("left out") },
      {
        name: "Second",
        wanted: true,
        run: async () => {
          runs.push("second");
          if (broken) {
            broken = false;
            throw new AgentError("io", "Could not write /x");
          }
        },
      },
    ];
    await boot(system, steps, signal);
    expect(runs).toEqual(["first", "second", "first", "second"]);
    expect(system.clock.monotonic()).toBe(15_000);
    expect(system.events).toMatchObject([
      { operation: "UnhandledError", success: false, message: "Second failed: Could not write /x" },
    ]);
    expect(system.lines).toEqual([
      "WARNING ExtHandler ExtHandler Second failed: Could not write /x; starting over in 15 s",
    ]);
  });

  test("a signal ends the sequence, nothing is tried again", async () => {
    using system = createFakeSystem();
    let runs = 0;
    const step: BootStep = {
      name: "Waiting",
      wanted: true,
      run: () => {
        runs += 1;
        return Promise.reject(new AgentError("cancelled", "The wait was cancelled"));
      },
    };
    await expect(boot(system, [step], signal)).rejects.toThrow("cancelled");
    expect(runs).toBe(1);
    expect(system.events).toEqual([]);
  });

  test("provisioning.md LIFE-05 LOG-05; system.md DAEMON-10: the two warnings that tools look for, while the file is there", () => {
    using system = createFakeSystem();
    const context = { config: defaultConfig() } as AgentContext;
    expect(isDisabled(system, context)).toBe(false);
    system.files.makeDirectory("/var/lib/waagent");
    system.files.write("/var/lib/waagent/disable_agent", "");
    expect(isDisabled(system, context)).toBe(true);
    expect(system.lines[0]).toBe(
      "WARNING ExtHandler ExtHandler Disabling the guest agent by sleeping forever; to re-enable, remove /var/lib/waagent/disable_agent and restart",
    );
    expect(system.lines[1]).toContain(
      "osProfile.allowExtensionOperations property is set to true.",
    );
  });
});
