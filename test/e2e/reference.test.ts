import { expect } from "bun:test";
import { isEvent } from "../fabric/fabric.ts";
import { DEMO_SECRET, firstBoot } from "../fabric/scenarios.ts";
import type { Violation } from "../fabric/rules.ts";
import { testUnless } from "../support/skip.ts";
import { insertDvd, startHost } from "./host.ts";
import { installReference, referenceMissing, startReference } from "./reference.ts";
import { canSandbox, createSandbox } from "./sandbox.ts";

const able = canSandbox();
const referenceTest = testUnless(able.ok ? referenceMissing() : able.reason);

/** What Debian's waagent 2.7.3 does differently from 2.15, reviewed one by one. Everything else fails the test. */
const EXCEPTIONS: readonly {
  readonly rule: string;
  readonly message: RegExp;
  readonly why: string;
}[] = [
  {
    rule: "TEL-04",
    message: /in the order .*TaskName,KeywordName,ExtensionType/,
    why: "2.7.3 puts KeywordName right after the common parameters, 2.15 among those of the machine",
  },
];

function unexpected(violations: readonly Violation[]): Violation[] {
  return violations.filter(
    (violation) =>
      !EXCEPTIONS.some((one) => one.rule === violation.rule && one.message.test(violation.message)),
  );
}

referenceTest(
  "the emulated host is honest: Debian's own agent provisions, gets Ready and enables an extension",
  async () => {
    const scenario = firstBoot();
    await using sandbox = await createSandbox({ network: "pair" });
    await insertDvd(sandbox, scenario);
    await installReference(sandbox);
    await using fabric = await startHost(sandbox, scenario);
    const agent = startReference(sandbox);
    try {
      await fabric.waitFor((event) => isEvent(event, "ready"), 40_000, "Ready");
      await fabric.waitFor(
        (event) => isEvent(event, "status:Fabric.Demo=success"),
        40_000,
        "the extension's success in a status upload",
      );
      await fabric.waitFor((event) => isEvent(event, "telemetry"), 10_000, "telemetry");
    } catch (error) {
      console.error(agent.output().slice(-6000));
      throw error;
    }
    expect(sandbox.read("/etc/passwd")).toContain("azureuser");
    expect(JSON.parse(sandbox.read("/var/lib/fabric-secret"))).toEqual(DEMO_SECRET);
    expect(fabric.healthReports.map((one) => one.subStatus ?? one.state)).toEqual([
      "Provisioning",
      "Ready",
    ]);
    expect(unexpected(fabric.violations)).toEqual([]);
  },
  90_000,
);
