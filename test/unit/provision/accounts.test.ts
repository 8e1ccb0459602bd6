import { describe, expect, test } from "bun:test";
import { crypt } from "../../../src/base/crypt.ts";
import { describe as inWords } from "../../../src/base/error.ts";
import { Secret } from "../../../src/base/secret.ts";
import {
  createAccount,
  deleteAccount,
  findAccount,
  isSystemUser,
  minimumUid,
  requireAccount,
} from "../../../src/provision/accounts.ts";
import {
  applyHash,
  hashPassword,
  openForKeys,
  randomSalt,
  setPassword,
} from "../../../src/provision/passwords.ts";
import { configOf, createMachine, distroOf, USER_ID } from "./machine.ts";

const distro = distroOf("Default");
const HOME = { homeDirectory: "/home" };

describe("creating an account", () => {
  test("provisioning.md USER-02: useradd -m NAME, then expiry, then comment", async () => {
    using system = createMachine();
    const { account, created } = await createAccount(system, distro, { name: "alice" }, HOME);
    expect(created).toBe(true);
    expect(account).toMatchObject({ name: "alice", uid: USER_ID, home: "/home/alice" });
    await createAccount(
      system,
      distro,
      { name: "bob", comment: "JIT_Account", expires: "2030-01-02" },
      HOME,
    );
    expect(system.commands.filter(([program]) => program === "useradd")).toEqual([
      ["useradd", "-m", "alice"],
      ["useradd", "-m", "bob", "-e", "2030-01-02", "-c", "JIT_Account"],
    ]);
  });

  test("provisioning.md USER-01: an existing account is left alone; NSS decides, not only /etc/passwd", async () => {
    using system = createMachine();
    system.programs.set("getent", () => ({
      stdout: "alice:*:70001:70001::/home/alice:/bin/bash\n",
    }));
    const { account, created } = await createAccount(system, distro, { name: "alice" }, HOME);
    expect({ created, uid: account.uid }).toEqual({ created: false, uid: 70001 });
    expect(system.commands.map(([program]) => program)).toEqual(["getent"]);
    expect(system.lines).toEqual([
      "INFO ExtHandler ExtHandler User alice already exists, skip useradd",
    ]);
  });

  test("provisioning.md USER-01: without getent the file is read", async () => {
    using system = createMachine();
    system.programs.delete("getent");
    expect((await findAccount(system, "daemon"))?.uid).toBe(1);
    expect(await findAccount(system, "dae")).toBeUndefined();
  });

  test("a missing base directory of homes is made first", async () => {
    using system = createMachine();
    system.files.remove("/home");
    await createAccount(system, distro, { name: "alice" }, HOME);
    expect(system.files.stat("/home")?.mode).toBe(0o755);
  });

  test("provisioning.md ERR-03: a failure carries code and output", async () => {
    using system = createMachine();
    system.programs.set("useradd", () => ({
      code: 12,
      stderr: "cannot create directory /home/alice",
    }));
    const error = await createAccount(system, distro, { name: "alice" }, HOME).catch(
      (e: unknown) => e,
    );
    expect(inWords(error)).toBe(
      "Failed to create the user account alice: useradd -m alice failed with exit code 12: cannot create directory /home/alice",
    );
  });

  test("an account that another useradd was just making is waited for", async () => {
    using system = createMachine();
    const useradd = system.programs.get("useradd")!;
    let tries = 0;
    system.programs.set("useradd", (argv, stdin) => {
      tries += 1;
      if (tries < 3) return { code: 1, stderr: "cannot lock /etc/passwd; try again later." };
      void useradd(argv, stdin);
      return { code: 9, stderr: "user 'alice' already exists" };
    });
    expect((await createAccount(system, distro, { name: "alice" }, HOME)).account.name).toBe(
      "alice",
    );
  });

  test("provisioning.md DB-06: a name that would be an option never reaches the program", async () => {
    using system = createMachine();
    await expect(createAccount(system, distro, { name: "-rf" }, HOME)).rejects.toThrow(
      "not a usable user name",
    );
    expect(system.commands).toEqual([]);
  });

  test("BusyBox systems have adduser only", async () => {
    using system = createMachine();
    const useradd = system.programs.get("useradd")!;
    system.programs.delete("useradd");
    system.programs.set("adduser", ([, , name = ""]) => useradd(["useradd", "-m", name], ""));
    await createAccount(system, distroOf("Alpine"), { name: "alice" }, HOME);
    expect(system.commands).toContainEqual(["adduser", "-D", "alice"]);
    const error = await createAccount(
      system,
      distroOf("Alpine"),
      { name: "bob", expires: "2030-01-01" },
      HOME,
    ).catch((e: unknown) => e);
    expect(inWords(error)).toContain("adduser of BusyBox does not know");
  });
});

