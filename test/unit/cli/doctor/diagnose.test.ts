import { describe, expect, test } from "bun:test";
import { CHECKS, diagnose } from "../../../../src/cli/doctor/diagnose.ts";
import type {
  Answer,
  Facts,
  HandlerFacts,
  NetworkFacts,
} from "../../../../src/cli/doctor/facts.ts";
import { formatFinding } from "../../../../src/cli/doctor/finding.ts";
import { diagnosisText } from "../../../../src/cli/operator-doctor.ts";
import { defaultConfig } from "../../../../src/config/table.ts";
import type { AgentState, HandlerState } from "../../../../src/report/agent-state.ts";

const NOW = Date.UTC(2030, 0, 1, 12);
const answered: Answer = { kind: "answered", status: 200, date: NOW };
const silent: Answer = { kind: "silent", reason: "timed out after 3 s" };
const route = {
  ...{ interface: "eth0", destination: "0.0.0.0", gateway: "10.0.0.1", mask: "0.0.0.0" },
  ...{ flags: 3, metric: 0, gatewayFlag: true },
};
const network: NetworkFacts = {
  endpoint: "168.63.129.16",
  routes: [route],
  nameServers: ["10.0.0.2"],
  names: [{ host: "a.test", failure: undefined }],
  ...{ wireServer: answered, hostPlugin: answered, imds: answered },
  storage: [{ origin: "https://a.test", answer: answered }],
  ...{ proxy: undefined, blockedBy: undefined },
};
const state: AgentState = {
  version: 1,
  agent: { version: "2.15.0.1", pid: 7, startedAt: "2030-01-01T00:00:00Z" },
  goalState: {
    ...{ id: "incarnation_1", source: "Fabric", activityId: "act", correlationId: "" },
    ...{ state: "done", since: "2030-01-01T00:00:00Z", detail: undefined },
  },
  handlers: [],
  components: [
    { name: "firewall", state: "ok", detail: "nft", since: "t" },
    { name: "provisioning", state: "provisioned", detail: undefined, since: "t" },
    { name: "resource disk", state: "off", detail: undefined, since: "t" },
    { name: "status upload", state: "ok", detail: undefined, since: "t" },
  ],
  storage: [{ purpose: "status", origin: "https://a.test", expiresAt: "2031-01-01T00:00:00Z" }],
};
const well: Facts = {
  now: NOW,
  config: defaultConfig(),
  configWarnings: [],
  agent: { pid: 7, state, disabled: false, errors: [] },
  network,
  machine: {
    libMount: {
      ...{ device: "8:1", root: "/", mountPoint: "/", options: ["rw"] },
      ...{ fileSystem: "ext4", source: "/dev/sda1" },
    },
    space: [{ directory: "/var/lib/waagent", bytes: 1e9, inodes: 1e5 }],
    architecture: "x86_64",
  },
  handlers: [],
  seesFolders: true,
  policy: { file: "/etc/waagent_policy.json", state: { state: "off" } },
  unseen: [],
};
const withNetwork = (change: Partial<NetworkFacts>): Facts => ({
  ...well,
  network: { ...network, ...change },
});
const withState = (change: Partial<AgentState>): Facts => ({
  ...well,
  agent: { ...well.agent, state: { ...state, ...change } },
});
const told = (facts: Facts): readonly string[] =>
  diagnose(facts).findings.map(({ id, object }) => `${id} ${object}`);

const running: HandlerState = {
  ...{ name: "Pub.Ext", version: "1.0", state: "Ready, success" },
  ...{ running: undefined, lastOperation: undefined, nextRetryAt: undefined },
  ...{ waitsFor: undefined, detail: undefined },
};
const withHandler = (own: Partial<HandlerState>, facts: Partial<HandlerFacts> = {}): Facts => ({
  ...well,
  handlers: [
    {
      ...{ name: "Pub.Ext", version: "1.0", states: [{ ...running, ...own }], written: undefined },
      ...{ commands: [], undecryptable: [], badStatus: [], heartbeat: undefined },
      ...facts,
    },
  ],
});

