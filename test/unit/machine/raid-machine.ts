import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import type { FakeSystem } from "../../fakes/system.ts";
import { plant, plantLink } from "./support.ts";

/** What one local disk holds. */
export interface RaidDisk {
  readonly name: string;
  readonly serial: string;
  content: "blank" | "unknown" | { uuid: string; array: string; level: string; devices: number };
}

export interface RaidMachine {
  readonly disks: RaidDisk[];
  /** File systems by array UUID. */
  readonly fileSystems: Map<string, string>;
  /** Programs that changed a disk, in order. */
  writers(): string[][];
  /** Everything the kernel knew is gone; `names` gives the disks other numbers. */
  reboot(names?: readonly string[]): void;
  /** The next run of this program does the first half of its work, and neither it nor the agent comes back. */
  killAt(program: string): Promise<void>;
  /** Arrays the kernel has: name to its members. */
  readonly arrays: Map<string, { members: string[]; started: boolean }>;
  /** As udev does at boot: every disk of an array that is there is given to the kernel. */
  udev(present?: readonly string[]): void;
}

const UUID = "c37845ef:1066942c:fa20b46f:e1549bf4";

/**
 * A machine with several local NVMe disks and a kernel with raid0. mdadm answers as 4.2 on Linux 6.1 did: names of
 * arrays count down from md127, a stopped one keeps its name for a while, a disk that is held is refused.
 */
