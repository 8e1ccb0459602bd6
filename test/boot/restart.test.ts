import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { journal } from "../e2e/journal.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine, type Machine } from "./machine.ts";

const reason = bootProblem();
const bootTest = testUnless(reason);
setDefaultTimeout(120_000);
const ENABLE_SECONDS = 10;

const slow = (sequence: number) => ({
  name: "Slow.Ext",
  version: "1.0.0",
  settings: { sequence },
});
const scenario: Scenario = {
  ...firstBoot(),
  packages: [
    {
      name: "Slow.Ext",
      version: "1.0.0",
      scripts: { enable: `sleep ${ENABLE_SECONDS}; echo "$seq" >>/var/lib/slow-ended` },
    },
  ],
  goalStates: [{ incarnation: "1", extensions: [slow(0)] }],
};

describe("an agent that is ended while a command of a handler runs", () => {
  let machine: Machine;

  beforeAll(async () => {
    if (reason !== undefined) return;
    machine = await bootMachine(scenario, { layers: [await agentLayer()] });
  }, 300_000);
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
  });

  const enables = () => journal(machine).flatMap((one) => (one.command === "enable" ? [one] : []));
  async function begun(sequence: number): Promise<void> {
    for (let waited = 0; waited < 20_000; waited += 50) {
      if (enables().some((one) => one.sequence === sequence)) return;
      await Bun.sleep(50);
    }
    throw new Error(`enable ${sequence} did not begin: ${machine.read("/var/log/waagent.log")}`);
  }
  async function succeeded(sequence: number): Promise<void> {
    await machine.fabric.waitFor(
      (event) =>
        event.type === "status" &&
        event.status.document.aggregateStatus.handlerAggregateStatus.some(
          ({ runtimeSettingsStatus: settings }) =>
            settings?.sequenceNumber === sequence &&
            settings.settingsStatus.status.status === "success",
        ),
      40_000,
      `success of settings ${sequence}`,
    );
  }
  const ended = () => machine.read("/var/lib/slow-ended").trim().split("\n");

  bootTest(
    "extensions.md E2E-51: `systemctl restart` while enable runs: the command goes on in its scope, is not run twice, and its result is reported",
    async () => {
      await begun(0);
      const before = await machine.show("waagent.service", "MainPID");
      const began = performance.now();
      await machine.run(["systemctl", "restart", "waagent.service"]);
      expect(performance.now() - began).toBeLessThan(10_000);
      expect(await machine.show("waagent.service", "MainPID")).not.toBe(before);
      // Not in the service's own group, which systemd has just emptied.
      const scopes = await machine.run([
        ...["systemctl", "list-units", "--no-legend", "--plain", "--type=scope", "enable_*"],
      ]);
      expect(scopes.stdout).toMatch(/^enable_[0-9a-f-]{36}\.scope +loaded +active +running/m);
      await succeeded(0);
      expect(enables().length).toBe(1);
      expect(ended()).toEqual(["0"]);
    },
  );

  bootTest(
    "provisioning.md PKG-20 system.md THR-07 extensions.md E2E-51: killed, it is started again by systemd, provisions nothing, and goes on behind the command",
    async () => {
      const reports = machine.fabric.healthReports.length;
      await machine.fabric.setGoalState({ incarnation: "2", extensions: [slow(1)] });
      await begun(1);
      await machine.run([
        "systemctl",
        "kill",
        "--signal=KILL",
        "--kill-who=main",
        "waagent.service",
      ]);
      await succeeded(1);
      expect(await machine.show("waagent.service", "NRestarts")).toBe("1");
      expect(await machine.show("waagent.service", "ActiveState")).toBe("active");
      expect(enables().map((one) => one.sequence)).toEqual([0, 1]);
      expect(ended()).toEqual(["0", "1"]);
      expect(machine.read("/var/lib/waagent/Slow.Ext-1.0.0/config/HandlerState")).toBe("Enabled");
      expect(machine.fabric.healthReports.length).toBe(reports);
      expect(machine.fabric.violations).toEqual([]);
    },
  );
});
