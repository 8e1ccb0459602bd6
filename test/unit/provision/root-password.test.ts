import { describe, expect, test } from "bun:test";
import { LOCKED_ROOT, lockRootPassword } from "../../../src/provision/root-password.ts";
import { configOf, createMachine, distroOf } from "./machine.ts";

const config = configOf();
const FILE = "/etc/shadow";

describe("root's password", () => {
  test("provisioning.md ROOT-01 DB-26: root's line is the first and locked, mode kept, under the shadow tools' lock", async () => {
    using system = createMachine();
    system.files.write(FILE, "daemon:*:1::::::\nroot:$6$x$y:19000:0:99999:7:::\nbob:!:1::::::\n", {
      mode: 0o640,
    });
    await lockRootPassword(system, distroOf("Default"), config);
    expect(system.files.readText(FILE)).toBe(`${LOCKED_ROOT}\ndaemon:*:1::::::\nbob:!:1::::::\n`);
    expect(LOCKED_ROOT).toBe("root:*LOCK*:14600::::::");
    expect(system.files.stat(FILE)?.mode).toBe(0o640);
    expect(system.files.list("/etc").filter((name) => name.startsWith("shadow"))).toEqual([
      "shadow",
    ]);
    const inode = system.files.stat(FILE)?.inode;
    await lockRootPassword(system, distroOf("Default"), config);
    expect(system.files.stat(FILE)?.inode).toBe(inode!);
  });

  test("provisioning.md ROOT-01: a missing file is an error, but on Clear Linux it is made", async () => {
    using system = createMachine();
    system.files.remove(FILE);
    await expect(lockRootPassword(system, distroOf("Default"), config)).rejects.toThrow(
      "/etc/shadow does not exist",
    );
    await lockRootPassword(system, distroOf("Clear"), config);
    expect(system.files.readText(FILE)).toBe(`${LOCKED_ROOT}\n`);
  });

  test("provisioning.md DB-26: a lock that a living program holds is waited for, and then respected", async () => {
    using system = createMachine();
    system.files.write("/etc/shadow.lock", "42\0");
    system.files.makeDirectory("/proc/42");
    await expect(lockRootPassword(system, distroOf("Default"), config)).rejects.toThrow(
      "/etc/shadow is locked by another program (/etc/shadow.lock)",
    );
    expect(system.files.readText(FILE)).toStartWith("root:$6$");
    system.files.remove("/proc/42");
    await lockRootPassword(system, distroOf("Default"), config);
    expect(system.files.readText(FILE)).toStartWith(`${LOCKED_ROOT}\n`);
  });

  test("provisioning.md ROOT-02: the BSDs have programs for it, appliances only a warning", async () => {
    using system = createMachine();
    for (const program of ["pw", "usermod"]) system.programs.set(program, () => ({}));
    await lockRootPassword(system, distroOf("FreeBSD"), config);
    await lockRootPassword(system, distroOf("OpenBSD"), config);
    await lockRootPassword(system, distroOf("NSBSD"), config);
    expect(system.commands).toEqual([
      ["pw", "usermod", "root", "-h", "-"],
      ["usermod", "-p", "*", "root"],
    ]);
    expect(system.lines).toHaveLength(1);
  });
});
