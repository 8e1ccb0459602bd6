import { expect } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { ovfDocument } from "../fabric/ovf.ts";
import { missing, testUnless } from "../support/skip.ts";
import { createProvisionMachine, type ProvisionMachine } from "./provision-machine.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const sandboxTest = testUnless(
  able.ok
    ? missing({ programs: ["useradd", "chpasswd", "visudo", "ssh-keygen", "sshd"] })
    : able.reason,
);
/** Debian builds its BusyBox without the account applets; Alpine's, or one's own, has them. */
const busybox = process.env["WAAGENT_BUSYBOX"] ?? "/usr/bin/busybox";
const busyboxTest = testUnless(
  !able.ok
    ? able.reason
    : existsSync(busybox) && /\badduser\b/.test(Bun.spawnSync([busybox]).stdout.toString())
      ? undefined
      : `${busybox} has no adduser (WAAGENT_BUSYBOX names one that has)`,
);

const CONFIG = {
  "Provisioning.DeleteRootPassword": true,
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.SshHostKeyPairType": "ed25519",
};
const KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8tTGlUGm1YSUuP2ZhDqRQeWBbZpLrqwUPaXDmMhEa4 good";

interface Parts {
  readonly hostName?: string;
  readonly userName?: string;
  readonly password?: string;
  readonly sshKeys?: readonly string[];
}
const documentOf = (parts: Parts = {}): string =>
  ovfDocument({
    hostName: "vm1",
    userName: "azureuser",
    password: "S3cret.pw",
    sshKeys: [KEY],
    ...parts,
  });

/** Fails, tells the platform, is mended, and goes on. */
async function failsAndGoesOn(
  machine: ProvisionMachine,
  expected: RegExp,
  mend: () => Promise<unknown>,
): Promise<string> {
  const failed = await machine.provision({ config: CONFIG });
  expect(failed.outcome?.status).toBe("failed");
  expect(failed.outcome?.failure).toMatch(expected);
  expect(failed.outcome?.failure).not.toContain("S3cret");
  expect(
    machine
      .reports()
      .filter(([kind]) => kind !== "event")
      .at(-1),
  ).toEqual(["NotReady", "ProvisioningFailed", failed.outcome!.failure!]);
  expect(machine.box.exists("/var/lib/waagent/provisioned")).toBe(false);
  await mend();
  const resumed = await machine.provision({ config: CONFIG });
  expect(resumed.outcome).toEqual({ status: "provisioned", unreported: false });
  expect(machine.reports().at(-1)).toEqual(["Ready"]);
  return failed.outcome!.failure!;
}

async function hashIsFor(machine: ProvisionMachine, password: string): Promise<void> {
  const hash = /^azureuser:([^:]+):/m.exec(machine.box.read("/etc/shadow"))![1]!;
  // The machine's own crypt(3), as PAM would ask it.
  const check = await machine.box.run(
    ["perl", "-e", "local $/; my $p = <STDIN>; print crypt($p, $ARGV[0])", hash],
    {
      stdin: password,
    },
  );
  expect(check.stdout).toBe(hash);
}

sandboxTest(
  "provisioning.md USER-11 DB-07: every printable character, colons, blanks and UTF-8 make the password that crypt(3) knows",
  async () => {
    const printable = Array.from({ length: 95 }, (_, index) =>
      String.fromCharCode(32 + index),
    ).join("");
    for (const password of [
      printable,
      " : leading and trailing : ",
      "пароль 中文 🔑",
      "x".repeat(511),
    ]) {
      await using machine = await createProvisionMachine();
      machine.insert(documentOf({ password }));
      expect((await machine.provision({ config: CONFIG })).outcome?.status).toBe("provisioned");
      await hashIsFor(machine, password);
    }
  },
  60_000,
);

sandboxTest(
  "provisioning.md USER-13 DB-07: yescrypt and bcrypt are made by the system and known to it; an unknown method is refused, the account is not locked",
  async () => {
    for (const id of ["y", "2b", "5", "1"]) {
      await using machine = await createProvisionMachine();
      machine.insert(documentOf());
      const config = { ...CONFIG, "Provisioning.PasswordCryptId": id };
      expect((await machine.provision({ config })).outcome?.status).toBe("provisioned");
      expect(machine.box.read("/etc/shadow")).toContain(`\nazureuser:$${id}$`);
      await hashIsFor(machine, "S3cret.pw");
    }
    await using machine = await createProvisionMachine();
    machine.insert(documentOf());
    const unknown = await machine.provision({
      config: { ...CONFIG, "Provisioning.PasswordCryptId": "9" },
    });
    expect(unknown.outcome?.failure).toContain('"9" is not a known password method');
    expect(machine.box.read("/etc/shadow")).not.toMatch(/^azureuser:\*0/m);
  },
  60_000,
);

