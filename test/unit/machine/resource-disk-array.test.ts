import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { activateResourceDisk } from "../../../src/machine/resource-disk.ts";
import { type Member, planArray } from "../../../src/machine/resource-disk-array.ts";
import { activateSwap } from "../../../src/machine/swap.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { createRaidMachine } from "./raid-machine.ts";
import { plant, plantLink } from "./support.ts";

const config = {
  ...defaultConfig(),
  "ResourceDisk.Format": true,
  "ResourceDisk.Filesystem": "ext4",
};
const NOTE = "/var/lib/waagent/waagent-resource-disk.json";
const mounted = (device: string, fileSystem = "ext4") => ({
  state: "mounted" as const,
  device,
  mountPoint: "/mnt/resource" as const,
  fileSystem,
});
const warnings = (system: FakeSystem): string[] =>
  system.lines.filter((line) => !line.startsWith("INFO") && !line.startsWith("VERBOSE"));

test("system.md PEER-15 PEER-17 OFFER-04 BET-04: blank local NVMe disks become one raid0 with the name, chunk and label of azure-vm-utils", async () => {
  using system = createFakeSystem();
  const machine = createRaidMachine(system, 3);
  expect(await activateResourceDisk(system, config)).toEqual(mounted("/dev/md127"));
  expect(machine.writers()).toEqual([
    [
      ...["mdadm", "--create", "/dev/md/azure-ephemeral-md", "--run", "--metadata=1.2"],
      ...["--level=0", "--chunk=512K", "--raid-devices=3", "--name=azure-ephemeral-md"],
      ...["--homehost=any", "/dev/nvme1n1", "/dev/nvme2n1", "/dev/nvme3n1"],
    ],
    ["mkfs.ext4", "-F", "-L", "AzureEphmDsk", "/dev/md127"],
  ]);
  expect(system.files.exists("/mnt/resource/DATALOSS_WARNING_README.txt")).toBe(true);
  expect(system.files.exists(NOTE)).toBe(false);
  expect(warnings(system)).toEqual([]);

  // A restart of the agent changes nothing, not even without mdadm.
  system.commands.length = 0;
  expect(await activateResourceDisk(system, config)).toEqual(mounted("/dev/md127"));
  system.programs.delete("mdadm");
  expect(await activateResourceDisk(system, config)).toEqual(mounted("/dev/md127"));
  expect(machine.writers()).toEqual([]);
  expect(system.commands.filter(([program]) => program === "mount")).toEqual([]);
});

test("system.md PEER-17: at the next boot the array is started again, or taken as udev started it, whatever the disks are called", async () => {
  for (const udev of ["none", "all", "two"] as const) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 3);
    await activateResourceDisk(system, config);
    plant(system, { "/mnt/resource/precious": "data" });
    system.commands.length = 0;
    machine.reboot(["nvme2n1", "nvme0n1", "nvme7n1"]);
    if (udev === "all") machine.udev();
    // Two of three: the array holds them and cannot be started.
    if (udev === "two") machine.udev(["nvme2n1", "nvme7n1"]);
    const device = udev === "two" ? "/dev/md125" : "/dev/md126";
    expect(await activateResourceDisk(system, config)).toEqual(mounted(device));
    expect(machine.writers()).toEqual([]);
    const assembled = system.commands.filter((argv) => argv[1] === "--assemble");
    expect(assembled).toHaveLength(udev === "all" ? 0 : 1);
    expect(system.commands.filter((argv) => argv[1] === "--stop")).toEqual(
      udev === "two" ? [["mdadm", "--stop", "/dev/md126"]] : [],
    );
    expect(warnings(system)).toEqual([]);
  }
});

