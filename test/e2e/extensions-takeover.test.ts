import { expect } from "bun:test";
import type { Fabric } from "../fabric/fabric.ts";
import type { ExtensionDescription, Scenario } from "../fabric/scenario.ts";
import { binary } from "../support/binary.ts";
import { testUnless } from "../support/skip.ts";
import { AGENT_CONF } from "./guest.ts";
import { startHost } from "./host.ts";
import { journal } from "./journal.ts";
import { installReference, referenceMissing, startReference } from "./reference.ts";
import { canSandbox, createSandbox, type Sandbox, type SandboxProcess } from "./sandbox.ts";

const able = canSandbox();
const takeoverTest = testUnless(able.ok ? referenceMissing() : able.reason);

const NAMES = ["Over.One", "Over.Two"];
const packages = [
  ...NAMES.map((name) => ({ name, version: "1.0.0" })),
  { name: "Over.Many", version: "1.0.0", manifest: { supportsMultipleExtensions: true } },
];
const extensions = (sequence: number): readonly ExtensionDescription[] => [
  ...NAMES.map((name) => ({
    name,
    version: "1.0.0",
    settings: { sequence, public: { sequence }, protected: { secret: 1 } },
  })),
  {
    name: "Over.Many",
    version: "1.0.0",
    multi: [
      { name: "a", sequence, public: {} },
      { name: "b", sequence, public: {} },
    ],
  },
];
const SCENARIO: Scenario = {
  dhcp: {},
  packages,
  goalStates: [0, 1, 2].map((sequence) => ({
    incarnation: String(sequence + 1),
    extensions: extensions(sequence),
  })),
};

/** All four extensions are reported with this sequence number and success, after a moment of the host's clock. */
async function allSuccess(fabric: Fabric, sequence: number, after: number): Promise<void> {
  await fabric.waitFor(
    (event) => {
      if (event.type !== "status" || event.at < after) return false;
      const reports = event.status.document.aggregateStatus.handlerAggregateStatus;
      return (
        reports.length === 4 &&
        reports.every(
          (one) =>
            one.status === "Ready" &&
            one.runtimeSettingsStatus?.sequenceNumber === sequence &&
            one.runtimeSettingsStatus.settingsStatus.status.status === "success",
        )
      );
    },
    60_000,
    `four successes with sequence number ${sequence}`,
  );
}

const now = (fabric: Fabric): number => Date.now() - fabric.startedAt;
const commands = (sandbox: Sandbox): string[] =>
  journal(sandbox)
    .filter((one) => one.handler.startsWith("Over."))
    .map(
      (one) =>
        `${one.handler} ${one.command} ${one.sequence}${one.extension === undefined ? "" : ` ${one.extension}`}`,
    );
const enables = (sequence: number): string[] =>
  ["Over.Many enable N a", "Over.Many enable N b", "Over.One enable N", "Over.Two enable N"].map(
    (one) => one.replace("N", String(sequence)),
  );

async function end(agent: SandboxProcess): Promise<void> {
  agent.signal("SIGTERM");
  await Promise.race([agent.exited, Bun.sleep(3000)]);
  await agent.kill();
}

takeoverTest(
  "extensions.md E2E-53 EXT-11 EXT-22 EXT-53 EXT-55: extensions of Debian's agent are taken over without a new install, and given back",
  async () => {
    await using sandbox = await createSandbox({
      network: "pair",
      binds: [{ from: await binary(), to: "/usr/local/sbin/waagent-ours" }],
    });
    const configuration = AGENT_CONF.replace(
      "Provisioning.Agent=waagent",
      "Provisioning.Agent=disabled",
    );
    await installReference(sandbox, configuration);
    await using fabric = await startHost(sandbox, SCENARIO);

    const first = startReference(sandbox);
    await allSuccess(fabric, 0, 0);
    await end(first);
    await sandbox.run([
      "sh",
      "-c",
      "for p in /proc/[0-9]*; do grep -qs [r]un-exthandlers $p/cmdline && kill -9 ${p#/proc/}; done; true",
    ]);
    const installed = commands(sandbox);
    expect(installed.filter((one) => one.includes("install")).length).toBe(3);

    let before = now(fabric);
    const ours = sandbox.spawn(["/usr/local/sbin/waagent-ours", "-daemon"]);
    await allSuccess(fabric, 0, before);
    await fabric.setGoalState(1);
    await allSuccess(fabric, 1, before);
    await end(ours);
    const taken = commands(sandbox).slice(installed.length);
    expect(taken.slice(0, 4).sort()).toEqual(enables(0));
    expect(taken.slice(4).sort()).toEqual(enables(1));

    before = now(fabric);
    const again = startReference(sandbox);
    await allSuccess(fabric, 1, before);
    await fabric.setGoalState(2);
    await allSuccess(fabric, 2, before);
    await end(again);
    const back = commands(sandbox).slice(installed.length + taken.length);
    expect(back.filter((one) => !one.includes("enable"))).toEqual([]);
    expect(back.slice(-4).sort()).toEqual(enables(2));
  },
  180_000,
);
