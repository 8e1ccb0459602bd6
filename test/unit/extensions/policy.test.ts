import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { checkPolicy, isAllowed, isSignatureRequired } from "../../../src/extensions/policy.ts";
import { RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createWorld, goal, handler, LIB, settings, type World } from "./world.ts";

const FILE = "/etc/waagent_policy.json";
const check = (document: unknown) => checkPolicy(JSON.stringify(document), FILE);
const problems = (document: unknown): string[] => {
  const result = check(document);
  return result.ok ? [] : result.problems.map(({ pointer, message }) => `${pointer} ${message}`);
};
const good = (document: unknown) => {
  const result = check(document);
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.policy;
};

describe("the document", () => {
  test.each(["0.1", "0.1.0", "0.0.5", "0", "00.1"])(
    "extensions.md POL-02: version %p is understood",
    (version) => {
      expect(problems({ policyVersion: version })).toEqual([]);
    },
  );

  test.each<[unknown, string]>([
    ["0.2", "/policyVersion is 0.2, this agent knows versions up to 0.1.0"],
    ["1", "/policyVersion is 1, this agent"],
    [0.1, "/policyVersion must be a text such as"],
    ["0.1.0.0", "/policyVersion must be a text such as"],
    ["v0.1", "/policyVersion must be a text such as"],
    [undefined, "/policyVersion is missing"],
    [null, "/policyVersion must be a text"],
  ])("extensions.md POL-02: version %p is not", (policyVersion, problem) => {
    expect(problems({ policyVersion })[0]).toStartWith(problem);
  });

  test("extensions.md POL-02 DB-27: everything that is wrong is named with its pointer", () => {
    expect(
      problems({
        policyVersion: "0.1",
        ExtensionPolicies: {},
        extensionPolicies: {
          allowListedExtensionsOnly: "true",
          signatureRequired: 1,
          more: 1,
          extensions: { "A/B~": { signatureRequired: "no", other: 1 }, C: null },
        },
      }),
    ).toEqual([
      "/ExtensionPolicies is not a known key; known are policyVersion, extensionPolicies",
      "/extensionPolicies/more is not a known key; known are allowListedExtensionsOnly, signatureRequired, extensions",
      '/extensionPolicies/allowListedExtensionsOnly must be true or false, it is "true"',
      "/extensionPolicies/signatureRequired must be true or false, it is the number 1",
      "/extensionPolicies/extensions/A~1B~0/other is not a known key; known are signatureRequired, runtimePolicy",
      '/extensionPolicies/extensions/A~1B~0/signatureRequired must be true or false, it is "no"',
      "/extensionPolicies/extensions/C must be an object, it is null",
    ]);
    for (const document of [[], 5, null, "x"])
      expect(problems(document)[0]).toContain("must be an object");
    expect(checkPolicy("{", FILE)).toMatchObject({ ok: false, problems: [{ pointer: "" }] });
  });

  test("extensions.md POL-02 POL-03 POL-10: defaults, null as absent, names without case, signatures inherit", () => {
    for (const extensionPolicies of [undefined, null, {}, { allowListedExtensionsOnly: false }])
      expect(isAllowed(good({ policyVersion: "0.1", extensionPolicies }), "Any")).toBe(true);
    const policy = good({
      policyVersion: "0.1",
      extensionPolicies: {
        allowListedExtensionsOnly: true,
        signatureRequired: true,
        extensions: {
          "Contoso.EXT": { signatureRequired: false, runtimePolicy: [1, { x: null }] },
          B: {},
        },
      },
    });
    expect(isAllowed(policy, "contoso.ext")).toBe(true);
    expect(isAllowed(policy, "contoso.other")).toBe(false);
    expect([
      isSignatureRequired(policy, "CONTOSO.ext"),
      isSignatureRequired(policy, "b"),
      isSignatureRequired(policy, "c"),
    ]).toEqual([false, true, true]);
  });
});

