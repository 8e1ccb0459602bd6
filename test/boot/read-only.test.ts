import { describe, expect, setDefaultTimeout } from "bun:test";
import { journal } from "../e2e/journal.ts";
import { DEMO_PACKAGE, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine, type Machine } from "./machine.ts";

const bootTest = testUnless(bootProblem());
setDefaultTimeout(120_000);

const FIREWALL = "walinuxagent-network-setup.service";
const LIST = "/etc/test-read-only";
/** Before the agent starts, the folders of the list become read-only mounts of themselves. */
const FILES = {
  "/etc/systemd/system/read-only.service": `[Unit]
DefaultDependencies=no
ConditionPathExists=${LIST}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -euc 'for folder in $(cat ${LIST}); do mount --bind $folder $folder; mount -o remount,bind,ro $folder; done'
`,
  "/etc/systemd/system/waagent.service.d/read-only.conf":
    "[Unit]\nWants=read-only.service\nAfter=read-only.service\n",
};

// Plain storage: the machine would have to be told of the emulated storage's certificate.
const SCENARIO: Scenario = {
  ...firstBoot(),
  storage: "http",
  packages: [DEMO_PACKAGE, { ...DEMO_PACKAGE, version: "1.1.0" }],
};

async function boot(folders: string): Promise<Machine> {
  return await bootMachine(SCENARIO, {
    layers: [await agentLayer()],
    configuration: "OS.EnableFirewall=y\n",
    files: { ...FILES, ...(folders === "" ? {} : { [LIST]: `${folders}\n` }) },
  });
}

/** Warnings and errors of the log from this moment on, without those about the test's own configuration. */
function complaints(machine: Machine, since = 0): string[] {
  return machine
    .read("/var/log/waagent.log")
    .slice(since)
    .split("\n")
    .filter((line) => / (?:WARNING|ERROR) /.test(line) && !line.includes("was already set"));
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let waited = 0; waited < 10_000; waited += 50) {
    if (condition()) return;
    await Bun.sleep(50);
  }
  throw new Error(`not within 10 s: ${what}`);
}

describe("read-only", () => {
  bootTest(
    "provisioning.md OS-67: /usr: the first boot provisions, reports and enables, and the firewall's unit goes to /etc",
    async () => {
      await using machine = await boot("/usr");
      await machine.until("ready");
      await machine.until("status:Fabric.Demo=success");
      const log = () => machine.read("/var/log/waagent.log");
      await until(() => log().includes("will be set up at boot by"), "the firewall's unit");
      expect(log()).toContain(`will be set up at boot by /etc/systemd/system/${FIREWALL}`);
      expect(await machine.show(FIREWALL, "UnitFileState")).toBe("enabled");
      expect(complaints(machine)).toEqual([]);
      expect((await machine.run(["waagent", "status"])).code).toBe(0);
    },
  );

  bootTest(
    "provisioning.md DB-01: /etc: the platform, the log, status and doctor name the file and the reason; extensions run all the same; once it can be written a restart goes on",
    async () => {
      await using machine = await boot("/etc");
      await machine.until("status:Fabric.Demo=success");
      const told = /Could not write \/etc\/hostname\s+Inner error: the file system is read-only/;
      const report = machine.fabric.healthReports.at(-1);
      expect(report).toMatchObject({ state: "NotReady", subStatus: "ProvisioningFailed" });
      expect(report?.description).toMatch(told);
      await until(() => complaints(machine).length >= 2, "the second complaint");
      expect(complaints(machine)).toEqual([
        expect.stringContaining("Provisioning failed: "),
        expect.stringContaining(
          `Could not enable ${FIREWALL}: /etc/systemd/system is read-only (/etc), so the firewall is set up by the agent only`,
        ),
      ]);
      const status = await machine.run(["waagent", "status"], { allowFailure: true });
      expect(status.stdout).toMatch(told);
      expect(status.stdout).toContain("firewall: ok");
      const doctor = await machine.run(["waagent", "doctor"], { allowFailure: true });
      expect([status.code, doctor.code]).toEqual([2, 2]);
      expect(doctor.stdout).toMatch(/^provisioning-failed: .*Could not write \/etc\/hostname/m);

      await machine.run(["umount", "/etc"]);
      await machine.run(["systemctl", "restart", "waagent.service"]);
      await machine.until("ready");
      expect(machine.read("/etc/hostname").trim()).toBe("fabricvm");
      expect(machine.read("/etc/passwd")).toMatch(/^azureuser:/m);
      expect(await machine.show("waagent.service", "NRestarts")).toBe("0");
    },
  );

  bootTest(
    "/usr and /etc from the second boot on: a new version of the extension is enabled and reported, and what cannot be written is named with its reason",
    async () => {
      await using machine = await boot("");
      await machine.until("status:Fabric.Demo=success");
      // What an older agent or another package would not have left.
      await until(() => machine.exists(`/lib/systemd/system/${FIREWALL}`), "the firewall's unit");
      await machine.run(["systemctl", "disable", FIREWALL]);
      await machine.run([
        "sh",
        "-ec",
        `rm /lib/systemd/system/azure*.slice /lib/systemd/system/${FIREWALL}; echo /usr /etc >${LIST}`,
      ]);
      const before = machine.now();
      const logged = machine.read("/var/log/waagent.log").length;
      await machine.fabric.setGoalState({
        incarnation: "2",
        extensions: [{ ...demoExtension(1), version: "1.1.0" }],
      });
      await machine.reboot();
      await machine.until("status:Fabric.Demo=success", { after: before });
      await until(() => complaints(machine, logged).length >= 3, "the third complaint");
      const reason = "the file system is read-only (EROFS)";
      const file = (name: string) => `Could not write /etc/systemd/system/${name}: ${reason}`;
      expect(complaints(machine, logged)).toEqual([
        expect.stringContaining(file("azure.slice")),
        expect.stringContaining(file("azure-vmextensions.slice")),
        expect.stringContaining(file(FIREWALL)),
      ]);
      const enabled = journal(machine).filter((one) => one.command === "enable");
      expect(enabled.map((one) => one.version)).toContain("1.1.0");
      expect((await machine.run(["waagent", "status"])).code).toBe(0);
      expect(await machine.show("waagent.service", "NRestarts")).toBe("0");
    },
  );
});
