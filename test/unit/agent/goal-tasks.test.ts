import { describe, expect, test } from "bun:test";
import type { AgentContext } from "../../../src/agent/context.ts";
import { goalTasks, type GoalTasksOptions } from "../../../src/agent/goal-tasks.ts";
import { createOperatorView } from "../../../src/agent/operator-view.ts";
import type { TaskGroup } from "../../../src/agent/tasks.ts";
import { emptyExtensions } from "../../../src/azure/extensions-config.ts";
import type { ExtensionsGoalState, GoalState } from "../../../src/azure/goal-state.ts";
import type { Session } from "../../../src/azure/session.ts";
import { AgentError } from "../../../src/base/error.ts";
import { defaultConfig, type Config } from "../../../src/config/table.ts";
import { NO_LIMITS } from "../../../src/extensions/work.ts";
import { NO_ISOLATION } from "../../../src/extensions/invocation.ts";
import type { EventSpool } from "../../../src/report/events.ts";
import { distroNamed } from "../../fakes/distro.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const blob = { url: "https://acct/x.status?sv=1&sig=S", type: "BlockBlob" as const };

function goalState(incarnation: string, changes: Partial<ExtensionsGoalState> = {}): GoalState {
  const extensions = {
    ...emptyExtensions(incarnation),
    id: `incarnation_${incarnation}`,
    statusBlob: blob,
    ...changes,
  };
  const vm = {
    containerId: "c",
    instanceId: "i",
    configName: "d.1.xml",
    tenantName: "t",
    roleName: "r",
  };
  return { incarnation, extensions, vm, certificates: [], remoteAccess: undefined };
}

interface Harness {
  readonly tasks: ReadonlyMap<
    string,
    { readonly periodMs: () => number; readonly run: () => Promise<void> }
  >;
  readonly statuses: Record<string, unknown>[];
  readonly woken: string[];
  readonly identities: unknown[];
  /** What the next update answers. */
  next: GoalState | Error;
}

function setUp(system: FakeSystem, changes: Partial<Config> = {}): Harness {
  system.files.makeDirectory("/var/lib/waagent", { mode: 0o700 });
  const config = { ...defaultConfig(), ...changes };
  const harness = {
    statuses: [] as Record<string, unknown>[],
    woken: [] as string[],
    identities: [] as unknown[],
    next: goalState("1") as GoalState | Error,
  };
  let current = goalState("1");
  const session = {
    endpoint: "168.63.129.16",
    wire: {},
    storage: {},
    isFastTrackSupported: () => true,
    hostPlugin: {
      ensureAvailable: () => Promise.resolve(),
      putStatus: (body: string) => {
        const { content } = JSON.parse(body) as { content: string };
        harness.statuses.push(
          JSON.parse(Buffer.from(content, "base64").toString()) as Record<string, unknown>,
        );
        return Promise.resolve();
      },
    },
    goals: {
      current: () => current,
      statusReported: () => undefined,
      update: () => {
        if (harness.next instanceof Error) return Promise.reject(harness.next);
        const changed =
          harness.next.extensions.id !== current.extensions.id && !harness.next.extensions.outdated;
        current = harness.next;
        return Promise.resolve({
          goalState: current,
          extensionsChanged: changed,
          incarnationChanged: changed,
          degraded: undefined,
        });
      },
    },
  } as unknown as Session;
  const stop = new AbortController();
  const { tasks, connect } = goalTasks(
    system,
    {
      system,
      config,
      distro: distroNamed("debian", "12"),
      version: "2.15.0.1",
      arguments: { verb: "daemon" },
    } as unknown as AgentContext,
    session,
    {
      connection: {
        history: {
          begin: () => ({ save: () => undefined }),
          current: () => undefined,
          archive: () => Promise.resolve(),
        },
      },
      spool: {
        identify: (identity: unknown) => harness.identities.push(identity),
      } as unknown as EventSpool,
      view: createOperatorView(system, "2.15.0.1"),
      older: [],
      stop,
      resources: { isolation: NO_ISOLATION, limits: NO_LIMITS, prepare: () => undefined },
    } as unknown as GoalTasksOptions,
  );
  connect({
    wakeTask: (name) => void harness.woken.push(name),
    wake: () => undefined,
    finished: Promise.resolve(),
  } satisfies TaskGroup);
  const run = (name: string): Promise<void> =>
    tasks.find((task) => task.name === name)?.run(stop.signal) ?? Promise.reject(new Error(name));
  return Object.assign(harness, {
    tasks: new Map(
      tasks.map((task) => [task.name, { periodMs: task.periodMs, run: () => run(task.name) }]),
    ),
  });
}

const period = (harness: Harness): number =>
  harness.tasks.get("UpdateGoalState")?.periodMs() ?? Number.NaN;

