import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { JsonNumber } from "../../../src/base/json.ts";
import type { ExtensionPackage } from "../../fixtures/extensions/package.ts";
import { RECORDER, RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const demo = (version: string, more: Partial<ExtensionPackage> = {}): ExtensionPackage => ({
  name: NAME,
  version,
  script: RECORDING_SCRIPT,
  ...more,
});
/** A script that records, and fails for one operation. */
const failing = (operation: string, code = 7): string =>
  RECORDING_SCRIPT.replace("exit 0", `[ "$1" = ${operation} ] && exit ${code}\nexit 0`);

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

const calls = (): string[] => world.calls(NAME);
const state = (version: string): string | undefined =>
  world.read(`${NAME}-${version}/config/HandlerState`);
const status = (version: string): { status: string; code: number; message: string } =>
  JSON.parse(world.read(`${NAME}-${version}/config/HandlerStatus`) ?? "null");
const enable = (version: string, sequence = 0) =>
  goal([handler(NAME, version, { settings: [settings(sequence)] })]);

describe("install and enable", () => {
  test("extensions.md EXT-11 EXT-12 EXT-22 EXT-81 EXT-82 EXT-112: a new handler is installed, enabled and reported; the next goal and the next start only enable", async () => {
    world.offer(demo("1.0.0"));
    const wanted = enable("1.0.0", 3);
    const aggregate = await world.runner.process(wanted);
    expect(aggregate).toMatchObject({ status: "Success", code: 0, sequence: wanted.sequence });
    expect(calls()).toEqual(["1.0.0 install seq=3", "1.0.0 enable seq=3"]);
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
    expect(state("1.0.0")).toBe("Enabled");
    expect(world.read(`${NAME}-1.0.0/config/HandlerStatus`)).toBe(
      `{"name": "${NAME}", "version": "1.0.0", "status": "Ready", "code": 0, "message": "Plugin enabled", "supports_multi_config": false, "extension_status": null}`,
    );
    await world.runner.process(enable("1.0.0", 3));
    expect(calls().slice(2)).toEqual(["1.0.0 enable seq=3"]);
    await world.createRunner().process(wanted);
    expect(calls().slice(3)).toEqual(["1.0.0 enable seq=3"]);
  });

  test("extensions.md DB-44: state and settings are for root alone, nothing of our own is left behind", async () => {
    world.offer(demo("1.0.0"));
    await world.runner.process(enable("1.0.0", 3));
    for (const name of ["HandlerState", "HandlerStatus", "3.settings"])
      expect(world.system.files.stat(`${LIB}/${NAME}-1.0.0/config/${name}`)?.mode).toBe(0o600);
    expect(world.system.files.list(`${LIB}/extensions/journal`)).toEqual([]);
    expect(world.system.files.list(`${LIB}/extensions/runs`)).toEqual([]);
    expect(world.system.files.list(`${LIB}/extensions/staging`)).toEqual([]);
    expect(world.system.files.exists(`${LIB}/${NAME}__1.0.0.zip`)).toBe(false);
  });

  test("extensions.md EXT-23 wire-protocol.md STAT-36: a handler without settings gets an empty 0.settings and is enabled once", async () => {
    world.offer(demo("1.0.0"));
    const wanted = goal([handler(NAME, "1.0.0", { settings: [] })]);
    await world.runner.process(wanted);
    expect(calls()).toEqual(["1.0.0 install seq=0", "1.0.0 enable seq=0"]);
    expect(world.read(`${NAME}-1.0.0/config/0.settings`)).toBe("");
    expect(world.runner.reports(wanted)[0]?.extensions).toEqual([]);
  });

  test("extensions.md EXT-09 EXT-10 EXT-54 EXT-55 EXT-56: settings are lossless, spaced, ASCII, null where absent, and the newest file", async () => {
    world.offer(demo("1.0.0"));
    const publicSettings = new Map<string, import("../../../src/base/json.ts").Json>([
      ["10", new JsonNumber("9223372036854775808")],
      ["2", new JsonNumber("1.0")],
      ["ü", "日本\u0001"],
      ["none", null],
    ]);
    await world.runner.process(
      goal([
        handler(NAME, "1.0.0", {
          settings: [
            settings(3, { publicSettings, protectedSettings: "MIIB==", thumbprint: "AB" }),
          ],
        }),
      ]),
    );
    expect(world.read(`${NAME}-1.0.0/config/3.settings`)).toBe(
      '{"runtimeSettings": [{"handlerSettings": {"publicSettings": {"10": 9223372036854775808, "2": 1.0, "\\u00fc": "\\u65e5\\u672c\\u0001", "none": null}, "protectedSettings": "MIIB==", "protectedSettingsCertThumbprint": "AB"}}]}',
    );
    world.system.files.setTimes(`${LIB}/${NAME}-1.0.0/config/3.settings`, 1000);
    await world.runner.process(enable("1.0.0", 2));
    expect(world.read(`${NAME}-1.0.0/config/2.settings`)).toBe(
      '{"runtimeSettings": [{"handlerSettings": {"publicSettings": null, "protectedSettings": null, "protectedSettingsCertThumbprint": null}}]}',
    );
    expect(world.system.files.stat(`${LIB}/${NAME}-1.0.0/config/3.settings`)?.modifiedMs).toBe(
      1000,
    );
  });

  test("extensions.md EXT-32 EXT-80 EXT-84: a failed install is tried again with a new download, a failed enable only enables again", async () => {
    world.offer(demo("1.0.0", { script: failing("install", 51) }));
    const wanted = enable("1.0.0");
    expect(await world.runner.process(wanted)).toMatchObject({ status: "Success", code: 0 });
    expect(state("1.0.0")).toBe("NotInstalled");
    expect(status("1.0.0")).toMatchObject({ status: "NotReady", code: 1007 });
    const base = world.system.files.realPath(`${LIB}/${NAME}-1.0.0`);
    expect(status("1.0.0").message).toStartWith(
      `[ExtensionOperationError] Non-zero exit code: 51, ${base}/bin/run install\n[stdout]\n`,
    );
    expect(world.runner.reports(wanted)).toMatchObject([
      { status: "NotReady", code: 1007, extensions: [] },
    ]);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({
        operation: "Install",
        success: false,
        name: NAME,
        version: "1.0.0",
      }),
    );

    world.offer(demo("1.0.0", { script: failing("enable", 52) }));
    await world.runner.process(enable("1.0.0"));
    expect(calls().slice(1)).toEqual(["1.0.0 install seq=0", "1.0.0 enable seq=0"]);
    expect(state("1.0.0")).toBe("Installed");
    expect(status("1.0.0")).toMatchObject({ status: "NotReady", code: 1009 });
    await world.runner.process(enable("1.0.0"));
    expect(calls().slice(3)).toEqual(["1.0.0 enable seq=0"]);
  });

  test("extensions.md EXT-21: what one handler cannot do does not stop the others", async () => {
    world.offer({ name: "A.Bad", version: "1.0", script: "#!/bin/sh\nexit 3\n" }, demo("1.0.0"));
    const wanted = goal([
      handler("A.Bad", "1.0"),
      handler("A.Missing", "1.0"),
      handler(NAME, "1.0.0"),
      handler("../evil", "1.0"),
      handler("A.Odd", "not a version"),
    ]);
    expect(await world.runner.process(wanted)).toMatchObject({ status: "Success" });
    const codes = Object.fromEntries(
      world.runner.reports(wanted).map((report) => [report.name, [report.status, report.code]]),
    );
    expect(codes).toEqual({
      "A.Bad": ["NotReady", 1007],
      "A.Missing": ["NotReady", -1],
      [NAME]: ["Ready", 0],
      "../evil": ["NotReady", -1],
      "A.Odd": ["NotReady", -1],
    });
    expect(world.system.files.list("/var/lib").sort()).toEqual(["waagent"]);
  });

  test("extensions.md EXT-72: enable that never ends its children is over when it exits itself", async () => {
    const script = RECORDING_SCRIPT.replace("exit 0", "(sleep 5) & exit 0");
    world.offer(demo("1.0.0", { script }));
    const began = performance.now();
    await world.runner.process(enable("1.0.0"));
    expect(performance.now() - began).toBeLessThan(4000);
    expect(state("1.0.0")).toBe("Enabled");
  });
});

