import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { Scenario } from "../fabric/scenario.ts";
import { missing, testUnless } from "../support/skip.ts";
import { startGuest, type Guest } from "./guest.ts";
import { canSandbox, GUEST_ADDRESS, type Change, type Sandbox } from "./sandbox.ts";
import { createKey, ssh, startSshd } from "./ssh.ts";

const able = canSandbox();
const needs = (...programs: string[]) =>
  testUnless(
    able.ok
      ? missing({ programs: ["useradd", "chpasswd", "ssh-keygen", ...programs] })
      : able.reason,
  );
const guestTest = needs("visudo", "sudo");
const sshTest = needs("sshd", "ssh", "sshpass", "sudo", "visudo");
const tracedTest = needs("strace");

const PASSWORD = "S3cret, pass:w0rd $(id) 'é\"";

/** The whole configuration of a generic image, but for what this machine cannot do. */
const CONFIGURATION = `Provisioning.Agent=auto
Provisioning.DeleteRootPassword=y
Provisioning.RegenerateSshHostKeyPair=y
Provisioning.SshHostKeyPairType=auto
Provisioning.MonitorHostName=n
ResourceDisk.Format=n
AutoUpdate.Enabled=n
OS.EnableFirewall=n
Extensions.GoalStatePeriod=1
Logs.Console=n
`;

function scenario(
  sshKey: string,
  more: Partial<NonNullable<Scenario["provisioning"]>> = {},
): Scenario {
  return {
    provisioning: {
      hostName: "vm-seven",
      userName: "azureuser",
      password: PASSWORD,
      disablePasswordAuthentication: false,
      sshKeys: [sshKey],
      customData: "custom data of the test",
      ...more,
    },
    dhcp: {},
    packages: [],
    goalStates: [{ incarnation: "1", extensions: [] }],
  };
}

/** Provisioned, and settled: the first status is uploaded, so nothing more is written. */
async function provisionedGuest(
  sshKey: string,
  prefix?: (sandbox: Sandbox) => void,
): Promise<Guest> {
  const guest = await startGuest(scenario(sshKey), {
    configuration: CONFIGURATION,
    prepare: (sandbox) => prefix?.(sandbox),
  });
  await guest.until("ready");
  await guest.until("status");
  return guest;
}

/** Paths whose content changes by itself, or belongs to other parts of the agent. */
const OTHERS =
  /^\/(?:var\/log\/(?:waagent\.log|azure|wtmp|btmp|lastlog)|run|tmp|dev|var\/lib\/waagent\/(?:history|events|WALinuxAgent|Certificates|Transport|GoalState|ExtensionsConfig|HostingEnvironmentConfig|SharedConfig|Incarnation|[0-9A-F]{40}|.*\.json|.*\.xml|Protocol|WireServerEndpoint|partition|.*status|microsoft_root_certificate.pem|.*version|logcollector|initial_goal_state))/;

const shown = ({ path: file, kind, mode, uid, gid }: Change): string =>
  `${kind === "deleted" ? "deleted" : `${mode.toString(8).padStart(4, "0")} ${uid}:${gid}`} ${file}${kind === "directory" ? "/" : ""}`;

