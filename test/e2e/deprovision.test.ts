import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { binary } from "../support/binary.ts";
import { ovfDocument } from "../fabric/ovf.ts";
import { missing, testUnless } from "../support/skip.ts";
import { createProvisionMachine, type ProvisionMachine } from "./provision-machine.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const sandboxTest = testUnless(
  able.ok
    ? missing({ programs: ["useradd", "userdel", "chpasswd", "visudo", "ssh-keygen"] })
    : able.reason,
);

const CONFIG = {
  "Provisioning.DeleteRootPassword": true,
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.SshHostKeyPairType": "ed25519",
};
const CONFIGURATION = `Provisioning.DeleteRootPassword=y
Provisioning.RegenerateSshHostKeyPair=y
Provisioning.SshHostKeyPairType=ed25519
`;
/** Words that nothing else on the machine has; each trace carries one of them, in its name or inside. */
const USER = "seededuser";
const HOST = "seeded-host-name";
const PUBLIC_KEY =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8tTGlUGm1YSUuP2ZhDqRQeWBbZpLrqwUPaXDmMhEa4 seeded-key";
const DOCUMENT = ovfDocument({
  hostName: HOST,
  userName: USER,
  password: "Seeded.pass-w0rd",
  sshKeys: [PUBLIC_KEY],
  customData: "seeded custom data",
});

/** What a machine that was used leaves around, beyond what provisioning itself wrote. */
const SEEDS: Readonly<Record<string, string>> = {
  [`/home/${USER}/.bash_history`]: "seed-01",
  [`/home/${USER}/documents/file`]: "seed-02",
  [`/var/spool/cron/crontabs/${USER}`]: "seed-03",
  [`/var/lib/systemd/linger/${USER}`]: "seed-04",
  [`/var/mail/${USER}`]: "seed-05",
  "/root/.bash_history": "seed-06",
  "/root/.zsh_history": "seed-07",
  "/root/.viminfo": "seed-08",
  "/var/lib/dhcp/dhclient.eth0.leases": "seed-09",
  "/var/lib/dhclient/dhclient-eth0.lease": "seed-10",
  "/var/lib/dhcpcd/eth0.lease": "seed-11",
  "/var/lib/NetworkManager/dhclient-a-eth0.lease": "seed-12",
  "/var/lib/NetworkManager/internal-a-eth0.lease": "seed-13",
  "/run/systemd/netif/leases/2": "seed-14",
  "/var/log/waagent.log": "seed-15",
  "/var/log/waagent.log.1": "seed-16",
  "/var/log/waagent.log-2030-01-01-1700000000.gz": "seed-17",
  "/var/log/azure/Ext/CommandExecution.log": "seed-18",
  "/var/lib/waagent/0123456789ABCDEF0123456789ABCDEF01234567.prv": "seed-19",
  "/var/lib/waagent/0123456789ABCDEF0123456789ABCDEF01234567.crt": "seed-20",
  "/var/lib/waagent/Seeded.Ext-1.0.0/config/0.settings": "seed-21",
  "/var/lib/waagent/Seeded.Ext-1.0.0/status/0.status": "seed-22",
  "/var/lib/waagent/TransportPrivate.pem": "seed-23",
  "/var/lib/waagent/history/2030/GoalState.xml": "seed-24",
  "/var/lib/waagent/disable_agent": "seed-25",
  "/etc/ssh/ssh_host_ed25519_key-cert.pub": "seed-26",
  "/etc/ssh/ssh_host_dsa_key": "seed-27",
  "/etc/resolv.conf": "search seed-28",
  "/etc/machine-id": "seed29seed29seed29seed29seed29se\n",
  "/var/lib/systemd/random-seed": "seed-30",
  "/etc/udev/rules.d/70-persistent-net.rules": "seed-31",
  "/var/lib/hyperv/.kvp_pool_1": "seed-32",
  "/var/log/wtmp": "seed-33",
  "/var/log/btmp": "seed-34",
  "/lib/systemd/system/walinuxagent-network-setup.service": "seed-35",
  "/lib/systemd/system/walinuxagent.service.d/12-CPUQuota.conf": "seed-36",
  "/var/lib/wicked/lease-eth0.xml": "seed-37",
  "/var/log/journal/0123/system.journal": "seed-38",
};