test("a machine that is well has no finding and every check is well", () => {
  const { findings, well: names } = diagnose(well);
  expect(findings).toEqual([]);
  expect(names).toEqual(CHECKS.map(({ name }) => name));
  expect(diagnosisText(diagnose(well), false)).toBe(
    "Nothing is wrong that can be seen from here.\n",
  );
});

test("nothing is called well that was not seen", () => {
  const unasked: Answer = { kind: "unasked" };
  const blind: Facts = {
    ...well,
    agent: { ...well.agent, state: undefined },
    network: {
      ...network,
      ...{ routes: undefined, names: [], storage: [] },
      ...{ wireServer: unasked, hostPlugin: unasked, imds: unasked },
    },
    machine: { ...well.machine, libMount: undefined },
    seesFolders: false,
    unseen: ["everything: it is dark", "everything: it is dark"],
  };
  const { findings, well: names, unseen } = diagnose(blind);
  expect({ findings, names, unseen }).toEqual({
    findings: [],
    names: [
      "the agent runs",
      "the configuration is understood",
      "there is room on the disks",
      "the policy allows the extensions",
    ],
    unseen: ["everything: it is dark"],
  });
});

describe("causes are told, not what follows from them", () => {
  test("without a route, silence is no finding of its own", () => {
    expect(told(withNetwork({ routes: [], wireServer: silent, hostPlugin: silent }))).toEqual([
      "no-route 168.63.129.16",
    ]);
  });

  test("a firewall explains silence; without one it is the platform's", () => {
    expect(told(withNetwork({ wireServer: silent, blockedBy: "iptables -t filter: x" }))).toEqual([
      "firewall-self-block 168.63.129.16",
    ]);
    expect(told(withNetwork({ wireServer: silent }))).toEqual(["platform-silent 168.63.129.16"]);
    expect(told(withNetwork({ hostPlugin: silent }))).toEqual([
      "platform-silent 168.63.129.16:32526",
    ]);
  });

  test("storage whose name is unknown, or that is behind a proxy, is not called silent", () => {
    const storage = [{ origin: "https://a.test", answer: silent }];
    expect(told(withNetwork({ storage }))).toEqual(["storage-silent https://a.test"]);
    const names = [{ host: "a.test", failure: "the name is not known" }];
    expect(told(withNetwork({ storage, names }))).toEqual(["dns a.test"]);
    expect(told(withNetwork({ storage, proxy: "p:3128" }))).toEqual(["proxy-unusable p:3128"]);
    const refused = { kind: "silent", reason: "407 Proxy Authentication Required" } as const;
    expect(
      told(withNetwork({ storage: [{ origin: "https://a.test", answer: refused }], proxy: "p" })),
    ).toEqual(["proxy-407 p"]);
  });

  test("an extension that failed for a known reason is told once", () => {
    const failed = { state: "NotReady", detail: "it did not work" };
    expect(told(withHandler(failed))).toEqual(["extension-failed Pub.Ext"]);
    const file = "/f" as const;
    expect(told(withHandler(failed, { undecryptable: [{ file, reason: "no key" }] }))).toEqual([
      "certificate-mismatch Pub.Ext",
    ]);
    expect(told(withHandler({ ...failed, waitsFor: "Pub.Other" }))).toEqual([]);
  });
});

test("permissions are judged by the platform's clock", () => {
  const storage = [
    { purpose: "packages", origin: "https://a.test", expiresAt: "2030-01-01T12:30:00Z" },
  ] as const;
  expect(told(withState({ storage }))).toEqual([]);
  const ahead = { kind: "answered", status: 200, date: NOW + 3600_000 } as const;
  const facts = withState({ storage });
  expect(told({ ...facts, network: { ...network, wireServer: ahead } })).toEqual([
    "clock-skew the system clock",
    "sas-expired https://a.test",
  ]);
});

