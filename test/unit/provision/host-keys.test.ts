import { describe, expect, test } from "bun:test";
import { describe as inWords } from "../../../src/base/error.ts";
import {
  discardWaitingHostKeys,
  generateHostKeys,
  hostKeyFingerprints,
  primaryFingerprint,
  primaryPublicKey,
  swapHostKeys,
} from "../../../src/provision/host-keys.ts";
import { configOf, createMachine } from "./machine.ts";

const ofType = (type: string) => configOf({ "Provisioning.SshHostKeyPairType": type });

describe("SSH host keys", () => {
  test("provisioning.md SSH-01 DB-12: new keys first, then all old ones go, host certificates too", async () => {
    using system = createMachine();
    const { files } = system;
    for (const name of [
      "ssh_host_rsa_key",
      "ssh_host_rsa_key.pub",
      "ssh_host_dsa_key",
      "ssh_host_rsa_key-cert.pub",
    ])
      files.write(`/etc/ssh/${name}`, "old");
    await generateHostKeys(system, ofType("rsa"));
    expect(files.readText("/etc/ssh/ssh_host_rsa_key")).toBe("old");
    await swapHostKeys(system, ofType("rsa"));
    expect(files.list("/etc/ssh")).toEqual([
      "ssh_host_ecdsa_key",
      "ssh_host_ecdsa_key.pub",
      "ssh_host_ed25519_key",
      "ssh_host_ed25519_key.pub",
      "ssh_host_rsa_key",
      "ssh_host_rsa_key.pub",
      "sshd_config",
    ]);
    expect(files.readText("/etc/ssh/ssh_host_rsa_key")).toBe("private rsa\n");
    expect(files.stat("/etc/ssh/ssh_host_rsa_key")?.mode).toBe(0o600);
    expect(files.stat("/etc/ssh/ssh_host_rsa_key.pub")?.mode).toBe(0o644);
    // Nothing is waiting any more: a second swap changes nothing.
    await swapHostKeys(system, ofType("rsa"));
    expect(files.list("/etc/ssh")).toHaveLength(7);
  });

  test("provisioning.md SSH-01 SSH-02 SSH-03: one type makes one key; auto makes all and counts as rsa", async () => {
    using system = createMachine();
    await generateHostKeys(system, ofType("ed25519"));
    await swapHostKeys(system, ofType("ed25519"));
    expect(system.files.list("/etc/ssh")).toEqual([
      "ssh_host_ed25519_key",
      "ssh_host_ed25519_key.pub",
      "sshd_config",
    ]);
    expect(system.commands).toHaveLength(1);
    expect(primaryPublicKey(ofType("auto"))).toBe("/etc/ssh/ssh_host_rsa_key.pub");
    await generateHostKeys(system, ofType("auto"));
    expect(system.commands.slice(1).map((argv) => argv[argv.indexOf("-t") + 1])).toEqual([
      "rsa",
      "ecdsa",
      "ed25519",
    ]);
  });

  test("provisioning.md DB-12: OS.SshDir is honoured", async () => {
    using system = createMachine();
    const config = configOf({ "OS.SshDir": "/opt/ssh", "Provisioning.SshHostKeyPairType": "auto" });
    await generateHostKeys(system, config);
    await swapHostKeys(system, config);
    expect(system.files.list("/opt/ssh")).toHaveLength(6);
    expect(system.files.list("/etc/ssh")).toEqual(["sshd_config"]);
  });

  test("provisioning.md DB-12: when the wanted type cannot be made the old keys stay", async () => {
    using system = createMachine();
    system.files.write("/etc/ssh/ssh_host_rsa_key", "old");
    for (const type of ["dsa", "rsa; reboot", "../x"]) {
      const error = await generateHostKeys(system, ofType(type)).catch((e: unknown) => e);
      expect(inWords(error)).toContain("Could not make an SSH host key");
      await swapHostKeys(system, ofType(type));
    }
    expect(system.files.list("/etc/ssh")).toEqual(["ssh_host_rsa_key", "sshd_config"]);
    expect(system.commands).toHaveLength(1);
  });

  test("provisioning.md DB-12: a type beside the wanted one may fail", async () => {
    using system = createMachine();
    const keygen = system.programs.get("ssh-keygen")!;
    system.programs.set("ssh-keygen", (argv, stdin) =>
      argv.includes("ed25519") ? { code: 1, stderr: "not in FIPS mode" } : keygen(argv, stdin),
    );
    await generateHostKeys(system, ofType("rsa"));
    await swapHostKeys(system, ofType("rsa"));
    expect(system.files.list("/etc/ssh")).toHaveLength(5);
    expect(system.lines).toHaveLength(1);
    discardWaitingHostKeys(system, ofType("rsa"));
  });

  test("provisioning.md SSH-05 ERR-07: the fingerprint has no colon; without the key provisioning fails", async () => {
    using system = createMachine();
    const error = (() => {
      try {
        return primaryFingerprint(system, ofType("rsa"));
      } catch (reason) {
        return reason;
      }
    })();
    expect(inWords(error)).toStartWith("There is no SSH host key /etc/ssh/ssh_host_rsa_key.pub");
    await generateHostKeys(system, ofType("rsa"));
    await swapHostKeys(system, ofType("rsa"));
    expect(primaryFingerprint(system, ofType("rsa"))).toMatch(/^SHA256[A-Za-z0-9+/]{43}$/);
    expect(hostKeyFingerprints(system, ofType("rsa")).map(({ type }) => type)).toEqual([
      "ecdsa",
      "ed25519",
      "rsa",
    ]);
    system.files.write("/etc/ssh/ssh_host_rsa_key.pub", "half");
    expect(() => primaryFingerprint(system, ofType("rsa"))).toThrow(
      "Could not read the SSH host key",
    );
  });
});
