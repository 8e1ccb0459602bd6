import { describe, expect, test } from "bun:test";
import { createStatusReport } from "../../../src/agent/status-report.ts";
import type { GoalState } from "../../../src/azure/goal-state.ts";
import type { Session } from "../../../src/azure/session.ts";
import type { AggregateStatus, HandlerReport } from "../../../src/azure/vm-status.ts";
import { AgentError } from "../../../src/base/error.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const signal = new AbortController().signal;
const blob = { url: "https://acct/x.status?sv=1&sig=SECRET", type: "BlockBlob" as const };
const goal = (statusBlob: typeof blob | null = blob): GoalState =>
  ({
    incarnation: "3",
    extensions: { id: "incarnation_3", statusBlob: statusBlob ?? undefined },
  }) as unknown as GoalState;
const report = (status: string): HandlerReport => ({
  name: "Pub.Ext",
  version: "1.0",
  status: "Ready",
  code: 0,
  message: "Plugin enabled",
  extensions: [
    {
      extensionName: undefined,
      sequence: 1,
      status: {
        name: "Pub.Ext",
        operation: "Enable",
        status,
        code: null,
        configurationAppliedTime: null,
        message: "m",
        substatuses: [],
      },
    },
  ],
});
const aggregate: AggregateStatus = {
  status: "Success",
  code: 0,
  message: "GoalState executed successfully",
  processedAt: Date.UTC(2030, 0, 1),
  sequence: "3",
};

const OTHER_BLOB = { ...blob, url: "https://acct/x.status?sv=2&sig=SECRET" };

function setUp(system: FakeSystem, options: { unchangedPeriodMs?: number } = {}) {
  const uploads: string[] = [];
  const kept: string[] = [];
  const state = {
    failing: false,
    forced: 0,
    reported: 0,
    blobAfterForce: null as typeof blob | null,
    hostName: () => "vm1",
    keep: (document: string) => void kept.push(document),
  };
  const session = {
    wire: {},
    hostPlugin: {
      ensureAvailable: () => Promise.resolve(),
      refreshIds: () => Promise.resolve(),
      putStatus: (body: string) => {
        if (state.failing) return Promise.reject(new AgentError("http", "PUT /status failed: 500"));
        uploads.push(
          Buffer.from((JSON.parse(body) as { content: string }).content, "base64").toString(),
        );
        return Promise.resolve();
      },
    },
    goals: {
      statusReported: () => void (state.reported += 1),
      update: () => {
        state.forced += 1;
        return Promise.resolve({ goalState: goal(state.blobAfterForce) });
      },
    },
  } as unknown as Session;
  system.files.makeDirectory("/var/lib/waagent");
  const status = createStatusReport(system, session, {
    libDirectory: "/var/lib/waagent",
    facts: {
      agentVersion: "2.15.0.1",
      osName: "debian",
      osVersion: "12",
      hostName: () => state.hostName(),
      features: () => ({ versioningGovernance: false, fastTrack: true }),
    },
    keep: (document) => state.keep(document),
    unchangedPeriodMs: options.unchangedPeriodMs ?? 0,
  });
  const send = (handlers: readonly HandlerReport[], busy = false, of = goal()) =>
    status.report(of, handlers, { aggregate, busy, signal });
  return { status, send, uploads, kept, state };
}

