import { describe, expect, test } from "bun:test";
import { plan, printPlan, type PlanOptions } from "../../../src/extensions/plan.ts";
import { goal, handler, settings } from "./world.ts";

const OPTIONS: PlanOptions = { honourOnHold: true, features: ["MultipleExtensionsPerHandler"] };
const at = (dependencyLevel: number, ...on: string[]) =>
  settings(0, {
    dependencyLevel,
    dependsOn: on.map((name) => ({ handler: name, extension: undefined })),
  });
const single = (name: string, level = 0, ...on: string[]) =>
  handler(name, "1.0", { settings: [at(level, ...on)] });
const print = (...handlers: Parameters<typeof goal>[0][number][]) =>
  printPlan(plan(goal(handlers), OPTIONS));

describe("order", () => {
  test("extensions.md SEQ-01 SEQ-02 wire-protocol.md ECFG-31: removals first, in reverse; the rest by level, stable", () => {
    const removed = (name: string, level: number) =>
      handler(name, "1.0", { state: "uninstall", settings: [at(level)] });
    expect(
      print(
        single("B", 1),
        single("A"),
        removed("X", 0),
        removed("Y", 2),
        single("C"),
        removed("Z", 1),
      ),
    ).toBe(
      `0 uninstall Y level -3
1 uninstall Z level -2 after 0
2 uninstall X level -1 after 0,1
3 enable A level 0 after 0,1,2
4 enable C level 0 after 0,1,2
5 enable B level 1 after 0,1,2 needs 3,4`,
    );
  });

  test("extensions.md SEQ-02 wire-protocol.md ECFG-31: deleted extensions of a multi-config handler and handlers without settings have their levels", () => {
    const entries = [
      settings(1, { name: "keep", dependencyLevel: 1 }),
      settings(2, { name: "drop", dependencyLevel: 1, state: "disabled" }),
    ];
    expect(
      print(
        handler("M", "1.0", { multiConfig: true, settings: entries }),
        handler("N", "1.0", { settings: [] }),
        handler("O", "1.0", { settings: [], state: "uninstall" }),
        handler("P", "1.0", { state: "disabled" }),
      ),
    ).toBe(`0 disable-extension M.drop level -2
1 uninstall O level -1 after 0
2 disable P level -1 after 0
3 enable N level 0 after 0,1,2
4 enable M.keep level 1 after 0,1,2 needs 3`);
  });

  test("extensions.md DB-02 DB-03 SEQ-08: where the goal names dependencies, only they count; else everything of a lower level", () => {
    expect(
      print(single("A"), single("B"), single("C", 1, "A"), single("D", 2, "C"), single("E", 1)),
    ).toBe(
      `0 enable A level 0
1 enable B level 0
2 enable C level 1 needs 0
3 enable E level 1 needs 0,1
4 enable D level 2 needs 2`,
    );
  });

  test("extensions.md DB-02: names that lead nowhere, or not to a lower level, fall back to the levels", () => {
    expect(
      print(single("A"), single("B", 1, "Missing"), single("C", 1, "B"), single("D", 2, "a", "B")),
    ).toBe(
      `0 enable A level 0
1 enable B level 1 needs 0
2 enable C level 1 needs 0
3 enable D level 2 needs 0,1`,
    );
  });

  test("extensions.md DB-01: items of one handler come one after the other", () => {
    const entries = ["a", "b", "c"].map((name) => settings(1, { name }));
    expect(print(handler("M", "1.0", { multiConfig: true, settings: entries }), single("N"))).toBe(
      `0 enable M.a level 0
1 enable M.b level 0 after 0
2 enable M.c level 0 after 0,1
3 enable N level 0`,
    );
  });

  test("extensions.md DB-02: an extension of a multi-config handler can be what is needed", () => {
    const entries = ["a", "b"].map((name) => settings(1, { name }));
    const dependant = handler("N", "1.0", {
      settings: [
        settings(0, { dependencyLevel: 1, dependsOn: [{ handler: "M", extension: "b" }] }),
      ],
    });
    expect(
      print(handler("M", "1.0", { multiConfig: true, settings: entries }), dependant),
    ).toContain("2 enable N level 1 needs 1");
  });
});

