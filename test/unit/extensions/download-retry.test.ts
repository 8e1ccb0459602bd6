import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import type { Config } from "../../../src/config/table.ts";
import { createExtensionsRunner } from "../../../src/extensions/runner.ts";
import { RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const failures = (world: World): string[] =>
  world.system.events
    .filter(({ success, operation }) => !success && operation !== "ExtensionSigned")
    .map(({ operation }) => operation);
const wanted = () => goal([handler(NAME, "1.0"), handler("Contoso.Ext.Other", "1.0")]);

/** A world whose storage begins to answer with the given try, and what was reported in each pause. */
function createPatientWorld(retries: number, comesWith: number) {
  const config: Partial<Config> = { "Extensions.DownloadRetries": retries };
  const pauses: (() => void)[] = [];
  const world = createWorld({ config, onProgress: () => pauses.forEach((look) => look()) });
  const script = RECORDING_SCRIPT;
  world.offer({ name: "Contoso.Ext.Other", version: "1.0", script });
  const tries = (): number => world.fetched.filter((one) => one === `package ${NAME} 1.0`).length;
  world.packages.set(`${NAME} 1.0`, new Uint8Array());
  const whenDue = (): void => {
    if (tries() >= comesWith - 1) world.offer({ name: NAME, version: "1.0", script });
  };
  return { world, pauses, tries, whenDue };
}

test("extensions.md DB-36 EXT-84: with Extensions.DownloadRetries a failed download is tried again in the same goal state, and the platform hears that", async () => {
  const { world, pauses, tries, whenDue } = createPatientWorld(3, 3);
  using _ = world;
  const current = wanted();
  const said = new Set<string>();
  pauses.push(whenDue, () => {
    const report = world.runner.reports(current).find(({ name }) => name === NAME);
    const wait = world.runner.waits().get(NAME.toLowerCase());
    if (wait?.startsWith("a new try") !== true) return;
    expect(wait).toMatch(/^a new try of the download at 2030-01-01T00:0\d:\d\dZ$/);
    expect(report).toMatchObject({ status: "Installing", code: 0 });
    expect(report?.extensions[0]?.status.status).toBe("transitioning");
    expect(report?.extensions[0]?.status.message).toBe(report!.message);
    said.add(report!.message!);
  });
  const aggregate = await world.runner.process(current);
  expect(aggregate?.status).toBe("Success");
  expect(tries()).toBe(3);
  expect([...said].map((text) => text.replace(/in \d+ s/, "in N s"))).toEqual([
    "The download failed and will be tried again in N s (1 of 3)",
    "The download failed and will be tried again in N s (2 of 3)",
  ]);
  const elapsed = world.system.clock.monotonic();
  expect(elapsed).toBeGreaterThanOrEqual(0.8 * 90_000);
  expect(elapsed).toBeLessThanOrEqual(1.2 * 90_000 + 5000);
  expect(world.read(`${NAME}-1.0/config/HandlerState`)).toBe("Enabled");
  // A failure that was overcome is none for the platform.
  expect(failures(world)).toEqual([]);
});

test("extensions.md DB-36 EXT-29: when all tries are used up the failure is the usual one, and the other handler never waited", async () => {
  const { world, tries } = createPatientWorld(2, 99);
  using _ = world;
  const current = wanted();
  await world.runner.process(current);
  expect(tries()).toBe(3);
  expect(world.runner.reports(current)).toMatchObject([
    { name: NAME, status: "NotReady", code: 1001 },
    { name: "Contoso.Ext.Other", status: "Ready" },
  ]);
  expect(failures(world)).toEqual(["Download"]);
});

test("extensions.md DB-36 EXT-84: without the option there is one try, and other failures are never tried again", async () => {
  const { world, tries } = createPatientWorld(0, 99);
  using _ = world;
  await world.runner.process(wanted());
  expect(tries()).toBe(1);

  using patient = createWorld({ config: { "Extensions.DownloadRetries": 5 } });
  patient.offer({ name: NAME, version: "1.0", script: "#!/bin/sh\nexit 7\n" });
  await patient.runner.process(goal([handler(NAME, "1.0"), handler("Contoso.Ext.None", "2.0")]));
  expect(patient.fetched.sort()).toEqual(
    [`manifest ${NAME}`, "manifest Contoso.Ext.None", `package ${NAME} 1.0`].sort(),
  );
  expect(patient.system.clock.monotonic()).toBeLessThan(10_000);
});

test("extensions.md DB-36: a manifest that cannot be had is tried again, too; a newer goal state ends the pause with one last try", async () => {
  using world = createWorld({ config: { "Extensions.DownloadRetries": 20 } });
  world.failManifests(new AgentError("http", "Connection refused"));
  const current = goal([handler(NAME, "1.0")]);
  let passes = 0;
  const runner = createExtensionsRunner(world.system, world.config, {
    source: {
      versions: (which) => {
        passes += 1;
        if (passes === 2) setImmediate(() => runner.supersede());
        if (passes === 2) world.system.clock.automatic = false;
        return Promise.reject(new AgentError("http", `No answer about ${which.name}`));
      },
      download: () => Promise.reject(new AgentError("protocol", "not reached")),
    },
    wireServerAddress: "168.63.129.16",
    environment: {},
  });
  await runner.process(current);
  expect(passes).toBe(3);
  expect(runner.reports(current)).toMatchObject([{ status: "NotReady", code: -1 }]);
  expect(runner.waits()).toEqual(new Map());
  expect(world.system.files.list(`${LIB}/extensions/journal`)).toEqual([]);
});
