import { expect } from "bun:test";
import { firstBoot } from "../fabric/scenarios.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine } from "./machine.ts";

testUnless(bootProblem())(
  "system.md LOGC-07: the machine's logs are collected beside the agent and uploaded, with priorities only where no limit can be set",
  async () => {
    await using machine = await bootMachine(
      { ...firstBoot(), packages: [], goalStates: [{ incarnation: "1" }] },
      {
        layers: [await agentLayer()],
        configuration: "Logs.Collect=y\nDebug.LogCollectorInitialDelay=1\n",
      },
    );
    const uploads = () =>
      machine.fabric.requests.filter(({ kind, status }) => kind === "plugin-log" && status < 300);
    await machine.until("plugin-log");
    const first = uploads()[0]!;
    expect(first.bodyBytes).toBeGreaterThan(1000);
    const done = "Successfully uploaded logs.";
    for (let waited = 0; waited < 5000; waited += 50) {
      if (machine.read("/var/log/waagent.log").includes(done)) break;
      await Bun.sleep(50);
    }
    const log = machine.read("/var/log/waagent.log");
    // The host keeps the controllers to itself, so in here none can be limited.
    expect(log).toContain("Log collection is on, limits by nice and ionice");
    expect(log).toContain(done);
    const listed = await machine.run(["waagent", "status"]);
    expect(listed.stdout).toContain("provisioning: provisioned");
    expect(machine.fabric.violations).toEqual([]);
  },
  120_000,
);
