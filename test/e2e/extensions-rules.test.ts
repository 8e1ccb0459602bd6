import { expect } from "bun:test";
import type { Fabric, FabricEvent } from "../fabric/fabric.ts";
import type { StatusDocument } from "../fabric/model.ts";
import type { ExtensionDescription, Scenario } from "../fabric/scenario.ts";
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
const POLICY = "/etc/waagent_policy.json";

const extension = (
  name: string,
  sequence: number,
  more: { level?: number; on?: readonly string[]; state?: "uninstall" } = {},
): ExtensionDescription => ({
  name,
  version: "1.0.0",
  ...(more.state === undefined ? {} : { state: more.state }),
  settings: {
    sequence,
    ...(more.level === undefined ? {} : { dependencyLevel: more.level, dependsOn: more.on ?? [] }),
  },
});

type Handler = StatusDocument["aggregateStatus"]["handlerAggregateStatus"][number];

/** What is reported once the goal state with that incarnation was processed. */
async function reported(
  fabric: Fabric,
  incarnation: string,
): Promise<Readonly<Record<string, Handler>>> {
  const isOver = (event: FabricEvent): boolean =>
    event.type === "status" &&
    event.status.document.aggregateStatus.vmArtifactsAggregateStatus?.goalStateAggregateStatus
      .inSvdSeqNo === incarnation;
  const event = await fabric.waitFor(isOver, 40_000, `the outcome of goal state ${incarnation}`);
  if (event.type !== "status") throw new Error("Only a status was waited for");
  const { handlerAggregateStatus } = event.status.document.aggregateStatus;
  return Object.fromEntries(handlerAggregateStatus.map((one) => [one.handlerName, one]));
}
/** Commands of the handlers of this test; the machine below the sandbox may have a journal of its own. */
const commands = (guest: Guest, prefix: string) =>
  journal(guest.sandbox).filter((one) => one.handler.startsWith(prefix));
const messageOf = (handler: Handler | undefined): string =>
  handler?.formattedMessage?.message ?? "";

