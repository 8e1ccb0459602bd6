import { describe, expect, test } from "bun:test";
import { allowSudo, removeSudo } from "../../../src/provision/sudoers.ts";
import { configOf, createMachine, distroOf } from "./machine.ts";

const config = configOf();
const distro = distroOf("Default");
const FILE = "/etc/sudoers.d/waagent";

describe("the sudoers file", () => {
  test("provisioning.md USER-20: one line for each user, mode 0440, NOPASSWD only without a password", async () => {
    using system = createMachine();
    await allowSudo(system, distro, config, { userName: "alice", withoutPassword: true });
    await allowSudo(system, distro, config, { userName: "bob", withoutPassword: false });
    expect(system.files.readText(FILE)).toBe("alice ALL=(ALL) NOPASSWD: ALL\nbob ALL=(ALL) ALL\n");
    expect(system.files.stat(FILE)?.mode).toBe(0o440);
  });

  test("provisioning.md DB-08: a stricter line takes the place of the older one, other lines stay", async () => {
    using system = createMachine();
    system.files.write(
      FILE,
      "# kept\nbob ALL=(ALL) NOPASSWD: ALL\nbobby ALL=(ALL) ALL\nbob ALL=(ALL) ALL\n",
      { mode: 0o440 },
    );
    await allowSudo(system, distro, config, { userName: "bob", withoutPassword: false });
    expect(system.files.readText(FILE)).toBe("# kept\nbob ALL=(ALL) ALL\nbobby ALL=(ALL) ALL\n");
  });

  test("provisioning.md USER-20: an equal line is not written again", async () => {
    using system = createMachine();
    const options = { userName: "alice", withoutPassword: true };
    await allowSudo(system, distro, config, options);
    const before = system.files.stat(FILE)?.inode;
    await allowSudo(system, distro, config, options);
    // Owner root is part of being right, so an ordinary tester sees it written again.
    if (process.getuid!() === 0) expect(system.files.stat(FILE)?.inode).toBe(before!);
    expect(system.files.readText(FILE)).toBe("alice ALL=(ALL) NOPASSWD: ALL\n");
  });

  test("provisioning.md DB-08: what visudo refuses is never put in place", async () => {
    using system = createMachine();
    await allowSudo(system, distro, config, { userName: "alice", withoutPassword: true });
    const checked: string[] = [];
    system.programs.set("visudo", ([, , file = ""]) => {
      checked.push(file.slice(file.lastIndexOf("/") + 1));
      return { code: 1, stderr: "syntax error near line 2" };
    });
    await expect(
      allowSudo(system, distro, config, { userName: "bob", withoutPassword: true }),
    ).rejects.toThrow("visudo refuses the new");
    expect(checked).toEqual([".waagent.new"]);
    expect(system.files.readText(FILE)).toBe("alice ALL=(ALL) NOPASSWD: ALL\n");
    expect(system.files.list("/etc/sudoers.d")).toEqual(["waagent"]);
  });

  test("a name in capitals is quoted: ALL and aliases are words of the file's grammar", async () => {
    using system = createMachine();
    await allowSudo(system, distro, config, { userName: "ALL", withoutPassword: false });
    await allowSudo(system, distro, config, { userName: "ALL", withoutPassword: true });
    expect(system.files.readText(FILE)).toBe('"ALL" ALL=(ALL) NOPASSWD: ALL\n');
    await removeSudo(system, distro, config, "ALL");
    expect(system.files.exists(FILE)).toBe(false);
  });

  test("provisioning.md USER-21: a missing directory is made and included", async () => {
    using system = createMachine();
    system.files.remove("/etc/sudoers.d");
    system.files.write("/etc/sudoers", "root ALL=(ALL:ALL) ALL\n", { mode: 0o440 });
    await allowSudo(system, distro, config, { userName: "alice", withoutPassword: true });
    expect(system.files.readText("/etc/sudoers")).toBe(
      "root ALL=(ALL:ALL) ALL\n\n#includedir /etc/sudoers.d\n",
    );
    expect(system.files.stat("/etc/sudoers.d")?.kind).toBe("directory");
    expect(system.files.exists(FILE)).toBe(true);
  });

  test("provisioning.md USER-22 DB-08: removal takes the user's own lines only", async () => {
    using system = createMachine();
    system.files.write(FILE, "bobby ALL=(ALL) ALL\nbob ALL=(ALL) ALL\n# bob\n", { mode: 0o440 });
    await removeSudo(system, distro, config, "bob");
    expect(system.files.readText(FILE)).toBe("bobby ALL=(ALL) ALL\n# bob\n");
    expect(system.files.stat(FILE)?.mode).toBe(0o440);
  });

  test("provisioning.md USER-23: OpenBSD has doas, appliances have nothing", async () => {
    using system = createMachine();
    await allowSudo(system, distroOf("OpenBSD"), config, {
      userName: "alice",
      withoutPassword: false,
    });
    await allowSudo(system, distroOf("OpenBSD"), config, {
      userName: "alice",
      withoutPassword: true,
    });
    expect(system.files.readText("/etc/doas.conf")).toBe(
      "permit keepenv nopass root\npermit keepenv nopass alice\n",
    );
    await removeSudo(system, distroOf("OpenBSD"), config, "alice");
    expect(system.files.readText("/etc/doas.conf")).toBe("permit keepenv nopass root\n");
    await allowSudo(system, distroOf("Gaia"), config, { userName: "alice", withoutPassword: true });
    expect(system.files.exists(FILE)).toBe(false);
  });
});
