import { expect, test } from "bun:test";
import { AgentError } from "../../src/base/error.ts";
import type { Files } from "../../src/system/files.ts";
import { RECORDING_SCRIPT } from "../fixtures/extensions/package.ts";
import { testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest } from "./guest.ts";
import { canSandbox } from "./sandbox.ts";
import { createWorld, goal, handler, LIB, settings } from "../unit/extensions/world.ts";

const able = canSandbox();
const guestTest = testUnless(able.ok ? undefined : able.reason);

const WRITING = ["write", "makeDirectory", "rename", "copy", "append"] as const;
const full = (): AgentError =>
  new AgentError("io", "Could not write a file: no space left on the device (ENOSPC)", {
    errno: "ENOSPC",
  });

/** Lets the n-th writing call for the handler `Full` fail, once or from then on; counts them all. */
function injectFault(files: Files, at: number, forever: boolean): { count: number } {
  const counter = { count: 0 };
  const target = files as { -readonly [Key in keyof Files]: Files[Key] };
  for (const name of WRITING) {
    const original = files[name].bind(files) as (...input: unknown[]) => void;
    (target[name] as unknown) = (...input: unknown[]): void => {
      if (input.slice(0, 2).some((one) => typeof one === "string" && /full/i.test(one))) {
        counter.count += 1;
        if (counter.count === at || (forever && counter.count > at)) throw full();
      }
      original(...input);
    };
  }
  return counter;
}

async function life(at: number, forever: boolean): Promise<number> {
  using world = createWorld();
  const offer = (version: string): void =>
    world.offer(
      { name: "Full", version, script: RECORDING_SCRIPT },
      { name: "Other", version, script: RECORDING_SCRIPT },
    );
  offer("1.0");
  offer("1.1");
  const { files } = world.system;
  const original = { ...files };
  const counter = injectFault(files, at, forever);
  const wanted = (version: string, sequence: number) =>
    goal(
      ["Full", "Other"].map((name) => handler(name, version, { settings: [settings(sequence)] })),
    );
  for (const [version, sequence] of [
    ["1.0", 1],
    ["1.1", 2],
  ] as const) {
    const current = wanted(version, sequence);
    expect(await world.runner.process(current)).toMatchObject({ status: "Success" });
    const reports = world.runner.reports(current);
    // Only the handler whose disk is full is affected, and it says why.
    expect(reports.find((one) => one.name === "Other")).toMatchObject({
      version,
      status: "Ready",
      code: 0,
    });
    const affected = reports.find((one) => one.name === "Full");
    if (affected?.status !== "Ready") {
      expect(affected?.message).toContain("no space left on the device");
      expect(affected?.status).toBe("NotReady");
    }
  }
  // With space again everything comes right, and nothing of a half-done step is left.
  Object.assign(files, original);
  const last = wanted("1.1", 3);
  await world.runner.process(last);
  expect([at, forever, world.runner.reports(last)]).toMatchObject([
    at,
    forever,
    [
      {
        name: "Full",
        version: "1.1",
        status: "Ready",
        extensions: [{ sequence: 3, status: { status: "success" } }],
      },
      { name: "Other", version: "1.1", status: "Ready" },
    ],
  ]);
  expect(files.list(`${LIB}/extensions/journal`)).toEqual([]);
  expect(files.list(`${LIB}/extensions/staging`)).toEqual([]);
  expect(files.list(LIB).filter((name) => name.startsWith("Full"))).toEqual(["Full-1.1"]);
  const calls = world.calls("Full").map((line) => line.split(" ").slice(0, 2).join(" "));
  expect(calls.filter((one) => one === "1.0 uninstall").length).toBeLessThanOrEqual(1);
  return counter.count;
}

test("extensions.md EXT-49 EXT-57 DB-10 E2E-52: a disk that is full at any single write affects only that handler, and is got over", async () => {
  const writes = await life(0, false);
  expect(writes).toBeGreaterThan(20);
  for (let at = 1; at <= writes; at += 1) await life(at, false);
}, 60_000);

test("extensions.md DB-10 E2E-52: a disk that stays full from any write on, likewise", async () => {
  const writes = await life(0, false);
  for (let at = 1; at <= writes; at += 3) await life(at, true);
}, 60_000);

guestTest(
  "extensions.md DB-10 E2E-52: an extension fills the real disk of the compiled agent; it is told why, and all is well when there is space again",
  async () => {
    const fill =
      '[ -e /var/lib/fill-no-more ] || dd if=/dev/zero of="$base/../filled" bs=64k >/dev/null 2>&1';
    const at = (sequence: number) => [
      { name: "Fill.Disk", version: "1.0.0", settings: { sequence } },
    ];
    await using guest = await startGuest(
      {
        dhcp: {},
        packages: [{ name: "Fill.Disk", version: "1.0.0", scripts: { enable: fill } }],
        goalStates: [0, 1].map((sequence) => ({
          incarnation: String(sequence + 1),
          extensions: at(sequence),
        })),
      },
      {
        configuration: AGENT_CONF.replace(
          "Provisioning.Agent=waagent",
          "Provisioning.Agent=disabled",
        ),
        prepare: async (sandbox) => {
          await sandbox.run(["mkdir", "-p", "/var/lib/waagent"]);
          await sandbox.run([
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=80m,mode=700",
            "none",
            "/var/lib/waagent",
          ]);
        },
      },
    );
    const { sandbox, fabric } = guest;
    const full = await fabric.waitFor(
      (event) =>
        event.type === "status" &&
        event.status.document.aggregateStatus.handlerAggregateStatus.some(
          (one) =>
            one.status === "NotReady" && /no space left/i.test(one.formattedMessage?.message ?? ""),
        ),
      30_000,
      "the report of a full disk",
    );
    expect(full.type).toBe("status");
    sandbox.write("/var/lib/fill-no-more", "");
    await sandbox.run(["rm", "/var/lib/waagent/filled"]);
    await fabric.setGoalState(1);
    await guest.until("status:Fill.Disk=success", { after: Date.now() - fabric.startedAt });
    await fabric.waitFor(
      (event) =>
        event.type === "status" &&
        event.status.document.aggregateStatus.handlerAggregateStatus.some(
          (one) => one.status === "Ready" && one.runtimeSettingsStatus?.sequenceNumber === 1,
        ),
      30_000,
      "Ready with the new settings",
    );
  },
  90_000,
);