async function usedMachine(): Promise<{ machine: ProvisionMachine; words: string[] }> {
  const machine = await createProvisionMachine();
  const { box } = machine;
  // The agent as a package installs it.
  await box.run(["sh", "-c", "cat >/usr/sbin/waagent; chmod 755 /usr/sbin/waagent"], {
    stdin: readFileSync(await binary()),
  });
  box.write("/etc/waagent.conf", CONFIGURATION);
  machine.insert(DOCUMENT);
  const { outcome } = await machine.provision({ config: CONFIG });
  expect(outcome?.status).toBe("provisioned");
  await box.run(["rm", "-rf", "/srv/dvd"]);
  const hash = new RegExp(`^${USER}:([^:]+):`, "m").exec(box.read("/etc/shadow"))![1]!;
  const hostKey = box.read("/etc/ssh/ssh_host_ed25519_key.pub").split(" ")[1]!;
  for (const [file, text] of Object.entries(SEEDS)) box.write(file, text);
  await box.run(["chown", "-R", `${USER}:`, `/home/${USER}`]);
  const words = [
    ...Object.values(SEEDS).map((text) => text.trim()),
    USER,
    HOST,
    "Seeded.pass-w0rd",
    PUBLIC_KEY.split(" ")[1]!,
    btoa("seeded custom data"),
    hash.split("$")[3]!,
    hostKey,
    "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8",
  ];
  return { machine, words };
}

/** Traces that are left: paths that have a word in their name or content. */
function tracesLeft(machine: ProvisionMachine, words: readonly string[]): string[] {
  const { box } = machine;
  return box
    .changes()
    .filter(
      ({ kind, path: file }) =>
        kind !== "deleted" && !/^\/(?:root\/\.bun|usr\/sbin\/waagent|usr\/local)/.test(file),
    )
    .flatMap(({ path: file, kind }) => {
      const text = kind === "file" ? readFileSync(box.upper + file, "latin1") : "";
      const word = words.find((candidate) => file.includes(candidate) || text.includes(candidate));
      return word === undefined ? [] : [`${file} has ${word}`];
    });
}

sandboxTest(
  "provisioning.md DEPROV-01 DEPROV-10 DEPROV-11 DEPROV-12 DEPROV-13 DEPROV-14 DEPROV-15 DEPROV-16 DEPROV-19 DEPROV-21 DEPROV-22 DEPROV-25 USER-30 CLI-27 AT-34: of 45 seeded traces none is left, and the machine can be provisioned again",
  async () => {
    const { machine, words } = await usedMachine();
    await using _ = machine;
    const { box } = machine;
    expect(words.length).toBeGreaterThanOrEqual(45);
    const before = tracesLeft(machine, words);
    expect(before.length).toBeGreaterThan(45);

    const dry = await box.run(["waagent", "-deprovision+user", "--dry-run"]);
    expect(tracesLeft(machine, words)).toEqual(before);
    const real = await box.run(["waagent", "-deprovision+user", "-force"]);
    expect(real.stdout).toBe(dry.stdout);
    expect(real.stderr).toBe("");
    expect(tracesLeft(machine, words)).toEqual([]);
    // What is kept in memory file systems is not in the overlay.
    expect(box.exists("/run/systemd/netif/leases/2")).toBe(false);
    expect((await box.run(["hostname"])).stdout).toBe("localhost.localdomain\n");
    expect(box.read("/etc/hostname")).toBe("localhost.localdomain");
    expect((await box.run(["id", USER], { allowFailure: true })).code).toBe(1);
    await box.run(["visudo", "-c"]);

    await box.run(["mkdir", "-p", "/srv/dvd"]);
    machine.insert(DOCUMENT);
    await box.run(["rm", "-f", "/run/ejected"]);
    const again = await machine.provision({ config: CONFIG });
    expect(again.outcome).toEqual({ status: "provisioned", unreported: false });
    expect((await box.run(["id", "-un", USER])).stdout).toBe(`${USER}\n`);
    expect(machine.reports().filter(([kind]) => kind === "Ready")).toHaveLength(2);
  },
  60_000,
);

