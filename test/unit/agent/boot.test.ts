import { describe, expect, test } from "bun:test";
import { boot, bootSteps, isDisabled, type BootStep } from "../../../src/agent/boot.ts";
import type { AgentContext } from "../../../src/agent/context.ts";
import { AgentError } from "../../../src/base/error.ts";
import type { Connection } from "../../../src/agent/connection.ts";
import type { OperatorView } from "../../../src/agent/operator-view.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import type { System } from "../../../src/system/system.ts";
import { distroNamed } from "../../fakes/distro.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const signal = new AbortController().signal;

describe("boot steps", () => {
  const names = (changes: Partial<Config>): readonly string[] => {
    const context = {
      config: { ...defaultConfig(), ...changes },
      distro: distroNamed("debian", "12"),
    };
    const options = { connection: {} as Connection, view: {} as OperatorView };
    return bootSteps({} as System, context as unknown as AgentContext, options)
      .filter(({ wanted }) => wanted)
      .map(({ name }) => name);
  };

  test("provisioning.md LIFE-02 PROT-04; system.md DAEMON-09 DISK-02 VMM-01; extensions.md RUN-03: VMM, forgetting, disk, provisioning, RDMA in this order", () => {
    expect(names({ DetectScvmmEnv: true })).toEqual([
      "Detection of System Center VMM",
      "Forgetting the saved endpoint",
      "Connecting to the platform",
      "Resource disk",
      "Provisioning",
      "RDMA",
      "Clean-up after old agents",
    ]);
    expect(names({})[0]).toBe("Forgetting the saved endpoint");
  });

  test("a profile that only runs extensions touches neither disk nor users", () => {
    expect(names({ "Agent.Profile": "extensions-only" })).toEqual([
      "Forgetting the saved endpoint",
      "Connecting to the platform",
    ]);
  });
});

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