test("system.md PEER-17 BET-01: anything foreign on one of the disks means that none is written, and a WARNING names it", async () => {
  const other = { uuid: "a:b", array: "data", level: "raid0", devices: 2 };
  const uuid = "00000000:00000000:00000000:00000001";
  const cases = [
    ["unknown" as const, "/dev/nvme2n1 holds unknown data"],
    [{ ...other, uuid }, '/dev/nvme2n1 is part of the array "data"'],
    [
      { uuid, array: "azure-ephemeral-md", level: "raid1", devices: 2 },
      '/dev/nvme2n1 is part of the array "azure-ephemeral-md"',
    ],
    [
      { uuid, array: "azure-ephemeral-md", level: "raid0", devices: 2 },
      `/dev/nvme2n1 is one of 2 disks of the array ${uuid}`,
    ],
    [{ ...other, uuid: "$(reboot)" }, "/dev/nvme2n1 holds linux_raid_member (raid)"],
  ] as const;
  for (const [content, reason] of cases) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 3);
    machine.disks[1]!.content = content;
    expect(await activateResourceDisk(system, config)).toMatchObject({
      state: "failed",
      reason: expect.stringContaining(reason),
    });
    expect(machine.writers()).toEqual([]);
    expect(system.files.exists(NOTE)).toBe(false);
    expect(warnings(system)).toContain(
      `WARNING ExtHandler ExtHandler The local NVMe disks are not joined: ${reason}`,
    );
    expect(system.events).toMatchObject([{ operation: "ActivateResourceDisk", success: false }]);
  }
});

test("system.md PEER-15 PEER-17: without mdadm, without raid0 in the kernel or with CombineLocalDisks=n the first disk is used and one INFO line names the others and the reason", async () => {
  for (const [why, text] of [
    ["no mdadm", "mdadm is not installed"],
    ["no raid0", "the kernel has no raid0: modprobe raid0 failed with exit code 1: not found"],
    ["switched off", "ResourceDisk.CombineLocalDisks=n"],
  ] as const) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 3);
    if (why === "no mdadm") system.programs.delete("mdadm");
    if (why === "no raid0") {
      plant(system, { "/proc/mdstat": "Personalities : [raid1]\n" });
      system.programs.set("modprobe", () => ({ code: 1, stderr: "not found" }));
    }
    system.programs.set("parted", () =>
      plant(system, {
        "/sys/block/nvme1n1/nvme1n1p1/partition": "1\n",
        "/sys/block/nvme1n1/nvme1n1p1/dev": "259:9\n",
        "/dev/nvme1n1p1": "",
      }),
    );
    const wanted = { ...config, "ResourceDisk.CombineLocalDisks": why !== "switched off" };
    expect(await activateResourceDisk(system, wanted)).toEqual(mounted("/dev/nvme1n1p1"));
    expect(machine.writers().flat()).not.toContain("/dev/nvme2n1");
    expect(machine.writers().flat()).not.toContain("/dev/nvme3n1");
    expect(system.lines.filter((line) => line.includes("left alone"))).toEqual([
      `INFO ExtHandler ExtHandler The resource disk is nvme1n1, the first local NVMe disk (${text}); left alone: nvme2n1, nvme3n1`,
    ]);
    expect(warnings(system)).toEqual([]);
  }
});

test("a disk that was set up alone goes on alone when mdadm comes, under whatever name", async () => {
  using system = createFakeSystem();
  const machine = createRaidMachine(system, 2);
  machine.disks[1]!.content = "unknown";
  plant(system, {
    "/proc/self/mountinfo": "40 1 259:2 / /mnt/resource rw - ext4 /dev/nvme2n1 rw\n",
  });
  expect(await activateResourceDisk(system, config)).toEqual(mounted("/dev/nvme2n1"));
  expect(machine.writers()).toEqual([]);
  expect(system.lines.join("\n")).toContain(
    "The resource disk is nvme2n1, in use already; left alone: nvme1n1",
  );
});

/** A local disk with one partition that holds an ext4 file system with these files. */
function plantPartition(system: FakeSystem, disk: string, files: readonly string[]): void {
  plant(system, {
    [`/sys/block/${disk}/${disk}p1/partition`]: "1\n",
    [`/sys/block/${disk}/${disk}p1/dev`]: "259:90\n",
    [`/dev/${disk}p1`]: "",
    ...Object.fromEntries(files.map((file) => [`/mnt/resource/${file}`, ""])),
  });
  const blkid = system.programs.get("blkid")!;
  system.programs.set("blkid", (argv, stdin) => {
    if (argv.at(-1) === `/dev/${disk}`) return { stdout: "PTTYPE=gpt\n" };
    if (argv.at(-1) !== `/dev/${disk}p1`) return blkid(argv, stdin);
    return { stdout: "TYPE=ext4\nUSAGE=filesystem\nPART_ENTRY_UUID=aa-01\n" };
  });
}