describe("version choice", () => {
  test("extensions.md EXT-35 EXT-36 EXT-37 wire-protocol.md MAN-02: a partial request floats to the highest match, which then names everything", async () => {
    world.offer(demo("1.0"), demo("1.0.7"), demo("1.0.10"), demo("1.1"), demo("2.0"));
    const wanted = enable("1.0");
    await world.runner.process(wanted);
    expect(calls()).toEqual(["1.0.10 install seq=0", "1.0.10 enable seq=0"]);
    expect(world.runner.reports(wanted)).toMatchObject([{ version: "1.0.10", status: "Ready" }]);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "RequestedVersionMismatch", version: "1.0.10" }),
    );
    expect(world.createRunner().reports(wanted)).toMatchObject([{ version: "1.0.10" }]);
  });

  test("extensions.md EXT-30: a version the manifest does not have is a failure of that handler", async () => {
    world.offer(demo("1.0.7"));
    const wanted = enable("1.0.0.0");
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)).toMatchObject([{ status: "NotReady", code: -1 }]);
    expect(status("1.0.0.0").message).toContain("Unable to find version 1.0.0.0 in manifest");
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "Download", success: false }),
    );
  });

  test("extensions.md EXT-38 DB-21: the manifest is not needed for an uninstall, nor for exactly what is installed", async () => {
    world.offer(demo("1.0.0.0"), demo("1.2"));
    await world.runner.process(enable("1.0.0.0"));
    world.failManifests(new AgentError("protocol", "no manifest"));
    await world.runner.process(enable("1.0.0.0", 1));
    expect(calls().at(-1)).toBe("1.0.0.0 enable seq=1");
    expect(world.fetched).toEqual([`manifest ${NAME}`, `package ${NAME} 1.0.0.0`]);
    const gone = goal([handler(NAME, "7.7", { state: "uninstall", settings: [settings(1)] })]);
    await world.runner.process(gone);
    expect(calls().slice(3)).toEqual(["1.0.0.0 disable seq=1", "1.0.0.0 uninstall seq=1"]);
    expect(world.fetched.length).toBe(2);

    await world.runner.process(enable("1.2"));
    expect(status("1.2").message).toContain("Failed to get ext handler pkgs: no manifest");
  });
});

