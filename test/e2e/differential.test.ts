import { expect } from "bun:test";
import type { Fabric } from "../fabric/fabric.ts";
import type { StatusDocument } from "../fabric/model.ts";
import { DEMO_PACKAGE, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import type { ExtensionDescription, GoalStateDescription, Scenario } from "../fabric/scenario.ts";
import { missing, testUnless } from "../support/skip.ts";
import { REQUEST_DIFFERENCES, STATUS_DIFFERENCES } from "./differences.ts";
import { startGuest } from "./guest.ts";
import { insertDvd, startHost } from "./host.ts";
import { journal, type JournalEntry } from "./journal.ts";
import { installReference, referenceMissing, startReference } from "./reference.ts";
import { canSandbox, createSandbox, type Sandbox } from "./sandbox.ts";

const able = canSandbox();
const differentialTest = testUnless(
  able.ok ? (missing({ programs: ["useradd", "openssl"] }) ?? referenceMissing()) : able.reason,
);

/** Comes last: 2.7.3 skips everything of a higher level after a failure, ours only what depends on it (DB-03). */
const FAILING: ExtensionDescription = {
  name: "Fabric.Fails",
  version: "1.0.0",
  settings: { sequence: 0, public: {}, dependencyLevel: 2, dependsOn: ["Fabric.Last"] },
};
const LAST: ExtensionDescription = {
  name: "Fabric.Last",
  version: "1.0.0",
  settings: { sequence: 0, public: {}, dependencyLevel: 1, dependsOn: ["Fabric.Demo"] },
};
const MULTI: ExtensionDescription = {
  name: "Fabric.Multi",
  version: "1.0.0",
  multi: [
    { name: "first", sequence: 0, public: { a: 1 } },
    { name: "second", sequence: 3, public: { a: 2 } },
  ],
};
const NEWER: ExtensionDescription = { ...demoExtension(2), version: "1.1.0" };

/** What the platform asks for, one after the other. 2.7.3 reads vmSettings but does not act on them: no Fast Track here. */
const STAGES: readonly { readonly name: string; readonly goal: GoalStateDescription }[] = [
  {
    name: "install three handlers, one of them fails",
    goal: { incarnation: "1", extensions: [demoExtension(0), FAILING, LAST] },
  },
  {
    name: "new settings for one",
    goal: { incarnation: "2", extensions: [demoExtension(1), FAILING, LAST] },
  },
  {
    name: "a new version of one, a multi-config handler, another one goes",
    goal: {
      incarnation: "3",
      extensions: [NEWER, { ...FAILING, state: "uninstall" }, LAST, MULTI],
    },
  },
  {
    name: "one is disabled",
    goal: { incarnation: "4", extensions: [NEWER, { ...LAST, state: "disabled" }, MULTI] },
  },
];

const SCENARIO: Scenario = {
  ...firstBoot(),
  packages: [
    DEMO_PACKAGE,
    { ...DEMO_PACKAGE, version: "1.1.0" },
    { name: "Fabric.Fails", version: "1.0.0", scripts: { enable: "exit 3" } },
    { name: "Fabric.Last", version: "1.0.0" },
    { name: "Fabric.Multi", version: "1.0.0", manifest: { supportsMultipleExtensions: true } },
  ],
  goalStates: [STAGES[0]!.goal],
};

interface Run {
  readonly fabric: Fabric;
  readonly sandbox: Sandbox;
}

differentialTest(
  "Debian's agent and ours do the same for the same goal states: commands, status documents, kinds of requests",
  async () => {
    await using ours = await startGuest(SCENARIO);
    await using sandbox = await createSandbox({ network: "pair" });
    await insertDvd(sandbox, SCENARIO);
    await installReference(sandbox);
    await using fabric = await startHost(sandbox, SCENARIO);
    startReference(sandbox);
    const reference: Run = { fabric, sandbox };

    const statusDifferences = new Map<string, string>();
    for (const [index, { name, goal }] of STAGES.entries()) {
      if (index > 0)
        await Promise.all([ours, reference].map((run) => run.fabric.setGoalState(goal)));
      const [mine, theirs] = await Promise.all([settled(ours, goal), settled(reference, goal)]);
      for (const [where, values] of differing(mine, theirs))
        statusDifferences.set(generalised(where), `${name}: ${where}: ${values}`);
    }
    expect(commands(journal(ours.sandbox))).toEqual(commands(journal(sandbox)));
    const listed = new Set(STATUS_DIFFERENCES.map((one) => one.where));
    expect(
      [...statusDifferences].filter(([where]) => !listed.has(where)).map(([, text]) => text),
    ).toEqual([]);
    expect([...listed].filter((where) => !statusDifferences.has(where))).toEqual([]);

    await Promise.all(
      [ours, reference].map(({ fabric: one }) =>
        one.waitFor((event) => event.type === "telemetry", 70_000, "telemetry"),
      ),
    );
    const kinds = (run: Run) => new Set<string>(run.fabric.requests.map((one) => one.kind));
    const onlyOurs = [...kinds(ours)].filter((kind) => !kinds(reference).has(kind)).sort();
    const onlyReference = [...kinds(reference)].filter((kind) => !kinds(ours).has(kind)).sort();
    const allowed = (only: "ours" | "reference") =>
      REQUEST_DIFFERENCES.filter((one) => one.only === only)
        .map((one) => one.where)
        .sort();
    expect({ onlyOurs, onlyReference }).toEqual({
      onlyOurs: allowed("ours"),
      onlyReference: allowed("reference"),
    });
    expect(ours.fabric.violations).toEqual([]);
  },
  300_000,
);

/** The status document once it no longer changes for this goal: three equal uploads in a row. */
async function settled({ fabric }: Run, goal: GoalStateDescription): Promise<unknown> {
  const began = fabric.events.length === 0 ? 0 : fabric.events.at(-1)!.at;
  const deadline = performance.now() + 60_000;
  for (;;) {
    const recent = fabric.statusDocuments
      .filter((one) => one.at > began)
      .slice(-3)
      .map((one) => one.document);
    const isDone =
      recent.length === 3 &&
      recent.every((one) => Bun.deepEquals(normalised(one), normalised(recent[0]!))) &&
      isConverged(recent[0]!, goal);
    if (isDone) return normalised(recent[0]!);
    if (performance.now() > deadline)
      throw new Error(
        `The status for goal state ${goal.incarnation} does not settle: ${JSON.stringify(recent.at(-1), null, 1)}`,
      );
    await Bun.sleep(200);
  }
}

function isConverged(document: StatusDocument, goal: GoalStateDescription): boolean {
  const state = document.aggregateStatus.vmArtifactsAggregateStatus?.goalStateAggregateStatus;
  const number = goal.source === "FastTrack" ? Number(goal.incarnation) : goal.incarnation;
  return (
    state?.inSvdSeqNo === number &&
    document.aggregateStatus.handlerAggregateStatus.every(
      (one) =>
        // A handler that failed before it wrote a status is reported as transitioning for ever (STAT-33).
        one.status === "NotReady" ||
        one.runtimeSettingsStatus?.settingsStatus.status.status !== "transitioning",
    )
  );
}

/** Without what differs by nature: times, versions of the agent, the order of handlers. */
function normalised(document: StatusDocument): unknown {
  const text = JSON.stringify(document, (key, value: unknown) =>
    key === "timestampUTC" || key === "configurationAppliedTime" ? "a time" : value,
  );
  const copy = JSON.parse(text) as {
    aggregateStatus: {
      handlerAggregateStatus: {
        handlerName: string;
        runtimeSettingsStatus?: { extensionName?: string };
      }[];
    };
  };
  const nameOf = (one: {
    handlerName: string;
    runtimeSettingsStatus?: { extensionName?: string };
  }) => `${one.handlerName}.${one.runtimeSettingsStatus?.extensionName ?? ""}`;
  copy.aggregateStatus.handlerAggregateStatus.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  return copy;
}

/** Paths of the leaves that differ, and how. */
function differing(ours: unknown, theirs: unknown, where = ""): [string, string][] {
  const isTree = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null;
  if (isTree(ours) && isTree(theirs)) {
    const names = new Set([...Object.keys(ours), ...Object.keys(theirs)]);
    return [...names].flatMap((name) =>
      differing(ours[name], theirs[name], where === "" ? name : `${where}.${name}`),
    );
  }
  return Bun.deepEquals(ours, theirs)
    ? []
    : [[where, `ours ${JSON.stringify(ours)}, theirs ${JSON.stringify(theirs)}`]];
}

function generalised(where: string): string {
  return where.replace(/\.\d+(?=\.|$)/g, ".*");
}

/** What each handler was told, in its order; handlers run side by side, so their order among each other is free. */
function commands(entries: readonly JournalEntry[]): Record<string, string[]> {
  const result: Record<string, string[]> = {};
  for (const { handler, command, version, sequence, extension } of entries) {
    const name = extension === undefined ? handler : `${handler}.${extension}`;
    (result[name] ??= []).push(`${command} ${version} ${sequence ?? "-"}`);
  }
  return result;
}