test("a partition on another than the first disk is ours only when it says so", async () => {
  for (const [files, device] of [
    [["DATALOSS_WARNING_README.txt", "precious"], "/dev/nvme2n1p1"],
    [["lost+found"], undefined],
  ] as const) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 3);
    plantPartition(system, "nvme2n1", files);
    const outcome = await activateResourceDisk(system, config);
    if (device === undefined)
      expect(outcome).toMatchObject({
        state: "failed",
        reason: expect.stringContaining("/dev/nvme2n1 has a partition table"),
      });
    else expect(outcome).toEqual(mounted(device));
    expect(machine.writers()).toEqual([]);
  }
});

test("a local disk that the machine itself lives on is no member, by mounts or by udev's link", async () => {
  for (const by of ["mount", "link"]) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 3);
    if (by === "link") plantLink(system, "/dev/disk/azure/os", "../../nvme1n1");
    else plant(system, { "/proc/self/mountinfo": "1 1 259:1 / / rw - ext4 /dev/nvme1n1p1 rw\n" });
    expect(await activateResourceDisk(system, config)).toEqual(mounted("/dev/md127"));
    expect(machine.writers()[0]?.slice(-2)).toEqual(["/dev/nvme2n1", "/dev/nvme3n1"]);
  }
});

test("a creation that was cut short by a reset is done again on the same disks, blank or members by now", async () => {
  for (const [program, by] of [
    ["mdadm", "reset"],
    ["mdadm", "udev"],
    ["mkfs.ext4", "reset"],
    ["mkfs.ext4", "kill"],
  ] as const) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 4);
    const died = machine.killAt(program);
    void activateResourceDisk(system, config);
    await died;
    expect(system.files.exists(NOTE)).toBe(true);
    if (by !== "kill") machine.reboot(["nvme4n1", "nvme3n1", "nvme2n1", "nvme1n1"]);
    if (by === "udev") machine.udev();
    const outcome = await activateResourceDisk(system, config);
    expect(outcome).toMatchObject({ state: "mounted", fileSystem: "ext4" });
    expect(
      new Set(machine.disks.map(({ content }) => (content as { uuid: string }).uuid)).size,
    ).toBe(1);
    expect([...machine.fileSystems.values()]).toEqual(["ext4"]);
    expect(system.files.exists(NOTE)).toBe(false);
  }
});

test("the same mixture on disks of which nothing was begun is left alone", async () => {
  using system = createFakeSystem();
  const machine = createRaidMachine(system, 3);
  await activateResourceDisk(system, config);
  machine.reboot();
  machine.disks[2]!.content = "blank";
  system.commands.length = 0;
  expect(await activateResourceDisk(system, config)).toMatchObject({ state: "failed" });
  expect(machine.writers()).toEqual([]);
  expect(warnings(system)).toContain(
    "WARNING ExtHandler ExtHandler The local NVMe disks are not joined: /dev/nvme3n1 is blank",
  );
});

test("an array that cannot be made leaves blank disks behind", async () => {
  using system = createFakeSystem();
  const machine = createRaidMachine(system, 2);
  const mdadm = system.programs.get("mdadm")!;
  system.programs.set("mdadm", (argv, stdin) => {
    if (argv[1] !== "--create") return mdadm(argv, stdin);
    machine.disks[0]!.content = {
      ...{ uuid: "00000000:00000000:00000000:00000001", array: "azure-ephemeral-md" },
      ...{ level: "raid0", devices: 2 },
    };
    return { code: 1, stderr: "mdadm: RUN_ARRAY failed: Invalid argument" };
  });
  expect(await activateResourceDisk(system, config)).toMatchObject({
    state: "failed",
    reason: expect.stringContaining("RUN_ARRAY failed"),
  });
  expect(machine.disks.map(({ content }) => content)).toEqual(["blank", "blank"]);
});