describe("nothing or less", () => {
  test("extensions.md EXT-15: on hold, unless over-provisioning is not honoured", () => {
    const held = goal([single("A")], { onHold: true });
    expect(plan(held, OPTIONS)).toEqual({ outcome: "on-hold" });
    expect(printPlan(plan(held, { ...OPTIONS, honourOnHold: false }))).toBe("0 enable A level 0");
  });

  test("extensions.md EXT-16: a feature the agent does not have stops everything, FastTrack is no feature", () => {
    const wanted = goal([single("A")], {
      requiredFeatures: ["MultipleExtensionsPerHandler", "FastTrack"],
    });
    expect(plan(wanted, OPTIONS)).toEqual({ outcome: "unsupported", features: ["FastTrack"] });
    expect(
      printPlan(plan({ ...wanted, requiredFeatures: ["MultipleExtensionsPerHandler"] }, OPTIONS)),
    ).toBe("0 enable A level 0");
  });

  test("extensions.md EXT-03 EXT-06 EXT-28 DB-07: what cannot be processed is invalid on its own", () => {
    const reasonOf = (...handlers: Parameters<typeof goal>[0][number][]) => {
      const decided = plan(goal(handlers), OPTIONS);
      return decided.outcome === "process"
        ? decided.items.map((item) => [item.action, item.refusal?.message.split("not valid: ")[1]])
        : [];
    };
    expect(
      reasonOf(
        handler("A", "1.0", { state: undefined }),
        handler("B", "1.0", { invalid: "two settings nodes" }),
        handler("../C", "1.0"),
        handler("", "1.0"),
        handler("D", "1.0; rm -rf /"),
        handler("E", "1.0", { settings: [settings(1.5)] }),
        handler("F", "1.0", { settings: [settings(-1)] }),
        handler("G", "1.0"),
        handler("g", "1.1"),
        handler("WALinuxAgent", "9.9"),
        handler("H", "1.0"),
      ),
    ).toEqual([
      ["invalid", "its state is none of enabled, disabled, uninstall"],
      ["invalid", "two settings nodes"],
      ["invalid", expect.stringContaining('"../C"')],
      ["invalid", "the handler has no name"],
      ["invalid", expect.stringContaining("is not dotted numbers")],
      ["invalid", "its sequence number 1.5 is not a whole number"],
      ["invalid", "its sequence number -1 is not a whole number"],
      ["enable", undefined],
      ["invalid", "the goal state names it more than once"],
      ["invalid", "WALinuxAgent is the name of the agent itself"],
      ["enable", undefined],
    ]);
  });

  test("extensions.md POL-07: a refusal for all leaves dependencies out, one by the list does not", () => {
    const refusal = { code: 1009, operation: "x", message: "no", overwritesStatus: true };
    const wanted = goal([single("A"), single("B", 1, "A")]);
    const forAll = plan(wanted, {
      ...OPTIONS,
      refuse: () => ({ ...refusal, failsDependants: false }),
    });
    expect(printPlan(forAll)).toBe("0 refuse A level 0\n1 refuse B level 1");
    const byList = plan(wanted, {
      ...OPTIONS,
      refuse: ({ name }) => (name === "A" ? { ...refusal, failsDependants: true } : undefined),
    });
    expect(printPlan(byList)).toBe("0 refuse A level 0\n1 enable B level 1 needs 0");
  });

  test("a hundred handlers are planned at once", () => {
    const many = Array.from({ length: 100 }, (_, index) => single(`H${index}`, index % 3));
    const decided = plan(goal(many), OPTIONS);
    expect(decided.outcome === "process" && decided.items.length).toBe(100);
  });
});
