import { expect, test } from "bun:test";
import { decide, policyJson, policyText } from "../../../src/cli/operator-policy.ts";
import { checkPolicy } from "../../../src/extensions/policy.ts";

const report = { file: "/etc/p.json", enabled: true, decisions: [] };

test("extensions.md DB-27: a policy that is not valid is told line by line, with the place", () => {
  const check = checkPolicy(
    '{"policyVersion": "0.1", "extensionPolicies": {"signatureRequired": 1, "x": 2}}',
    "p",
  );
  expect(policyText(check, report)).toBe(
    "/etc/p.json: /extensionPolicies/x is not a known key; known are allowListedExtensionsOnly, signatureRequired, extensions\n" +
      "/etc/p.json: /extensionPolicies/signatureRequired must be true or false, it is the number 1\n",
  );
  expect(JSON.parse(policyJson(check, report))).toMatchObject({
    valid: false,
    problems: [
      { pointer: "/extensionPolicies/x" },
      { pointer: "/extensionPolicies/signatureRequired" },
    ],
  });
});

test("extensions.md DB-27: a valid one shows what it means for what is installed, and that it is switched off", () => {
  const check = checkPolicy(
    JSON.stringify({
      policyVersion: "0.1",
      extensionPolicies: {
        allowListedExtensionsOnly: true,
        signatureRequired: true,
        extensions: { "Contoso.Good": { signatureRequired: false } },
      },
    }),
    "p",
  );
  if (!check.ok) throw new Error("not valid");
  const decisions = decide(check.policy, ["contoso.good", "Contoso.Bad"]);
  expect(policyText(check, { ...report, enabled: false, decisions })).toBe(`/etc/p.json: no problems
Debug.EnableExtensionPolicy is not y, so the policy has no effect
Only these are allowed: contoso.good
  contoso.good: allowed
  Contoso.Bad: NOT allowed: it keeps running, and is neither enabled nor uninstalled, needs a valid signature
`);
  expect(JSON.parse(policyJson(check, { ...report, decisions })).decisions.length).toBe(2);
});