describe("goal state tasks", () => {
  test("wire-protocol.md GS-18; system.md DAEMON-17; extensions.md RUN-13: the initial period until the first convergence, then the ordinary one", async () => {
    using system = createFakeSystem();
    const harness = setUp(system, {
      "Extensions.GoalStatePeriod": 6,
      "Extensions.InitialGoalStatePeriod": 2,
    });
    expect(period(harness)).toBe(2000);
    void harness.tasks.get("ProcessExtensions")?.run();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await harness.tasks.get("ReportStatus")?.run();
    expect(period(harness)).toBe(6000);
  });

  test("wire-protocol.md GS-18; extensions.md EXT-20 RUN-13: 300 s when extensions are disabled, whatever the period says", () => {
    using system = createFakeSystem();
    expect(
      period(setUp(system, { "Extensions.Enabled": false, "Extensions.GoalStatePeriod": 2 })),
    ).toBe(300_000);
  });

  test("wire-protocol.md GS-21 STAT-01; extensions.md RUN-15: the status is reported also when the goal state cannot be fetched", async () => {
    using system = createFakeSystem();
    const harness = setUp(system);
    harness.next = new AgentError("protocol", "Could not read the goal state");
    await harness.tasks.get("UpdateGoalState")?.run();
    expect(harness.woken).toContain("ReportStatus");
    await harness.tasks.get("ReportStatus")?.run();
    await harness.tasks.get("ReportStatus")?.run();
    expect(harness.statuses).toHaveLength(2);
  });

  test("wire-protocol.md GS-32 TEL-07: a new incarnation renews the ids of telemetry and is looked at for just-in-time users, an old one is not", async () => {
    using system = createFakeSystem();
    const harness = setUp(system);
    await harness.tasks.get("UpdateGoalState")?.run();
    expect(harness.woken).not.toContain("RemoteAccess");
    expect(harness.identities).toHaveLength(1);
    harness.next = goalState("2");
    await harness.tasks.get("UpdateGoalState")?.run();
    expect(harness.woken).toContain("RemoteAccess");
    expect(harness.identities).toHaveLength(2);
  });

  test("wire-protocol.md STAT-25 STAT-20 STAT-12; extensions.md UPD-24 UPD-32: handlers of the goal state handed over last are reported, no version of the platform is promised", async () => {
    using system = createFakeSystem();
    const harness = setUp(system);
    const handler = {
      name: "Pub.Ext",
      version: "1.0",
      state: "enabled" as const,
      manifestUris: [],
      multiConfig: false,
      encodedSignature: "",
      settings: [],
      invalid: "the settings are for another version",
    };
    harness.next = goalState("2", { handlers: [handler] });
    await harness.tasks.get("UpdateGoalState")?.run();
    void harness.tasks.get("ProcessExtensions")?.run();
    for (
      let turn = 0;
      turn < 100 &&
      system.files.glob("/var/lib/waagent/Pub.Ext-1.0/config/HandlerStatus").length === 0;
      turn += 1
    ) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await harness.tasks.get("ReportStatus")?.run();
    const status = harness.statuses.at(-1) as {
      aggregateStatus: {
        guestAgentStatus: Record<string, unknown>;
        handlerAggregateStatus: { handlerName: string; status: string }[];
      };
      supportedFeatures: { Key: string }[];
    };
    expect(status.aggregateStatus.handlerAggregateStatus).toMatchObject([
      { handlerName: "Pub.Ext", status: "NotReady" },
    ]);
    expect(status.aggregateStatus.guestAgentStatus["updateStatus"]).toBeUndefined();
    expect(status.supportedFeatures.map(({ Key }) => Key)).toEqual([
      "MultipleExtensionsPerHandler",
      "FastTrack",
    ]);
  });

  test("extensions.md UPD-30 UPD-31 EXT-18: packages of the platform's agent are neither run, written nor deleted", async () => {
    using system = createFakeSystem();
    const folder = "/var/lib/waagent/WALinuxAgent-9.9.9.9";
    system.files.makeDirectory(folder);
    system.files.write(
      `${folder}/HandlerManifest.json`,
      '[{"handlerManifest": {"enableCommand": "sh -c \'touch /ran\'"}}]',
    );
    system.files.write("/var/lib/waagent/WALinuxAgent-9.9.9.9.zip", "zip");
    const harness = setUp(system);
    void harness.tasks.get("ProcessExtensions")?.run();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await harness.tasks.get("ReportStatus")?.run();
    expect(system.files.list(folder)).toEqual(["HandlerManifest.json"]);
    expect(system.files.exists("/var/lib/waagent/WALinuxAgent-9.9.9.9.zip")).toBe(true);
    expect(system.files.exists("/ran")).toBe(false);
    expect(
      (harness.statuses.at(-1)?.["aggregateStatus"] as { guestAgentStatus: { version: string } })
        .guestAgentStatus.version,
    ).toBe("2.15.0.1");
  });
});
