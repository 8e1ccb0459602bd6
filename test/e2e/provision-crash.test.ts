import { expect } from "bun:test";
import { STEPS } from "../../src/provision/steps.ts";
import { ovfDocument } from "../fabric/ovf.ts";
import { missing, testUnless } from "../support/skip.ts";
import { createProvisionMachine, VM_ID, type ProvisionMachine } from "./provision-machine.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const crashTest = testUnless(
  able.ok
    ? missing({ programs: ["useradd", "chpasswd", "visudo", "ssh-keygen", "sshd"] })
    : able.reason,
);

const tracedTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "ssh-keygen", "strace"] }) : able.reason,
);

const POINTS = [
  "read-document",
  "identify",
  "report-starting",
  ...STEPS.map(({ name }) => name),
  "detect",
  "marker",
  "guest-agent",
  "report-ready",
];
const CONFIG = {
  "Provisioning.DeleteRootPassword": true,
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.SshHostKeyPairType": "ed25519",
  "Provisioning.ExecuteCustomData": true,
};
const DOCUMENT = ovfDocument({
  hostName: "crash-vm",
  userName: "azureuser",
  password: "S3cret.pass-w0rd",
  sshKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8tTGlUGm1YSUuP2ZhDqRQeWBbZpLrqwUPaXDmMhEa4 me"],
  customData: "#!/bin/sh\necho ran >>/srv/custom-data\n",
});

/** Every changed path with owner, mode and content; salts, key material and dates are not part of what has to be equal. */
function endState(machine: ProvisionMachine): string[] {
  const { box } = machine;
  return box
    .changes()
    .filter(
      ({ path: file }) => !/^\/(?:root\/\.bun|var\/log|srv\/dvd|usr\/local|opt|mnt)\b/.test(file),
    )
    .filter(({ path: file }) => !/-$/.test(file) || file.endsWith(".pub"))
    .map(({ path: file, kind, mode, uid, gid, content }) => {
      const varies = /^\/etc\/(?:shadow|ssh\/ssh_host_)/.test(file) || kind !== "file";
      return `${kind} ${mode.toString(8)} ${uid}:${gid} ${file} ${varies ? "" : content}`;
    });
}

/** What can be compared of the files that differ in salts. */
const shadow = (machine: ProvisionMachine): string =>
  machine.box.read("/etc/shadow").replace(/\$6\$[^:]+/g, "$6$");

/** The platform's story without what it is told in between. */
const story = (machine: ProvisionMachine): string[] =>
  machine
    .reports()
    .filter(([kind]) => kind === "NotReady" || kind === "Ready")
    .map(([kind, subStatus]) => (kind === "Ready" ? "Ready" : `NotReady ${subStatus}`));

let whole: { state: string[]; shadow: string } | undefined;

async function uninterrupted(): Promise<{ state: string[]; shadow: string }> {
  if (whole !== undefined) return whole;
  await using machine = await createProvisionMachine();
  machine.insert(DOCUMENT);
  const result = await machine.provision({ config: CONFIG });
  expect(result.outcome).toEqual({ status: "provisioned", unreported: false });
  expect(result.steps).toEqual(POINTS);
  expect(story(machine)).toEqual(["NotReady Provisioning", "Ready"]);
  return (whole = { state: endState(machine), shadow: shadow(machine) });
}

