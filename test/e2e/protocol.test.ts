import { expect } from "bun:test";
import { isEvent, type FabricEvent } from "../fabric/fabric.ts";
import { header, type RecordedRequest } from "../fabric/request.ts";
import type { GoalStateDescription, Scenario } from "../fabric/scenario.ts";
import { DEMO_SECRET, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { concurrentUnless, missing } from "../support/skip.ts";
import { startGuest, type Guest } from "./guest.ts";
import { journal } from "./journal.ts";
import { canSandbox } from "./sandbox.ts";

/** The compiled agent in the less usual situations of the protocol; the emulated host checks every request. */

const able = canSandbox();
const guestTest = concurrentUnless(
  able.ok ? missing({ programs: ["useradd", "openssl"] }) : able.reason,
);

guestTest(
  "wire-protocol.md STAT-41 STAT-42 STAT-43 STAT-46: a page blob is created and filled with whole pages, padded with spaces, through the host plugin",
  async () => {
    await using guest = await startGuest(
      withGoal({ incarnation: "1", statusBlob: "PageBlob", extensions: [demoExtension()] }),
    );
    await guest.until("status:Fabric.Demo=success");
    const puts = guest.fabric.requests
      .filter((one) => one.kind === "plugin-status")
      .map((one) => JSON.parse(one.body) as { requestUri: string; content?: string });
    expect(
      puts.some((one) => one.content === undefined && !one.requestUri.endsWith("comp=page")),
    ).toBe(true);
    const page = puts.find((one) => one.requestUri.endsWith("&comp=page"))!;
    const bytes = Buffer.from(page.content!, "base64");
    expect(bytes.length % 512).toBe(0);
    expect(bytes.toString().trimEnd()).toEndWith("}");
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md STAT-03 STAT-40 STAT-44: when the host plugin fails the status goes to storage directly",
  async () => {
    await using guest = await startGuest({
      ...firstBoot(),
      faults: [
        { request: { kind: "plugin-status" }, fault: { kind: "status", status: 404 }, times: 0 },
      ],
    });
    await guest.until("status:Fabric.Demo=success");
    expect(guest.fabric.statusDocuments.every((one) => one.channel === "direct")).toBe(true);
    const put = guest.fabric.requests.find((one) => one.kind === "status-blob")!;
    expect(header(put, "x-ms-blob-type")).toBe("BlockBlob");
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md GS-11: after a live migration the next poll brings the new ids, and nothing is run again",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    const containerId = "77777777-8888-4999-8aaa-bbbbbbbbbbbb";
    await guest.fabric.setGoalState({
      incarnation: "1",
      containerId,
      extensions: [demoExtension()],
    });
    const moved = guest.fabric.events.at(-1)!.at;
    const uploaded = (event: FabricEvent): boolean =>
      event.at > moved &&
      event.type === "request" &&
      event.request.kind === "plugin-status" &&
      event.request.status === 200;
    await guest.fabric.waitFor(uploaded, 15_000, "a status upload with the new ids");
    const last = guest.fabric.requests.findLast((one) => one.kind === "plugin-status")!;
    expect(header(last, "x-ms-containerid")).toBe(containerId);
    expect(journal(guest.sandbox).map((one) => one.command)).toEqual(["install", "enable"]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md CERT-13 CERT-18: a rotated tenant certificate decrypts the new settings, and the old one's files stay",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    const before = keys(guest);
    await guest.sandbox.run(["rm", "/var/lib/fabric-secret"]);
    await guest.fabric.setGoalState({
      incarnation: "2",
      certificates: ["tenant2"],
      extensions: [demoExtension(1)],
    });
    await enabled(guest, 1);
    expect(JSON.parse(guest.sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    const after = keys(guest);
    expect(after).toHaveLength(2);
    expect(after).toEqual(expect.arrayContaining(before));
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md CERT-04 CERT-09 WIRE-05: a platform without AES is asked for triple DES, and its answer is decrypted",
  async () => {
    await using guest = await startGuest({
      ...firstBoot(),
      faults: [{ request: { kind: "certificates" }, fault: { kind: "status", status: 400 } }],
    });
    await guest.until("status:Fabric.Demo=success");
    const ciphers = requests(guest, "certificates").map((one) => header(one, "x-ms-cipher-name"));
    expect(ciphers).toEqual(["AES128_CBC", "DES_EDE3_CBC"]);
    expect(JSON.parse(guest.sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md ECFG-10 ECFG-13: extensions wait while the artifacts profile says on hold, and run when the next goal does not",
  async () => {
    const extensions = [demoExtension()];
    await using guest = await startGuest(withGoal({ incarnation: "1", onHold: true, extensions }));
    await guest.until("status");
    expect(requests(guest, "artifacts-profile").length).toBeGreaterThanOrEqual(1);
    await Bun.sleep(2500);
    expect(journal(guest.sandbox)).toEqual([]);
    await guest.fabric.setGoalState({ incarnation: "2", onHold: false, extensions });
    await enabled(guest, 0);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md ECFG-32 STAT-13: a required feature that nobody has fails the goal state with 2001, and nothing is run",
  async () => {
    await using guest = await startGuest(
      withGoal({
        incarnation: "1",
        requiredFeatures: ["Teleportation"],
        extensions: [demoExtension()],
      }),
    );
    const failed = await guest.fabric.waitFor(
      (event) => event.type === "status" && goalStatus(event)?.status === "Failed",
      20_000,
      "a failed goal state",
    );
    expect(goalStatus(failed)).toMatchObject({ code: 2001, inSvdSeqNo: "1" });
    expect(journal(guest.sandbox)).toEqual([]);
    await guest.fabric.setGoalState({ incarnation: "2", extensions: [demoExtension()] });
    await enabled(guest, 0);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md VMS-06 STAT-20: without vmSettings the Fabric goal counts, Fast Track is not advertised, and it is not asked again",
  async () => {
    await using guest = await startGuest({ ...firstBoot(), hostPlugin: { vmSettings: false } });
    await guest.until("status:Fabric.Demo=success");
    await Bun.sleep(2500);
    expect(requests(guest, "vm-settings")).toHaveLength(1);
    const last = guest.fabric.statusDocuments.at(-1)!.document as unknown as {
      supportedFeatures: { Key: string }[];
    };
    expect(last.supportedFeatures.map((one) => one.Key)).not.toContain("FastTrack");
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md ARB-01 ARB-02: with a new incarnation the newer of both sources wins",
  async () => {
    await using guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success");
    // Fast Track content, newer than the Fabric goal, then a Fabric goal that is newer still.
    await guest.fabric.setGoalState({
      incarnation: "2",
      source: "FastTrack",
      extensions: [demoExtension(1)],
    });
    await enabled(guest, 1);
    await guest.fabric.setGoalState({ incarnation: "3", extensions: [demoExtension(2)] });
    await enabled(guest, 2);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

function withGoal(goal: GoalStateDescription): Scenario {
  return { ...firstBoot(), goalStates: [goal] };
}

function requests(guest: Guest, kind: RecordedRequest["kind"]): RecordedRequest[] {
  return guest.fabric.requests.filter((one) => one.kind === kind);
}

function keys(guest: Guest): string[] {
  return guest.sandbox
    .changes()
    .map((change) => change.path)
    .filter((file) => /^\/var\/lib\/waagent\/[0-9A-F]{40}\.prv$/.test(file));
}

function goalStatus(event: FabricEvent) {
  return event.type === "status"
    ? event.status.document.aggregateStatus.vmArtifactsAggregateStatus?.goalStateAggregateStatus
    : undefined;
}

/** Waits for a status upload that tells of success with these settings. */
async function enabled(guest: Guest, sequence: number): Promise<void> {
  await guest.fabric
    .waitFor(
      (event) =>
        event.type === "status" &&
        isEvent(event, "status:Fabric.Demo=success") &&
        event.status.document.aggregateStatus.handlerAggregateStatus[0]?.runtimeSettingsStatus
          ?.sequenceNumber === sequence,
      20_000,
      `success with settings ${sequence}`,
    )
    .catch((error: Error) => {
      throw new Error(`${error.message}\n${guest.agent.output().slice(-3000)}`);
    });
  expect(journal(guest.sandbox).at(-1)).toMatchObject({ command: "enable", sequence });
}