sandboxTest(
  "provisioning.md DEPROV-02 DEPROV-04 DB-22 DB-19: the prompt as scripts know it: y, n, and the end of the input",
  async () => {
    const { machine, words } = await usedMachine();
    await using _ = machine;
    const { box } = machine;
    const before = tracesLeft(machine, words);
    const no = await box.run(["waagent", "-deprovision+user"], {
      stdin: "n\n",
      allowFailure: true,
    });
    expect(no.code).toBe(0);
    expect(no.stdout).toEndWith("Do you want to proceed (y/n)");
    const nobody = await box.run(["waagent", "-deprovision+user"], { allowFailure: true });
    expect(nobody.code).toBe(1);
    expect(tracesLeft(machine, words)).toEqual(before);
    const yes = await box.run(["waagent", "-deprovision"], { stdin: "Yes\n", allowFailure: true });
    expect(yes.code).toBe(0);
    expect(yes.stdout.split("\n").filter((line) => line.startsWith("WARNING!"))).toHaveLength(7);
    // Without +user the user stays, with everything the user has.
    expect((await box.run(["id", "-un", USER])).stdout).toBe(`${USER}\n`);
    expect(box.read(`/home/${USER}/.bash_history`)).toBe("seed-01");
    expect(box.exists("/var/lib/waagent/provisioned")).toBe(false);
  },
  60_000,
);

sandboxTest(
  "provisioning.md DB-22: a user who is logged in, and a file that cannot be removed, keep nothing else",
  async () => {
    const { machine } = await usedMachine();
    await using _ = machine;
    const { box } = machine;
    const session = box.spawn(["su", "-", USER, "-c", "exec sleep 600"]);
    while (!(await box.run(["pgrep", "-u", USER], { allowFailure: true })).stdout)
      await Bun.sleep(20);
    await box.run(["mount", "--bind", "/root/.bash_history", "/root/.bash_history"]);
    const result = await box.run(["waagent", "-deprovision+user", "-force"], {
      allowFailure: true,
    });
    expect(result.code).toBe(1);
    expect(result.stdout).toContain(
      "FAILED to remove /root/.bash_history: Could not remove /root/.bash_history: it is busy",
    );
    expect(result.stdout).toContain("1 of ");
    expect((await box.run(["id", USER], { allowFailure: true })).code).toBe(1);
    expect(box.exists(`/home/${USER}`)).toBe(false);
    expect(box.exists("/var/lib/waagent/provisioned")).toBe(false);
    await session.exited;
  },
  60_000,
);

sandboxTest(
  "provisioning.md DEPROV-03: Ctrl-C at the prompt is a notice and exit 0, and nothing is changed",
  async () => {
    const { machine, words } = await usedMachine();
    await using _ = machine;
    const { box } = machine;
    const before = tracesLeft(machine, words);
    await box.run(["mkfifo", "/run/keyboard"]);
    // Open for both, so that there is a keyboard nobody types on.
    const command = box.spawn(["bash", "-c", "exec waagent -deprovision+user <>/run/keyboard"]);
    const deadline = performance.now() + 10_000;
    while (!command.output().endsWith("(y/n)") && performance.now() < deadline) await Bun.sleep(20);
    command.signal("SIGINT");
    expect(await command.exited).toBe(0);
    expect(command.output()).toContain("Deprovision is interrupted.");
    expect(tracesLeft(machine, words)).toEqual(before);
  },
  60_000,
);