guestTest(
  "extensions.md SEQ-03 SEQ-06 SEQ-07 DB-02 DB-03 E2E-26: dependants run after what they need and only they are skipped when it fails",
  async () => {
    const scenario: Scenario = {
      dhcp: {},
      packages: [
        { name: "Order.First", version: "1.0.0", scripts: { enable: "sleep 1" } },
        { name: "Order.Broken", version: "1.0.0", scripts: { enable: "exit 9" } },
        ...["Order.Second", "Order.Third", "Order.Punished", "Order.Free"].map((name) => ({
          name,
          version: "1.0.0",
        })),
      ],
      goalStates: [
        {
          incarnation: "1",
          extensions: [
            extension("Order.Third", 0, { level: 2, on: ["Order.Second"] }),
            extension("Order.Second", 0, { level: 1, on: ["Order.First"] }),
            extension("Order.Punished", 0, { level: 1, on: ["Order.Broken"] }),
            extension("Order.Broken", 0),
            extension("Order.First", 0),
            extension("Order.Free", 0),
          ],
        },
      ],
    };
    await using guest = await startGuest(scenario, { configuration: CONFIGURATION });
    const handlers = await reported(guest.fabric, "1");
    const enabled = commands(guest, "Order.")
      .filter((one) => one.command === "enable")
      .map((one) => one.handler);
    expect(enabled.slice().sort()).toEqual([
      "Order.Broken",
      "Order.First",
      "Order.Free",
      "Order.Second",
      "Order.Third",
    ]);
    const place = (name: string): number => enabled.indexOf(name);
    expect(place("Order.First")).toBeLessThan(place("Order.Second"));
    expect(place("Order.Second")).toBeLessThan(place("Order.Third"));
    expect(place("Order.Free")).toBeLessThan(place("Order.Second"));
    expect(handlers["Order.Third"]?.status).toBe("Ready");
    expect(handlers["Order.Broken"]).toMatchObject({ status: "NotReady", code: 1009 });
    expect(handlers["Order.Punished"]).toMatchObject({ status: "NotReady", code: -1 });
    expect(messageOf(handlers["Order.Punished"])).toContain(
      "Skipping processing of extensions since execution of dependent extension Order.Broken failed",
    );
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md POL-01 POL-04 POL-06 E2E-20 E2E-22 E2E-23 E2E-24: the policy decides at every goal state, also about an uninstall",
  async () => {
    const both = (sequence: number): ExtensionDescription[] => [
      extension("Rule.Good", sequence),
      extension("Rule.Other", sequence),
    ];
    const gone = [extension("Rule.Good", 1), extension("Rule.Other", 1, { state: "uninstall" })];
    const scenario: Scenario = {
      dhcp: {},
      packages: ["Rule.Good", "Rule.Other"].map((name) => ({ name, version: "1.0.0" })),
      goalStates: [both(0), both(1), gone, gone].map((extensions, index) => ({
        incarnation: String(index + 1),
        extensions,
      })),
    };
    const policy = (...names: string[]): string =>
      JSON.stringify({
        policyVersion: "0.1.0",
        extensionPolicies: {
          allowListedExtensionsOnly: true,
          extensions: Object.fromEntries(names.map((name) => [name, {}])),
        },
      });
    await using guest = await startGuest(scenario, {
      configuration: `${CONFIGURATION}Debug.EnableExtensionPolicy=y\n`,
      prepare: (sandbox) => sandbox.write(POLICY, policy("rule.good")),
    });
    const { sandbox, fabric } = guest;
    const first = await reported(fabric, "1");
    expect(first["Rule.Good"]?.status).toBe("Ready");
    expect(first["Rule.Other"]).toMatchObject({ status: "NotReady", code: 1009 });
    expect(first["Rule.Other"]?.runtimeSettingsStatus?.settingsStatus.status.status).toBe("error");
    expect(messageOf(first["Rule.Other"])).toContain(
      "failed to run extension 'Rule.Other' because it is not specified as an allowed extension",
    );
    expect(fabric.requests.some((one) => one.url.includes("Rule.Other"))).toBe(false);

    sandbox.write(POLICY, policy("Rule.Good", "Rule.Other"));
    await fabric.setGoalState(1);
    expect((await reported(fabric, "2"))["Rule.Other"]?.status).toBe("Ready");

    sandbox.write(POLICY, policy("Rule.Good"));
    await fabric.setGoalState(2);
    const third = await reported(fabric, "3");
    expect(third["Rule.Other"]).toMatchObject({ status: "NotReady", code: 1010 });
    expect(messageOf(third["Rule.Other"])).toContain("failed to uninstall extension 'Rule.Other'");
    expect(commands(guest, "Rule.").some((one) => one.command === "uninstall")).toBe(false);

    sandbox.write(POLICY, policy("Rule.Good", "Rule.Other"));
    await fabric.setGoalState(3);
    expect((await reported(fabric, "4"))["Rule.Other"]).toBeUndefined();
    expect(commands(guest, "Rule.").filter((one) => one.command === "uninstall").length).toBe(1);
    expect(fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "extensions.md EXT-20 E2E-30: with extensions switched off nothing runs, each one is told so, and the agent is still Ready",
  async () => {
    const scenario: Scenario = {
      dhcp: {},
      packages: [{ name: "Off.Ext", version: "1.0.0" }],
      goalStates: [{ incarnation: "1", extensions: [extension("Off.Ext", 3)] }],
    };
    await using guest = await startGuest(scenario, {
      configuration: `${CONFIGURATION}Extensions.Enabled=n\n`,
    });
    const handlers = await reported(guest.fabric, "1");
    expect(handlers["Off.Ext"]).toMatchObject({ status: "NotReady", code: 1009 });
    expect(messageOf(handlers["Off.Ext"])).toContain(
      "will not be processed since extension processing is disabled",
    );
    expect(handlers["Off.Ext"]?.runtimeSettingsStatus).toMatchObject({
      sequenceNumber: 3,
      settingsStatus: { status: { status: "error" } },
    });
    expect(commands(guest, "Off.")).toEqual([]);
    expect(
      guest.fabric.statusDocuments.at(-1)?.document.aggregateStatus.guestAgentStatus.status,
    ).toBe("Ready");
  },
  60_000,
);