describe("status report", () => {
  test("wire-protocol.md STAT-01: it is uploaded every time, also when nothing changed", async () => {
    using system = createFakeSystem();
    const { send, uploads } = setUp(system);
    await send([report("success")]);
    await system.clock.sleep(6000);
    await send([report("success")]);
    expect(
      uploads.map((text) => (JSON.parse(text) as { timestampUTC: string }).timestampUTC),
    ).toEqual(["2030-01-01T00:00:00Z", "2030-01-01T00:00:06Z"]);
  });

  test("wire-protocol.md DB-03: where the operator allows it, what the platform knows is told again after a while only", async () => {
    using system = createFakeSystem();
    const { send, uploads, state } = setUp(system, { unchangedPeriodMs: 30_000 });
    const after = async (ms: number, ...args: Parameters<typeof send>): Promise<number> => {
      await system.clock.sleep(ms);
      await send(...args);
      return uploads.length;
    };
    await send([report("success")]);
    expect(await after(6000, [report("success")])).toBe(1);
    expect(await after(6000, [report("error")])).toBe(2);
    expect(await after(24_000, [report("error")])).toBe(2);
    expect(await after(6000, [report("error")])).toBe(3);
    expect(await after(6000, [report("error")], false, goal(OTHER_BLOB))).toBe(4);
    // One that failed is no news the platform has.
    state.failing = true;
    await after(6000, [report("success")]);
    state.failing = false;
    expect(await after(6000, [report("success")])).toBe(5);
  });

  test("wire-protocol.md STAT-50: the document is kept in the history, but only when more than its times changed", async () => {
    using system = createFakeSystem();
    const { send, kept } = setUp(system);
    await send([report("transitioning")]);
    await system.clock.sleep(6000);
    await send([report("transitioning")]);
    await send([report("success")]);
    expect(kept).toHaveLength(2);
  });

  test("wire-protocol.md STAT-51 FILE-17; extensions.md EXT-116 RUN-17: the first convergence leaves its mark, not while extensions are still processed", async () => {
    using system = createFakeSystem();
    const { send, status } = setUp(system);
    await send([report("success")], true);
    expect(status.hasConverged()).toBe(false);
    await send([report("success")]);
    expect(status.hasConverged()).toBe(true);
    expect(system.files.readText("/var/lib/waagent/initial_goal_state")).toBe(
      "[('Pub.Ext', 'success')]",
    );
  });

  test("extensions.md RUN-17: a goal state without extensions converges too", async () => {
    using system = createFakeSystem();
    const { send, status } = setUp(system);
    await send([]);
    expect(status.hasConverged()).toBe(true);
  });

  test("wire-protocol.md STAT-02: without a status blob the goal state is fetched anew, not at every report; still none means no upload and no event", async () => {
    using system = createFakeSystem();
    const { send, uploads, state } = setUp(system);
    expect((await send([report("success")], false, goal(null))).channel).toBe("none");
    await send([report("success")], false, goal(null));
    expect(state.forced).toBe(1);
    expect(uploads).toEqual([]);
    expect(system.events.filter(({ success }) => !success)).toEqual([]);
    await system.clock.sleep(5 * 60_000);
    state.blobAfterForce = blob;
    expect((await send([report("success")], false, goal(null))).channel).toBe("host");
    expect(uploads).toHaveLength(1);
  });

  test("wire-protocol.md STAT-04 DB-23; extensions.md EXT-115: a failure is told with its reason, not at every report, and after 15 minutes as extended", async () => {
    using system = createFakeSystem();
    const { send, state } = setUp(system);
    state.failing = true;
    system.route = () => new AgentError("http", "PUT failed: refused", { errno: "ECONNREFUSED" });
    const outcome = await send([report("success")]);
    expect(outcome.channel).toBe("none");
    expect(outcome.failure).toContain("500");
    expect(
      system.events.filter(({ operation }) => operation === "ExtensionProcessing"),
    ).toMatchObject([{ success: false, periodMs: 900_000 }]);
    await system.clock.sleep(16 * 60_000);
    await send([report("success")]);
    expect(
      system.events.filter(({ operation }) => operation === "ReportStatusExtended"),
    ).toHaveLength(1);
    expect(system.lines.join("\n")).not.toContain("SECRET");
    // A report that was built counts for what waits for it, uploaded or not (VMS-17).
    expect(state.reported).toBe(2);
  });

  test("wire-protocol.md STAT-05: what cannot be built is not uploaded and told; the next report is", async () => {
    using system = createFakeSystem();
    const { send, state, uploads } = setUp(system);
    state.hostName = () => {
      throw new Error("no name");
    };
    const outcome = await send([report("success")]);
    expect(outcome.failure).toBe("The status could not be built: no name");
    expect(uploads).toEqual([]);
    expect(system.events).toMatchObject([{ operation: "ReportStatus", success: false }]);
    state.hostName = () => "vm1";
    expect((await send([report("success")])).failure).toBeUndefined();
    expect(uploads).toHaveLength(1);
  });

  test("wire-protocol.md STAT-01 STAT-50: a full disk keeps nobody from hearing about the VM", async () => {
    using system = createFakeSystem();
    const { status, send, state, uploads, kept } = setUp(system);
    const { keep } = state;
    state.keep = () => {
      throw new AgentError("io", "no space left", { errno: "ENOSPC" });
    };
    expect((await send([report("success")])).failure).toBeUndefined();
    expect(uploads).toHaveLength(1);
    expect(system.lines.join()).toContain("The status could not be kept on disk: no space left");
    state.keep = keep;
    await send([report("success")]);
    expect(kept).toHaveLength(1);
    expect(status.hasConverged()).toBeTrue();
  });
});
