import { describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { describe as inWords } from "../../../src/base/error.ts";
import type { Account } from "../../../src/provision/accounts.ts";
import {
  fingerprintOf,
  mergeKeys,
  parsePublicKeys,
  publicKeyOfPrivate,
} from "../../../src/provision/public-key.ts";
import {
  installKeyPairs,
  installPublicKeys,
  partsBelowHome,
} from "../../../src/provision/ssh-keys.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { blobOf, CERTIFICATE, configOf, createMachine, ED25519_KEY, USER_ID } from "./machine.ts";

const config = configOf();
const GROUP_ID = process.getuid!() === 0 ? USER_ID : process.getgid!();
const alice: Account = {
  name: "alice",
  uid: USER_ID,
  gid: GROUP_ID,
  comment: "",
  home: "/home/alice",
  shell: "/bin/sh",
};
const FILE = "/home/alice/.ssh/authorized_keys";
const PATH = "$HOME/alice/.ssh/authorized_keys";

/** A key of a type with bytes that say that type. */
const key = (type: string, salt = type): string => `${type} ${blobOf(type, salt)} c`;

function machine(): FakeSystem {
  const system = createMachine();
  system.files.makeDirectory("/home/alice");
  return system;
}

const install = (system: FakeSystem, ...values: readonly (string | undefined)[]) =>
  installPublicKeys(system, config, alice, {
    entries: values.map((value) => ({ path: PATH, fingerprint: undefined, value })),
  });

describe("public keys", () => {
  test("provisioning.md SSH-20 SSH-22 DB-10: all keys of all types are written once, private to their owner", async () => {
    using system = machine();
    const types = [
      "ssh-rsa",
      "ssh-ed25519",
      "ecdsa-sha2-nistp256",
      "ecdsa-sha2-nistp521",
      "sk-ssh-ed25519@openssh.com",
      "sk-ecdsa-sha2-nistp256@openssh.com",
      "ssh-ed25519-cert-v01@openssh.com",
    ];
    await install(system, ...types.map((type) => key(type)));
    const text = types.map((type) => `${key(type)}\n`).join("");
    expect(system.files.readText(FILE)).toBe(text);
    const inode = system.files.stat(FILE)?.inode;
    await install(system, ...types.map((type) => key(type)));
    expect(system.files.readText(FILE)).toBe(text);
    expect(system.files.stat(FILE)?.inode).toBe(inode!);
    expect(system.files.stat(FILE)).toMatchObject({ mode: 0o600, uid: USER_ID, gid: GROUP_ID });
    expect(system.files.stat("/home/alice/.ssh")).toMatchObject({
      mode: 0o700,
      uid: USER_ID,
      gid: GROUP_ID,
    });
    expect(system.lines).toEqual([]);
  });

  test("provisioning.md SSH-20 SSH-22: what is there stays, also without a last newline; modes are put right", async () => {
    using system = machine();
    system.files.makeDirectory("/home/alice/.ssh", { mode: 0o755 });
    const mine = `# mine\ncommand="x" ${key("ssh-rsa", "options")}`;
    system.files.write(FILE, mine, { mode: 0o644 });
    await install(system, `${key("ssh-rsa", "options")} other comment`, ED25519_KEY);
    expect(system.files.readText(FILE)).toBe(`${mine}\n${ED25519_KEY}\n`);
    expect(system.files.stat("/home/alice/.ssh")?.mode).toBe(0o700);
    expect(system.files.stat(FILE)?.mode).toBe(0o600);
  });

  test("provisioning.md DB-10 ERR-05: a bad key is told and the good ones are installed", async () => {
    using system = machine();
    const problems = await install(
      system,
      "rsa AAAA",
      ED25519_KEY,
      undefined,
      "ssh-rsa not*base64",
    );
    expect(system.files.readText(FILE)).toBe(`${ED25519_KEY}\n`);
    expect(problems).toEqual([
      'SSH public key 1 of alice: Bad public key: it begins with "rsa", which is no key type of OpenSSH',
      "SSH public key 3 of alice: it has neither a value nor a fingerprint",
      "SSH public key 4 of alice: Bad public key: what follows ssh-rsa is not base64",
    ]);
    expect(system.lines.map((line) => line.split(" ")[0])).toEqual([
      "WARNING",
      "WARNING",
      "WARNING",
    ]);
  });

  test("provisioning.md ERR-05: when not one can be installed, that is a failure with every reason", async () => {
    using system = machine();
    const error = await install(system, "rsa AAAA").catch((reason: unknown) => reason);
    expect(inWords(error)).toContain(
      "No SSH public key could be installed: SSH public key 1 of alice",
    );
    expect(system.files.exists("/home/alice/.ssh")).toBe(false);
    const noPath = installPublicKeys(system, config, alice, {
      entries: [{ path: undefined, fingerprint: undefined, value: ED25519_KEY }],
    });
    await expect(noPath).rejects.toThrow("it has no path");
    const noCertificate = installPublicKeys(system, config, alice, {
      entries: [{ path: PATH, fingerprint: "A".repeat(40), value: undefined }],
    });
    await expect(noCertificate).rejects.toThrow(
      `the certificate /var/lib/waagent/${"A".repeat(40)}.crt was not sent by the platform`,
    );
  });

  test("provisioning.md SSH-20 SSH-25: without a value the certificate with that thumbprint gives the key", async () => {
    using system = machine();
    system.files.write(`/var/lib/waagent/${"AB".repeat(20)}.crt`, CERTIFICATE);
    await installPublicKeys(system, config, alice, {
      entries: [{ path: PATH, fingerprint: "ab".repeat(20), value: undefined }],
    });
    expect(system.files.readText(FILE)).toBe(`${CERTIFICATE_KEY}\n`);
  });

  test("a key whose bytes say another type is written, with a warning: sshd passes over it", async () => {
    using system = machine();
    await install(system, "ssh-rsa AAAANOTAREALKEY== foo@bar");
    expect(system.files.readText(FILE)).toBe("ssh-rsa AAAANOTAREALKEY== foo@bar\n");
    expect(system.lines).toHaveLength(1);
  });

  test("provisioning.md SSH-21 DB-10: $HOME is the base of homes; a path that leaves the user's home is refused", () => {
    const parts = (path: string) => partsBelowHome(path, alice, config).join("/");
    expect(parts("$HOME/alice/.ssh/authorized_keys")).toBe(".ssh/authorized_keys");
    expect(parts("/home/alice//.ssh/./x/../authorized_keys")).toBe(".ssh/authorized_keys");
    for (const path of [
      "$HOME/bob/.ssh/authorized_keys",
      "$HOME/alice/../bob/x",
      "/home/alice",
      "/home/alicex/.ssh/x",
      "/etc/shadow",
      ".ssh/authorized_keys",
    ])
      expect(() => parts(path)).toThrow("is not below the home directory of alice");
    const elsewhere = { name: "core", home: "/var/home/core" } as const;
    expect(partsBelowHome("/home/core/.ssh/k", elsewhere, config)).toEqual([".ssh", "k"]);
  });

  test("provisioning.md DB-10 DB-33: links in the user's home are never followed", async () => {
    using system = machine();
    system.files.makeDirectory("/etc/target", { mode: 0o755 });
    system.files.link(system.root.real("/etc/target"), "/home/alice/.ssh");
    const error = await install(system, ED25519_KEY).catch((reason: unknown) => reason);
    expect(inWords(error)).toContain("/home/alice/.ssh is a symbolic link or not a directory");
    expect(system.files.list("/etc/target")).toEqual([]);

    system.files.remove("/home/alice/.ssh");
    system.files.makeDirectory("/home/alice/.ssh");
    system.files.write("/etc/secret", "secret\n", { mode: 0o600 });
    system.files.link(system.root.real("/etc/secret"), FILE);
    await expect(install(system, ED25519_KEY)).rejects.toThrow("is a symbolic link");
    expect(system.files.readText("/etc/secret")).toBe("secret\n");
  });

  test("provisioning.md SSH-23: with SELinux the file gets sshd's type; failure does not matter", async () => {
    using system = machine();
    system.programs.set("getenforce", () => ({ stdout: "Enforcing\n" }));
    system.programs.set("chcon", () => ({ code: 1, stderr: "no SELinux" }));
    await install(system, ED25519_KEY);
    expect(system.commands).toEqual([["chcon", "unconfined_u:object_r:ssh_home_t:s0", FILE]]);
  });

  test("lines of one value are keys; a key broken over lines is put together", () => {
    expect(parsePublicKeys(`${key("ssh-rsa")}\r\n\r\n${ED25519_KEY}\n`)).toHaveLength(2);
    const [type, blob = ""] = ED25519_KEY.split(" ");
    const broken = `${type} ${blob.slice(0, 20)}\r\n${blob.slice(20)} me\n`;
    expect(parsePublicKeys(broken)[0]?.line).toBe(`${type} ${blob} me`);
    expect(mergeKeys("", parsePublicKeys(`${ED25519_KEY}\n${ED25519_KEY} again`))).toBe(
      `${ED25519_KEY}\n`,
    );
  });
});

describe("key pairs", () => {
  test("provisioning.md SSH-24 SSH-25 DB-11: private 0600, public 0644 in OpenSSH's form, both the user's", async () => {
    using system = machine();
    const { privateKey } = generateKeyPairSync("ec", {
      namedCurve: "P-256",
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
      publicKeyEncoding: { type: "spki", format: "pem" },
    });
    system.files.write(`/var/lib/waagent/${"CD".repeat(20)}.prv`, privateKey);
    await installKeyPairs(system, config, alice, {
      entries: [{ path: "/home/alice/.ssh/id_x", fingerprint: "CD".repeat(20) }],
    });
    expect(system.files.readText("/home/alice/.ssh/id_x")).toBe(privateKey);
    expect(system.files.stat("/home/alice/.ssh/id_x")).toMatchObject({ mode: 0o600, uid: USER_ID });
    const line = publicKeyOfPrivate(privateKey, "x").line;
    expect(line).toStartWith("ecdsa-sha2-nistp256 ");
    expect(system.files.readText("/home/alice/.ssh/id_x.pub")).toBe(`${line}\n`);
    expect(system.files.stat("/home/alice/.ssh/id_x.pub")).toMatchObject({
      mode: 0o644,
      uid: USER_ID,
    });
  });

  test("provisioning.md ERR-05: a private key that was not sent is named", async () => {
    using system = machine();
    const entries = [{ path: "/home/alice/.ssh/id", fingerprint: "EF".repeat(20) }];
    await expect(installKeyPairs(system, config, alice, { entries })).rejects.toThrow(
      `The private key /var/lib/waagent/${"EF".repeat(20)}.prv for /home/alice/.ssh/id was not sent by the platform`,
    );
    system.files.write(`/var/lib/waagent/${"EF".repeat(20)}.prv`, "-----BEGIN s3cret-----");
    const error = await installKeyPairs(system, config, alice, { entries }).catch(
      (e: unknown) => e,
    );
    expect(inWords(error)).toEndWith("is not a private key");
    expect(inWords(error)).not.toContain("s3cret");
  });
});

test("provisioning.md SSH-05: fingerprints are those of ssh-keygen -l", () => {
  // `ssh-keygen -lf` of the certificate's key, recorded.
  expect(fingerprintOf(CERTIFICATE_KEY)).toBe(CERTIFICATE_FINGERPRINT);
});

const CERTIFICATE_KEY =
  "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC1rTRbbFg0i8T/NiiGg+/4INM9n7Fm2jNyZLD8gfidPBG+VrB6g3H8XDS46vM2FzomEEI2eACbOAV5+PX9db6qddxr3sK34EpRNLHg0PDbZxtSORiSmRdYUQyQbMdB6zUfCvXULXUV8VRQFnZJtwSEtfolj0sBhs1ZcHjj7aYZWw==";
const CERTIFICATE_FINGERPRINT = "SHA256:dRXlxHjzUQH4eNq/+8qpa9vNaLHbiJ9TXCl/osz6hQE";
