import type { System } from "../system/system.ts";
import { readLenient } from "./lenient.ts";

/** One line of /proc/self/mountinfo. */
export interface Mount {
  /** "8:17"; btrfs has numbers of its own here. */
  readonly device: string;
  /** Directory of the file system that is mounted; "/" for all of it. */
  readonly root: string;
  readonly mountPoint: string;
  /** Of this mount, not of the file system: "rw", "noexec", ... */
  readonly options: readonly string[];
  readonly fileSystem: string;
  /** "/dev/sdb1", "tmpfs", ... */
  readonly source: string;
}

/** One line of /etc/fstab. */
export interface FstabEntry {
  readonly source: string;
  readonly mountPoint: string;
  readonly options: readonly string[];
}

/** Everything mounted, in order; a later one hides an earlier one at the same place. */
export function readMounts(system: Pick<System, "files">): Mount[] {
  return parseMountInfo(readLenient(system, "/proc/self/mountinfo"));
}

/** proc(5): optional fields end with a lone dash; blanks in paths are octal escapes. */
export function parseMountInfo(text: string): Mount[] {
  return text.split("\n").flatMap((line) => {
    const fields = line.split(" ");
    const dash = fields.indexOf("-", 6);
    const [, , device, root, mountPoint, options] = fields;
    const [fileSystem, source] = fields.slice(dash + 1);
    if (dash < 0 || device === undefined || root === undefined || mountPoint === undefined)
      return [];
    return [
      {
        device,
        root: unescapeOctal(root),
        mountPoint: unescapeOctal(mountPoint),
        options: (options ?? "").split(","),
        fileSystem: fileSystem ?? "",
        source: unescapeOctal(source ?? ""),
      },
    ];
  });
}

/** The mount that holds a path; of two at the same place the later one, which hides the other. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  const holds = ({ mountPoint }: Mount): boolean =>
    mountPoint === "/" || path === mountPoint || path.startsWith(`${mountPoint}/`);
  return mounts
    .filter(holds)
    .reduce<Mount | undefined>(
      (best, mount) =>
        best === undefined || mount.mountPoint.length >= best.mountPoint.length ? mount : best,
      undefined,
    );
}

export function readFstab(system: Pick<System, "files">): FstabEntry[] {
  const text = readLenient(system, "/etc/fstab");
  return text.split("\n").flatMap((line) => {
    const [source, mountPoint, , options] = line.trim().split(/\s+/);
    if (source === undefined || source === "" || source.startsWith("#")) return [];
    return [
      {
        source: unescapeOctal(source),
        mountPoint: unescapeOctal(mountPoint ?? ""),
        options: (options ?? "").split(","),
      },
    ];
  });
}

/** Files and devices in /proc/swaps. */
export function readSwaps(system: Pick<System, "files">): { path: string; kib: number }[] {
  const [, ...lines] = readLenient(system, "/proc/swaps").split("\n");
  return lines.flatMap((line) => {
    const [path, , size] = line.trim().split(/\s+/);
    if (path === undefined || path === "") return [];
    return [{ path: unescapeOctal(path), kib: Number(size) || 0 }];
  });
}

/** The kernel writes blank, tab, newline and backslash as three octal digits. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
