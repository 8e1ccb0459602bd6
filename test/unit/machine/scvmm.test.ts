import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { handOverToScvmm } from "../../../src/machine/scvmm.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const config = { ...defaultConfig(), DetectScvmmEnv: true };
const MARKER = "/mnt/cdrom/secure/linuxosconfiguration.xml";

function prepare(system: FakeSystem, mediaIn: string | undefined): readonly string[][] {
  plant(system, {
    "/proc/modules": "ata_piix 40960 0 - Live 0x0\n",
    "/dev/sda": "",
    "/dev/sr0": "",
    "/dev/sr1": "",
    "/dev/hda": "",
    "/dev/hdc": "",
    "/dev/cdrom": "",
  });
  system.programs.set("mount", (argv) => {
    if (argv.at(-2) !== mediaIn) return { code: 32, stderr: "no medium found" };
    plant(system, { [MARKER]: "<x/>" });
    return {};
  });
  system.programs.set("umount", () => {
    system.files.remove(MARKER);
  });
  return [];
}

const hand = async (system: FakeSystem, settings = config) => {
  const started: (readonly string[])[] = [];
  const handed = await handOverToScvmm(system, settings, {
    kernelRelease: "5.10.0",
    startInstaller: (argv) => void started.push(argv),
  });
  return { handed, started };
};

test("system.md VMM-01 VMM-03 VMM-04 BET-08: the first drive with the marker starts the installer, once, without waiting", async () => {
  using system = createFakeSystem();
  prepare(system, "/dev/sr1");
  const { handed, started } = await hand(system);
  const place = system.files.realPath("/mnt/cdrom/secure");
  expect(handed).toBe(true);
  expect(started).toEqual([["/bin/bash", `${place}/install`, `-p ${place}`]]);
  const mounts = system.commands.filter((argv) => argv[0] === "mount");
  expect(mounts.map((argv) => argv.at(-2))).toEqual([
    "/dev/cdrom",
    "/dev/hdc",
    "/dev/sr0",
    "/dev/sr1",
  ]);
  expect(mounts[0]).toEqual(["mount", "-o", "ro", "-t", "udf,iso9660,vfat", "/dev/cdrom", place]);
  expect(system.lines.at(-1)).toEndWith("Exiting");
});

test("system.md VMM-01: other media are unmounted again, and the start goes on", async () => {
  using system = createFakeSystem();
  prepare(system, undefined);
  system.programs.set("mount", () => ({}));
  const { handed, started } = await hand(system);
  expect(handed).toBe(false);
  expect(started).toEqual([]);
  expect(system.commands.filter((argv) => argv[0] === "umount")).toHaveLength(4);
});

test("system.md VMM-03: media that are mounted there already are found", async () => {
  using system = createFakeSystem();
  prepare(system, undefined);
  plant(system, { [MARKER]: "<x/>" });
  expect((await hand(system)).handed).toBe(true);
});

test("system.md VMM-01: without DetectScvmmEnv, the default, nothing is looked at", async () => {
  using system = createFakeSystem();
  prepare(system, "/dev/sr0");
  expect(defaultConfig().DetectScvmmEnv).toBe(false);
  expect((await hand(system, defaultConfig())).handed).toBe(false);
  expect(system.commands).toEqual([]);
});

test("system.md VMM-02: the IDE driver is loaded when it is missing, looked for three times, and only warned about", async () => {
  using system = createFakeSystem();
  plant(system, { "/proc/modules": "ext4 1 0 - Live 0x0\n" });
  system.programs.set("insmod", () => ({ code: 1, stderr: "No such file" }));
  const before = system.clock.monotonic();
  expect((await hand(system)).handed).toBe(false);
  expect(system.commands).toEqual([
    ["insmod", "/lib/modules/5.10.0/kernel/drivers/ata/ata_piix.ko"],
  ]);
  expect(system.clock.monotonic() - before).toBe(3000);
  expect(system.lines.filter((line) => line.startsWith("WARNING"))).toHaveLength(2);
});
