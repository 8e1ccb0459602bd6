import { describe, expect } from "bun:test";
import { DEMO_PACKAGE, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import type { Scenario } from "../fabric/scenario.ts";
import { missing, testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { canSandbox, type Sandbox } from "./sandbox.ts";

/** Folders that cannot be written or whose programs cannot be run, without systemd; with it: test/boot/read-only.test.ts. */

const able = canSandbox();
const guestTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "chpasswd", "openssl", "ssh-keygen"] }) : able.reason,
);

// Plain storage: the certificate of the emulated one would have to be written below /usr and /etc.
const SCENARIO: Scenario = {
  ...firstBoot(),
  storage: "http",
  packages: [DEMO_PACKAGE, { ...DEMO_PACKAGE, version: "1.1.0" }],
};
const NEXT = { incarnation: "2", extensions: [{ ...demoExtension(1), version: "1.1.0" }] };

/** The sandbox's own mount of the folder. */
async function remount(sandbox: Sandbox, folder: string, option: "ro" | "noexec"): Promise<void> {
  await sandbox.run(["mount", "--rbind", folder, folder]);
  await sandbox.run(["mount", "-o", `remount,bind,${option}`, folder]);
}

const told = (sandbox: Sandbox, ...words: string[]) =>
  sandbox.run(["waagent", ...words], { allowFailure: true });

function handlerOf(guest: Guest): string {
  const status = guest.fabric.statusDocuments.at(-1)?.document.aggregateStatus;
  return JSON.stringify(status?.handlerAggregateStatus[0]);
}

describe("/usr and /etc read-only", () => {
  guestTest(
    "cloud-init has provisioned: Ready, the extension is enabled, nothing is complained about",
    async () => {
      await using guest = await startGuest(
        { ...SCENARIO, storage: "http" },
        {
          configuration: AGENT_CONF.replace("Agent=waagent", "Agent=cloud-init"),
          prepare: async (sandbox) => {
            await sandbox.run([
              "sh",
              "-ec",
              `mkdir -p /var/lib/waagent; cp /mnt/cdrom/secure/ovf-env.xml /var/lib/waagent
               ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key`,
            ]);
            for (const folder of ["/usr", "/etc"]) await remount(sandbox, folder, "ro");
          },
        },
      );
      await guest.until("ready");
      await guest.until("status:Fabric.Demo=success");
      const log = guest.sandbox.read("/var/log/waagent.log");
      expect(log).not.toMatch(/EROFS|read-only/);
      expect((await told(guest.sandbox, "status")).code).toBe(0);
      expect(guest.fabric.violations).toEqual([]);
    },
    60_000,
  );

  guestTest(
    "provisioned before: the next start enables a new version of the extension and complains about nothing",
    async () => {
      await using guest = await startGuest(SCENARIO);
      await guest.until("status:Fabric.Demo=success");
      guest.agent.signal("SIGTERM");
      await guest.agent.exited;
      const logged = guest.sandbox.read("/var/log/waagent.log").length;
      for (const folder of ["/usr", "/etc"]) await remount(guest.sandbox, folder, "ro");
      await guest.fabric.setGoalState(NEXT);
      const after = Date.now() - guest.fabric.startedAt;
      guest.restart();
      await guest.until("status:Fabric.Demo=success", { after });
      expect(handlerOf(guest)).toContain('"handlerVersion":"1.1.0"');
      expect(guest.sandbox.read("/var/log/waagent.log").slice(logged)).not.toMatch(
        /EROFS|read-only/,
      );
      expect((await told(guest.sandbox, "status")).code).toBe(0);
    },
    60_000,
  );

  guestTest(
    "provisioning.md DB-01: a first boot cannot provision: the file and the reason are told everywhere, and extensions run all the same",
    async () => {
      await using guest = await startGuest(SCENARIO, {
        prepare: async (sandbox) => {
          for (const folder of ["/usr", "/etc"]) await remount(sandbox, folder, "ro");
        },
      });
      await guest.until("status:Fabric.Demo=success");
      const expected =
        /Could not write \/etc\/hostname\s+Inner error: the file system is read-only/;
      const report = guest.fabric.healthReports.at(-1);
      expect(report).toMatchObject({ state: "NotReady", subStatus: "ProvisioningFailed" });
      expect(report?.description).toMatch(expected);
      expect(guest.sandbox.read("/var/log/waagent.log")).toMatch(expected);
      const status = await told(guest.sandbox, "status");
      expect(status.stdout).toMatch(expected);
      expect(status.code).toBe(2);
      const doctor = await told(guest.sandbox, "doctor");
      expect(doctor.stdout).toMatch(/^provisioning-failed: .*Could not write \/etc\/hostname/m);
      expect(doctor.code).toBe(2);
    },
    60_000,
  );
});

describe("/var without execution", () => {
  guestTest(
    "extensions.md EXT-80: it provisions and reports; the command that could not run is named with the mount, by the status and the doctor",
    async () => {
      await using guest = await startGuest(SCENARIO, {
        prepare: (sandbox) => remount(sandbox, "/var", "noexec"),
      });
      await guest.until("ready");
      await guest.until("status:Fabric.Demo=NotReady");
      expect(handlerOf(guest)).toMatch(
        /Non-zero exit code: 126, \/var\/lib\/waagent\/Fabric\.Demo-1\.0\.0\/bin\/install\.sh.*WARNING: \/var is mounted with the noexec flag/,
      );
      const doctor = await told(guest.sandbox, "doctor");
      expect(doctor.stdout).toMatch(
        /^noexec: \/var\/lib\/waagent: .*\/var \(.*mounted with noexec/m,
      );
      expect((await told(guest.sandbox, "status")).code).toBe(2);
      expect(guest.fabric.violations.filter(({ message }) => !message.includes(" HEAD "))).toEqual(
        [],
      );
    },
    60_000,
  );

  guestTest(
    "with Lib.Dir where programs may be run, as the doctor advises, the extension is enabled",
    async () => {
      await using guest = await startGuest(SCENARIO, {
        configuration: `${AGENT_CONF}Lib.Dir=/srv/waagent\n`,
        prepare: (sandbox) => remount(sandbox, "/var", "noexec"),
      });
      await guest.until("ready");
      await guest.until("status:Fabric.Demo=success");
      expect((await told(guest.sandbox, "status")).code).toBe(0);
    },
    60_000,
  );
});