export function createRaidMachine(system: FakeSystem, count: number): RaidMachine {
  const disks: RaidDisk[] = [];
  const arrays: RaidMachine["arrays"] = new Map();
  const fileSystems = new Map<string, string>();
  const mounts = new Map<string, string>();
  let next = 127;
  let created = 0;
  let doomed: { program: string; died: () => void } | undefined;
  const real = (file: string): string => path.join(system.root.directory, file);

  const machine: RaidMachine = {
    disks,
    fileSystems,
    arrays,
    killAt: (program) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      doomed = { program, died: resolve };
      return promise;
    },
    writers: () =>
      system.commands.filter(
        ([program = "", verb = ""]) =>
          /^(mkfs|parted|sfdisk|wipefs)/.test(program) ||
          (program === "mdadm" && !["--examine", "--assemble", "--stop"].includes(verb)),
      ),
    reboot: (names) => {
      for (const array of [...arrays.keys()]) release(array);
      mounts.clear();
      if (names !== undefined)
        for (const [index, disk] of disks.entries())
          Object.assign(disk, { name: names[index] ?? disk.name });
      show();
    },
    udev: (present = disks.map(({ name }) => name)) => {
      const members = disks.filter(
        ({ name, content }) => typeof content === "object" && present.includes(name),
      );
      const [first] = members;
      if (first === undefined || typeof first.content !== "object") return;
      hold(
        members.map(({ name }) => name),
        members.length === first.content.devices,
      );
    },
  };

  function show(): void {
    for (const folder of ["/sys/class/nvme", "/sys/block"])
      rmSync(real(folder), { recursive: true, force: true });
    for (const { name, serial } of disks) {
      const controller = name.replace(/n\d+$/, "");
      plant(system, {
        [`/sys/class/nvme/${controller}/model`]: "Microsoft NVMe Direct Disk v2\n",
        [`/sys/class/nvme/${controller}/${name}/size`]: "1\n",
        [`/sys/block/${name}/dev`]: `259:${name.replace(/\D/g, "")}\n`,
        [`/sys/block/${name}/ro`]: "0\n",
        [`/sys/block/${name}/wwid`]: `${serial}\n`,
        [`/dev/${name}`]: "",
      });
      // The directory is there although nothing holds the disk.
      plant(system, { [`/sys/block/${name}/holders/.keep`]: "" });
      rmSync(real(`/sys/block/${name}/holders/.keep`));
    }
    plant(system, { "/proc/mdstat": "Personalities : [raid0] \nunused devices: <none>\n" });
    showMounts();
  }

  function showMounts(): void {
    const lines = [...mounts].map(
      ([device, place], index) =>
        `${index + 30} 1 9:${device.replace(/\D/g, "")} / ${place} rw - ext4 ${device} rw\n`,
    );
    plant(system, {
      "/proc/self/mountinfo": `1 1 8:1 / / rw - ext4 /dev/sda1 rw\n${lines.join("")}`,
    });
  }

  function hold(members: string[], started: boolean): string {
    const name = `md${next}`;
    next -= 1;
    arrays.set(name, { members, started });
    plant(system, {
      [`/sys/block/${name}/md/array_state`]: started ? "clean\n" : "inactive\n",
      [`/sys/block/${name}/dev`]: `9:${name.slice(2)}\n`,
      [`/sys/block/${name}/ro`]: "0\n",
      [`/dev/${name}`]: "",
    });
    for (const member of members)
      plantLink(system, `/sys/block/${member}/holders/${name}`, `../../${name}`);
    return name;
  }

  function release(name: string): void {
    for (const member of arrays.get(name)?.members ?? [])
      rmSync(real(`/sys/block/${member}/holders/${name}`), { force: true });
    rmSync(real(`/sys/block/${name}`), { recursive: true, force: true });
    arrays.delete(name);
  }

  const diskOf = (device: string): RaidDisk | undefined =>
    disks.find(({ name }) => `/dev/${name}` === device);
  const holderOf = (disk: string): string | undefined =>
    [...arrays].find(([, { members }]) => members.includes(disk))?.[0];
  const busy = (device: string) => ({
    code: 2,
    stderr: `mdadm: ${device} is busy - skipping`,
  });
  const dies = async (program: string): Promise<void> => {
    if (doomed?.program !== program) return;
    doomed.died();
    doomed = undefined;
    await new Promise(() => undefined);
  };

  for (let number = 1; number <= count; number += 1)
    disks.push({ name: `nvme${number}n1`, serial: `serial-${number}`, content: "blank" });
  show();

  system.programs.set("mdadm", async (argv) => {
    const devices = argv.filter((word) => diskOf(word) !== undefined);
    const verb = argv[1];
    if (verb === "--examine") {
      const content = diskOf(argv.at(-1) ?? "")?.content;
      if (typeof content !== "object") return { code: 1 };
      const { uuid, array, level, devices: number } = content;
      return {
        stdout: `MD_LEVEL=${level}\nMD_DEVICES=${number}\nMD_NAME=any:${array}\nMD_UUID=${uuid}\n`,
      };
    }
    if (verb === "--stop") {
      release((argv[2] ?? "").slice("/dev/".length));
      return undefined;
    }
    const held = devices.find((device) => holderOf(device.slice("/dev/".length)) !== undefined);
    if (held !== undefined) return busy(held);
    if (verb === "--zero-superblock") {
      for (const device of devices) diskOf(device)!.content = "blank";
      return undefined;
    }
    const names = devices.map((device) => device.slice("/dev/".length));
    if (verb === "--assemble") {
      const uuid = argv.find((word) => word.startsWith("--uuid="))?.slice("--uuid=".length);
      const fits = devices.every((device) => {
        const { content } = diskOf(device)!;
        return (
          typeof content === "object" && content.uuid === uuid && content.devices === devices.length
        );
      });
      if (!fits) return { code: 2, stderr: "mdadm: no recogniseable superblock" };
      hold(names, true);
      return undefined;
    }
    created += 1;
    const uuid = UUID.replace(/^./, `${created}`);
    const half = Math.floor(names.length / 2);
    for (const [index, device] of devices.entries()) {
      if (index === half) await dies("mdadm");
      diskOf(device)!.content = {
        uuid,
        array: "azure-ephemeral-md",
        level: "raid0",
        devices: devices.length,
      };
    }
    hold(names, true);
    return undefined;
  });
  const uuidOf = (device: string): string => {
    const [member = ""] = arrays.get(device.slice("/dev/".length))?.members ?? [];
    const content = diskOf(`/dev/${member}`)?.content;
    return typeof content === "object" ? content.uuid : "";
  };
  system.programs.set("blkid", (argv) => {
    const device = argv.at(-1) ?? "";
    const disk = diskOf(device);
    if (disk !== undefined)
      return typeof disk.content === "object"
        ? { stdout: "TYPE=linux_raid_member\nUSAGE=raid\n" }
        : { code: 2 };
    const type = fileSystems.get(uuidOf(device));
    if (type === undefined) return { code: 2 };
    // Signatures of what was there and of what is coming.
    return type === "half"
      ? { code: 8 }
      : { stdout: `TYPE=${type}\nLABEL=AzureEphmDsk\nUSAGE=filesystem\n` };
  });
  system.programs.set("dd", (argv) => {
    const device = argv.find((word) => word.startsWith("if="))?.slice("if=".length) ?? "";
    const blank = diskOf(device)?.content !== "unknown";
    return { stdout: (blank ? "\0" : "x").repeat(512) };
  });
  for (const type of ["ext4", "xfs"])
    system.programs.set(`mkfs.${type}`, async (argv) => {
      const uuid = uuidOf(argv.at(-1) ?? "");
      fileSystems.set(uuid, "half");
      await dies(`mkfs.${type}`);
      fileSystems.set(uuid, type);
    });
  // Looked at, or mounted in earnest: the files are those of the one file system there is.
  const peek = real("/run/waagent/resource-disk");
  system.programs.set("mount", (argv) => {
    if (argv.at(-1) !== peek) {
      mounts.set(argv.at(-2) ?? "", "/mnt/resource");
      showMounts();
    } else if (existsSync(real("/mnt/resource")))
      cpSync(real("/mnt/resource"), peek, { recursive: true });
  });
  system.programs.set("umount", () => {
    rmSync(peek, { recursive: true });
    mkdirSync(peek);
  });
  return machine;
}
