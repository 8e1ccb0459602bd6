import { expect, test } from "bun:test";
import { mountOf, parseMountInfo, readFstab, readSwaps } from "../../../src/machine/mounts.ts";
import {
  type Content,
  type DiskView,
  type Files,
  planResourceDisk,
} from "../../../src/machine/resource-disk-plan.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const blank: Content = { kind: "blank" };
const EMPTY: Files = { known: true, names: [] };
const NO_DRIVER: Files = { known: false, reason: "no-driver" };

function fileSystem(type: string, files: Files, label = ""): Content {
  return { kind: "filesystem", type, label, files };
}

function names(...list: string[]): Files {
  return { known: true, names: list };
}

function disk(
  options: Partial<DiskView> & { readonly first?: Content; readonly type?: string },
): DiskView {
  const { first, type = "0x7", ...rest } = options;
  return {
    device: "/dev/sdb",
    readOnly: false,
    table: first === undefined ? "none" : "mbr",
    content: first === undefined ? blank : { kind: "foreign", what: "a partition table" },
    partitions:
      first === undefined ? [] : [{ device: "/dev/sdb1", type, id: "0f-01", content: first }],
    mounts: [],
    holders: [],
    unfinished: undefined,
    ...rest,
  };
}

const refusal = (view: DiskView): string => {
  const plan = planResourceDisk(view);
  return plan.do === "refuse" ? plan.reason : `planned: ${plan.do}`;
};

test("system.md BET-02: a blank disk gets a partition, a disk with data and no table does not", () => {
  expect(planResourceDisk(disk({}))).toEqual({ do: "partition" });
  expect(planResourceDisk(disk({ table: "gpt" }))).toEqual({ do: "partition" });
  expect(refusal(disk({ content: { kind: "foreign", what: "unknown data" } }))).toBe(
    "/dev/sdb holds unknown data and is left alone",
  );
  expect(refusal(disk({ content: fileSystem("ext4", EMPTY) }))).toContain(
    "holds a ext4 file system",
  );
});

