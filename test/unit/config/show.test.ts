import { expect, test } from "bun:test";
import { configReference } from "../../../src/config/docs.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { showConfiguration, shownKeys } from "../../../src/config/show.ts";
import { configKeys, defaultConfig } from "../../../src/config/table.ts";

test("provisioning.md CLI-28: 76 lines of `Key = value` in byte order, True, False, None, bare text", () => {
  const lines = showConfiguration(defaultConfig()).split("\n");
  expect(lines.pop()).toBe("");
  expect(lines).toHaveLength(76);
  const keys = lines.map((line) => line.split(" = ")[0] ?? "");
  expect(keys).toEqual(keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
  expect(keys.indexOf("AutoUpdate.UpdateToLatestVersion")).toBeLessThan(
    keys.indexOf("Autoupdate.Frequency"),
  );
  expect(keys.indexOf("DVD.MountPoint")).toBeLessThan(keys.indexOf("Debug.AgentCpuQuota"));
  expect(lines).toContain("Logs.Console = True");
  expect(lines).toContain("Logs.Verbose = False");
  expect(lines).toContain("HttpProxy.Host = None");
  expect(lines).toContain("Extensions.GoalStatePeriod = 6");
  expect(lines).toContain("Lib.Dir = /var/lib/waagent");
});

test("provisioning.md CONF-90 CONF-91 CONF-92: keys outside the listing are read and not printed", () => {
  const { config } = parseConfig(
    "Debug.SelfUpdateHotfixFrequency=1\nDebug.SelfUpdateRegularFrequency=2\nMonitor.NetworkConfigurationChanges=y\n",
    "/x",
  );
  expect(config["Debug.SelfUpdateHotfixFrequency"]).toBe(1);
  expect(config["Debug.SelfUpdateRegularFrequency"]).toBe(2);
  expect(config["Monitor.NetworkConfigurationChanges"]).toBe(true);
  for (const key of [
    "Debug.SelfUpdateHotfixFrequency",
    "Debug.SelfUpdateRegularFrequency",
    "Debug.EnableRsmDowngrade",
    "Monitor.NetworkConfigurationChanges",
  ]) {
    expect(shownKeys()).not.toContain(key as never);
  }
});

test("provisioning.md DB-21 CONF-20 CONF-78: effective values are printed", () => {
  const { config } = parseConfig("Extensions.GoalStatePeriod=30\n", "/x");
  expect(showConfiguration(config)).toContain("Extensions.InitialGoalStatePeriod = 30\n");
  expect(showConfiguration(config)).toContain("Debug.EnableCgroupV2ResourceLimiting = True\n");
});

test("the default listing, key by key", () => {
  expect(showConfiguration(defaultConfig())).toMatchSnapshot();
});

test("the Markdown reference names every key once", () => {
  const reference = configReference();
  for (const key of configKeys()) {
    expect(reference.split("\n").filter((line) => line.startsWith(`| \`${key}\` |`))).toHaveLength(
      1,
    );
  }
  for (const line of reference.split("\n").filter((row) => row.startsWith("|"))) {
    expect(line.replaceAll("\\|", "").split("|")).toHaveLength(6);
  }
});
