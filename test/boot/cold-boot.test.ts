import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { journal } from "../e2e/journal.ts";
import { createKey, ssh } from "../e2e/ssh.ts";
import { DEMO_PACKAGE, firstBoot } from "../fabric/scenarios.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine, type Machine } from "./machine.ts";

const reason = bootProblem();
const bootTest = testUnless(reason);
setDefaultTimeout(120_000);

/** The demo handler, which also notes the group it runs in. */
function scenario(key: string): Scenario {
  const enable = `${DEMO_PACKAGE.scripts.enable}; cat /proc/self/cgroup >/var/lib/fabric-group`;
  return { ...firstBoot(key), packages: [{ ...DEMO_PACKAGE, scripts: { enable } }] };
}

/** Whether a process of that user gets a connection to the WireServer. */
async function reachesPlatform(machine: Machine, user: number): Promise<boolean> {
  const tried = await machine.run(
    [
      ...["setpriv", `--reuid=${user}`, "--clear-groups", "timeout", "3"],
      ...["bash", "-c", "exec 3<>/dev/tcp/168.63.129.16/80"],
    ],
    { allowFailure: true },
  );
  return tried.code === 0;
}

const commands = (machine: Machine) =>
  journal(machine).map((one) => `${one.command} ${one.sequence}`);

