import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  activateResourceDisk,
  otherManager,
  WARNING_TEXT,
} from "../../../src/machine/resource-disk.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant, plantLink } from "./support.ts";

const config = {
  ...defaultConfig(),
  "ResourceDisk.Format": true,
  "ResourceDisk.Filesystem": "ext4",
};
const WARNING = "/mnt/resource/DATALOSS_WARNING_README.txt";

/** A machine with one local NVMe disk; programs change its tree as the real ones would. */
function prepare(system: FakeSystem, content: "blank" | "ntfs" | "ext4"): { content: string } {
  const disk = { content: content as string };
  plant(system, {
    "/sys/class/nvme/nvme1/model": "Microsoft NVMe Direct Disk v2\n",
    "/sys/class/nvme/nvme1/nvme1n1/size": "1",
    "/sys/block/nvme1n1/dev": "259:0\n",
    "/sys/block/nvme1n1/ro": "0\n",
    "/proc/self/mountinfo": "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
  });
  const addPartition = (): void =>
    plant(system, {
      "/sys/block/nvme1n1/nvme1n1p1/partition": "1\n",
      "/sys/block/nvme1n1/nvme1n1p1/dev": "259:1\n",
      "/dev/nvme1n1p1": "",
    });
  if (content !== "blank") addPartition();
  system.programs.set("blkid", (argv) => {
    const whole = argv.at(-1) === "/dev/nvme1n1";
    if (disk.content === "blank" && whole) return { code: 2 };
    if (whole) return { stdout: "PTTYPE=gpt\n" };
    const entry = "PART_ENTRY_SCHEME=gpt\nPART_ENTRY_UUID=0f-01\nPART_ENTRY_TYPE=x\n";
    if (disk.content === "blank") return { stdout: entry };
    return {
      stdout: `TYPE=${disk.content}\nLABEL=Temporary\\ Storage\nUSAGE=filesystem\n${entry}`,
    };
  });
  system.programs.set("dd", () => ({ stdout: "\0".repeat(1024) }));
  system.programs.set("parted", () => addPartition());
  system.programs.set("mkfs.ext4", () => {
    disk.content = "ext4";
  });
  system.programs.set("mount", (argv) =>
    argv.includes("ntfs3") || argv.includes("ntfs") || argv.includes("ntfs-3g")
      ? { code: 32, stderr: "mount: unknown filesystem type" }
      : undefined,
  );
  system.programs.set("umount", () => undefined);
  return disk;
}

const writers = (system: FakeSystem): string[] =>
  system.commands
    .map((argv) => argv[0]!)
    .filter((program) => /^(mkfs|parted|sfdisk|mkswap)/.test(program));

test("system.md PEER-15 BET-02 DISK-10 DISK-17 DISK-19 DISK-24: a blank local NVMe disk is partitioned, formatted and mounted", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  expect(await activateResourceDisk(system, config)).toEqual({
    state: "mounted",
    device: "/dev/nvme1n1p1",
    mountPoint: "/mnt/resource",
    fileSystem: "ext4",
  });
  const place = system.files.realPath("/mnt/resource");
  expect(system.commands).toContainEqual(["mkfs.ext4", "-F", "/dev/nvme1n1p1"]);
  expect(system.commands).toContainEqual(["mount", "-t", "ext4", "/dev/nvme1n1p1", place]);
  expect(system.files.readText(WARNING)).toBe(WARNING_TEXT);
  expect(system.lines.at(-1)).toBe(
    "INFO ExtHandler ExtHandler Resource disk /dev/nvme1n1p1 is mounted at /mnt/resource with ext4",
  );
  expect(system.files.list("/var/lib/waagent")).toEqual([]);
});

test("system.md DISK-21: the warning file has 333 bytes of ASCII and names the link", () => {
  expect(Buffer.from(WARNING_TEXT, "utf8")).toHaveLength(333);
  expect(WARNING_TEXT).toMatch(/^[\n\x20-\x7e]*$/);
  expect(WARNING_TEXT).toContain(
    "http://msdn.microsoft.com/en-us/library/windowsazure/jj672979.aspx",
  );
});

test("system.md DISK-01 DISK-08: with Format=n, the code's default, nothing is done; without a disk it is one INFO line", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  expect(defaultConfig()["ResourceDisk.Format"]).toBe(false);
  expect(await activateResourceDisk(system, defaultConfig())).toEqual({ state: "off" });
  expect(system.commands).toEqual([]);

  using other = createFakeSystem();
  expect((await activateResourceDisk(other, config)).state).toBe("absent");
  expect(other.lines).toHaveLength(1);
  expect(other.lines[0]).toStartWith("INFO");
  expect(other.events).toEqual([]);
});

test("system.md BET-05: swap may use a disk that somebody else mounted, though Format=n", async () => {
  using system = createFakeSystem();
  prepare(system, "ext4");
  plant(system, {
    "/proc/self/mountinfo": "1 1 259:1 / /mnt rw - ext4 /dev/nvme1n1p1 rw\n",
  });
  const swapOnly = { ...defaultConfig(), "ResourceDisk.EnableSwap": true };
  expect(await activateResourceDisk(system, swapOnly)).toMatchObject({
    state: "mounted",
    mountPoint: "/mnt",
  });
  expect(system.files.exists("/mnt/DATALOSS_WARNING_README.txt")).toBe(false);
  expect(writers(system)).toEqual([]);
});