describe("disable and uninstall", () => {
  test("extensions.md EXT-24 EXT-02 EXT-83: the deprecated disabled state only disables, and only what is enabled", async () => {
    world.offer(demo("1.0.0"));
    await world.runner.process(enable("1.0.0"));
    const disabled = () => goal([handler(NAME, "1.0.0", { state: "disabled" })]);
    await world.runner.process(disabled());
    expect(calls().slice(2)).toEqual(["1.0.0 disable seq=0"]);
    expect(state("1.0.0")).toBe("Installed");
    expect(status("1.0.0")).toMatchObject({
      status: "NotReady",
      code: 0,
      message: "Plugin disabled",
    });
    await world.runner.process(disabled());
    expect(calls().length).toBe(3);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "RequestedStateDisabled" }),
    );
  });

  test("extensions.md EXT-64 EXT-65: uninstall disables first, swallows its own failure, removes everything but the logs", async () => {
    world.offer(demo("1.0.0", { script: failing("uninstall", 9) }));
    await world.runner.process(enable("1.0.0"));
    const gone = goal([handler(NAME, "1.0.0", { state: "uninstall" })]);
    expect(await world.runner.process(gone)).toMatchObject({ status: "Success" });
    expect(calls().slice(2)).toEqual(["1.0.0 disable seq=0", "1.0.0 uninstall seq=0"]);
    expect(world.system.files.list(LIB)).toEqual(["extensions"]);
    expect(world.system.files.exists(`${LOGS}/${NAME}/events`)).toBe(true);
    expect(world.runner.reports(gone)).toEqual([]);
    expect(
      await world.runner.process(goal([handler(NAME, "1.0.0", { state: "uninstall" })])),
    ).toMatchObject({ status: "Success" });
  });

  test("extensions.md EXT-64: a failing disable stops the uninstall and is reported", async () => {
    world.offer(demo("1.0.0", { script: failing("disable", 9) }));
    await world.runner.process(enable("1.0.0"));
    const gone = goal([handler(NAME, "1.0.0", { state: "uninstall" })]);
    await world.runner.process(gone);
    expect(calls().slice(2)).toEqual(["1.0.0 disable seq=0"]);
    expect(world.runner.reports(gone)).toMatchObject([{ status: "NotReady", code: 1010 }]);
    expect(state("1.0.0")).toBe("Enabled");
  });
});

