import { expect } from "bun:test";
import { firstBoot } from "../fabric/scenarios.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem, carry, packageFileOf } from "./image.ts";
import { bootMachine } from "./machine.ts";

testUnless(bootProblem())(
  "an upgrade of the package leaves the running agent alone, which goes on with a program file that is no longer there, and the next start is the new one",
  async () => {
    const layer = await agentLayer();
    await using machine = await bootMachine(firstBoot(), {
      layers: [layer],
      configuration: "Logs.Collect=y\nDebug.LogCollectorInitialDelay=6\n",
    });
    await machine.until("status:Fabric.Demo=success");
    const pid = await machine.show("waagent.service", "MainPID");
    const program = async (process: string) =>
      (await machine.run(["readlink", `/proc/${process}/exe`])).stdout.trim();
    carry(machine, { "new.deb": packageFileOf(layer) });
    await machine.run(["dpkg", "--force-unsafe-io", "-i", "/opt/packages/new.deb"]);
    expect(await machine.show("waagent.service", "MainPID")).toBe(pid);
    expect(await program(pid)).toBe("/usr/sbin/waagent (deleted)");
    // It starts its own program for this.
    expect(machine.fabric.requests.some(({ kind }) => kind === "plugin-log")).toBe(false);
    await machine.until("plugin-log");

    await machine.run(["systemctl", "restart", "waagent.service"]);
    await machine.until("status:Fabric.Demo=success", { after: machine.now() });
    const next = await machine.show("waagent.service", "MainPID");
    expect(next).not.toBe(pid);
    expect(await program(next)).toBe("/usr/sbin/waagent");
    expect(machine.fabric.healthReports.map((one) => one.state)).toEqual(["NotReady", "Ready"]);
    expect(machine.fabric.violations).toEqual([]);
  },
  120_000,
);
