import { expect } from "bun:test";
import type { Scenario } from "../fabric/scenario.ts";
import { testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const guestTest = testUnless(able.ok ? undefined : able.reason);
const CONFIGURATION = AGENT_CONF.replace(
  "Provisioning.Agent=waagent",
  "Provisioning.Agent=disabled",
);

const slow = (operation: "install" | "enable" | "disable"): Scenario => ({
  dhcp: {},
  packages: [
    {
      name: "Slow.Ext",
      version: "1.0.0",
      scripts: { [operation]: `sleep 4; echo "$operation done" >>/var/lib/slow-ended` },
    },
  ],
  goalStates: [
    {
      incarnation: "1",
      extensions: [{ name: "Slow.Ext", version: "1.0.0", settings: { sequence: 5 } }],
    },
    {
      incarnation: "2",
      extensions: [
        { name: "Slow.Ext", version: "1.0.0", state: "uninstall", settings: { sequence: 5 } },
      ],
    },
  ],
});

/** Waits until that command has begun. */
async function begun(guest: Guest, command: string): Promise<void> {
  for (let waited = 0; waited < 20_000; waited += 50) {
    if (ran(guest).includes(command)) return;
    await Bun.sleep(50);
  }
  throw new Error(`${command} did not begin`);
}
const ran = (guest: Guest): string[] =>
  journal(guest.sandbox)
    .filter((one) => one.handler === "Slow.Ext")
    .map((one) => one.command);

for (const operation of ["install", "enable"] as const) {
  guestTest(
    `extensions.md E2E-51: the agent is killed while ${operation} runs; the next one waits for it and runs nothing twice`,
    async () => {
      await using guest = await startGuest(slow(operation), { configuration: CONFIGURATION });
      await begun(guest, operation);
      await guest.agent.kill();
      guest.restart();
      await guest.until("status:Slow.Ext=success", { timeoutMs: 30_000 });
      expect(ran(guest)).toEqual(["install", "enable"]);
      expect(guest.sandbox.read("/var/lib/slow-ended").trim().split("\n").length).toBe(1);
      expect(guest.sandbox.read("/var/lib/waagent/Slow.Ext-1.0.0/config/HandlerState")).toBe(
        "Enabled",
      );
    },
    60_000,
  );
}

guestTest(
  "extensions.md E2E-54 DB-24: a stop during disable takes little time and leaves the command alone; the next agent goes on behind it",
  async () => {
    await using guest = await startGuest(slow("disable"), { configuration: CONFIGURATION });
    await guest.until("status:Slow.Ext=success");
    await guest.fabric.setGoalState(1);
    await begun(guest, "disable");
    const stopped = performance.now();
    guest.agent.signal("SIGTERM");
    await guest.agent.exited;
    expect(performance.now() - stopped).toBeLessThan(10_000);
    guest.restart();
    await guest.fabric.waitFor(
      (event) =>
        event.type === "status" &&
        event.status.document.aggregateStatus.handlerAggregateStatus.length === 0 &&
        event.status.document.aggregateStatus.vmArtifactsAggregateStatus?.goalStateAggregateStatus
          .inSvdSeqNo === "2",
      30_000,
      "a status without the handler",
    );
    expect(ran(guest)).toEqual(["install", "enable", "disable", "uninstall"]);
    expect(guest.sandbox.read("/var/lib/slow-ended").trim().split("\n").length).toBe(1);
  },
  60_000,
);