describe("update", () => {
  const upgrade = async (
    old: Partial<ExtensionPackage>,
    next: Partial<ExtensionPackage>,
  ): Promise<ReturnType<typeof enable>> => {
    world.offer(demo("1.0.0", old));
    await world.runner.process(enable("1.0.0"));
    world.offer(demo("1.1.0", next));
    const wanted = enable("1.1.0", 1);
    await world.runner.process(wanted);
    return wanted;
  };
  const environmentScript = `${RECORDER}
note "$1 seq=$ConfigSequenceNumber v=$VERSION from=$AZURE_GUEST_AGENT_UPDATING_FROM_VERSION really=$WAAGENT_UPDATING_FROM_INSTALLED_VERSION d=$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE u=$AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"
[ "$1" = enable ] && status Enable success x
exit 0
`;

  test("extensions.md EXT-71 EXT-75 EXT-76: the order of an upgrade, and what its commands are told", async () => {
    await upgrade({ script: environmentScript }, { script: environmentScript });
    expect(calls()).toEqual([
      "1.0.0 install seq=0 v= from= really= d= u=NOT_RUN",
      "1.0.0 enable seq=0 v= from= really= d= u=NOT_RUN",
      "1.0.0 disable seq=1 v= from= really= d= u=",
      "1.1.0 update seq=1 v=1.1.0 from=1.0.0 really=1.0.0 d=0 u=",
      "1.0.0 uninstall seq=1 v= from= really= d= u=",
      "1.1.0 install seq=1 v= from= really= d= u=0",
      "1.1.0 enable seq=1 v= from= really= d= u=0",
    ]);
    expect(world.system.files.list(LIB)).toEqual([`${NAME}-1.1.0`, "extensions"]);
    expect(state("1.1.0")).toBe("Enabled");
  });

  test("extensions.md EXT-39 EXT-60 DB-35: on a downgrade the old, higher version's update command runs", async () => {
    world.offer(
      demo("2.0.0", { script: environmentScript }),
      demo("1.0.0", { script: environmentScript }),
    );
    await world.runner.process(enable("2.0.0"));
    await world.runner.process(enable("1.0.0", 1));
    expect(calls().slice(2)).toEqual([
      "2.0.0 disable seq=1 v= from= really= d= u=",
      "2.0.0 update seq=1 v=1.0.0 from=1.0.0 really=2.0.0 d=0 u=",
      "2.0.0 uninstall seq=1 v= from= really= d= u=",
      "1.0.0 install seq=1 v= from= really= d= u=0",
      "1.0.0 enable seq=1 v= from= really= d= u=0",
    ]);
  });

  test("extensions.md EXT-77: disable that did not run is NOT_RUN, not None", async () => {
    world.offer(
      demo("1.0.0", { script: environmentScript }),
      demo("1.1.0", { script: environmentScript }),
    );
    await world.runner.process(enable("1.0.0"));
    await world.runner.process(goal([handler(NAME, "1.0.0", { state: "disabled" })]));
    await world.runner.process(enable("1.1.0", 1));
    expect(calls()[3]).toBe("1.1.0 update seq=1 v=1.1.0 from=1.0.0 really=1.0.0 d=NOT_RUN u=");
  });

  test("extensions.md EXT-63: mrseq and status files go to the new version with their times", async () => {
    world.offer(demo("1.0.0"));
    await world.runner.process(enable("1.0.0"));
    const old = `${LIB}/${NAME}-1.0.0` as const;
    world.system.files.write(`${old}/mrseq`, "0");
    world.system.files.setTimes(`${old}/mrseq`, 5000);
    world.system.files.setTimes(`${old}/status/0.status`, 6000);
    world.offer(demo("1.1.0"));
    await world.runner.process(enable("1.1.0", 1));
    expect(world.read(`${NAME}-1.1.0/mrseq`)).toBe("0");
    expect(world.system.files.stat(`${LIB}/${NAME}-1.1.0/mrseq`)?.modifiedMs).toBe(5000);
    expect(world.system.files.stat(`${LIB}/${NAME}-1.1.0/status/0.status`)?.modifiedMs).toBe(6000);
  });

  test.each([
    [undefined, true],
    ["UpdateWithInstall", true],
    ["updatewithinstall", true],
    ["UpdateWithoutInstall", false],
    ["x", false],
  ])("extensions.md EXT-61: updateMode %p installs: %p", async (updateMode, installs) => {
    await upgrade({}, { manifest: updateMode === undefined ? {} : { updateMode } });
    expect(calls().includes("1.1.0 install seq=1")).toBe(installs);
    expect(calls().at(-1)).toBe("1.1.0 enable seq=1");
    expect(state("1.1.0")).toBe("Enabled");
  });

  test("extensions.md EXT-31 EXT-59 EXT-62: a failing old disable aborts with 1008 on the new version, the old stays enabled", async () => {
    const wanted = await upgrade({ script: failing("disable", 4) }, {});
    expect(calls().slice(2)).toEqual(["1.0.0 disable seq=1"]);
    expect(state("1.0.0")).toBe("Enabled");
    expect(world.runner.reports(wanted)).toMatchObject([
      { version: "1.1.0", status: "NotReady", code: 1008 },
    ]);
    expect(status("1.1.0").message).toMatch(
      /^\[ExtensionUpdateError\] \[ExtensionOperationError\] Non-zero exit code: 4, .*\n[^]*; ContinueOnUpdate: False$/,
    );
    await world.runner.process(enable("1.1.0", 1));
    expect(calls().slice(3)).toEqual(["1.0.0 disable seq=1"]);
  });

  test("extensions.md EXT-59 EXT-78: with continueOnUpdateFailure the codes are handed on", async () => {
    const script = environmentScript.replace(
      "note",
      '[ "$1" = disable ] && trap "exit 4" EXIT; [ "$1" = uninstall ] && trap "exit 5" EXIT\nnote',
    );
    await upgrade(
      { script },
      { script: environmentScript, manifest: { continueOnUpdateFailure: true } },
    );
    expect(calls().slice(3)).toEqual([
      "1.1.0 update seq=1 v=1.1.0 from=1.0.0 really=1.0.0 d=4 u=",
      "1.0.0 uninstall seq=1 v= from= really= d= u=",
      "1.1.0 install seq=1 v= from= really= d= u=5",
      "1.1.0 enable seq=1 v= from= really= d= u=5",
    ]);
  });

  test("extensions.md EXT-61: a failed update command leaves FailedUpgrade, the next goal starts over without a second disable", async () => {
    const wanted = await upgrade({}, { script: failing("update", 3) });
    expect(state("1.1.0")).toBe("FailedUpgrade");
    expect(state("1.0.0")).toBe("Installed");
    expect(world.runner.reports(wanted)).toMatchObject([{ version: "1.1.0", code: 1008 }]);
    world.offer(demo("1.1.0"));
    await world.runner.process(enable("1.1.0", 1));
    expect(calls().slice(4)).toEqual([
      "1.1.0 update seq=1",
      "1.0.0 uninstall seq=1",
      "1.1.0 install seq=1",
      "1.1.0 enable seq=1",
    ]);
    expect(world.fetched.filter((entry) => entry === `package ${NAME} 1.1.0`).length).toBe(2);
  });

  test("extensions.md EXT-84: a failing install after an update aborts before enable", async () => {
    const wanted = await upgrade({}, { script: failing("install", 3) });
    expect(calls().at(-1)).toBe("1.1.0 install seq=1");
    expect(world.runner.reports(wanted)).toMatchObject([{ code: 1007 }]);
  });
});