describe("an image with the package installed", () => {
  let machine: Machine;
  let key: ReturnType<typeof createKey>;

  beforeAll(async () => {
    if (reason !== undefined) return;
    key = createKey();
    machine = await bootMachine(scenario(key.publicLine), {
      layers: [await agentLayer()],
      configuration: "OS.EnableFirewall=y\n",
      // Without keys sshd fails; so fast that systemd has given it up long before the agent has made them.
      files: { "/etc/systemd/system/ssh.service.d/test.conf": "[Service]\nRestartSec=1ms\n" },
    });
  }, 300_000);
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
    key?.[Symbol.dispose]();
  });

  bootTest(
    "provisioning.md PKG-21 PKG-24 system.md THR-03 THR-06: its first boot provisions, reports and enables, as a service in the platform's slice under both names",
    async () => {
      await machine.until("ready");
      await machine.until("status:Fabric.Demo=success");
      expect(machine.fabric.healthReports.map((one) => one.subStatus ?? one.state)).toEqual([
        "Provisioning",
        "Ready",
      ]);
      expect(await machine.show("waagent.service", "ActiveState")).toBe("active");
      expect(await machine.show("walinuxagent.service", "Id")).toBe("waagent.service");
      expect(await machine.show("waagent.service", "ControlGroup")).toBe(
        "/azure.slice/waagent.service",
      );
      for (const [property, value] of Object.entries({
        Type: "simple",
        Restart: "always",
        RestartUSec: "5s",
        CPUAccounting: "yes",
        MemoryAccounting: "yes",
      }))
        expect(await machine.show("waagent.service", property)).toBe(value);
      expect(await machine.show("azure.slice", "Before")).toContain("slices.target");
      const pid = await machine.show("waagent.service", "MainPID");
      expect(machine.read("/run/waagent.pid").trim()).toBe(pid);
      const words = machine.read(`/proc/${pid}/cmdline`).split("\0");
      expect(words.slice(0, 2)).toEqual(["/usr/sbin/waagent", "-daemon"]);
      expect(machine.read("/etc/hostname").trim()).toBe("fabricvm");
    },
  );

  bootTest(
    "provisioning.md PKG-25 extensions.md CG-10 CG-30: the handler's command runs in a scope of its own below the slice of its handler",
    async () => {
      expect(machine.read("/var/lib/fabric-group")).toMatch(
        /^0::\/azure\.slice\/azure-vmextensions\.slice\/azure-vmextensions-Fabric\.Demo\.slice\/enable_[0-9a-f-]{36}\.scope$/m,
      );
      for (const slice of [
        "azure-vmextensions.slice",
        "azure-vmextensions-Fabric.Demo.slice",
      ] as const) {
        expect(await machine.show(slice, "CPUAccounting")).toBe("yes");
        expect(await machine.show(slice, "MemoryAccounting")).toBe("yes");
      }
      const said = (await machine.journal("waagent.service")).map((line) => line.message);
      expect(said.join("\n")).toMatch(/Running scope as unit: enable_[0-9a-f-]{36}\.scope/);
      expect(said.join("\n")).toContain("Provisioning complete");
    },
  );

  bootTest(
    "provisioning.md SSH-16 SSH-20: the sshd that failed for want of host keys runs, and lets the provisioned key in",
    async () => {
      expect(
        (await machine.journal("ssh.service")).map((line) => line.message).join("\n"),
      ).toContain("no hostkeys available");
      for (let waited = 0; waited < 5000; waited += 50) {
        if ((await machine.show("ssh.service", "ActiveState")) === "active") break;
        await Bun.sleep(50);
      }
      expect(await machine.show("ssh.service", "ActiveState")).toBe("active");
      expect(machine.read("/var/log/waagent.log")).toContain("ssh could not start before");
      const login = await ssh(machine, "azureuser", key, "id -un; hostname; sudo -n id -u");
      expect(login).toMatchObject({ code: 0, stdout: "azureuser\nfabricvm\n0\n" });
    },
  );

  bootTest(
    "system.md FW-04 FW-05: only root reaches the WireServer, and a unit is there that sees to it at the next boot",
    async () => {
      const unit = "walinuxagent-network-setup.service";
      for (let waited = 0; waited < 10_000; waited += 50) {
        if ((await machine.show(unit, "UnitFileState")) === "enabled") break;
        await Bun.sleep(50);
      }
      expect(await machine.show(unit, "UnitFileState")).toBe("enabled");
      for (const [property, value] of Object.entries({
        Type: "oneshot",
        RemainAfterExit: "yes",
        DefaultDependencies: "no",
        Wants: "network-pre.target",
      }))
        expect(await machine.show(unit, property)).toBe(value);
      expect(await machine.show(unit, "Before")).toContain("network-pre.target");
      expect(await machine.show(unit, "After")).toContain("local-fs.target");
      expect(await machine.show(unit, "WantedBy")).toContain("network.target");
      expect(await reachesPlatform(machine, 0)).toBe(true);
      expect(await reachesPlatform(machine, 1000)).toBe(false);
    },
  );

  bootTest("`waagent status` and `waagent doctor` find nothing wrong in it", async () => {
    const status = await machine.run(["waagent", "status"]);
    expect(status.stdout).toContain("provisioning: provisioned");
    expect(status.stdout).toContain("Fabric.Demo 1.0.0: Ready, success");
    // Only the repeated keys of the test's own configuration.
    const doctor = await machine.run(["waagent", "doctor"], { allowFailure: true });
    const complaints = doctor.stdout
      .trim()
      .split("\n")
      .filter((line) => !/was already set on line/.test(line));
    expect(complaints).toEqual([]);
  });

  bootTest(
    "provisioning.md ID-04 system.md FW-04: a reboot sets up the firewall first, provisions nothing, and enables again",
    async () => {
      const before = machine.now();
      await machine.reboot();
      await machine.until("status:Fabric.Demo=success", { after: before });
      for (let waited = 0; waited < 10_000 && commands(machine).length < 3; waited += 50)
        await Bun.sleep(50);
      expect(commands(machine)).toEqual(["install 0", "enable 0", "enable 0"]);
      expect(machine.fabric.healthReports.map((one) => one.state)).toEqual(["NotReady", "Ready"]);

      const started = async (unit: string, words: string): Promise<number> => {
        const lines = await machine.journal(unit);
        const line = lines.find(({ message }) => message.startsWith(words));
        if (line === undefined)
          throw new Error(`${unit}: ${lines.map(({ message }) => message).join("\n")}`);
        return line.monotonic;
      };
      const firewall = await started("walinuxagent-network-setup.service", "Finished");
      expect(firewall).toBeLessThan(await started("systemd-networkd.service", "Started"));
      expect(firewall).toBeLessThan(await started("waagent.service", "Started"));
      expect(await reachesPlatform(machine, 0)).toBe(true);
      expect(await reachesPlatform(machine, 1000)).toBe(false);
      expect(await machine.show("ssh.service", "ActiveState")).toBe("active");
      expect((await ssh(machine, "azureuser", key, "true")).code).toBe(0);
    },
  );

  bootTest(
    "extensions.md RUN-06: `systemctl stop` ends it with exit code 0 in a few seconds, with nothing left behind",
    async () => {
      const began = performance.now();
      await machine.run(["systemctl", "stop", "waagent.service"]);
      expect(performance.now() - began).toBeLessThan(10_000);
      expect(await machine.show("waagent.service", "Result")).toBe("success");
      expect(await machine.show("waagent.service", "ExecMainStatus")).toBe("0");
      expect(machine.exists("/sys/fs/cgroup/azure.slice/waagent.service")).toBe(false);
      const processes = await machine.run(["ps", "-eo", "args="]);
      expect(processes.stdout).not.toContain("/usr/sbin/waagent");
    },
  );

  bootTest(
    "extensions.md E2E-11: with the agent disabled the next boot sets up the firewall all the same",
    async () => {
      await machine.run(["systemctl", "disable", "waagent.service"]);
      await machine.reboot();
      expect(await machine.show("waagent.service", "ActiveState")).toBe("inactive");
      expect(await reachesPlatform(machine, 0)).toBe(true);
      expect(await reachesPlatform(machine, 1000)).toBe(false);
    },
  );

  bootTest("what the emulated host saw in all of this breaks no rule of the protocol", () => {
    // `waagent doctor` looks whether the storage answers; the agent itself never does.
    const agents = machine.fabric.violations.filter(
      ({ message }) => !/HEAD https:\/\/stor\d\.blob\.fabric\.test\/ /.test(message),
    );
    expect(agents).toEqual([]);
    expect(machine.fabric.telemetryEvents.length).toBeGreaterThan(0);
  });
});