sandboxTest(
  "a password of 10 kB is refused with its length, and a shorter one then works",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf({ password: "x".repeat(10_240) }));
    await failsAndGoesOn(machine, /The password has 10240 bytes/, async () =>
      machine.insert(documentOf()),
    );
    await hashIsFor(machine, "S3cret.pw");
  },
  60_000,
);

sandboxTest(
  "provisioning.md ERR-04 DB-02 OVF-04: names of the system and names that cannot be: refused by name, nothing of them is done",
  async () => {
    for (const [parts, expected] of [
      [{ userName: "daemon" }, /User daemon is a system user/],
      [{ userName: "root" }, /User root is a system user/],
      [{ userName: "-rf" }, /UserName "-rf" cannot be used: it must begin with a letter/],
      [{ userName: "a".repeat(40) }, /more than 32 characters/],
      [{ userName: "" }, /UserName not found/],
      [{ hostName: "bad name" }, /HostName "bad name" cannot be used/],
      [{ hostName: "x".repeat(64) }, /more than 63 characters/],
    ] as const) {
      await using machine = await createProvisionMachine();
      machine.insert(documentOf(parts));
      const before = machine.box.read("/etc/shadow");
      const { outcome } = await machine.provision({ config: CONFIG });
      expect(outcome?.failure).toMatch(expected);
      expect(machine.box.read("/etc/shadow")).toBe(before);
      expect(machine.box.exists("/etc/sudoers.d/waagent")).toBe(false);
    }
  },
  60_000,
);

sandboxTest(
  "provisioning.md DB-10 ERR-05: unparsable keys beside a good one; without any good one the platform hears every reason",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf({ sshKeys: ["garbage", KEY, "ssh-rsa !!", ""] }));
    const { outcome, stdout } = await machine.provision({ config: CONFIG });
    expect(outcome?.status).toBe("provisioned");
    expect(machine.box.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
    expect(stdout.split("\n").filter((line) => line.includes("WARNING"))).toHaveLength(3);

    await using bad = await createProvisionMachine();
    bad.insert(documentOf({ sshKeys: ["garbage"] }));
    await failsAndGoesOn(
      bad,
      /No SSH public key could be installed: .*no key type of OpenSSH/,
      () =>
        // The password is set and the DVD handed back, so what is left of the document is the copy.
        bad.box.run([
          "sed",
          "-i",
          `s|<Value>garbage|<Value>${KEY}|`,
          "/var/lib/waagent/ovf-env.xml",
        ]),
    );
    expect(bad.box.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
  },
  60_000,
);

sandboxTest(
  "provisioning.md DB-01: /etc/ssh is read-only: told, and gone on with once it is not",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf());
    await machine.box.run(["mount", "--bind", "/etc/ssh", "/etc/ssh"]);
    await machine.box.run(["mount", "-o", "remount,bind,ro", "/etc/ssh"]);
    const failure = await failsAndGoesOn(machine, /read-only \(EROFS\)/, () =>
      machine.box.run(["umount", "/etc/ssh"]),
    );
    expect(failure).toContain("/etc/ssh");
  },
  60_000,
);

sandboxTest(
  "provisioning.md ERR-07 DB-01: without OpenSSH there is no host key to tell of; told, and gone on with once it is installed",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf());
    const hidden =
      "mkdir /srv/hidden; mv /usr/sbin/sshd /usr/bin/ssh-keygen /etc/ssh/sshd_config /srv/hidden";
    await machine.box.run(["sh", "-c", hidden]);
    await failsAndGoesOn(
      machine,
      /Could not make an SSH host key of the type ed25519.*The program ssh-keygen is not installed/,
      () =>
        machine.box.run([
          "sh",
          "-c",
          "cd /srv/hidden; mv sshd /usr/sbin; mv ssh-keygen /usr/bin; mv sshd_config /etc/ssh",
        ]),
    );
  },
  60_000,
);

sandboxTest(
  "a missing /home is made",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf());
    await machine.box.run(["rm", "-rf", "/home"]);
    expect((await machine.provision({ config: CONFIG })).outcome?.status).toBe("provisioned");
    expect(machine.box.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
  },
  60_000,
);

