import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Sandbox } from "../sandbox.ts";
import { host, type LoopDisk } from "./loop-disk.ts";
import { createMachineSandbox } from "./support.ts";

/** Disks in the state in which a VM may find them, and machines that say which one is the temporary disk. */

export type Generation = 1 | 2;

const PLATFORM_LABEL = "Temporary Storage";
const LOCAL_MODEL = "Microsoft NVMe Direct Disk v2";
const REMOTE_MODEL = "MSFT NVMe Accelerator v1.0";

export function config(
  fileSystem: string,
  rest: Record<string, unknown> = {},
): Record<string, unknown> {
  return { "ResourceDisk.Format": true, "ResourceDisk.Filesystem": fileSystem, ...rest };
}

/** A machine whose VMBus says that a loop device is its temporary disk. */
export async function createDiskSandbox(disk: LoopDisk, generation: Generation): Promise<Sandbox> {
  const sandbox = await createMachineSandbox();
  await sandbox.run(["mount", "-t", "devtmpfs", "devtmpfs", "/dev"]);
  await sandbox.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/bus"]);
  const device = "/sys/bus/vmbus/devices/00000000-1111-2222-3333-444444444444";
  const id =
    generation === 1
      ? "{00000000-0001-8899-0000-000000000000}"
      : "{f8b3781a-1e82-4818-a1c3-63d806ec15bb}";
  sandbox.write(`${device}/device_id`, `${id}\n`);
  const address = generation === 1 ? "1:0:1:0" : "0:0:0:1";
  sandbox.write(`${device}/host1/target/${address}/block/${disk.name}/size`, "1\n");
  return sandbox;
}

/** udev's part for disks that go by another name: nodes and sysfs entries of partitions and arrays. */
const SHOW_DISKS = `#!/bin/sh
for number in 127 126 125 124; do
    array=/sys/devices/virtual/block/md$number
    # A link into nothing until there is such an array: mdadm looks for it as soon as it made one.
    ln -sfn "$array" "/sys/block/md$number"
    [ -e "$array/dev" ] && [ ! -e "/dev/md$number" ] && mknod "/dev/md$number" b 9 "$number"
done
while read -r alias loop; do
    rm -rf /sys/block/$alias/\${alias}p* /dev/\${alias}p* /sys/block/$alias/holders
    cp -R /sys/devices/virtual/block/$loop/holders /sys/block/$alias/
    for entry in /sys/devices/virtual/block/$loop/\${loop}p*; do
        [ -e "$entry" ] || continue
        name=\${alias}p$(cat "$entry/partition")
        mkdir "/sys/block/$alias/$name"
        cp "$entry/partition" "$entry/dev" "/sys/block/$alias/$name/"
        mknod "/dev/$name" b "$(cut -d: -f1 <"$entry/dev")" "$(cut -d: -f2 <"$entry/dev")"
    done
done </run/aliases
`;

/**
 * A machine whose loop devices are NVMe disks by name, node and sysfs: nvme0n1 is a remote data disk, nvme1n1 and the
 * following are local ones. The tools that change partition tables are the real ones.
 */
export async function createNvmeSandbox(
  remote: LoopDisk,
  local: readonly LoopDisk[],
): Promise<Sandbox> {
  const sandbox = await createMachineSandbox();
  await sandbox.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/class"]);
  await sandbox.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/block"]);
  const aliases: string[] = [];
  for (const [index, disk] of [remote, ...local].entries()) {
    const alias = `nvme${index}n1`;
    const model = index === 0 ? REMOTE_MODEL : LOCAL_MODEL;
    const number = host("cat", `/sys/block/${disk.name}/dev`).trim();
    sandbox.write(`/sys/class/nvme/nvme${index}/model`, `${model.padEnd(40)}\n`);
    sandbox.write(`/sys/class/nvme/nvme${index}/${alias}/size`, "1\n");
    sandbox.write(`/sys/block/${alias}/dev`, `${number}\n`);
    sandbox.write(`/sys/block/${alias}/ro`, "0\n");
    sandbox.write(`/sys/block/${alias}/wwid`, `nvme.serial-${index}\n`);
    await sandbox.run(["mknod", `/dev/${alias}`, "b", ...number.split(":")]);
    aliases.push(`${alias} ${disk.name}\n`);
  }
  sandbox.write("/run/aliases", aliases.join(""));
  sandbox.write("/usr/local/sbin/show-disks", SHOW_DISKS, 0o755);
  for (const tool of ["parted", "partx", "mdadm"]) {
    const real = Bun.which(tool, { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }) ?? tool;
    const script = `#!/bin/sh\n${real} "$@"\ncode=$?\nshow-disks\nexit $code\n`;
    sandbox.write(`/usr/local/sbin/${tool}`, script, 0o755);
  }
  await sandbox.run(["show-disks"]);
  return sandbox;
}

/** What the platform hands over: one NTFS partition with its own label. */
export function platformDisk(
  disk: LoopDisk,
  table: "msdos" | "gpt",
  files: readonly string[] = [],
): void {
  const words = ["mkpart", "primary", "ntfs", "1MiB", "100%"];
  host("parted", "--script", disk.device, "mklabel", table, ...words);
  ntfs(disk.partition(1), files);
}

export function ntfs(device: string, files: readonly string[], label = PLATFORM_LABEL): void {
  host("mkntfs", "--quick", "--force", "--label", label, device);
  const source = path.join(mkdtempSync(path.join(tmpdir(), "waagent-ntfs-")), "file");
  writeFileSync(source, "content\n");
  for (const file of files) host("ntfscp", "--force", device, source, file);
  rmSync(path.dirname(source), { recursive: true });
}

export function onePartition(disk: LoopDisk): void {
  host("parted", "--script", disk.device, "mklabel", "gpt", "mkpart", "primary", "1MiB", "100%");
}

/** The partition as it is after some files were put on it. */
export function filled(device: string, type: string, files: readonly string[]): void {
  host(`mkfs.${type}`, type === "ext4" ? "-F" : "-f", device);
  const directory = mkdtempSync(path.join(tmpdir(), "waagent-fill-"));
  try {
    host(
      "unshare",
      "--mount",
      "sh",
      "-ec",
      `mount ${device} ${directory}; cd ${directory}; touch ${files.join(" ")}`,
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}