guestTest(
  "provisioning.md PROV-11 PROV-12 PROV-13 PROV-14 PROV-15 PROV-16 ID-03 CD-03 ROOT-01 DVD-07 USER-20 SSH-22: the whole file system, before and after: every path, owner, mode",
  async () => {
    using key = createKey();
    await using guest = await provisionedGuest(key.publicLine);
    const { sandbox } = guest;
    // Nobody writes while the files are listed.
    await guest.agent.kill();
    const uid = Number((await sandbox.run(["id", "-u", "azureuser"])).stdout);
    const user = `${uid}:${uid}`;
    const keysOf = (type: string) => [
      `0600 0:0 /etc/ssh/ssh_host_${type}_key`,
      `0644 0:0 /etc/ssh/ssh_host_${type}_key.pub`,
    ];
    // What useradd gives to homes is this machine's own choice.
    const homeMode = `0${(await sandbox.run(["stat", "-c", "%a", "/home/azureuser"])).stdout.trim()}`;
    const hostnameMode = (await sandbox.run(["stat", "-c", "%a", "/etc/hostname"])).stdout.trim();
    const found = sandbox
      .changes()
      .filter((change) => !OTHERS.test(change.path) && change.path !== "/etc/waagent.conf")
      // Parents of what changed keep owner and mode; the listing has them because of their times.
      .filter((change) => change.kind !== "directory" || change.path.startsWith("/home/azureuser"))
      .map(shown);
    expect(found.toSorted()).toEqual(
      [
        ...["passwd", "group", "subuid", "subgid"].flatMap((name) => [
          `0644 0:0 /etc/${name}`,
          `0644 0:0 /etc/${name}-`,
        ]),
        ...["shadow", "gshadow"].flatMap((name) => [
          `0640 0:42 /etc/${name}`,
          `0640 0:42 /etc/${name}-`,
        ]),
        "0600 0:0 /etc/.pwd.lock",
        `${hostnameMode.padStart(4, "0")} 0:0 /etc/hostname`,
        ...keysOf("ecdsa"),
        ...keysOf("ed25519"),
        ...keysOf("rsa"),
        "0600 0:0 /etc/ssh/sshd_config.d/00-waagent.conf",
        "0440 0:0 /etc/sudoers.d/waagent",
        `${homeMode} ${user} /home/azureuser/`,
        ...[".bash_logout", ".bashrc", ".profile"].map(
          (name) => `0644 ${user} /home/azureuser/${name}`,
        ),
        `0700 ${user} /home/azureuser/.ssh/`,
        `0600 ${user} /home/azureuser/.ssh/authorized_keys`,
        "0755 0:0 /usr/local/sbin/eject",
        "0600 0:0 /var/lib/waagent/CustomData",
        "0600 0:0 /var/lib/waagent/ovf-env.xml",
        "0644 0:0 /var/lib/waagent/provisioned",
        "0644 0:0 /var/lib/waagent/published_hostname",
      ]
        .filter((line) => !line.includes("ovf-env.xml")) // covered by the pattern of goal state files
        .toSorted(),
    );
    expect(sandbox.read("/etc/hostname")).toBe("vm-seven");
    expect((await sandbox.run(["hostname"])).stdout).toBe("vm-seven\n");
    expect(sandbox.read("/etc/sudoers.d/waagent")).toBe("azureuser ALL=(ALL) ALL\n");
    expect(sandbox.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${key.publicLine}\n`);
    expect(sandbox.read("/etc/shadow")).toStartWith("root:*LOCK*:14600::::::\n");
    expect(sandbox.read("/var/lib/waagent/CustomData")).toBe(btoa("custom data of the test"));
    expect(sandbox.read("/var/lib/waagent/published_hostname")).toBe("vm-seven");
    const copy = sandbox.read("/var/lib/waagent/ovf-env.xml");
    expect(copy).toContain("<UserPassword>*</UserPassword>");
    const copyMode = await sandbox.run(["stat", "-c", "%a", "/var/lib/waagent/ovf-env.xml"]);
    expect(copyMode.stdout).toMatch(/^[46]00\n$/);
    expect(sandbox.exists("/mnt/cdrom/secure/ovf-env.xml")).toBe(false);
    expect(sandbox.exists("/dev/sr0")).toBe(false);
    await sandbox.run(["visudo", "-c"]);
    expect(guest.fabric.healthReports.map((one) => one.subStatus ?? one.state)).toEqual([
      "Provisioning",
      "Ready",
    ]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);

sshTest(
  "provisioning.md OVF-16 OVF-17 USER-11 USER-12 SSH-05 SSH-10 SSH-20 AT-31: login by key and by password, sudo with that password, and the fingerprint that was told",
  async () => {
    using key = createKey();
    await using guest = await provisionedGuest(key.publicLine);
    const { sandbox } = guest;
    await startSshd(sandbox);
    expect(await ssh(sandbox, "azureuser", key, "id -un; hostname; pwd")).toMatchObject({
      code: 0,
      stdout: "azureuser\nvm-seven\n/home/azureuser\n",
    });
    const byPassword = await loginByPassword(
      sandbox,
      PASSWORD,
      "id -un; sudo -S -p '' id -un",
      `${PASSWORD}\n`,
    );
    expect(byPassword).toMatchObject({ code: 0, stdout: "azureuser\nroot\n" });
    expect((await loginByPassword(sandbox, `${PASSWORD}x`, "true", "")).code).not.toBe(0);
    const printed = await sandbox.run(["ssh-keygen", "-lf", "/etc/ssh/ssh_host_rsa_key.pub"]);
    const fingerprint = printed.stdout.split(" ")[1]!;
    expect(sandbox.read("/var/log/waagent.log")).toContain(`SSH host key rsa: ${fingerprint}`);
    const told = guest.fabric.requests.filter((one) => one.kind === "role-properties");
    expect(told).toHaveLength(1);
  },
  60_000,
);

sshTest(
  "provisioning.md OVF-17 SSH-10: with password authentication off only the key logs in",
  async () => {
    using key = createKey();
    await using guest = await startGuest(
      scenario(key.publicLine, { disablePasswordAuthentication: true }),
      {
        configuration: CONFIGURATION,
      },
    );
    await guest.until("ready");
    await startSshd(guest.sandbox);
    expect((await ssh(guest.sandbox, "azureuser", key, "true")).code).toBe(0);
    const refused = await loginByPassword(guest.sandbox, PASSWORD, "true", "");
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("Permission denied (publickey)");
  },
  60_000,
);

guestTest(
  "provisioning.md PROV-06: a restart of the agent changes not one byte",
  async () => {
    using key = createKey();
    await using guest = await provisionedGuest(key.publicLine);
    guest.agent.signal("SIGTERM");
    await guest.agent.exited;
    const before = guest.sandbox
      .changes()
      .filter(
        (change) => !/^\/(?:var\/log|run|tmp)\b/.test(change.path) && !OTHERS.test(change.path),
      );
    const at = guest.fabric.events.at(-1)!.at;
    guest.restart();
    await guest.until("status", { after: at + 1 });
    await guest.agent.kill();
    const after = guest.sandbox
      .changes()
      .filter(
        (change) => !/^\/(?:var\/log|run|tmp)\b/.test(change.path) && !OTHERS.test(change.path),
      );
    expect(after).toEqual(before);
    expect(guest.fabric.healthReports).toHaveLength(2);
  },
  60_000,
);

tracedTest(
  "provisioning.md DB-07: no argument, no variable, no log line and no file of the machine has the password or a hash of it",
  async () => {
    using key = createKey();
    await using guest = await startGuest(scenario(key.publicLine), {
      configuration: CONFIGURATION,
      prepare: (sandbox) => {
        // The agent that the service manager would start, watched.
        sandbox.write(
          "/usr/local/sbin/waagent",
          '#!/bin/sh\nexec strace -f -s 4096 -v -e trace=execve -o /run/trace /usr/sbin/waagent "$@"\n',
          0o755,
        );
      },
      program: "/usr/local/sbin/waagent",
    });
    const { sandbox } = guest;
    await guest.until("status", { timeoutMs: 40_000 });
    await guest.agent.kill();
    const hash = /^azureuser:([^:]+):/m.exec(sandbox.read("/etc/shadow"))![1]!;
    expect(hash).toStartWith("$6$");
    const [, , salt = "", digest = ""] = hash.split("$");
    const trace = sandbox.read("/run/trace");
    expect(trace).toContain('["/usr/sbin/chpasswd", "-e"]');
    const log = sandbox.read("/var/log/waagent.log") + guest.agent.output();
    const wire = JSON.stringify(guest.fabric.events);
    for (const secret of [PASSWORD, "S3cret", digest, `${salt}$`])
      for (const text of [trace, log, wire]) expect(text).not.toContain(secret);
    // Every file that was written, but the password database itself.
    const holders = sandbox
      .changes()
      .filter(({ kind }) => kind === "file")
      .filter(({ path: file }) => {
        const text = readFileSync(sandbox.upper + file, "latin1");
        return text.includes("S3cret") || text.includes(digest);
      });
    expect(holders.map(({ path: file }) => file)).toEqual(["/etc/shadow"]);
  },
  90_000,
);

async function loginByPassword(sandbox: Sandbox, password: string, command: string, stdin: string) {
  const known = path.join(sandbox.scratch, "known_hosts_password");
  return await sandbox.platform.run(
    [
      "sshpass",
      "-e",
      "ssh",
      "-F",
      "none",
      "-o",
      "StrictHostKeyChecking=no",
      "-o",
      `UserKnownHostsFile=${known}`,
      "-o",
      "PubkeyAuthentication=no",
      "-o",
      "ConnectTimeout=5",
      `azureuser@${GUEST_ADDRESS}`,
      command,
    ],
    { env: { SSHPASS: password }, stdin, allowFailure: true, timeoutMs: 20_000 },
  );
}
