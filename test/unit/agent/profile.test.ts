import { expect, test } from "bun:test";
import { profileOf, withProfile } from "../../../src/agent/profile.ts";
import { defaultConfig } from "../../../src/config/table.ts";

test("each profile leaves out what it says; an unknown word means the full one", () => {
  const does = (name: string) => {
    const profile = profileOf({ "Agent.Profile": name });
    return Object.entries(profile)
      .filter(([, value]) => value)
      .map(([key]) => key);
  };
  expect(does("full")).toEqual(["provisions", "keepsMachine", "runsExtensions", "reports"]);
  expect(does("extensions-only")).toEqual(["runsExtensions", "reports"]);
  expect(does("provision-only")).toEqual(["provisions"]);
  expect(does("report-only")).toEqual(["reports"]);
  expect(does("toString")).toEqual(does("full"));
});

test("extensions.md EXT-20: a profile without extensions only reports them", () => {
  const config = { ...defaultConfig(), "Agent.Profile": "report-only" };
  expect(withProfile(config)["Extensions.Enabled"]).toBe(false);
  expect(withProfile(defaultConfig())["Extensions.Enabled"]).toBe(true);
});
