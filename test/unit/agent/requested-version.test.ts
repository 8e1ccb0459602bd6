import { expect, test } from "bun:test";
import { createVersionWatch, judgeRequestedVersion } from "../../../src/agent/requested-version.ts";
import type { AgentFamily } from "../../../src/azure/goal-state.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const family = (changes: Partial<AgentFamily> = {}): AgentFamily => ({
  name: "Prod",
  version: "9.9.9.9",
  fromVersion: undefined,
  isVersionFromRsm: true,
  isVmEnabledForRsmUpgrades: true,
  uris: ["https://h/manifest.xml"],
  ...changes,
});
const options = { family: "Prod", version: "2.15.0.1" };

test("extensions.md UPD-33: a version we cannot install is told, with both versions", () => {
  const message = judgeRequestedVersion([family()], options);
  expect(message).toContain("9.9.9.9");
  expect(message).toContain("stays at 2.15.0.1");
});

test("extensions.md UPD-02 and wire-protocol.md FAM-01: the first family of the configured name with an address counts", () => {
  expect(judgeRequestedVersion([family({ name: "Test" })], options)).toBeUndefined();
  expect(
    judgeRequestedVersion([family({ uris: [] }), family({ version: "2.15.0.1" })], options),
  ).toBeUndefined();
  expect(
    judgeRequestedVersion([family({ uris: [] }), family({ version: "3.0.0.0" })], options),
  ).toContain("3.0.0.0");
});

test("extensions.md UPD-05 and wire-protocol.md FAM-02: only where the platform drives versions on this VM", () => {
  for (const change of [
    { isVmEnabledForRsmUpgrades: false },
    { isVmEnabledForRsmUpgrades: undefined },
    { isVersionFromRsm: false },
    { version: undefined },
    { version: "nonsense" },
    { version: "2.15.0.1" },
  ]) {
    expect([change, judgeRequestedVersion([family(change)], options)]).toEqual([change, undefined]);
  }
});

test("extensions.md UPD-32 and wire-protocol.md FILE-18: a stale mark of that mode is removed, the same request is told once", () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/var/lib/waagent/WALinuxAgent-9.9.9.9/bin");
  system.files.write("/var/lib/waagent/waagent_rsm_update", "");
  const watch = createVersionWatch(system, defaultConfig(), "2.15.0.1");
  watch.look([family()]);
  watch.look([family()]);
  watch.look([family({ version: "9.9.9.10" })]);
  expect(system.files.exists("/var/lib/waagent/waagent_rsm_update")).toBe(false);
  expect(system.events.map(({ operation, success }) => [operation, success])).toEqual([
    ["AgentUpgrade", false],
    ["AgentUpgrade", false],
  ]);
  expect(system.lines.filter((line) => line.startsWith("WARNING"))).toHaveLength(2);
  // UPD-31: what another agent downloaded stays as it is.
  expect(system.files.list("/var/lib/waagent")).toEqual(["WALinuxAgent-9.9.9.9"]);
});
