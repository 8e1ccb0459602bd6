import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { RECORDER } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, LOGS, settings, type World } from "./world.ts";

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

/** All handlers write to one file, so that their order can be seen. */
const script = (body: string): string =>
  `${RECORDER}\nnow() { echo "$1 $(basename "$PWD")" >>"$log/../order"; }\n[ "$1" = enable ] || exit 0\n${body}\n`;
const offer = (name: string, body: string): void =>
  world.offer({ name, version: "1.0", script: script(body) });
const on = (name: string, level = 0, ...names: string[]) =>
  handler(name, "1.0", {
    settings: [
      settings(0, {
        dependencyLevel: level,
        dependsOn: names.map((one) => ({ handler: one, extension: undefined })),
      }),
    ],
  });
const order = (): string[] =>
  (world.system.files.readTextIfExists(`${LOGS}/order`) ?? "")
    .trim()
    .split("\n")
    .filter((line) => line !== "");
const OK = "now begin; status Enable success ok; now end";

describe("execution", () => {
  test("extensions.md SEQ-03 SEQ-04 DB-02: a dependant starts after the status says success, not after the command", async () => {
    offer(
      "A",
      "now begin; (sleep 0.4; status Enable transitioning x; sleep 0.2; now success; status Enable success ok) & exit 0",
    );
    offer("B", OK);
    offer("C", OK);
    const wanted = goal([on("A"), on("B", 1, "A"), on("C")]);
    // The clock of the fake machine jumps; this test waits for real.
    world.system.clock.automatic = false;
    const waits = new Set<string | undefined>();
    const ticking = setInterval(() => {
      waits.add(world.runner.waits().get("b"));
      void world.system.clock.advance(250);
    }, 25);
    await world.runner.process(wanted);
    clearInterval(ticking);
    expect([...waits]).toEqual(["A"]);
    expect(world.runner.waits()).toEqual(new Map());
    const seen = order();
    expect(seen.indexOf("begin B-1.0")).toBeGreaterThan(seen.indexOf("success A-1.0"));
    expect(seen.indexOf("end C-1.0")).toBeLessThan(seen.indexOf("success A-1.0"));
  });

  test("extensions.md SEQ-05 SEQ-06 SEQ-07 DB-03 E2E-26: only true dependants of what failed are skipped, with a text that names it", async () => {
    offer("A", "exit 5");
    for (const name of ["B", "C", "D"]) offer(name, OK);
    const wanted = goal([on("A"), on("B", 1, "A"), on("C", 2, "B"), on("D", 1, "E"), on("E")]);
    offer("E", OK);
    await world.runner.process(wanted);
    expect(
      order()
        .filter((line) => line.startsWith("begin"))
        .sort(),
    ).toEqual(["begin D-1.0", "begin E-1.0"]);
    const reports = Object.fromEntries(world.runner.reports(wanted).map((one) => [one.name, one]));
    expect(reports["A"]).toMatchObject({ status: "NotReady", code: 1009 });
    expect(reports["B"]).toMatchObject({
      status: "NotReady",
      code: -1,
      message: "Skipping processing of extensions since execution of dependent extension A failed",
    });
    expect(reports["C"]?.message).toEndWith("dependent extension B failed");
    expect(
      world.system.events
        .filter((event) => event.operation === "ExtensionProcessing" && !event.success)
        .map((event) => event.name),
    ).toEqual(["B", "C"]);
  });

  test("extensions.md SEQ-05: an error in the status of a dependency counts as its failure", async () => {
    offer("A", "status Enable error broken");
    offer("B", OK);
    const wanted = goal([on("A"), on("B", 1, "A")]);
    await world.runner.process(wanted);
    expect(order()).toEqual([]);
    expect(world.runner.reports(wanted)[1]?.message).toContain(
      "Dependent Extension A did not succeed. Status was error",
    );
  });

  test("extensions.md SEQ-04 DB-04: waiting ends 90 minutes after the start of the pass, and says how much is left", async () => {
    offer("A", "status Enable transitioning x");
    offer("B", OK);
    const wanted = goal([on("A"), on("B", 1, "A")]);
    const began = world.system.clock.monotonic();
    await world.runner.process(wanted);
    const minutes = (world.system.clock.monotonic() - began) / 60_000;
    expect(minutes).toBeGreaterThanOrEqual(90);
    expect(minutes).toBeLessThan(90.2);
    expect(world.runner.reports(wanted)[1]?.message).toContain(
      "did not reach a terminal state within the allowed timeout. Last status was transitioning",
    );
    expect(
      world.system.lines.some((line) =>
        line.includes("Waiting for A, its status is transitioning; 90 min are left"),
      ),
    ).toBe(true);
  });

  test("extensions.md SEQ-04: a dependency without settings is not waited for", async () => {
    offer("A", "exit 0");
    offer("B", OK);
    await world.runner.process(goal([handler("A", "1.0", { settings: [] }), on("B", 1, "A")]));
    expect(order()).toEqual(["begin B-1.0", "end B-1.0"]);
    expect(world.system.clock.monotonic()).toBe(0);
  });

  test("extensions.md SEQ-07: a skipped multi-config extension keeps the status of its handler and gets a placeholder", async () => {
    world.offer({
      name: "M",
      version: "1.0",
      script: script(OK),
      manifest: { supportsMultipleExtensions: true },
    });
    offer("A", "exit 1");
    const multi = (level: number) =>
      handler("M", "1.0", {
        multiConfig: true,
        settings: [settings(level, { name: "x", dependencyLevel: level })],
      });
    await world.runner.process(goal([multi(0)]));
    const wanted = goal([on("A"), multi(1)]);
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)[1]).toMatchObject({
      status: "Ready",
      extensions: [
        {
          extensionName: "x",
          sequence: 1,
          status: {
            status: "error",
            operation: "ExtensionProcessing",
            message: expect.stringContaining("Skipping processing"),
          },
        },
      ],
    });
  });

  test("extensions.md DB-01 DB-02: four independent handlers run at the same time, not more", async () => {
    for (let index = 0; index < 6; index += 1) offer(`H${index}`, "now begin; sleep 0.3; now end");
    await world.runner.process(goal(Array.from({ length: 6 }, (_, index) => on(`H${index}`))));
    let running = 0;
    const most = Math.max(...order().map((line) => (running += line.startsWith("begin") ? 1 : -1)));
    expect(most).toBe(4);
  });
});

