import { expect, test } from "bun:test";
import { writeSettings } from "../../../src/extensions/settings-file.ts";
import type { Layout } from "../../../src/extensions/layout.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { settings } from "./world.ts";

const LAYOUT: Layout = { lib: "/var/lib/waagent", logs: "/var/log/azure" };
const HANDLER = { name: "Pub.Ext", version: "1.0.0" };
const BASE = "/var/lib/waagent/Pub.Ext-1.0.0";

test("of old settings and status files the newest hundred stay, and those of other extensions and kinds", () => {
  using system = createFakeSystem();
  const { files } = system;
  files.makeDirectory(`${BASE}/status`, { mode: 0o700 });
  files.makeDirectory(`${BASE}/config`, { mode: 0o700 });
  const others = ["HandlerState", "x.settings", "One.7.settings"].map(
    (name): SystemPath => `${BASE}/config/${name}`,
  );
  for (const file of others) files.write(file, "");
  for (let sequence = 0; sequence < 250; sequence += 1) {
    writeSettings(system, LAYOUT, HANDLER, settings(sequence), { multiConfig: false });
    // Times as a machine would have them that gets new settings each minute.
    files.setTimes(`${BASE}/config/${sequence}.settings`, sequence * 60_000);
    files.write(`${BASE}/status/${sequence}.status`, "[]");
    files.setTimes(`${BASE}/status/${sequence}.status`, sequence * 60_000);
  }
  const numbers = (folder: SystemPath): number[] =>
    files
      .list(folder)
      .map((name) => Number.parseInt(name))
      .filter((number) => !Number.isNaN(number))
      .toSorted((a, b) => a - b);
  const newest = Array.from({ length: 100 }, (_, index) => 150 + index);
  expect(numbers(`${BASE}/config`)).toEqual(newest);
  expect(numbers(`${BASE}/status`)).toEqual(newest);
  for (const file of others) expect(files.exists(file)).toBe(true);

  // The settings in force may have an old number and an old file.
  writeSettings(system, LAYOUT, HANDLER, settings(150), { multiConfig: false });
  expect(files.exists(`${BASE}/status/150.status`)).toBe(true);
  expect(files.exists(`${BASE}/status/151.status`)).toBe(false);
});
