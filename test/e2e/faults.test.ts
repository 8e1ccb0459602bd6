import { expect } from "bun:test";
import { isEvent, type FabricEvent } from "../fabric/fabric.ts";
import type { Fault, FaultRule } from "../fabric/fault.ts";
import type { RequestKind } from "../fabric/request.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { DEMO_PACKAGE, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { certificatesXml, makeCertificate } from "../unit/azure/platform.ts";
import { concurrentUnless, missing } from "../support/skip.ts";
import { startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox } from "./sandbox.ts";

/**
 * Every fault of the emulated host, once on each request it can hit, while a new goal state brings a new version of an
 * extension: afterwards the agent has enabled exactly that, reported it, and lost no telemetry about it.
 */

const able = canSandbox();
const faultTest = concurrentUnless(
  able.ok ? missing({ programs: ["useradd", "openssl", "iptables"] }) : able.reason,
);

/** Requests on the way of a goal state whose content is checked. */
const DOCUMENTS: readonly RequestKind[] = [
  "goal-state",
  "vm-settings",
  "extensions-config",
  "certificates",
  "manifest",
];
/** A fault of the manifest moves the package to the other channel: packages are hit in runs of their own. */
const PACKAGE: readonly RequestKind[] = ["package"];
const EVERYTHING: readonly RequestKind[] = [
  ...DOCUMENTS,
  "hosting-environment",
  "shared-config",
  "plugin-status",
];

const FAULTS: readonly {
  readonly name: string;
  readonly fault: Fault;
  readonly kinds: readonly RequestKind[];
}[] = [
  { name: "status 400", fault: { kind: "status", status: 400 }, kinds: EVERYTHING },
  { name: "status 403", fault: { kind: "status", status: 403 }, kinds: EVERYTHING },
  {
    name: "status 404",
    fault: { kind: "status", status: 404 },
    kinds: without(EVERYTHING, "vm-settings"),
  },
  { name: "status 410", fault: { kind: "status", status: 410 }, kinds: EVERYTHING },
  {
    name: "status 429 with Retry-After",
    fault: { kind: "status", status: 429, retryAfter: 1 },
    kinds: EVERYTHING,
  },
  { name: "status 500", fault: { kind: "status", status: 500 }, kinds: EVERYTHING },
  { name: "status 502", fault: { kind: "status", status: 502 }, kinds: EVERYTHING },
  {
    name: "status 503 with Retry-After",
    fault: { kind: "status", status: 503, retryAfter: 2 },
    kinds: EVERYTHING,
  },
  { name: "a reset connection", fault: { kind: "reset" }, kinds: EVERYTHING },
  {
    name: "silence instead of headers",
    fault: { kind: "hang-headers" },
    kinds: ["goal-state", "plugin-status"],
  },
  {
    name: "silence in the middle of a body",
    fault: { kind: "hang-body" },
    kinds: ["extensions-config"],
  },
  { name: "a cut body", fault: { kind: "truncated" }, kinds: DOCUMENTS },
  {
    name: "a body that is far too large",
    fault: { kind: "oversized" },
    kinds: DOCUMENTS,
  },
  {
    name: "a body that trickles in",
    fault: { kind: "trickled", bytesPerSecond: 40 },
    kinds: ["goal-state", "manifest"],
  },
  { name: "garbled bytes", fault: { kind: "garbled" }, kinds: DOCUMENTS },
  { name: "a sign-in page instead of the document", fault: { kind: "html" }, kinds: DOCUMENTS },
  {
    name: "UTF-16 announced as UTF-8",
    fault: { kind: "wrong-charset" },
    kinds: DOCUMENTS,
  },
  { name: "a byte order mark", fault: { kind: "bom" }, kinds: DOCUMENTS },
  {
    name: "compression that nobody asked for",
    fault: { kind: "gzip-bomb" },
    kinds: DOCUMENTS,
  },
  { name: "a redirect to elsewhere", fault: { kind: "redirect" }, kinds: EVERYTHING },
  {
    name: "a document type declaration with entities",
    fault: { kind: "doctype" },
    kinds: ["goal-state", "extensions-config", "certificates", "manifest"],
  },
  {
    name: "a goal state without role instance",
    fault: { kind: "missing", name: "RoleInstance" },
    kinds: ["goal-state"],
  },
  ...(
    [
      ["status 500", { kind: "status", status: 500 }],
      ["status 404", { kind: "status", status: 404 }],
      ["a reset connection", { kind: "reset" }],
      ["silence instead of headers", { kind: "hang-headers" }],
      ["silence in the middle", { kind: "hang-body" }],
      ["a cut body", { kind: "truncated" }],
      ["garbled bytes", { kind: "garbled" }],
      ["a sign-in page", { kind: "html" }],
      ["a redirect", { kind: "redirect" }],
    ] as const
  ).map(([what, fault]) => ({ name: `${what} for a package`, fault, kinds: PACKAGE })),
];

