import { expect } from "bun:test";
import { journal } from "../e2e/journal.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine } from "./machine.ts";

/** Like a handler that puts a driver in: enable reboots the machine the first time, and is done the second time. */
const scenario: Scenario = {
  ...firstBoot(),
  packages: [
    {
      name: "Driver.Ext",
      version: "1.0.0",
      scripts: {
        enable: `[ -e /var/lib/driver ] || { report transitioning rebooting; touch /var/lib/driver; systemctl --no-block reboot; sleep 300; }`,
      },
    },
  ],
  goalStates: [
    {
      incarnation: "1",
      extensions: [{ name: "Driver.Ext", version: "1.0.0", settings: { sequence: 0 } }],
    },
  ],
};

testUnless(bootProblem())(
  "provisioning.md ID-04: an extension whose enable reboots the machine does not hold the shutdown up, and is enabled again afterwards, not installed",
  async () => {
    await using machine = await bootMachine(scenario, { layers: [await agentLayer()] });
    await machine.until("ready");
    const began = performance.now();
    await machine.rebooted();
    expect(performance.now() - began).toBeLessThan(20_000);
    await machine.until("status:Driver.Ext=success");
    expect(journal(machine).map((one) => one.command)).toEqual(["install", "enable", "enable"]);
    expect(machine.read("/var/lib/waagent/Driver.Ext-1.0.0/config/HandlerState")).toBe("Enabled");
    expect(machine.fabric.healthReports.map((one) => one.state)).toEqual(["NotReady", "Ready"]);
    expect(machine.fabric.violations).toEqual([]);
  },
  120_000,
);
