import { expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import type { Scenario } from "../fabric/scenario.ts";
import { missing, testUnless } from "../support/skip.ts";
import { startGuest, type Guest } from "./guest.ts";
import { insertDvd } from "./host.ts";
import { canSandbox, type Sandbox } from "./sandbox.ts";

const able = canSandbox();
const killTest = testUnless(
  able.ok
    ? missing({ programs: ["useradd", "chpasswd", "visudo", "ssh-keygen", "sshd"] })
    : able.reason,
);

const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8tTGlUGm1YSUuP2ZhDqRQeWBbZpLrqwUPaXDmMhEa4 me";
const SCENARIO: Scenario = {
  provisioning: {
    hostName: "killed-vm",
    userName: "azureuser",
    password: "S3cret.pass-w0rd",
    sshKeys: [KEY],
    customData: "#!/bin/sh\necho ran >>/srv/custom-data\n",
  },
  dhcp: {},
  packages: [],
  goalStates: [{ incarnation: "1", extensions: [] }],
};
const CONFIGURATION = `Provisioning.Agent=auto
Provisioning.DeleteRootPassword=y
Provisioning.ExecuteCustomData=y
Provisioning.RegenerateSshHostKeyPair=y
Provisioning.SshHostKeyPairType=ed25519
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
AutoUpdate.Enabled=n
OS.EnableFirewall=n
Extensions.GoalStatePeriod=1
Logs.Console=n
`;

/** What the machine, and the platform, show after each step. Read from outside, so nobody slows the agent down. */
const VISIBLE: Readonly<Record<string, (guest: Guest) => boolean>> = {
  "the copy of the document": ({ sandbox }) => written(sandbox, "/var/lib/waagent/ovf-env.xml"),
  NotReady: ({ fabric }) => fabric.healthReports.length > 0,
  "the host name": ({ sandbox }) => textOf(sandbox, "/etc/hostname") === "killed-vm",
  "the user": ({ sandbox }) => textOf(sandbox, "/etc/passwd").includes("azureuser:"),
  "the password": ({ sandbox }) => textOf(sandbox, "/etc/shadow").includes("azureuser:$6$"),
  sudo: ({ sandbox }) => written(sandbox, "/etc/sudoers.d/waagent"),
  "sshd's configuration": ({ sandbox }) =>
    written(sandbox, "/etc/ssh/sshd_config.d/00-waagent.conf"),
  "the public key": ({ sandbox }) => written(sandbox, "/home/azureuser/.ssh/authorized_keys"),
  "custom data": ({ sandbox }) => written(sandbox, "/var/lib/waagent/CustomData"),
  "its run": ({ sandbox }) => written(sandbox, "/srv/custom-data"),
  "root's password": ({ sandbox }) => textOf(sandbox, "/etc/shadow").startsWith("root:*LOCK*"),
  "the host keys": ({ sandbox }) => written(sandbox, "/etc/ssh/ssh_host_ed25519_key"),
  "the marker": ({ sandbox }) => written(sandbox, "/var/lib/waagent/provisioned"),
  Ready: ({ fabric }) => fabric.healthReports.some((one) => one.state === "Ready"),
};

const written = (sandbox: Sandbox, file: string): boolean => existsSync(sandbox.upper + file);
const textOf = (sandbox: Sandbox, file: string): string =>
  written(sandbox, file) ? readFileSync(sandbox.upper + file, "utf8") : "";

for (const [step, isVisible] of Object.entries(VISIBLE))
  killTest(
    `provisioning.md DB-23 DB-27 LIFE-07 HLTH-02: the compiled agent is killed as soon as ${step} can be seen; the next start ends the same, and the platform hears one story`,
    async () => {
      await using guest = await startGuest(SCENARIO, { configuration: CONFIGURATION });
      const { sandbox, fabric } = guest;
      const deadline = performance.now() + 20_000;
      while (!isVisible(guest) && performance.now() < deadline) await Bun.sleep(1);
      expect(isVisible(guest)).toBe(true);
      await guest.agent.kill();
      // The real DVD stays until it is handed back; this one is gone with its first unmounting.
      if (sandbox.exists("/dev/sr0")) await insertDvd(sandbox, SCENARIO);
      const killedAt = fabric.events.at(-1)?.at ?? 0;
      guest.restart();
      // A status is uploaded once provisioning is over.
      await guest.until("status", { after: killedAt + 1 });

      expect(sandbox.read("/etc/hostname")).toBe("killed-vm");
      expect(sandbox.read("/etc/sudoers.d/waagent")).toBe("azureuser ALL=(ALL) ALL\n");
      expect(sandbox.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
      expect(sandbox.read("/srv/custom-data")).toBe("ran\n");
      expect(sandbox.read("/etc/shadow")).toStartWith("root:*LOCK*:14600::::::\n");
      expect(sandbox.exists("/var/lib/waagent/provisioned")).toBe(true);
      expect(sandbox.exists("/var/lib/waagent/provisioning.json")).toBe(false);
      const keys = await sandbox.run(["sh", "-c", "cd /etc/ssh; ls -A | grep -e host -e waagent"]);
      expect(keys.stdout).toBe("ssh_host_ed25519_key\nssh_host_ed25519_key.pub\n");
      // The living agent may be writing an event or an archive of its history at the moment.
      const unfinished = sandbox.changes().filter(({ path }) => /\.tmp$/.test(path));
      expect(unfinished.filter(({ path }) => !/\/(events|history)\//.test(path))).toEqual([]);
      const hash = /^azureuser:([^:]+):/m.exec(sandbox.read("/etc/shadow"))![1]!;
      const check = await sandbox.run(
        ["perl", "-e", "my $p = <STDIN>; print crypt($p, $ARGV[0])", hash],
        {
          stdin: SCENARIO.provisioning!.password!,
        },
      );
      expect(check.stdout).toBe(hash);

      const story = fabric.healthReports.map((one) => one.subStatus ?? one.state);
      const firstReady = story.indexOf("Ready");
      expect(firstReady).toBeGreaterThanOrEqual(0);
      expect(story.slice(0, firstReady).every((line) => line === "Provisioning")).toBe(true);
      expect(story.slice(firstReady).every((line) => line === "Ready")).toBe(true);
      expect(fabric.violations).toEqual([]);
    },
    60_000,
  );