sandboxTest(
  "provisioning.md DB-01 DB-33: a full disk is told, leaves no half file, and the next start goes on",
  async () => {
    await using machine = await createProvisionMachine();
    machine.insert(documentOf());
    const { box } = machine;
    await box.run([
      "sh",
      "-c",
      "mkdir -p /var/lib/waagent; mount -t tmpfs -o size=64k,mode=0700 tmpfs /var/lib/waagent; dd if=/dev/zero of=/var/lib/waagent/filler bs=4k status=none || true",
    ]);
    await failsAndGoesOn(
      machine,
      /\[CopyOvfEnv\][\s\S]*no space left on the device \(ENOSPC\)/,
      async () => {
        expect((await box.run(["ls", "-A", "/var/lib/waagent"])).stdout).toBe("filler\n");
        await box.run(["rm", "/var/lib/waagent/filler"]);
      },
    );
  },
  60_000,
);

sandboxTest(
  "provisioning.md CD-02 DB-24: binary custom data arrives byte by byte",
  async () => {
    await using machine = await createProvisionMachine();
    const bytes = String.fromCharCode(...Array.from({ length: 256 }, (_, index) => index));
    const base64 = Buffer.from(bytes, "latin1").toString("base64");
    machine.insert(
      documentOf().replace(
        "</LinuxProvisioningConfigurationSet>",
        `<CustomData>${base64}</CustomData></LinuxProvisioningConfigurationSet>`,
      ),
    );
    await machine.provision({ config: { ...CONFIG, "Provisioning.DecodeCustomData": true } });
    const found = await machine.box.run(["base64", "-w0", "/var/lib/waagent/CustomData"]);
    expect(found.stdout).toBe(base64);
  },
  60_000,
);

