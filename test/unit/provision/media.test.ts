import { describe, expect, test } from "bun:test";
import { describe as inWords } from "../../../src/base/error.ts";
import {
  copyPath,
  ejectMedium,
  findDevices,
  readCopy,
  readMedium,
  saveCopy,
} from "../../../src/provision/media.ts";
import { configOf, createMachine, insertDvd, ovf } from "./machine.ts";

const config = configOf();

describe("the provisioning DVD", () => {
  test("provisioning.md DVD-02 DVD-04 DVD-05 DVD-06 DVD-07 DVD-08 DB-03: mounted, read, saved without its password, unmounted", async () => {
    using system = createMachine();
    insertDvd(system, `\uFEFF${ovf({ password: "s3cret" })}`);
    const { document, device } = await readMedium(system, config);
    expect(document.password?.reveal()).toBe("s3cret");
    expect(device).toBe("/dev/sr0");
    const point = system.root.real("/mnt/cdrom/secure");
    expect(system.commands).toEqual([
      ["mount", "-o", "ro", "-t", "udf,iso9660,vfat", "/dev/sr0", point],
      ["umount", point],
    ]);
    expect(system.files.list("/mnt/cdrom/secure")).toEqual([]);
    expect(system.files.readText("/var/lib/waagent/ovf-env.xml")).toBe(ovf({ password: "*" }));
    expect(system.files.stat("/var/lib/waagent/ovf-env.xml")?.mode).toBe(0o600);
  });

  test("provisioning.md DVD-01 DB-04: every optical name is a candidate, the labelled one first and disks last", () => {
    using system = createMachine();
    for (const name of [
      "vdb",
      "vda",
      "sda",
      "sr10",
      "sr0",
      "hdc",
      "cdrom0",
      "cd1",
      "sr0x",
      "vdb1",
      "tty",
    ])
      system.files.write(`/dev/${name}`, "");
    system.files.link("sr10", "/dev/cdrom");
    system.files.makeDirectory("/dev/disk/by-label");
    system.files.link("../../hdc", "/dev/disk/by-label/rd_rdfe_stable.160");
    expect(findDevices(system)).toEqual([
      "/dev/hdc",
      "/dev/sr0",
      "/dev/sr10",
      "/dev/cd1",
      "/dev/cdrom0",
      "/dev/vdb",
    ]);
  });

  test("system.md UTIL-07: every name of the pattern is found, mounted read-only by its three types, and ejected unless it is virtio", async () => {
    using system = createMachine();
    const names = ["sr0", "sr9", "hdc", "hdz", "cdrom0", "cd0", "vdb", "vdz"];
    for (const name of [...names, "hda", "hdb", "vda", "sda", "nvme0n1"])
      system.files.write(`/dev/${name}`, "");
    expect(findDevices(system).toSorted()).toEqual(
      names.map((name) => `/dev/${name}` as const).toSorted(),
    );
    for (const name of names.filter((other) => other !== "sr9"))
      system.files.remove(`/dev/${name}`);
    insertDvd(system, ovf(), "sr9");
    await readMedium(system, config);
    expect(system.commands[0]?.slice(0, 6)).toEqual([
      ...["mount", "-o", "ro", "-t", "udf,iso9660,vfat", "/dev/sr9"],
    ]);
    system.commands.length = 0;
    await ejectMedium(system, "/dev/sr9");
    await ejectMedium(system, "/dev/vdb");
    expect(system.commands).toEqual([["eject", "/dev/sr9"]]);
  });

  test("provisioning.md DB-04: a disk without a document is passed over and not ejected", async () => {
    using system = createMachine();
    system.files.write("/dev/sr0", "");
    system.files.makeDirectory("/media/dev/sr0");
    system.files.write("/media/dev/sr0/other.txt", "");
    insertDvd(system, ovf(), "sr1");
    expect((await readMedium(system, config)).device).toBe("/dev/sr1");
    expect(system.commands.filter(([program]) => program === "umount")).toHaveLength(2);
  });

  test("provisioning.md DVD-03: what is already mounted is read there, and left to whoever mounted it", async () => {
    using system = createMachine();
    system.files.write("/dev/sr0", "");
    system.files.makeDirectory("/media/my disk");
    system.files.write("/media/my disk/ovf-env.xml", ovf({ hostName: "elsewhere" }));
    system.files.write("/proc/self/mounts", "/dev/sr0 /media/my\\040disk udf ro 0 0\n");
    const { document, device } = await readMedium(system, config);
    expect(document.hostName).toBe("elsewhere");
    expect(device).toBeUndefined();
    expect(system.commands).toEqual([]);
  });

  test("provisioning.md DVD-03 DVD-08: our own mount of an interrupted run is used and undone", async () => {
    using system = createMachine();
    system.files.write("/dev/sr0", "");
    system.files.makeDirectory("/mnt/cdrom/secure");
    system.files.write("/mnt/cdrom/secure/ovf-env.xml", ovf());
    system.files.write("/proc/self/mounts", "/dev/sr0 /mnt/cdrom/secure udf ro 0 0\n");
    expect((await readMedium(system, config)).device).toBe("/dev/sr0");
    expect(system.commands.map(([program]) => program)).toEqual(["umount"]);
  });

  test("provisioning.md DVD-04: five rounds 5 s apart; a DVD that comes late is read", async () => {
    using system = createMachine();
    system.files.write("/dev/sr0", "");
    const mount = system.programs.get("mount")!;
    let tries = 0;
    system.programs.set("mount", (argv, stdin) => {
      tries += 1;
      if (tries === 4) insertDvd(system, ovf());
      return mount(argv, stdin);
    });
    expect((await readMedium(system, config)).document.userName).toBe("alice");
    expect(system.clock.monotonic()).toBe(15_000);
  });

  test("provisioning.md DVD-01 DVD-04 ERR-01: no device after all rounds names what /dev has", async () => {
    using system = createMachine();
    system.files.write("/dev/null", "");
    const error = await readMedium(system, config).catch((reason: unknown) => reason);
    expect(inWords(error)).toBe(
      "[CopyOvfEnv] Could not read the provisioning document from the DVD: There is no DVD device; /dev has: null",
    );
    expect(system.clock.monotonic()).toBe(20_000);
    expect(system.commands).toEqual([
      ["modprobe", "udf"],
      ["modprobe", "isofs"],
    ]);
  });

  test("provisioning.md DVD-04 ERR-01: a mount that fails for ever is reported with the program's words", async () => {
    using system = createMachine();
    system.files.write("/dev/sr0", "");
    const error = await readMedium(system, config).catch((reason: unknown) => reason);
    expect(inWords(error)).toContain("[CopyOvfEnv]");
    expect(inWords(error)).toContain("no medium found");
    expect(system.commands.filter(([program]) => program === "mount")).toHaveLength(5);
  });

  test("provisioning.md DVD-08 DB-04: a document that is wrong fails at once, unmounted, with nothing saved", async () => {
    using system = createMachine();
    insertDvd(system, ovf({ userName: "", password: "s3cret" }));
    const error = await readMedium(system, config).catch((reason: unknown) => reason);
    expect(inWords(error)).toContain("UserName not found");
    expect(inWords(error)).not.toContain("s3cret");
    expect(system.commands.map(([program]) => program)).toEqual(["mount", "umount"]);
    expect(system.files.exists(copyPath(config))).toBe(false);
  });

  test("provisioning.md DVD-08: after a failed umount there is one warning and no eject", async () => {
    using system = createMachine();
    insertDvd(system, ovf());
    system.programs.set("umount", () => ({ code: 32, stderr: "target is busy" }));
    expect((await readMedium(system, config)).device).toBeUndefined();
    expect(system.lines.filter((line) => line.startsWith("WARNING"))).toHaveLength(1);
  });

  test("provisioning.md DVD-08: eject takes the device, never a virtio disk; its failure is a warning", async () => {
    using system = createMachine();
    await ejectMedium(system, "/dev/sr0");
    await ejectMedium(system, "/dev/vdb");
    await ejectMedium(system, undefined);
    expect(system.commands).toEqual([["eject", "/dev/sr0"]]);
    system.programs.set("eject", () => ({ code: 1, stderr: "unable" }));
    await ejectMedium(system, "/dev/sr0");
    system.programs.delete("eject");
    await ejectMedium(system, "/dev/sr0");
    expect(system.lines.map((line) => line.split(" ")[0])).toEqual(["WARNING", "WARNING"]);
  });

  test("provisioning.md DVD-07 DVD-11: the copy can be read again, and is written only when it differs", () => {
    using system = createMachine();
    expect(readCopy(system, config)).toBeUndefined();
    system.files.makeDirectory("/var/lib/waagent");
    // As an older agent, or cloud-init, left it: wide open and with its password.
    system.files.write(copyPath(config), ovf({ password: "s3cret" }), { mode: 0o644 });
    saveCopy(system, config, ovf({ password: "s3cret" }));
    expect(system.files.stat(copyPath(config))?.mode).toBe(0o600);
    expect(system.files.readText(copyPath(config))).not.toContain("s3cret");
    const before = system.files.stat(copyPath(config))?.inode;
    saveCopy(system, config, ovf({ password: "s3cret" }));
    expect(system.files.stat(copyPath(config))?.inode).toBe(before!);
    expect(readCopy(system, config)?.userName).toBe("alice");
  });
});