describe("passwords", () => {
  const password = new Secret("pa:ss wörd $%\\\"'");

  test("provisioning.md USER-11 USER-12 DB-07: a SHA-512 hash with a fresh salt, by standard input only", async () => {
    using system = createMachine();
    const { account } = await createAccount(system, distro, { name: "alice" }, HOME);
    const stdins: string[] = [];
    const chpasswd = system.programs.get("chpasswd")!;
    system.programs.set("chpasswd", (argv, stdin) => {
      stdins.push(stdin);
      return chpasswd(argv, stdin);
    });
    await setPassword(system, distro, account, { password, config: configOf() });
    const hash = system.files
      .readText("/etc/shadow")
      .split("\n")
      .find((line) => line.startsWith("alice:"))!
      .split(":")[1]!;
    const [, id, salt = ""] = hash.split("$");
    expect(id).toBe("6");
    expect(salt).toMatch(/^[A-Za-z0-9]{10}$/);
    expect(hash).toBe(crypt("6", password.reveal(), salt));
    expect(stdins).toEqual([`alice:${hash}\n`]);
    expect(system.commands.at(-1)).toEqual(["chpasswd", "-e"]);
    expect(JSON.stringify(system.commands)).not.toContain(salt);
  });

  test("provisioning.md USER-11: salts have the configured length and never repeat", () => {
    expect(new Set(Array.from({ length: 100 }, () => randomSalt(10))).size).toBe(100);
    expect(randomSalt(16)).toMatch(/^[A-Za-z0-9]{16}$/);
  });

  test("provisioning.md USER-10 ERR-04: a system user keeps its password, unless the configuration allows it", async () => {
    using system = createMachine();
    const daemon = await requireAccount(system, "daemon");
    const before = system.files.readText("/etc/shadow");
    const refused = setPassword(system, distro, daemon, { password, config: configOf() });
    await expect(refused).rejects.toThrow(
      "User daemon is a system user, its password will not be set",
    );
    await refused.catch(() => {});
    expect(system.files.readText("/etc/shadow")).toBe(before);
    const config = configOf({ "Provisioning.AllowResetSysUser": true });
    await setPassword(system, distro, daemon, { password, config });
    expect(system.files.readText("/etc/shadow")).toContain("daemon:$6$");
  });

  test("provisioning.md USER-10: UID_MIN of login.defs decides, 100 without it; core is an ordinary user", async () => {
    using system = createMachine();
    expect(minimumUid(system)).toBe(1000);
    const core = {
      name: "core",
      uid: 500,
      gid: 500,
      comment: "",
      home: "/home/core",
      shell: "",
    } as const;
    expect(isSystemUser(system, distro, core)).toBe(true);
    expect(isSystemUser(system, distroOf("CoreOS"), core)).toBe(false);
    system.files.remove("/etc/login.defs");
    expect(minimumUid(system)).toBe(100);
    expect(isSystemUser(system, distro, core)).toBe(false);
  });

  test("a password longer than the system can check is refused before anything is changed", async () => {
    using system = createMachine();
    const { account } = await createAccount(system, distro, { name: "alice" }, HOME);
    const long = new Secret("x".repeat(10_240));
    const error = await setPassword(system, distro, account, {
      password: long,
      config: configOf(),
    }).catch((e: unknown) => e);
    expect(inWords(error)).toBe("The password has 10240 bytes, but the system accepts at most 511");
    expect(system.files.readText("/etc/shadow")).toContain("alice:!:");
  });

  test("a database that did not take the hash is an error", async () => {
    using system = createMachine();
    const { account } = await createAccount(system, distro, { name: "alice" }, HOME);
    system.programs.set("chpasswd", () => ({}));
    await expect(
      setPassword(system, distro, account, { password, config: configOf() }),
    ).rejects.toThrow("/etc/shadow does not have it");
  });

  test("provisioning.md USER-13 DB-07: yescrypt and bcrypt come from the system's own library", async () => {
    using system = createMachine();
    const seen: string[] = [];
    system.programs.set("mkpasswd", (argv, stdin) => {
      seen.push(`${argv.join(" ")} < ${stdin}`);
      return { stdout: `$y$j9T$${"s".repeat(22)}$${"h".repeat(43)}\n` };
    });
    const hash = await hashPassword(system, new Secret("pw"), { id: "y", saltLength: 10 });
    expect(hash.reveal()).toStartWith("$y$j9T$");
    expect(seen).toEqual(["mkpasswd -m yescrypt -s < pw\n"]);
  });

  test("provisioning.md USER-13: a library that answers *0 falls to the next, and at last the method is refused by name", async () => {
    using system = createMachine();
    system.programs.set("mkpasswd", () => ({ code: 1, stderr: "Invalid method" }));
    system.programs.set("perl", (_, stdin) => ({
      stdout: stdin.startsWith("$2b$12$") ? `${stdin.split("\n")[0]}${"h".repeat(31)}` : "*0",
    }));
    const bcrypt = await hashPassword(system, new Secret("pw"), { id: "2b", saltLength: 10 });
    expect(bcrypt.reveal()).toMatch(/^\$2b\$12\$[./A-Za-z0-9]{22}h{31}$/);
    for (const id of ["gy", "7", "x"])
      await expect(hashPassword(system, new Secret("pw"), { id, saltLength: 10 })).rejects.toThrow(
        id === "gy"
          ? 'cannot produce password hashes of the method "gy"'
          : "not a known password method",
      );
  });

  test("provisioning.md USER-12: FreeBSD takes the hash on descriptor 0; OpenBSD, which would show it, is refused", async () => {
    using system = createMachine();
    let given = "";
    system.programs.set("pw", (_, stdin) => void (given = stdin));
    await applyHash(system, distroOf("FreeBSD"), "alice", new Secret("$6$a$b"));
    expect(system.commands).toEqual([["pw", "usermod", "alice", "-H", "0"]]);
    expect(given).toBe("$6$a$b\n");
    await expect(applyHash(system, distroOf("OpenBSD"), "alice", new Secret("x"))).rejects.toThrow(
      "cannot be set on OpenBSD",
    );
  });
});

