import { expect, test } from "bun:test";
import { createPolicyWatch } from "../../../src/extensions/policy-watch.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { createWorld, goal, handler } from "./world.ts";

const FILE = "/etc/waagent_policy.json";
const policy = (...names: string[]): string =>
  JSON.stringify({
    policyVersion: "0.1.0",
    extensionPolicies: {
      allowListedExtensionsOnly: true,
      extensions: Object.fromEntries(names.map((name) => [name, { signatureRequired: true }])),
    },
  });
const handlers = [handler("Good.One", "1.0"), handler("Bad.One", "1.0")];

test("extensions.md DB-27: each change of the policy file is judged once, and says what it means for the goal's handlers", () => {
  using system = createFakeSystem();
  const watch = createPolicyWatch(system, FILE, { enabled: true });
  const said = (): (string | boolean)[] => {
    watch.look(handlers);
    watch.look(handlers);
    return system.events.splice(0).flatMap(({ success, message }) => [success, message]);
  };
  expect(said()).toEqual([]);
  system.files.makeDirectory("/etc");
  system.files.write(FILE, policy("good.one"));
  expect(said()).toEqual([
    true,
    `The policy file ${FILE} is there and valid: only listed extensions are allowed (1 are listed); from the next goal state on it refuses Bad.One; it asks for a signature of Good.One`,
  ]);
  system.files.append(FILE, "}");
  const [success, message] = said();
  expect(success).toBe(false);
  expect(message).toContain(
    `The policy file ${FILE} is not valid, so no extension will be processed: ${FILE}`,
  );
  system.files.write(FILE, '{"policyVersion": "9"}');
  expect(said()[1]).toContain("/policyVersion is 9, this agent knows versions up to 0.1.0");
  system.files.write(FILE, '{"policyVersion": "0.1"}');
  expect(said()).toEqual([
    true,
    `The policy file ${FILE} is changed and valid: every extension is allowed`,
  ]);
  system.files.remove(FILE);
  expect(said()).toEqual([true, `The policy file ${FILE} is gone: every extension is allowed`]);
});

test("extensions.md DB-27: a folder that is replaced or goes away, and a link whose target changes, are seen", () => {
  using system = createFakeSystem();
  const file = "/etc/policies/current.json";
  const watch = createPolicyWatch(system, file, { enabled: true });
  const count = (): number => {
    watch.look(handlers);
    return system.events.splice(0).length;
  };
  system.files.makeDirectory("/etc/policies");
  system.files.write("/etc/policies/a.json", policy());
  system.files.link("a.json", file);
  expect(count()).toBe(1);
  expect(count()).toBe(0);
  system.files.write("/etc/policies/a.json", policy("x"));
  expect(count()).toBe(1);
  system.files.rename("/etc/policies", "/etc/before");
  expect(count()).toBe(1);
  system.files.makeDirectory("/etc/policies");
  expect(count()).toBe(0);
  system.files.write(file, policy());
  expect(count()).toBe(1);
  system.files.remove("/etc/policies");
  system.files.write("/etc/policies", "no folder any more");
  expect(count()).toBe(1);
  expect(count()).toBe(0);
});

test("extensions.md POL-01 DB-27: the runner tells of a change with its next report, starts nothing, and is silent with policies off", async () => {
  for (const enabled of [true, false]) {
    using world = createWorld({ config: { "Debug.EnableExtensionPolicy": enabled } });
    const { system, runner } = world;
    const wanted = goal([]);
    await runner.process(wanted);
    system.events.length = 0;
    system.files.makeDirectory("/etc");
    system.files.write(FILE, policy());
    runner.reports(wanted);
    runner.reports(wanted);
    expect(system.events.map(({ operation }) => operation)).toEqual(enabled ? ["Policy"] : []);
    expect(world.fetched).toEqual([]);
  }
});
