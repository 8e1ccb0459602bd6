import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { isEvent } from "../fabric/fabric.ts";
import { DEMO_SECRET, firstBoot } from "../fabric/scenarios.ts";
import { insertDvd, startHost } from "./host.ts";
import { canSandbox, createSandbox } from "./sandbox.ts";

const able = canSandbox();
const missing = !able.ok
  ? able.reason
  : !existsSync("/usr/lib/python3/dist-packages/azurelinuxagent")
    ? "Debian's waagent is not installed: apt-get install waagent python3-distro python3-setuptools"
    : undefined;
const referenceTest = missing === undefined ? test : test.skip;

/** What Debian's waagent 2.7.3 does differently from 2.15, reviewed one by one. Everything else fails the test. */
const EXCEPTIONS: readonly {
  readonly rule: string;
  readonly message: RegExp;
  readonly why: string;
}[] = [];

referenceTest(
  `the emulated host is honest: Debian's own agent provisions, gets Ready and enables an extension${missing === undefined ? "" : ` (skipped: ${missing})`}`,
  async () => {
    const scenario = firstBoot();
    await using sandbox = await createSandbox({ network: "pair" });
    await insertDvd(sandbox, scenario);
    sandbox.write("/etc/waagent.conf", REFERENCE_CONF);
    // Debian's agent publishes the host name with ifupdown, which Debian's cloud images have.
    for (const program of ["ifup", "ifdown"])
      sandbox.write(`/usr/local/sbin/${program}`, "#!/bin/sh\n", 0o755);
    await using fabric = await startHost(sandbox, scenario);
    const agent = sandbox.spawn(["/usr/bin/python3", "-u", "/usr/sbin/waagent", "-daemon"]);
    try {
      await fabric.waitFor((event) => isEvent(event, "ready"), 15_000, "Ready");
      await fabric.waitFor(
        (event) => isEvent(event, "status:Fabric.Demo=success"),
        15_000,
        "the extension's success in a status upload",
      );
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
    const unexpected = fabric.violations.filter(
      (violation) =>
        !EXCEPTIONS.some(
          (one) => one.rule === violation.rule && one.message.test(violation.message),
        ),
    );
    expect(unexpected).toEqual([]);
  },
  90_000,
);

const REFERENCE_CONF = `Provisioning.Agent=waagent
Provisioning.RegenerateSshHostKeyPair=y
Provisioning.SshHostKeyPairType=ed25519
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
AutoUpdate.Enabled=n
OS.EnableFirewall=n
Extensions.GoalStatePeriod=1
Extensions.InitialGoalStatePeriod=1
Protocol.EndpointDiscovery=static
Logs.Console=y
Logs.Verbose=n
`;