test("a clock is wrong from five minutes on, in both directions", () => {
  const at = (offset: number): readonly string[] => told({ ...well, now: NOW + offset });
  expect(at(299_000)).toEqual([]);
  expect(at(-299_000)).toEqual([]);
  expect(at(300_000)).toEqual(["clock-skew the system clock"]);
  expect(at(-300_000)).toEqual(["clock-skew the system clock"]);
});

test("without its folders an extension is judged by what the agent says", () => {
  const last = { operation: "enable", at: "t", durationMs: 1, exitCode: 1011 };
  const lines = (own: Partial<HandlerState>) =>
    told({ ...withHandler(own), seesFolders: false }).map((line) => line.split(" ")[0]);
  expect(lines({ lastOperation: { ...last, message: "x Timeout(300): /a/b c" } })).toEqual([
    "command-timeout",
  ]);
  expect(lines({ detail: "The status file /x/0.status has an incorrect format: y" })).toEqual([
    "malformed-status",
  ]);
  expect(lines({ state: "Unresponsive, success" })).toEqual(["stale-heartbeat"]);
  const since = new Date(NOW - 200_000).toISOString();
  expect(lines({ running: { operation: "enable", since } })).toEqual(["command-hangs"]);
  const soon = new Date(NOW - 100_000).toISOString();
  expect(lines({ running: { operation: "enable", since: soon } })).toEqual([]);
});

test("a policy denies what it does not list; extensions of a listed handler are no handlers", () => {
  const policy = (...names: string[]): Facts => ({
    ...withHandler({}),
    policy: {
      file: "/p",
      state: {
        state: "on",
        text: "",
        policy: {
          ...{ version: "0.1.0", allowListedOnly: true, signatureRequired: false },
          extensions: new Map(names.map((name) => [name, { signatureRequired: undefined }])),
        },
      },
    },
  });
  expect(told(policy("other"))).toEqual(["policy-deny Pub.Ext"]);
  expect(told(policy("pub.ext"))).toEqual([]);
  expect(told(policy("pub"))).toEqual([]);
});

test("failures of the agent itself", () => {
  expect(told({ ...well, agent: { ...well.agent, pid: undefined } })).toEqual([
    "agent-not-running waagent -daemon",
  ]);
  expect(told({ ...well, agent: { ...well.agent, disabled: true } })).toEqual([
    "agent-disabled /var/lib/waagent/disable_agent",
  ]);
  expect(told({ ...well, configWarnings: ["/etc/waagent.conf:1: odd"] })).toEqual([
    "configuration configuration",
  ]);
  const goalState = { ...state.goalState!, state: "failed" as const, detail: "features" };
  const names = ["firewall", "provisioning", "resource disk", "status upload"];
  const components = names.map((name) => ({
    ...{ name, state: "failed", detail: "because", since: "t" },
  }));
  expect(told(withState({ goalState, components }))).toEqual([
    "firewall-absent firewall",
    "provisioning-failed provisioning",
    "resource-disk-failed resource disk",
    "goal-state-failed incarnation_1",
    "status-upload-failed status upload",
  ]);
  const full = [{ directory: "/var/lib/waagent" as const, bytes: 1e9, inodes: 3 }];
  expect(told({ ...well, machine: { ...well.machine, space: full } })).toEqual([
    "disk-full /var/lib/waagent",
  ]);
});

test("a finding is one line, however long and wild its reason is", () => {
  const line = formatFinding({
    ...{ id: "dns", object: "a.test", problem: "the name\nis lost", next: "find it" },
    reason: `first\r\n\tsecond ${"x".repeat(5000)}`,
  });
  expect(line).toStartWith("dns: a.test: the name is lost (first second xxx");
  expect(line).toEndWith("...). Next: find it.");
  expect(line.split("\n")).toHaveLength(1);
  expect(line.length).toBeLessThan(800);
});