test("an account without password can be opened by keys on Alpine, whose sshd refuses locked ones; elsewhere it stays", async () => {
  using system = createMachine();
  const { account } = await createAccount(system, distro, { name: "alice" }, HOME);
  await openForKeys(system, distro, account, { config: configOf() });
  expect(system.files.readText("/etc/shadow")).toContain("alice:!:");
  await openForKeys(system, distroOf("Alpine"), account, { config: configOf() });
  expect(system.files.readText("/etc/shadow")).toContain("alice:*:");
  system.commands.length = 0;
  await openForKeys(system, distroOf("Alpine"), account, { config: configOf() });
  expect(system.commands).toEqual([]);
});

describe("deleting an account", () => {
  test("provisioning.md USER-30 DB-35: sessions are ended, then userdel -f -r; nothing is touched", async () => {
    using system = createMachine();
    const { account } = await createAccount(system, distro, { name: "alice" }, HOME);
    system.commands.length = 0;
    await deleteAccount(system, distro, account);
    expect(system.commands).toEqual([
      ["loginctl", "terminate-user", "alice"],
      ["pkill", "-KILL", "-u", "alice"],
      ["userdel", "-f", "-r", "alice"],
    ]);
    expect(system.files.exists("/home/alice")).toBe(false);
    expect(system.files.exists("/var/run/utmp")).toBe(false);
  });

  test("provisioning.md DB-22: a system user stays", async () => {
    using system = createMachine();
    await expect(
      deleteAccount(system, distro, await requireAccount(system, "daemon")),
    ).rejects.toThrow("daemon is a system user, it will not be deleted");
  });
});