test("a file system that is missing or a mount point that is taken is found out before disks are joined", async () => {
  for (const change of [
    { "ResourceDisk.Filesystem": "btrfs" },
    { "ResourceDisk.MountPoint": "/" as const },
  ]) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 2);
    expect(await activateResourceDisk(system, { ...config, ...change })).toMatchObject({
      state: "failed",
    });
    expect(machine.writers()).toEqual([]);
  }
});

test("system.md PKG-15 BET-33: disks or an array that fstab names are left to whoever wrote the line", async () => {
  for (const [line, joined] of [
    ["/dev/nvme2n1 /data ext4 defaults 0 2", false],
    ["/dev/md/azure-ephemeral-md /data ext4 defaults 0 2", true],
    ["/dev/md126 /data ext4 defaults 0 2", true],
    ["LABEL=AzureEphmDsk /mnt ext4 nofail,comment=azure-ephemeral-disk-setup 0 0", false],
  ] as const) {
    using system = createFakeSystem();
    const machine = createRaidMachine(system, 2);
    if (joined) {
      await activateResourceDisk(system, config);
      machine.reboot();
    }
    system.commands.length = 0;
    plant(system, { "/etc/fstab": `${line}\n` });
    plantLink(system, "/dev/md/azure-ephemeral-md", "../md126");
    expect(await activateResourceDisk(system, config)).toMatchObject({ state: "left-to-others" });
    expect(machine.writers()).toEqual([]);
  }
});

test("system.md BET-05: with Format=n nothing is joined, and swap may use an array that somebody mounted", async () => {
  using system = createFakeSystem();
  const machine = createRaidMachine(system, 2);
  const swapOnly = { ...defaultConfig(), "ResourceDisk.EnableSwap": true };
  expect(await activateResourceDisk(system, swapOnly)).toEqual({ state: "off" });
  await activateResourceDisk(system, config);
  system.commands.length = 0;
  expect(await activateResourceDisk(system, swapOnly)).toEqual(mounted("/dev/md127"));
  expect(machine.writers()).toEqual([]);
  const outcome = await activateSwap(
    system,
    { ...swapOnly, "ResourceDisk.SwapSizeMB": 0 },
    "/mnt/resource",
  );
  expect(outcome).toMatchObject({ state: "failed" });
});

test("the plan: only whole arrays of our own are used or started, only disks without a trace are joined", () => {
  const uuid = "00000000:00000000:00000000:00000001";
  const blank = (name: string): Member => ({
    name,
    identity: `id-${name}`,
    content: { kind: "blank" },
  });
  const member = (name: string, array?: string, started = true, other = uuid): Member => ({
    name,
    identity: `id-${name}`,
    content: {
      kind: "member",
      superblock: { uuid: other, name: "azure-ephemeral-md", level: "raid0", devices: 2 },
      array: array === undefined ? undefined : { name: array, started },
    },
  });
  const plan = (members: Member[], begun?: string[]) => planArray(members, begun);
  expect(plan([blank("a"), blank("b")])).toEqual({ do: "create", stop: [] });
  expect(plan([member("a"), member("b")])).toEqual({ do: "assemble", uuid, stop: [] });
  expect(plan([member("a", "md1"), member("b", "md1")])).toEqual({ do: "use", uuid, array: "md1" });
  expect(plan([member("a", "md1", false), member("b")])).toMatchObject({
    do: "assemble",
    stop: ["md1"],
  });
  for (const members of [
    [member("a", "md1"), member("b", "md2")],
    [member("a", "md1"), member("b")],
    [member("a"), member("b", undefined, true, uuid.replace(/1$/, "2"))],
    [member("a"), member("b"), member("c")],
    [member("a"), blank("b")],
  ])
    expect(plan(members).do).toBe("refuse");
  expect(plan([member("a"), blank("b")], ["id-b", "id-a"]).do).toBe("create");
  expect(plan([member("a"), blank("b")], ["id-b", "id-c"]).do).toBe("refuse");
  expect(plan([member("a"), blank("b")], ["id-a"]).do).toBe("refuse");
  // A running array is never made anew.
  expect(plan([member("a", "md1"), blank("b")], ["id-a", "id-b"]).do).toBe("refuse");
});