const NEW_VERSION = "1.1.0";
const SCENARIO: Scenario = {
  ...firstBoot(),
  packages: [DEMO_PACKAGE, { ...DEMO_PACKAGE, version: NEW_VERSION }],
};
const NEXT = { incarnation: "2", extensions: [{ ...demoExtension(1), version: NEW_VERSION }] };

for (const { name, fault, kinds } of FAULTS) {
  faultTest(
    `${name}: the agent gets over it and loses nothing`,
    async () => {
      await using guest = await startGuest(SCENARIO);
      await guest.until("status:Fabric.Demo=success");
      for (const kind of kinds) await guest.fabric.addFault({ request: { kind }, fault });
      await guest.fabric.setGoalState(NEXT);
      await expectRecovery(guest, kinds);
    },
    150_000,
  );
}

/** At start there is no older goal to live on. */
const AT_START: readonly { readonly name: string; readonly faults: readonly FaultRule[] }[] = [
  { name: "503 with Retry-After", faults: onEach({ kind: "status", status: 503, retryAfter: 1 }) },
  { name: "resets", faults: onEach({ kind: "reset" }) },
  { name: "sign-in pages", faults: onEach({ kind: "html" }) },
  { name: "cut bodies", faults: onEach({ kind: "truncated" }) },
];

for (const { name, faults } of AT_START) {
  faultTest(
    `${name} on every request at start: the VM is provisioned, Ready, and its extension enabled`,
    async () => {
      await using guest = await startGuest({ ...SCENARIO, faults });
      await guest.until("ready", { timeoutMs: 120_000 });
      await guest.until("status:Fabric.Demo=success", { timeoutMs: 60_000 });
      expect(journal(guest.sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
      expect(guest.fabric.violations).toEqual([]);
    },
    200_000,
  );
}

faultTest(
  "connections that are never accepted: the agent goes on once they are",
  async () => {
    await using guest = await startGuest(SCENARIO);
    await guest.until("status:Fabric.Demo=success");
    const rule = ["INPUT", "-p", "tcp", "-d", "168.63.129.16", "-j", "DROP"];
    await guest.sandbox.platform.run(["iptables", "-w", "-I", ...rule]);
    await guest.fabric.setGoalState(NEXT);
    await Bun.sleep(3000);
    await guest.sandbox.platform.run(["iptables", "-w", "-D", ...rule]);
    await expectRecovery(guest, []);
  },
  150_000,
);

faultTest(
  "an instance metadata service that never answers: provisioning, extensions and telemetry do without it",
  async () => {
    const kinds: readonly RequestKind[] = ["imds-compute", "imds-instance"];
    await using guest = await startGuest({
      ...SCENARIO,
      faults: kinds.map((kind) => ({
        request: { kind },
        fault: { kind: "hang-headers" },
        times: 0,
      })),
    });
    await guest.until("ready", { timeoutMs: 60_000 });
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 60_000 });
    await guest.fabric.setGoalState(NEXT);
    await expectRecovery(guest, kinds);
  },
  200_000,
);

faultTest(
  "certificates for somebody else's key: the goal state goes on without them, and they are there once they can be read",
  async () => {
    const foreign = certificatesXml(makeCertificate("/CN=tenant"), {
      recipient: makeCertificate("/CN=somebody else").certificate,
    });
    await using guest = await startGuest({
      ...SCENARIO,
      packages: [DEMO_PACKAGE, { name: DEMO_PACKAGE.name, version: NEW_VERSION }],
    });
    await guest.until("status:Fabric.Demo=success");
    const before = await keysOf(guest);
    // Both ciphers of one try (CERT-07), and both of the next one.
    await guest.fabric.addFault({
      request: { kind: "certificates" },
      fault: { kind: "body", body: foreign },
      times: 4,
    });
    const settings = { sequence: 1, public: { greeting: "nothing secret" } };
    const plain = { ...demoExtension(1), version: NEW_VERSION, settings };
    await guest.fabric.setGoalState({ ...NEXT, certificates: ["rotated"], extensions: [plain] });
    await expectRecovery(guest, ["certificates"]);
    await until(
      async () => (await keysOf(guest)).length > before.length,
      "the rotated certificate's key",
      60_000,
    );
    expect(guest.agent.output()).toContain("The certificates of the goal state are there now");
    expect(guest.fabric.violations).toEqual([]);
  },
  200_000,
);