describe("multi-config", () => {
  const script = `${RECORDER}
note "$1 ext=$ConfigExtensionName seq=$ConfigSequenceNumber codes=$AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS"
[ "$1" = enable ] && status Enable success "done $ConfigExtensionName"
exit 0
`;
  const multi = (version: string, more: Partial<ExtensionPackage> = {}) =>
    demo(version, { script, manifest: { supportsMultipleExtensions: "true" }, ...more });
  const wantedOf = (
    version: string,
    ...entries: readonly [name: string, sequence: number, state?: "enabled" | "disabled"][]
  ) =>
    goal([
      handler(NAME, version, {
        multiConfig: true,
        settings: entries.map(([name, sequence, entryState = "enabled"]) =>
          settings(sequence, { name, state: entryState }),
        ),
      }),
    ]);

  test("extensions.md EXT-50 MC-01 MC-02 MC-04 MC-08: one install, an enable, settings and status for each extension", async () => {
    world.offer(multi("1.0"));
    const wanted = wantedOf("1.0", ["first", 1], ["second", 5]);
    await world.runner.process(wanted);
    expect(calls()).toEqual([
      "1.0 install ext=first seq=1 codes=",
      "1.0 enable ext=first seq=1 codes=",
      "1.0 enable ext=second seq=5 codes=",
    ]);
    expect(world.system.files.list(`${LIB}/${NAME}-1.0/config`)).toEqual([
      "HandlerState",
      "HandlerStatus",
      "first.1.settings",
      "first.HandlerState",
      "second.5.settings",
      "second.HandlerState",
    ]);
    expect(world.read(`${NAME}-1.0/config/first.HandlerState`)).toBe("enabled");
    expect(world.runner.reports(wanted)).toMatchObject([
      {
        status: "Ready",
        extensions: [
          {
            extensionName: "first",
            sequence: 1,
            status: { status: "success", message: "done first" },
          },
          { extensionName: "second", sequence: 5, status: { status: "success" } },
        ],
      },
    ]);
    expect(world.system.files.list(`${LOGS}/${NAME}`)).toEqual(
      expect.arrayContaining(["CommandExecution_first.log", "CommandExecution_second.log"]),
    );
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "Enable", name: `${NAME}.second`, success: true }),
    );
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "ExtensionHandlerManifest" }),
    );
  });

  test("extensions.md MC-05 MC-06 MC-08: a deleted extension is disabled once, loses its files and its report; failures are ignored", async () => {
    world.offer(
      multi("1.0", { script: script.replace("exit 0", '[ "$1" = disable ] && exit 1\nexit 0') }),
    );
    await world.runner.process(wantedOf("1.0", ["first", 1], ["second", 5]));
    const wanted = wantedOf("1.0", ["first", 1], ["second", 6, "disabled"]);
    await world.runner.process(wanted);
    // Removals come first (SEQ-02).
    expect(calls().slice(3)).toEqual([
      "1.0 disable ext=second seq=6 codes=",
      "1.0 enable ext=first seq=1 codes=",
    ]);
    const names = world.system.files.list(`${LIB}/${NAME}-1.0/config`);
    expect(names.filter((name) => name.startsWith("second"))).toEqual([]);
    expect(world.system.files.list(`${LIB}/${NAME}-1.0/status`)).toEqual(["first.1.status"]);
    expect(world.runner.reports(wanted)[0]?.extensions.map((entry) => entry.extensionName)).toEqual(
      ["first"],
    );
    await world.runner.process(wantedOf("1.0", ["first", 1], ["second", 6, "disabled"]));
    expect(calls().slice(5)).toEqual(["1.0 enable ext=first seq=1 codes="]);
  });

  test("extensions.md EXT-71 EXT-76 MC-07: an update disables every enabled extension of the goal and hands on their codes", async () => {
    world.offer(multi("1.0"), multi("1.1"));
    await world.runner.process(wantedOf("1.0", ["a", 1], ["b", 2], ["c", 3]));
    await world.runner.process(wantedOf("1.1", ["a", 4], ["b", 5], ["new", 6]));
    expect(calls().slice(4)).toEqual([
      "1.0 disable ext=a seq=4 codes=",
      "1.0 disable ext=b seq=5 codes=",
      '1.1 update ext=a seq=4 codes=[{"extensionName": "a", "exitCode": "0"}, {"extensionName": "b", "exitCode": "0"}, {"extensionName": "new", "exitCode": "NOT_RUN"}]',
      "1.0 uninstall ext=a seq=4 codes=",
      "1.1 install ext=a seq=4 codes=",
      "1.1 enable ext=a seq=4 codes=",
      "1.1 enable ext=b seq=5 codes=",
      "1.1 enable ext=new seq=6 codes=",
    ]);
  });

  test("extensions.md MC-09: the first item of an uninstall does it all", async () => {
    world.offer(multi("1.0"));
    await world.runner.process(wantedOf("1.0", ["a", 1], ["b", 2]));
    const gone = wantedOf("1.0", ["a", 1], ["b", 2]);
    const wanted = goal([{ ...gone.handlers[0]!, state: "uninstall" }]);
    await world.runner.process(wanted);
    expect(calls().slice(3)).toEqual([
      "1.0 disable ext=a seq=1 codes=",
      "1.0 disable ext=b seq=2 codes=",
      "1.0 uninstall ext=a seq=1 codes=",
    ]);
    expect(world.runner.reports(wanted)).toEqual([]);
  });

  test("extensions.md EXT-28 MC-03: a package that does not know multi-config fails as configuration error, with a status for each extension", async () => {
    world.offer(demo("1.0"));
    const wanted = wantedOf("1.0", ["a", 1]);
    await world.runner.process(wanted);
    expect(calls()).toEqual([]);
    expect(world.runner.reports(wanted)).toMatchObject([
      {
        status: "NotReady",
        code: -1,
        extensions: [{ extensionName: "a", status: { status: "error" } }],
      },
    ]);
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "InvalidExtensionConfig", success: false }),
    );
  });

  test("extensions.md EXT-33: a failed enable leaves the handler's status and writes a placeholder", async () => {
    world.offer(
      multi("1.0", {
        script: script.replace(
          "exit 0",
          '[ "$ConfigExtensionName$1" = benable ] && { rm -f status/b.*; exit 1; }\nexit 0',
        ),
      }),
    );
    const wanted = wantedOf("1.0", ["a", 1], ["b", 2]);
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)).toMatchObject([
      {
        status: "Ready",
        code: 0,
        extensions: [
          { extensionName: "a", status: { status: "success" } },
          {
            extensionName: "b",
            status: { status: "error", code: new JsonNumber("1009"), operation: "Enable" },
          },
        ],
      },
    ]);
    const placeholder = JSON.parse(world.read(`${NAME}-1.0/status/b.2.status`) ?? "");
    expect(placeholder[0].status).toMatchObject({ name: `${NAME}.b`, status: "error", code: 1009 });
  });

  test("extensions.md MC-11: names that are special elsewhere are only names", async () => {
    world.offer(multi("1.0"));
    const name = "a $(touch x) [b] ü*";
    const wanted = wantedOf("1.0", [name, 1], ["../up", 2]);
    await world.runner.process(wanted);
    // One extension that cannot be a file name makes the configuration of its handler invalid.
    expect(world.runner.reports(wanted)).toMatchObject([{ code: -1, status: "NotReady" }]);
    const good = wantedOf("1.0", [name, 1]);
    await world.runner.process(good);
    expect(world.runner.reports(good)).toMatchObject([
      { status: "Ready", extensions: [{ extensionName: name, status: { status: "success" } }] },
    ]);
    expect(world.system.files.exists(`${LIB}/${NAME}-1.0/status/${name}.1.status`)).toBe(true);
    expect(world.system.files.exists(`${LIB}/${NAME}-1.0/x`)).toBe(false);
  });

  test("extensions.md MC-10: a handler that becomes multi-config keeps its old files, nothing is converted", async () => {
    world.offer(multi("1.0"));
    await world.runner.process(enable("1.0", 4));
    const wanted = wantedOf("1.0", ["a", 1]);
    await world.runner.process(wanted);
    const names = world.system.files.list(`${LIB}/${NAME}-1.0/config`);
    expect(names).toContain("4.settings");
    expect(names).toContain("a.1.settings");
    expect(world.system.files.list(`${LIB}/${NAME}-1.0/status`)).toEqual([
      "4.status",
      "a.1.status",
    ]);
    expect(world.runner.reports(wanted)).toMatchObject([
      { status: "Ready", extensions: [{ extensionName: "a", sequence: 1 }] },
    ]);
  });
});