for (const point of POINTS)
  crashTest(
    `provisioning.md DB-27 DB-23 LIFE-07: SIGKILL after ${point}: the next start ends like an uninterrupted one, and the platform hears nothing else`,
    async () => {
      const expected = await uninterrupted();
      await using machine = await createProvisionMachine();
      machine.insert(DOCUMENT);
      const killed = await machine.provision({ config: CONFIG, dieAfter: point });
      expect(killed.code).toBe(137);
      expect(killed.steps.at(-1)).toBe(point);
      // A virtual DVD that was handed back is gone.
      if (machine.box.exists("/run/ejected"))
        await machine.box.run(["rm", "-f", "/srv/dvd/ovf-env.xml", "/dev/sr0"]);
      const resumed = await machine.provision({ config: CONFIG });
      expect(resumed.outcome?.status).toMatch(/^(?:already-)?provisioned$/);
      expect(endState(machine)).toEqual(expected.state);
      expect(shadow(machine)).toBe(expected.shadow);
      expect(machine.box.read("/var/lib/waagent/provisioned")).toBe(VM_ID);
      // Exactly once, whatever happened.
      expect(machine.box.read("/srv/custom-data")).toBe("ran\n");
      const told = story(machine);
      expect(told.at(-1)).toBe("Ready");
      const firstReady = told.indexOf("Ready");
      expect(told.slice(0, firstReady).every((line) => line === "NotReady Provisioning")).toBe(
        true,
      );
      expect(told.slice(firstReady).every((line) => line === "Ready")).toBe(true);
      // And the next start has nothing left to do or to say.
      const before = machine.reports().length;
      expect((await machine.provision({ config: CONFIG })).outcome?.status).toBe(
        "already-provisioned",
      );
      expect(machine.reports()).toHaveLength(before);
    },
    60_000,
  );

crashTest(
  "provisioning.md DB-27: SIGKILL at instants inside of steps, one after the other on the same machine, changes nothing about the end either",
  async () => {
    const expected = await uninterrupted();
    await using machine = await createProvisionMachine();
    machine.insert(DOCUMENT);
    let kills = 0;
    for (let milliseconds = 50; milliseconds < 2000; milliseconds += 12) {
      const { outcome } = await machine.provision({ config: CONFIG }, [
        "timeout",
        "--signal=KILL",
        `${milliseconds / 1000}`,
      ]);
      if (outcome !== undefined) break;
      kills += 1;
      if (machine.box.exists("/run/ejected"))
        await machine.box.run(["rm", "-f", "/srv/dvd/ovf-env.xml", "/dev/sr0"]);
    }
    expect(kills).toBeGreaterThan(1);
    const last = await machine.provision({ config: CONFIG });
    expect(last.outcome?.status).toMatch(/^(?:already-)?provisioned$/);
    expect(endState(machine)).toEqual(expected.state);
    expect(shadow(machine)).toBe(expected.shadow);
    expect(machine.box.read("/srv/custom-data")).toBe("ran\n");
    const told = story(machine);
    expect(told.slice(told.indexOf("Ready")).every((line) => line === "Ready")).toBe(true);
  },
  120_000,
);

tracedTest(
  "provisioning.md PROV-06: the start after provisioning opens nothing for writing but the log, and runs no program that could",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(DOCUMENT);
    await machine.provision({ config: CONFIG });
    const calls =
      "openat,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,fchownat,truncate,ftruncate,execve";
    const { outcome } = await machine.provision({ config: CONFIG }, [
      "strace",
      "-f",
      "-o",
      "/run/trace",
      "-e",
      `trace=${calls}`,
    ]);
    expect(outcome?.status).toBe("already-provisioned");
    const changing = machine.box
      .read("/run/trace")
      .split("\n")
      .filter(
        (line) =>
          !/execve\(|open(?:at)?\(.*O_RDONLY|\+\+\+|---|= -1 |<unfinished|resumed>/.test(line),
      )
      // The runtime's own cache, which the compiled agent does not have, and what the test itself writes.
      .filter(
        (line) =>
          !/\/root\/\.bun|\/run\/reports|\/dev\/(?:null|tty)|memfd|\/opt\/waagent-source|\/tmp\/|anon_inode/.test(
            line,
          ),
      )
      .map((line) => line.replace(/^\d+\s+/, ""))
      .filter((line) => line !== "" && !line.includes('"/var/log/waagent.log"'));
    expect(changing).toEqual([]);
    const programs = [
      ...machine.box.read("/run/trace").matchAll(/execve\("([^"]+)"[^\n]*= 0/g),
    ].map(([, program]) => program!.split("/").at(-1)!);
    expect(
      programs.filter(
        (name) =>
          !/^(?:bun|strace|systemctl|service|basename|dmidecode|sh|cat|grep|sed)$/.test(name),
      ),
    ).toEqual([]);
  },
  60_000,
);