test("a missing mkfs, an unknown file system, a taken mount point are found out before the disk is changed", async () => {
  for (const [change, text] of [
    [{ "ResourceDisk.Filesystem": "xfs" }, "mkfs.xfs is not installed"],
    [{ "ResourceDisk.Filesystem": "ufs" }, "ResourceDisk.Filesystem=ufs is not supported"],
    [{ "ResourceDisk.MountPoint": "/" }, "/ is taken: /dev/sda1 is mounted there"],
  ] as const) {
    using system = createFakeSystem();
    prepare(system, "blank");
    const outcome = await activateResourceDisk(system, { ...config, ...change });
    expect(outcome).toMatchObject({ state: "failed", reason: expect.stringContaining(text) });
    expect(writers(system)).toEqual([]);
    expect(system.events).toMatchObject([{ operation: "ActivateResourceDisk", success: false }]);
  }
});

test("system.md DISK-18: a partition that does not appear is waited for 5 times 5 s and then an error", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  system.programs.set("parted", () => undefined);
  const before = system.clock.monotonic();
  expect(await activateResourceDisk(system, config)).toMatchObject({
    state: "failed",
    reason: expect.stringContaining("Partition was not created"),
  });
  expect(system.clock.monotonic() - before).toBe(25_000);
});

test("system.md DISK-19: a mount that says that it is already mounted counts as mounted", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  system.programs.set("mount", () => ({
    code: 32,
    stderr: "mount: /dev/nvme1n1p1 is already mounted",
  }));
  expect(await activateResourceDisk(system, config)).toMatchObject({ state: "mounted" });
  expect(system.lines.some((line) => line.startsWith("WARNING"))).toBe(true);
});

test("a format that failed half-way is done again at the next start, although the partition is not blank any more", async () => {
  using system = createFakeSystem();
  const disk = prepare(system, "ntfs");
  system.programs.set("mkfs.ext4", () => ({ code: 1, stderr: "Input/output error" }));
  expect((await activateResourceDisk(system, config)).state).toBe("failed");
  disk.content = "LVM2_member";
  system.programs.set("mkfs.ext4", () => {
    disk.content = "ext4";
  });
  // The note holds what blkid -o value printed: the partition's id.
  plant(system, {
    "/var/lib/waagent/waagent-resource-disk.json": '{"version":1,"formatting":"0f-01"}',
  });
  expect(await activateResourceDisk(system, config)).toMatchObject({ state: "mounted" });
});

test("system.md PKG-15: fstab lines for the disk in all their spellings mean that somebody else manages it", () => {
  for (const [line, text] of [
    [
      "/dev/disk/cloud/azure_resource-part1 /mnt auto defaults,comment=cloudconfig 0 2",
      "cloud-init",
    ],
    ["/dev/disk/azure/resource-part1 /data ext4 defaults 0 2", "/etc/fstab mounts it at /data"],
    ["/dev/sdb1 /data ext4 defaults 0 2", "/etc/fstab mounts it at /data"],
    ["/dev/disk/by-id/x /data ext4 defaults 0 2", "/etc/fstab mounts it at /data"],
    ["UUID=0a-1b /data ext4 defaults 0 2", "/etc/fstab mounts it at /data"],
    ["LABEL=AzureEphmDsk /mnt ext4 comment=azure-ephemeral-disk-setup 0 0", "azure-vm-utils"],
  ] as const) {
    using system = createFakeSystem();
    plantLink(system, "/dev/disk/by-id/x", "../../sdb1");
    plantLink(system, "/dev/disk/by-uuid/0a-1b", "../../sdb1");
    plantLink(system, "/dev/disk/by-uuid/2c-3d", "../../sdba1");
    const others =
      "UUID=1 / ext4 defaults 0 1\nUUID=2c-3d /a ext4 x 0 2\n/dev/sdba1 /a ext4 x 0 2\n";
    plant(system, { "/etc/fstab": others });
    expect(otherManager(system, "sdb")).toBeUndefined();
    plant(system, { "/etc/fstab": `${others}${line}\n` });
    expect(otherManager(system, "sdb")).toContain(text);
    expect(otherManager(system, "sdc") === undefined).toBe(/sdb|by-id|UUID/.test(line));
  }
});

test("system.md DISK-03: the defaults of the code", () => {
  expect(defaultConfig()).toMatchObject({
    "ResourceDisk.Format": false,
    "ResourceDisk.Filesystem": "ext3",
    "ResourceDisk.MountPoint": "/mnt/resource",
    "ResourceDisk.MountOptions": undefined,
    "ResourceDisk.EnableSwap": false,
    "ResourceDisk.EnableSwapEncryption": false,
    "ResourceDisk.SwapSizeMB": 0,
  });
});

test("system.md DISK-16: the table is read again by whatever program can, and nobody minds when none can", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  const create = system.programs.get("parted")!;
  // parted does not tell the kernel, and only blockdev of the three helps.
  system.programs.set("parted", () => undefined);
  system.programs.set("partx", () => ({ code: 1, stderr: "partx: failed" }));
  system.programs.set("blockdev", (argv, stdin) => create(argv, stdin));
  expect(await activateResourceDisk(system, config)).toMatchObject({ state: "mounted" });
  const asked = system.commands.filter((argv) =>
    ["partx", "blockdev", "sfdisk"].includes(argv[0]!),
  );
  expect(asked).toEqual([
    ["partx", "--update", "/dev/nvme1n1"],
    ["blockdev", "--rereadpt", "/dev/nvme1n1"],
  ]);
  expect(system.lines.filter((line) => !line.startsWith("INFO"))).toEqual([]);
});

test("a disk that cannot be looked at is an error, and is not written", async () => {
  using system = createFakeSystem();
  prepare(system, "blank");
  system.programs.set("blkid", () => ({ code: 4, stderr: "Input/output error" }));
  expect(await activateResourceDisk(system, config)).toMatchObject({
    state: "failed",
    reason: expect.stringContaining("Could not find out what /dev/nvme1n1 holds"),
  });
  expect(writers(system)).toEqual([]);
});
