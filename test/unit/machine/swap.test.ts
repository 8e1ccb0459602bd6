import { expect, test } from "bun:test";
import { chmodSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import path from "node:path";
import { defaultConfig } from "../../../src/config/table.ts";
import { activateSwap } from "../../../src/machine/swap.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant, plantLink } from "./support.ts";

const MOUNT = "/mnt/resource";
const FILE = `${MOUNT}/swapfile`;
const MIB = 1024 * 1024;

function config(megabytes: number, encrypted = false) {
  return {
    ...defaultConfig(),
    "ResourceDisk.EnableSwap": true,
    "ResourceDisk.SwapSizeMB": megabytes,
    "ResourceDisk.EnableSwapEncryption": encrypted,
  };
}

/** Programs that do to the fake machine's files what the real ones do. */
function prepare(system: FakeSystem, fileSystem: string): Set<string> {
  const active = new Set<string>();
  const show = (): void =>
    plant(system, {
      "/proc/swaps": `Filename Type Size Used Priority\n${[...active].map((file) => `${file} file 1 0 -2\n`).join("")}`,
    });
  const logical = (real = ""): string => real.replace(system.root.directory, "");
  plant(system, {
    [`${MOUNT}/.keep`]: "",
    "/proc/self/mountinfo": `36 25 8:17 / ${MOUNT} rw - ${fileSystem} /dev/sdb1 rw\n`,
  });
  show();
  system.programs.set("fallocate", (argv) => truncateSync(argv[3]!, Number(argv[2])));
  system.programs.set("dd", (argv) => {
    const value = (key: string): string =>
      argv.find((word) => word.startsWith(`${key}=`))!.slice(key.length + 1);
    expect(value("bs")).toBe("1M");
    truncateSync(value("of"), Number(value("count")) * MIB);
  });
  system.programs.set("chattr", (argv) => {
    expect(argv[1]).toBe("+C");
    expect(system.files.stat(FILE)?.size).toBe(0);
  });
  system.programs.set("mkswap", () => undefined);
  system.programs.set("swapon", (argv) => {
    active.add(logical(argv[1]));
    show();
  });
  system.programs.set("swapoff", (argv) => {
    active.delete(logical(argv[1]));
    show();
  });
  return active;
}

const ran = (system: FakeSystem): string[] => system.commands.map((argv) => argv[0]!);

test("system.md SWAP-01 SWAP-02 SWAP-05 SWAP-08 BET-05: size is exact and 0600 on every file system, each by its own method", async () => {
  for (const [fileSystem, programs] of Object.entries({
    ext4: ["fallocate", "mkswap", "swapon"],
    xfs: ["dd", "mkswap", "swapon"],
    btrfs: ["chattr", "fallocate", "mkswap", "swapon"],
  }))
    for (const megabytes of [1, 100, 200, 333]) {
      using system = createFakeSystem();
      const active = prepare(system, fileSystem);
      const outcome = await activateSwap(system, config(megabytes), MOUNT);
      expect(outcome).toEqual({
        state: "active",
        path: FILE,
        bytes: megabytes * MIB,
        changed: true,
      });
      expect(system.files.stat(FILE)).toMatchObject({ size: megabytes * MIB, mode: 0o600 });
      expect(ran(system)).toEqual(programs);
      expect([...active]).toEqual([FILE]);
      expect(system.lines.at(-1)).toContain(`${megabytes * 1024}KB of swap at ${FILE}`);
    }
});

test("system.md SWAP-03: swap in use with the right size is left alone, but closed to others", async () => {
  using system = createFakeSystem();
  prepare(system, "ext4");
  await activateSwap(system, config(8), MOUNT);
  system.commands.length = 0;
  chmodSync(path.join(system.root.directory, FILE), 0o644);
  expect(await activateSwap(system, config(8), MOUNT)).toMatchObject({ changed: false });
  expect(system.commands).toEqual([]);
  expect(system.files.stat(FILE)?.mode).toBe(0o600);
});

test("system.md SWAP-03 BET-05: another file whose name begins alike is not ours", async () => {
  using system = createFakeSystem();
  prepare(system, "ext4");
  await activateSwap(system, config(8), MOUNT);
  plant(system, { "/proc/swaps": `Filename Type Size Used Priority\n${FILE}2 file 1 0 -2\n` });
  system.commands.length = 0;
  await activateSwap(system, config(8), MOUNT);
  expect(ran(system)).toEqual(["mkswap", "swapon"]);
});

test("system.md SWAP-04: another size means swapoff and a new file; a size of 0 is an error and touches nothing", async () => {
  using system = createFakeSystem();
  const active = prepare(system, "ext4");
  await activateSwap(system, config(8), MOUNT);
  system.commands.length = 0;
  await activateSwap(system, config(16), MOUNT);
  expect(ran(system)).toEqual(["swapoff", "fallocate", "mkswap", "swapon"]);
  expect(system.files.stat(FILE)?.size).toBe(16 * MIB);
  expect(await activateSwap(system, config(0), MOUNT)).toEqual({
    state: "failed",
    reason: "Invalid swap size [0]",
  });
  expect(system.files.stat(FILE)?.size).toBe(16 * MIB);
  expect([...active]).toEqual([FILE]);
});

test("system.md SWAP-07: a failure is an error that names it, and leaves no file", async () => {
  using system = createFakeSystem();
  prepare(system, "ext4");
  system.programs.set("swapon", () => ({ code: 255, stderr: "swapon: Invalid argument" }));
  const outcome = await activateSwap(system, config(8), MOUNT);
  expect(outcome.state).toBe("failed");
  expect(system.lines.at(-1)).toMatch(/^ERROR .*Failed to enable swap: .*Invalid argument/);
  expect(system.files.exists(FILE)).toBe(false);
  expect((await activateSwap(system, config(1_000_000_000), MOUNT)).state).toBe("failed");
  expect(system.lines.at(-1)).toContain("too little for a swap file");
});

test("system.md SWAP-05: where blocks cannot be reserved they are written", async () => {
  using system = createFakeSystem();
  prepare(system, "ext3");
  system.programs.set("fallocate", () => ({ code: 1, stderr: "Operation not supported" }));
  expect(await activateSwap(system, config(8), MOUNT)).toMatchObject({ state: "active" });
  expect(ran(system)).toEqual(["fallocate", "dd", "mkswap", "swapon"]);
});

test("only our own file is touched: a link in its place is refused", async () => {
  using system = createFakeSystem();
  prepare(system, "ext4");
  writeFileSync(path.join(system.root.directory, "/tmp/other"), "data");
  symlinkSync("/tmp/other", path.join(system.root.directory, FILE));
  const outcome = await activateSwap(system, config(8), MOUNT);
  expect(outcome).toMatchObject({ state: "failed", reason: expect.stringContaining("left alone") });
  expect(system.commands).toEqual([]);
});

test("encryption uses a throw-away key, is recognised again, and is never silently left out", async () => {
  using system = createFakeSystem();
  const active = prepare(system, "ext4");
  system.programs.set("losetup", () => ({ stdout: "/dev/loop7\n" }));
  expect((await activateSwap(system, config(8, true), MOUNT)).state).toBe("failed");
  expect([...active]).toEqual([]);
  expect(system.lines.at(-1)).toContain("cryptsetup is not installed");
  expect(system.commands).toEqual([]);

  system.programs.set("cryptsetup", () => undefined);
  system.commands.length = 0;
  expect(await activateSwap(system, config(8, true), MOUNT)).toMatchObject({ state: "active" });
  const open = system.commands.find((argv) => argv[0] === "cryptsetup")!;
  expect(open.join(" ")).toContain("--type plain");
  expect(open.join(" ")).toContain("--key-file /dev/urandom /dev/loop7 waagent-swap");
  expect(system.commands.at(-1)).toEqual(["swapon", "/dev/mapper/waagent-swap"]);

  // The kernel shows the node behind the mapping.
  plantLink(system, "/dev/mapper/waagent-swap", "../dm-3");
  plant(system, {
    "/proc/swaps": "Filename Type Size Used Priority\n/dev/dm-3 partition 1 0 -2\n",
  });
  expect(await activateSwap(system, config(8, true), MOUNT)).toMatchObject({ changed: false });
  // Without encryption the mapping goes first, then the file is used directly.
  system.commands.length = 0;
  await activateSwap(system, config(8, false), MOUNT);
  expect(ran(system).slice(0, 2)).toEqual(["swapoff", "cryptsetup"]);
  expect(system.commands.at(-1)![0]).toBe("swapon");
});

test("a mapping and loop devices of an agent that was killed before it enabled them are closed first", async () => {
  using system = createFakeSystem();
  const active = prepare(system, "ext4");
  await activateSwap(system, config(8), MOUNT);
  plant(system, { "/proc/swaps": "Filename Type Size Used Priority\n" });
  active.clear();
  plantLink(system, "/dev/mapper/waagent-swap", "../dm-3");
  plant(system, {
    "/sys/block/loop3/loop/backing_file": `${FILE}\n`,
    "/sys/block/loop4/loop/backing_file": `${FILE} (deleted)\n`,
    "/sys/block/loop5/loop/backing_file": "/srv/other\n",
  });
  system.programs.set("losetup", () => ({ stdout: "/dev/loop7\n" }));
  system.programs.set("cryptsetup", (argv) => {
    const mapping = path.join(system.root.directory, "dev/mapper/waagent-swap");
    if (argv[1] === "close") rmSync(mapping);
    else if (system.files.lstat("/dev/mapper/waagent-swap") !== undefined)
      return { code: 5, stderr: "Device waagent-swap already exists." };
    return undefined;
  });
  system.commands.length = 0;
  expect(await activateSwap(system, config(8, true), MOUNT)).toMatchObject({ state: "active" });
  expect(system.commands.slice(0, 3)).toEqual([
    ["cryptsetup", "close", "waagent-swap"],
    ["losetup", "--detach", "/dev/loop3"],
    ["losetup", "--detach", "/dev/loop4"],
  ]);
  expect(system.commands.at(-1)).toEqual(["swapon", "/dev/mapper/waagent-swap"]);
});

test("system.md SWAP-01: without EnableSwap nothing happens", async () => {
  using system = createFakeSystem();
  expect(await activateSwap(system, defaultConfig(), MOUNT)).toEqual({ state: "off" });
});