describe("around the pass", () => {
  test("extensions.md EXT-13 EXT-15 wire-protocol.md ECFG-13: on hold nothing is done, the outcome stays, disk is reported", async () => {
    offer("A", OK);
    const wanted = goal([on("A")]);
    await world.runner.process(wanted);
    const held = goal([on("A"), on("New")], { onHold: true });
    expect(await world.runner.process(held)).toBeUndefined();
    expect(order().length).toBe(2);
    expect(world.runner.reports(held)).toMatchObject([{ name: "A", status: "Ready" }]);
    expect(world.system.events.at(-1)).toMatchObject({
      operation: "ExtensionProcessing",
      success: true,
    });
  });

  test("extensions.md EXT-16 EXT-17 wire-protocol.md ECFG-32: unsupported features fail the goal with 2001 and clean nothing up", async () => {
    offer("A", OK);
    await world.runner.process(goal([on("A")]));
    const wanted = goal([], { requiredFeatures: ["Teleport"] });
    expect(await world.runner.process(wanted)).toMatchObject({
      status: "Failed",
      code: 2001,
      message: expect.stringContaining("Teleport"),
    });
    expect(world.runner.reports(wanted)).toMatchObject([{ name: "A", status: "Ready" }]);
  });

  test("extensions.md EXT-18 UPD-31 DB-08 DB-09: handlers that are not in the goal go without a command, in a loud line; nothing else goes", async () => {
    world.offer({
      name: "Gone",
      version: "1.0",
      script: script(OK),
      top: { resourceLimits: { services: [{ name: "gone.service" }] } },
    });
    offer("Kept", OK);
    await world.runner.process(goal([on("Gone"), on("Kept")]));
    const { files } = world.system;
    files.makeDirectory(`${LIB}/foo-1`);
    files.makeDirectory(`${LIB}/WALinuxAgent-9.9.9.9/config`);
    files.write(`${LIB}/WALinuxAgent-9.9.9.9/config/HandlerState`, "x");
    for (const name of [
      "Gone__1.0.zip",
      "Old__2.0.zip",
      "Older-2.0.zip",
      "Kept__0.9.zip",
      "WALinuxAgent-9.9.9.9.zip",
      "notes.zip",
    ])
      files.write(`${LIB}/${name}`, "");
    offer("KEPT", OK);
    await world.runner.process(goal([on("KEPT")]));
    expect(files.list(LIB)).toEqual([
      "Kept-1.0",
      "Kept__0.9.zip",
      "WALinuxAgent-9.9.9.9",
      "WALinuxAgent-9.9.9.9.zip",
      "extensions",
      "foo-1",
      "notes.zip",
    ]);
    expect(files.list(`${LIB}/WALinuxAgent-9.9.9.9`)).toEqual(["config"]);
    const line = world.system.lines.find(
      (one) => one.startsWith("WARNING") && one.includes("Gone 1.0"),
    );
    expect(line).toContain("without running its disable or uninstall command");
    expect(line).toContain("gone.service");
    expect(world.calls("Gone")).toEqual([]);
  });

  test("extensions.md EXT-18 EXT-20 E2E-30: disabled processing runs nothing, says so for each handler, and cleans up", async () => {
    offer("A", OK);
    offer("Gone", OK);
    await world.runner.process(goal([on("A"), on("Gone")]));
    using off = createWorld({
      config: { "Extensions.Enabled": false },
      configFile: "/etc/waagent.conf",
    });
    world.system.files.write(`${LIB}/A-1.0/status/0.status`, "[]");
    const { createExtensionsRunner } = await import("../../../src/extensions/runner.ts");
    const runner = createExtensionsRunner(world.system, off.config, {
      source: {
        versions: () => Promise.reject(new Error("not asked")),
        download: () => Promise.reject(new Error("not asked")),
      },
      wireServerAddress: "",
      environment: {},
    });
    const wanted = goal([
      on("A"),
      handler("U", "1.0", { state: "uninstall" }),
      handler("M", "1.0", {
        multiConfig: true,
        settings: [settings(1, { name: "x", dependencyLevel: 3 })],
      }),
    ]);
    expect(await runner.process(wanted)).toMatchObject({ status: "Success" });
    const text = "will not be processed since extension processing is disabled";
    expect(runner.reports(wanted)).toMatchObject([
      {
        name: "A",
        status: "NotReady",
        code: 1009,
        message: expect.stringContaining(text),
        extensions: [
          {
            status: {
              status: "error",
              operation: null,
              message: expect.stringContaining("'/etc/waagent.conf'"),
            },
          },
        ],
      },
      { name: "U", status: "NotReady", code: 1010 },
      {
        name: "M",
        status: "NotReady",
        code: 1009,
        extensions: [{ extensionName: "x", status: { status: "error" } }],
      },
    ]);
    expect(world.system.files.exists(`${LIB}/Gone-1.0`)).toBe(false);
    expect(order().length).toBe(4);
    expect(world.read("A-1.0/config/HandlerState")).toBe("Enabled");
  });

  test("extensions.md EXT-53 SIG-04 EXT-97: what a start of the agent does for handlers that are there", async () => {
    offer("A", OK);
    await world.runner.process(goal([on("A")]));
    const { files } = world.system;
    files.write(`${LIB}/A-1.0/HandlerEnvironment.json`, "[]");
    files.remove(`${LOGS}/A/events`);
    files.makeDirectory(`${LIB}/B-1.0/config`);
    files.makeDirectory(`${LIB}/handler_state/B-1.0`);
    files.write(`${LIB}/handler_state/B-1.0/state`, "Enabled");
    files.makeDirectory(`${LIB}/handler_state/A-1.0`);
    files.write(`${LIB}/handler_state/A-1.0/state`, "NotInstalled");
    world.runner.prepare();
    expect(world.read("A-1.0/HandlerEnvironment.json")).toContain('"eventsFolder": "');
    expect(files.stat(`${LOGS}/A/events`)?.mode).toBe(0o700);
    expect(world.read("B-1.0/config/HandlerState")).toBe("Enabled");
    expect(world.read("A-1.0/config/HandlerState")).toBe("Enabled");
    expect(files.exists(`${LIB}/handler_state`)).toBe(false);
    expect(files.stat(`${LIB}/microsoft_root_certificate.pem`)?.mode).toBe(0o600);
  });

  test("a pass logs its beginning and its end, with what other tools look for", async () => {
    offer("A", OK);
    const wanted = goal([on("A")]);
    await world.runner.process(wanted);
    const lines = world.system.lines.join("\n");
    expect(lines).toContain(
      `ProcessExtensionsGoalState started [${wanted.id} channel: WireServer source: Fabric activity: a correlation c created: 2030-01-01T00:00:00.000000Z]`,
    );
    expect(lines).toMatch(/ProcessExtensionsGoalState completed \[incarnation_\d+ \d+ ms\]/);
    expect(lines).toContain(`[A-1.0] Target handler state: enabled [${wanted.id}]`);
    expect(lines).toMatch(/\[A-1\.0\] Enable extension: \[.*\/A-1\.0\/bin\/run enable\]/);
  });
});