describe("in a pass", () => {
  let world: World;
  beforeEach(() => {
    world = createWorld({ config: { "Debug.EnableExtensionPolicy": true } });
    world.system.files.makeDirectory("/etc");
    for (const name of ["A", "B"]) world.offer({ name, version: "1.0", script: RECORDING_SCRIPT });
  });
  afterEach(() => world[Symbol.dispose]());
  const write = (document: unknown): void =>
    world.system.files.write(
      FILE,
      typeof document === "string" ? document : JSON.stringify(document),
    );
  const only = (...names: string[]) => ({
    policyVersion: "0.1",
    extensionPolicies: {
      allowListedExtensionsOnly: true,
      extensions: Object.fromEntries(names.map((name) => [name, {}])),
    },
  });

  test("extensions.md POL-01 POL-09 wire-protocol.md HIST-19: it is read for every pass, only when enabled and there, and kept in the history", async () => {
    await world.runner.process(goal([handler("A", "1.0")]));
    expect(world.kept.size).toBe(0);
    write(only());
    const wanted = goal([handler("A", "1.0")]);
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)).toMatchObject([{ code: 1009 }]);
    expect(world.kept.get("waagent_policy.json")).toBe(JSON.stringify(only()));
    expect(world.calls("A").length).toBe(2);
    using off = createWorld();
    off.system.files.makeDirectory("/etc");
    off.system.files.write(FILE, "not even json");
    off.offer({ name: "A", version: "1.0", script: RECORDING_SCRIPT });
    await off.runner.process(goal([handler("A", "1.0")]));
    expect(off.calls("A").length).toBe(2);
  });

  test("extensions.md POL-03 POL-04 POL-06 POL-08 E2E-20 E2E-23 DB-40: what is not listed is neither run nor uninstalled, and never requested", async () => {
    write(only("a"));
    const wanted = goal([handler("A", "1.0"), handler("B", "1.0", { settings: [settings(4)] })]);
    expect(await world.runner.process(wanted)).toMatchObject({ status: "Success" });
    expect(world.calls("A").length).toBe(2);
    expect(world.fetched.some((entry) => entry.includes("B"))).toBe(false);
    const text = `Extension will not be processed: failed to run extension 'B' because it is not specified as an allowed extension. To run, add the extension to the list of allowed extensions in the policy file ('${FILE}').`;
    expect(world.runner.reports(wanted)).toMatchObject([
      { name: "A", status: "Ready" },
      {
        name: "B",
        status: "NotReady",
        code: 1009,
        message: text,
        extensions: [{ sequence: 4, status: { status: "error", operation: null, message: text } }],
      },
    ]);
    expect(JSON.parse(world.read("B-1.0/status/4.status") ?? "")[0].status).toMatchObject({
      code: 1009,
      operation: null,
    });
    expect(world.system.events).toContainEqual(
      expect.objectContaining({ operation: "ExtensionPolicy", success: false, name: "B" }),
    );

    write(only());
    const gone = goal([handler("A", "1.0", { state: "uninstall" })]);
    await world.runner.process(gone);
    expect(world.calls("A").length).toBe(2);
    const [report] = world.runner.reports(gone);
    expect(report).toMatchObject({ status: "NotReady", code: 1010 });
    expect(report?.message).toContain(
      "failed to uninstall extension 'A' because it is not specified as an allowed extension",
    );
    expect(report?.message).toContain("the platform keeps waiting");
    expect(report?.extensions[0]?.status.status).toBe("success");
  });

  test("extensions.md POL-05 POL-07: a policy that is not valid fails every extension, each with its own error", async () => {
    write('{"policyVersion": "9"}');
    const wanted = goal([
      handler("A", "1.0"),
      handler("B", "1.0", { settings: [settings(0, { dependencyLevel: 1 })] }),
    ]);
    await world.runner.process(wanted);
    for (const report of world.runner.reports(wanted)) {
      expect(report).toMatchObject({ status: "NotReady", code: 1009 });
      expect(report.message).toBe(
        `Extension will not be processed: the policy file '${FILE}' is not valid: /policyVersion is 9, this agent knows versions up to 0.1.0`,
      );
    }
    expect(world.system.files.list(LIB)).not.toContain("A__1.0.zip");
    write("{".repeat(100_000));
    await world.runner.process(goal([handler("A", "1.0")]));
    expect(world.calls("A")).toEqual([]);
    world.system.files.remove(FILE);
    world.system.files.makeDirectory(FILE);
    const unreadable = goal([handler("A", "1.0")]);
    await world.runner.process(unreadable);
    expect(world.runner.reports(unreadable)[0]?.message).toContain("it is a directory");
  });

  test("extensions.md POL-06 POL-07 E2E-25: a dependant of what is not allowed fails with both reasons, an existing status is overwritten", async () => {
    await world.runner.process(goal([handler("A", "1.0")]));
    write(only("B"));
    const wanted = goal([
      handler("A", "1.0"),
      handler("B", "1.0", {
        settings: [
          settings(0, { dependencyLevel: 1, dependsOn: [{ handler: "A", extension: undefined }] }),
        ],
      }),
    ]);
    await world.runner.process(wanted);
    const [first, second] = world.runner.reports(wanted);
    expect(first?.extensions[0]?.status).toMatchObject({ status: "error" });
    expect(second?.message).toMatch(
      /execution of dependent extension A failed.*not specified as an allowed extension/,
    );
    expect(world.calls("B")).toEqual([]);
  });

  test("extensions.md POL-01 E2E-21 E2E-22 E2E-24: allowed again, it is processed again", async () => {
    write(only());
    await world.runner.process(goal([handler("A", "1.0")]));
    write(only("A"));
    const wanted = goal([handler("A", "1.0")]);
    await world.runner.process(wanted);
    expect(world.runner.reports(wanted)).toMatchObject([{ status: "Ready" }]);
    await world.runner.process(goal([handler("A", "1.0", { state: "uninstall" })]));
    expect(world.calls("A").map((line) => line.split(" ")[1])).toEqual([
      "install",
      "enable",
      "disable",
      "uninstall",
    ]);
    write({
      policyVersion: "0.1",
      extensionPolicies: { allowListedExtensionsOnly: false, extensions: {} },
    });
    await world.runner.process(goal([handler("B", "1.0")]));
    expect(world.calls("B").length).toBe(2);
  });
});