sandboxTest(
  "provisioning.md USER-01 DB-08: an existing user keeps uid, home and files, and gets password, key and sudo",
  async () => {
    await using machine = await createProvisionMachine();
    const { box } = machine;
    await box.run([
      "useradd",
      "-m",
      "-u",
      "4242",
      "-d",
      "/srv/home-of-azureuser",
      "-s",
      "/bin/bash",
      "azureuser",
    ]);
    await box.run([
      "sh",
      "-c",
      "echo mine >/srv/home-of-azureuser/file; chown azureuser: /srv/home-of-azureuser/file",
    ]);
    machine.insert(documentOf());
    expect((await machine.provision({ config: CONFIG })).outcome?.status).toBe("provisioned");
    expect((await box.run(["getent", "passwd", "azureuser"])).stdout).toBe(
      "azureuser:x:4242:4242::/srv/home-of-azureuser:/bin/bash\n",
    );
    expect(box.read("/srv/home-of-azureuser/file")).toBe("mine\n");
    expect(box.read("/srv/home-of-azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
    await hashIsFor(machine, "S3cret.pw");
  },
  60_000,
);

sandboxTest(
  "provisioning.md PROV-31 PROV-33 PROV-34 PROV-37 DB-03 DB-27 AT-39: cloud-init writes slowly, into the file that is read; no user, key or name is touched",
  async () => {
    await using machine = await createProvisionMachine({ hostname: "given" });
    const { box } = machine;
    box.write("/srv/document", documentOf());
    const size = documentOf().length;
    const slowly = `mkdir -p /var/lib/waagent; f=/var/lib/waagent/ovf-env.xml
      head -c ${Math.floor(size / 3)} /srv/document >$f; sleep 0.8; head -c ${Math.floor(size / 2)} /srv/document >$f
      sleep 0.8; cat /srv/document >$f; sleep 0.5; ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key`;
    const writer = box.spawn(["sh", "-c", slowly]);
    const before = { passwd: box.read("/etc/passwd"), shadow: box.read("/etc/shadow") };
    const config = { ...CONFIG, "Provisioning.Agent": "cloud-init" };
    const { outcome } = await machine.provision({ config });
    await writer.exited;
    expect(outcome).toEqual({ status: "provisioned", unreported: false });
    expect(box.read("/var/lib/waagent/ovf-env.xml")).not.toContain("S3cret");
    expect({ passwd: box.read("/etc/passwd"), shadow: box.read("/etc/shadow") }).toEqual(before);
    expect((await box.run(["hostname"])).stdout).toBe("given\n");
    expect(box.exists("/etc/sudoers.d/waagent")).toBe(false);
    expect(
      machine
        .reports()
        .filter(([kind]) => kind !== "event" && kind !== "fingerprint")
        .map(([kind]) => kind),
    ).toEqual(["detect", "NotReady", "Ready"]);
  },
  60_000,
);

sandboxTest(
  "provisioning.md SSH-20 SSH-24 SSH-25 DB-11: keys and key pairs by certificate thumbprint, RSA and EC, as the machine's own tools see them",
  async () => {
    await using machine = await createProvisionMachine();
    const { box } = machine;
    await box.run(["mkdir", "-p", "/var/lib/waagent"]);
    const thumbprints: string[] = [];
    for (const kind of [["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"]]) {
      const [algorithm = "", ...rest] = kind;
      await box.run([
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-subj",
        "/CN=x",
        "-newkey",
        algorithm,
        ...rest,
        "-keyout",
        "/run/k",
        "-out",
        "/run/c",
      ]);
      const { stdout } = await box.run([
        "openssl",
        "x509",
        "-noout",
        "-fingerprint",
        "-sha1",
        "-in",
        "/run/c",
      ]);
      const thumbprint = stdout.trim().split("=")[1]!.replaceAll(":", "");
      await box.run([
        "sh",
        "-c",
        `mv /run/k /var/lib/waagent/${thumbprint}.prv; mv /run/c /var/lib/waagent/${thumbprint}.crt`,
      ]);
      thumbprints.push(thumbprint);
    }
    const entries = thumbprints
      .map(
        (thumbprint) =>
          `<PublicKey><Fingerprint>${thumbprint}</Fingerprint><Path>$HOME/azureuser/.ssh/authorized_keys</Path></PublicKey>`,
      )
      .join("");
    const pairs = thumbprints
      .map(
        (thumbprint, index) =>
          `<KeyPair><Fingerprint>${thumbprint}</Fingerprint><Path>/home/azureuser/.ssh/id_${index}</Path></KeyPair>`,
      )
      .join("");
    machine.insert(
      documentOf({ sshKeys: [] }).replace(
        "<SSH><PublicKeys></PublicKeys></SSH>",
        `<SSH><PublicKeys>${entries}</PublicKeys><KeyPairs>${pairs}</KeyPairs></SSH>`,
      ),
    );
    expect((await machine.provision({ config: CONFIG })).outcome?.status).toBe("provisioned");
    const authorized = box.read("/home/azureuser/.ssh/authorized_keys").trimEnd().split("\n");
    for (const index of [0, 1]) {
      const file = `/home/azureuser/.ssh/id_${index}`;
      // ssh-keygen reads the private key as the user, which it only does when nobody else could.
      const { stdout } = await box.run(["su", "azureuser", "-c", `ssh-keygen -y -f ${file}`]);
      const expected = stdout.trim().split(" ").slice(0, 2).join(" ");
      expect(authorized[index]).toBe(expected);
      expect(box.read(`${file}.pub`).trim()).toBe(expected);
      const modes = await box.run(["stat", "-c", "%a %U", file, `${file}.pub`]);
      expect(modes.stdout).toBe("600 azureuser\n644 azureuser\n");
    }
  },
  60_000,
);

busyboxTest(
  "a BusyBox system: adduser and chpasswd of BusyBox, as on Alpine",
  async () => {
    await using machine = await createProvisionMachine();
    const { box } = machine;
    const tools = [
      "useradd",
      "userdel",
      "usermod",
      "chpasswd",
      "adduser",
      "deluser",
      "visudo",
      "sshd",
      "systemctl",
      "service",
    ];
    box.write("/usr/sbin/busybox", readFileSync(busybox), 0o755);
    await box.run([
      "sh",
      "-c",
      `for t in ${tools.join(" ")}; do rm -f /usr/sbin/$t /usr/bin/$t; done; for t in adduser deluser chpasswd; do ln -s busybox /usr/sbin/$t; done`,
    ]);
    machine.insert(documentOf());
    const { outcome, stderr } = await machine.provision({ config: CONFIG, adapter: "Alpine" });
    expect(`${outcome?.failure ?? ""}${stderr}`).toBe("");
    expect(outcome?.status).toBe("provisioned");
    expect((await box.run(["id", "-un", "azureuser"])).stdout).toBe("azureuser\n");
    await hashIsFor(machine, "S3cret.pw");
    expect(box.read("/home/azureuser/.ssh/authorized_keys")).toBe(`${KEY}\n`);
    expect(box.read("/etc/sudoers.d/waagent")).toBe("azureuser ALL=(ALL) ALL\n");
    expect((await machine.provision({ config: CONFIG, adapter: "Alpine" })).outcome?.status).toBe(
      "already-provisioned",
    );
  },
  60_000,
);