test("system.md DISK-15 PEER-18 BET-01: the platform's NTFS is formatted when it is proven empty, and its type becomes 83", () => {
  for (const files of [
    EMPTY,
    names("DATALOSS_WARNING_README.txt", "System Volume Information"),
    names("dataloss_warning_readme.TXT"),
  ])
    expect(planResourceDisk(disk({ first: fileSystem("ntfs", files) }))).toEqual({
      do: "format",
      partition: "/dev/sdb1",
      setLinuxType: true,
    });
  // Type 83 already: only the file system is made. GPT has no type 7.
  for (const view of [
    disk({ first: fileSystem("ntfs", EMPTY), type: "0x83" }),
    disk({
      first: fileSystem("ntfs", EMPTY),
      table: "gpt",
      type: "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    }),
  ])
    expect(planResourceDisk(view)).toMatchObject({ do: "format", setLinuxType: false });
});

test("system.md BET-01 PEER-17 PEER-18: NTFS with files, unreadable, or without driver and label is never formatted", () => {
  expect(refusal(disk({ first: fileSystem("ntfs", names("data", "a", "b", "c")) }))).toBe(
    "/dev/sdb1 holds an NTFS file system with files on it (data, a, b, and 1 more)",
  );
  expect(
    refusal(disk({ first: fileSystem("ntfs", { known: false, reason: "it is dirty" }) })),
  ).toBe("/dev/sdb1 holds an NTFS file system that cannot be read: it is dirty");
  expect(refusal(disk({ first: fileSystem("ntfs", NO_DRIVER, "Data") }))).toContain("no driver");
  expect(
    planResourceDisk(disk({ first: fileSystem("ntfs", NO_DRIVER, "Temporary Storage") })),
  ).toMatchObject({ do: "format" });
});

test("system.md BET-01: a Linux file system is mounted when it is ours or empty, never formatted", () => {
  for (const type of ["ext3", "ext4", "xfs", "btrfs"])
    for (const files of [EMPTY, names("lost+found"), names("DATALOSS_WARNING_README.txt", "x")])
      expect(planResourceDisk(disk({ first: fileSystem(type, files) }))).toEqual({
        do: "mount",
        partition: "/dev/sdb1",
        fileSystem: type,
      });
  expect(refusal(disk({ first: fileSystem("ext4", names("lost+found", "pgdata")) }))).toContain(
    "neither empty nor ours (lost+found, pgdata); create DATALOSS_WARNING_README.txt in it",
  );
  expect(
    refusal(disk({ first: fileSystem("ext4", { known: false, reason: "bad superblock" }) })),
  ).toContain("cannot be read: bad superblock");
});

test("system.md BET-01: everything that is not known is refused", () => {
  for (const [content, text] of [
    [{ kind: "foreign", what: "LVM2_member (raid)" }, "holds LVM2_member (raid)"],
    [{ kind: "foreign", what: "unknown data" }, "holds unknown data"],
    [fileSystem("vfat", EMPTY), "holds a vfat file system"],
    [fileSystem("zfs_member", EMPTY), "holds a zfs_member file system"],
  ] as const)
    expect(refusal(disk({ first: content }))).toContain(text);
  expect(refusal(disk({ first: blank, table: "other" }))).toContain("unknown partition table");
  expect(refusal(disk({ readOnly: true }))).toContain("write-protected");
  expect(refusal(disk({ holders: ["dm-0"] }))).toBe("/dev/sdb is in use by dm-0");
});

test("system.md DISK-14: above 2 TiB the reserved partition and an empty NTFS make room for one partition, nothing else does", () => {
  const reserved = {
    device: "/dev/sdb1",
    type: "e3c9e316-0b5c-4db8-817d-f92df00215ae",
    id: "a",
    content: blank,
  };
  const second = (content: Content) => ({ device: "/dev/sdb2", type: "", id: "b", content });
  const two = (first: typeof reserved, content: Content): DiskView =>
    disk({
      table: "gpt",
      content: { kind: "foreign", what: "x" },
      partitions: [first, second(content)],
    });
  expect(planResourceDisk(two(reserved, fileSystem("ntfs", EMPTY)))).toEqual({ do: "partition" });
  expect(refusal(two(reserved, fileSystem("ntfs", names("x"))))).toContain(
    "/dev/sdb2 holds an NTFS",
  );
  expect(refusal(two({ ...reserved, type: "0x83" }, fileSystem("ntfs", EMPTY)))).toBe(
    "/dev/sdb has 2 partitions, which the platform never makes",
  );
});

test("system.md DISK-11 BET-03: a mounted disk is used where it is; one that holds the system is refused", () => {
  const mount = (mountPoint: string, root = "/") => ({
    device: "8:17",
    root,
    mountPoint,
    options: [],
    fileSystem: "ext4",
    source: "/dev/sdb1",
  });
  expect(planResourceDisk(disk({ mounts: [mount("/mnt/x", "/sub"), mount("/mnt")] }))).toEqual({
    do: "adopt",
    device: "/dev/sdb1",
    mountPoint: "/mnt",
    fileSystem: "ext4",
  });
  expect(refusal(disk({ mounts: [mount("/")] }))).toContain("/dev/sdb is not the temporary disk");
});

test("a format that a reset cut short may be done again, on the same partition only", () => {
  const half: Content = { kind: "foreign", what: "unknown data" };
  expect(planResourceDisk(disk({ first: half, unfinished: "0f-01" })).do).toBe("format");
  expect(planResourceDisk(disk({ first: half, unfinished: "other" })).do).toBe("refuse");
});

test("system.md BET-03: mountinfo, fstab and swaps are read by field, with octal escapes", () => {
  const mounts = parseMountInfo(
    "36 25 8:17 / /mnt/my\\040disk rw,noatime shared:1 master:2 - ext4 /dev/sdb1 rw\n" +
      "37 25 0:44 /sub /x rw - btrfs /dev/sdba1 rw\nbroken\n",
  );
  expect(mounts).toEqual([
    {
      device: "8:17",
      root: "/",
      mountPoint: "/mnt/my disk",
      options: ["rw", "noatime"],
      fileSystem: "ext4",
      source: "/dev/sdb1",
    },
    {
      device: "0:44",
      root: "/sub",
      mountPoint: "/x",
      options: ["rw"],
      fileSystem: "btrfs",
      source: "/dev/sdba1",
    },
  ]);
  expect(mountOf(mounts, "/x/y")?.device).toBe("0:44");
  expect(mountOf(mounts, "/xy")).toBeUndefined();
  const hidden = mounts.map((mount) => ({ ...mount, mountPoint: "/" }));
  expect(mountOf(hidden, "/a")?.device).toBe("0:44");
  using system = createFakeSystem();
  plant(system, {
    "/etc/fstab":
      "# comment\n\nUUID=1 / ext4 defaults 0 1\n/dev/x /m auto a,comment=cloudconfig 0 2\n",
    "/proc/swaps": "Filename Type Size Used Priority\n/mnt/my\\040disk/swapfile file 1024 0 -2\n",
  });
  expect(readFstab(system).map((entry) => entry.source)).toEqual(["UUID=1", "/dev/x"]);
  expect(readFstab(system)[1]?.options).toContain("comment=cloudconfig");
  expect(readSwaps(system)).toEqual([{ path: "/mnt/my disk/swapfile", kib: 1024 }]);
});