faultTest(
  "one plugin twice in a goal state: it is refused with its reason, the others are processed, and the next goal state mends it",
  async () => {
    const other = { ...demoExtension(0), name: "Fabric.Other" };
    await using guest = await startGuest({
      ...SCENARIO,
      hostPlugin: { vmSettings: false },
      packages: [...SCENARIO.packages!, { ...DEMO_PACKAGE, name: other.name }],
    });
    await guest.until("status:Fabric.Demo=success");
    const demo = { ...demoExtension(1), version: NEW_VERSION };
    await guest.fabric.setGoalState({ incarnation: "2", extensions: [demo, demo, other] });
    await guest.until("status:Fabric.Other=success", { timeoutMs: 60_000 });
    const refused = (event: FabricEvent): boolean =>
      event.type === "status" &&
      event.status.document.aggregateStatus.handlerAggregateStatus.some(
        (one) =>
          one.handlerName === demo.name && JSON.stringify(one).includes("more than one Plugin"),
      );
    await explained(guest, guest.fabric.waitFor(refused, 30_000, "the refusal and its reason"));
    expect(journal(guest.sandbox).filter((one) => one.version === NEW_VERSION)).toEqual([]);
    await guest.fabric.setGoalState({ ...NEXT, incarnation: "3" });
    await expectRecovery(guest, [], ["Fabric.Other 1.0.0 0"]);
  },
  200_000,
);

/** Names of the certificates whose keys the guest has. */
async function keysOf(guest: Guest): Promise<string[]> {
  const { stdout } = await guest.sandbox.run(["sh", "-c", "ls /var/lib/waagent | grep '[.]prv$'"]);
  return stdout.trim().split("\n");
}

function onEach(fault: Fault): FaultRule[] {
  const kinds: RequestKind[] = [
    "versions",
    ...EVERYTHING,
    "health",
    "imds-compute",
    "plugin-versions",
  ];
  return kinds.map((kind) => ({ request: { kind }, fault }));
}

async function expectRecovery(
  guest: Guest,
  kinds: readonly RequestKind[],
  others: readonly string[] = [],
): Promise<void> {
  const { fabric } = guest;
  const isNew = (event: FabricEvent): boolean =>
    event.type === "status" &&
    isEvent(event, "status:Fabric.Demo=success") &&
    event.status.document.aggregateStatus.handlerAggregateStatus.some(
      (one) => one.handlerName === DEMO_PACKAGE.name && one.handlerVersion === NEW_VERSION,
    );
  await explained(guest, fabric.waitFor(isNew, 100_000, "the new version's success"));
  await until(() => knowsOf(guest, NEW_VERSION), "an event about the new version");
  const hit = new Set(
    fabric.requests.filter((one) => one.fault !== undefined).map((one) => one.kind),
  );
  expect([...hit].sort()).toEqual([...kinds].sort());
  const enables = journal(guest.sandbox).filter((one) => one.command === "enable");
  const named = enables.map((one) => `${one.handler} ${one.version} ${one.sequence}`);
  const demo = [`Fabric.Demo 1.0.0 0`, `Fabric.Demo ${NEW_VERSION} 1`];
  expect(named.filter((name) => !others.includes(name))).toEqual(demo);
  expect(fabric.healthReports.map((one) => one.state)).toEqual(["NotReady", "Ready"]);
  const left = await guest.sandbox.run(
    ["sh", "-c", "ls /var/lib/waagent | grep -E '[.](zip|tmp|partial)$'"],
    { allowFailure: true },
  );
  expect(left.stdout).toBe("");
  expect(fabric.violations).toEqual([]);
}

/** The event of the new version's enable was delivered, or waits in the spool for the next delivery. */
async function knowsOf(guest: Guest, version: string): Promise<boolean> {
  const isDelivered = guest.fabric.telemetryEvents.some(
    ({ parameters }) => parameters["Operation"] === "Enable" && parameters["Version"] === version,
  );
  if (isDelivered) return true;
  const spool = await guest.sandbox.run(
    [
      "sh",
      "-c",
      `cat /var/lib/waagent/events/*.tld | grep -c '"Enable".*"${version}"\\|"${version}".*"Enable"'`,
    ],
    { allowFailure: true },
  );
  return spool.code === 0;
}

async function until(
  condition: () => Promise<boolean>,
  what: string,
  limitMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`There is not ${what} after ${limitMs / 1000} s`);
    await Bun.sleep(200);
  }
}

/** Adds what the agent said last to a failure. */
async function explained<Result>(guest: Guest, promise: Promise<Result>): Promise<Result> {
  return await promise.catch((error: Error) => {
    throw new Error(`${error.message}\n${guest.agent.output().slice(-3000)}`);
  });
}

function without(kinds: readonly RequestKind[], ...left: readonly RequestKind[]): RequestKind[] {
  return kinds.filter((kind) => !left.includes(kind));
}
