import { createHash } from "node:crypto";
import { createReadStream, rmSync, truncateSync, writeFileSync } from "node:fs";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** A disk image behind a loop device of this machine, gone with the test. */
export interface LoopDisk extends Disposable {
  /** "/dev/loop3" */
  readonly device: string;
  /** "loop3" */
  readonly name: string;
  readonly partition: (number: number) => string;
  /** SHA-256 of everything on it. */
  hash(): Promise<string>;
}

const MIB = 1024 * 1024;

/** Runs a program of this machine on the image. Errors: plain Error with its output. */
export function host(...argv: readonly string[]): string {
  const result = Bun.spawnSync([...argv], {
    env: { PATH: process.env["PATH"] ?? "", LC_ALL: "C" },
  });
  if (!result.success)
    throw new Error(`${argv.join(" ")}: ${result.stderr.toString()}${result.stdout.toString()}`);
  return result.stdout.toString();
}

export function createLoopDisk(options: { readonly mib?: number } = {}): LoopDisk {
  const directory = mkdtempSync(path.join(tmpdir(), "waagent-disk-"));
  const image = path.join(directory, "image");
  writeFileSync(image, "");
  truncateSync(image, (options.mib ?? 320) * MIB);
  let device: string;
  try {
    device = host("losetup", "--partscan", "--find", "--show", image).trim();
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    device,
    name: path.basename(device),
    partition: (number) => `${device}p${number}`,
    hash: async () => {
      host("sync", image);
      const hash = createHash("sha256");
      for await (const chunk of createReadStream(image)) hash.update(chunk as Buffer);
      return hash.digest("hex");
    },
    [Symbol.dispose]: () => {
      try {
        host("losetup", "--detach", device);
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    },
  };
}

/** Why loop disks with partitions cannot be had here; undefined when they can. */
export function loopProblem(): string | undefined {
  for (const program of [
    "losetup",
    "parted",
    "blkid",
    "mkfs.ext4",
    "mkfs.xfs",
    "mkfs.btrfs",
    "mkntfs",
  ])
    if (Bun.which(program, { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }) === null)
      return `The program ${program} is missing`;
  try {
    using disk = createLoopDisk({ mib: 8 });
    host("parted", "--script", disk.device, "mklabel", "gpt", "mkpart", "primary", "1MiB", "100%");
    host("blkid", "-p", disk.partition(1), "-o", "export", "-s", "PART_ENTRY_SCHEME");
    return undefined;
  } catch (error) {
    return `No loop devices with partitions here: ${error instanceof Error ? error.message.trim() : ""}`;
  }
}
