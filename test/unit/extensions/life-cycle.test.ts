import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const demo = (version: string, manifest: Record<string, unknown> = {}) => ({
  name: NAME,
  version,
  manifest,
  script: RECORDING_SCRIPT,
});

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

describe("install and enable", () => {
  test("extensions.md EXT-12 EXT-17 EXT-54 EXT-82 EXT-113: a new handler is installed, enabled and reported Ready", async () => {
    world.offer(demo("1.0.0"));
    const wanted = goal([handler(NAME, "1.0.0", { settings: [settings(3)] })]);
    const aggregate = await world.runner.process(wanted);
    expect(aggregate).toMatchObject({ status: "Success", code: 0, sequence: wanted.sequence });
    expect(world.calls(NAME)).toEqual(["1.0.0 install seq=3", "1.0.0 enable seq=3"]);
    expect(world.runner.reports(wanted)).toMatchObject([
      {
        name: NAME,
        version: "1.0.0",
        status: "Ready",
        code: 0,
        message: "Plugin enabled",
        extensions: [
          {
            sequence: 3,
            extensionName: undefined,
            status: { status: "success", message: "done 1.0.0" },
          },
        ],
      },
    ]);
    expect(world.read(`${NAME}-1.0.0/config/HandlerState`)).toBe("Enabled");
    expect(world.system.files.list(`${LIB}/extensions/journal`)).toEqual([]);
    expect(world.system.files.list(`${LIB}/extensions/runs`)).toEqual([]);

    await world.runner.process(goal([handler(NAME, "1.0.0", { settings: [settings(3)] })]));
    expect(world.calls(NAME).slice(2)).toEqual(["1.0.0 enable seq=3"]);
  });

  test("extensions.md EXT-38 EXT-64 EXT-65: an update runs in order, an uninstall leaves nothing to report", async () => {
    world.offer(demo("1.0.0"), demo("1.1.0"));
    await world.runner.process(goal([handler(NAME, "1.0.0")]));
    await world.runner.process(goal([handler(NAME, "1.1.0", { settings: [settings(1)] })]));
    expect(world.calls(NAME).slice(2)).toEqual([
      "1.0.0 disable seq=1",
      "1.1.0 update seq=1",
      "1.0.0 uninstall seq=1",
      "1.1.0 install seq=1",
      "1.1.0 enable seq=1",
    ]);
    expect(world.system.files.list(LIB)).toEqual([`${NAME}-1.1.0`, "extensions"]);
    const gone = goal([handler(NAME, "1.1.0", { state: "uninstall", settings: [settings(1)] })]);
    await world.runner.process(gone);
    expect(world.calls(NAME).slice(7)).toEqual(["1.1.0 disable seq=1", "1.1.0 uninstall seq=1"]);
    expect(world.system.files.list(LIB)).toEqual(["extensions"]);
    expect(world.runner.reports(gone)).toEqual([]);
  });
});
