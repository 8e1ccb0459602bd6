import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { AgentError } from "../../../src/base/error.ts";
import { createFiles } from "../../../src/system/files.ts";
import { join, Root } from "../../../src/system/root.ts";

let directory = "";
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "waagent-files-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe("files", () => {
  const files = () => createFiles(new Root(directory));

  test("a logical path stays below its root, whatever it says", () => {
    const root = new Root("/scratch");
    expect(root.real("/../../etc/passwd")).toBe("/scratch/etc/passwd");
    expect(join("/var/lib", "../../..", "etc")).toBe("/etc");
    expect(() => root.real("relative" as "/x")).toThrow("is not an absolute path");
    expect(() => root.real("/a\0b")).toThrow("is not an absolute path");
    expect(new Root().real("/etc//x")).toBe("/etc/x");
  });

  test("a write is whole, has its mode from the start, and leaves no temporary file", () => {
    files().write("/state", "one", { mode: 0o600 });
    files().write("/state", "two", { mode: 0o640 });
    expect(files().readText("/state")).toBe("two");
    expect(statSync(path.join(directory, "state")).mode & 0o777).toBe(0o640);
    expect(readdirSync(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("a write removes what killed processes left of the same file, and nothing else", () => {
    mkdirp("killed");
    const place = path.join(directory, "killed");
    const another = Bun.spawn([process.execPath, "-e", "await Bun.sleep(60_000)"]);
    try {
      const gone = [
        ".state.999999-0a1b2c3d.4.tmp",
        `.state.${process.pid}-0a1b2c3d.1.tmp`,
        ".state.1-0a1b2c3d.1.tmp",
      ];
      const kept = [
        `.state.${another.pid}-0a1b2c3d.4.tmp`,
        ".other.999999-0a1b2c3d.4.tmp",
        ".state.999999-0a1b2c3d.4.tmp.keep",
        ".state.tmp",
      ];
      for (const name of [...gone, ...kept]) writeFileSync(path.join(place, name), "secret");
      files().write("/killed/state", "new");
      expect(readdirSync(place).sort()).toEqual([...kept, "state"].sort());
    } finally {
      another.kill("SIGKILL");
    }
  });

  test("a failed write keeps the old content and names the file", () => {
    mkdirp("occupied/inside");
    expect(() => files().write("/occupied", "x")).toThrow("Could not write /occupied");
    expect(() => files().write("/missing/dir/file", "x")).toThrow(
      "Could not write /missing/dir/file",
    );
    try {
      files().write("/missing/dir/file", "x");
    } catch (error) {
      expect((error as AgentError).errno).toBe("ENOENT");
    }
    expect(readdirSync(directory).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("an exclusive write refuses an existing file", () => {
    files().write("/once", "1", { exclusive: true });
    expect(() => files().write("/once", "2", { exclusive: true })).toThrow("Could not write /once");
    expect(files().readText("/once")).toBe("1");
  });

  test("reading names what is wrong: absent, directory, too large, not UTF-8, FIFO", () => {
    writeFileSync(path.join(directory, "latin"), Buffer.from([0x63, 0xe9]));
    mkdirp("folder");
    Bun.spawnSync(["mkfifo", path.join(directory, "fifo")]);
    expect(files().readTextIfExists("/nowhere")).toBeUndefined();
    expect(() => files().readText("/nowhere")).toThrow("Could not read /nowhere");
    expect(() => files().readText("/folder")).toThrow("Could not read /folder");
    expect(() => files().readText("/latin")).toThrow("/latin is not UTF-8 text");
    expect(() => files().read("/latin", { maxBytes: 1 })).toThrow(
      "/latin has 2 bytes, more than the 1 allowed",
    );
    expect(() => files().read("/fifo")).toThrow("/fifo is not a regular file");
  });

  test("a UTF-8 byte order mark is dropped", () => {
    writeFileSync(path.join(directory, "bom"), Buffer.from([0xef, 0xbb, 0xbf, 0x61]));
    expect(files().readText("/bom")).toBe("a");
  });

  test("globs match per component, hidden names only when asked for", () => {
    mkdirp("g/a.1");
    mkdirp("g/b.2");
    mkdirp("g/.hidden");
    writeFileSync(path.join(directory, "g/a.1/x.settings"), "");
    expect(files().glob("/g/*/*.settings")).toEqual(["/g/a.1/x.settings"]);
    expect(files().glob("/g/*")).toEqual(["/g/a.1", "/g/b.2"]);
    expect(files().glob("/g/[!a].?")).toEqual(["/g/b.2"]);
    expect(files().glob("/g/(")).toEqual([]);
    expect(files().glob("/nothing/*")).toEqual([]);
  });

  test("remove takes a tree without following links, and is content with nothing", () => {
    mkdirp("tree/deep");
    writeFileSync(path.join(directory, "kept"), "kept");
    symlinkSync(path.join(directory, "kept"), path.join(directory, "tree/link"));
    files().remove("/tree");
    files().remove("/tree");
    expect(files().exists("/tree")).toBe(false);
    expect(files().readText("/kept")).toBe("kept");
    expect(() => files().remove("/")).toThrow("Refusing to remove the root directory");
  });

  test("system.md UTIL-02: a directory gets its mode also when it existed, unless told to keep it", () => {
    mkdirp("private");
    chmodSync(path.join(directory, "private"), 0o755);
    files().makeDirectory("/private", { mode: 0o700, keepMode: true });
    expect(files().stat("/private")?.mode).toBe(0o755);
    files().makeDirectory("/private", { mode: 0o700 });
    expect(files().stat("/private")?.mode).toBe(0o700);
    files().makeDirectory("/new/parents/leaf", { mode: 0o700 });
    expect([files().stat("/new/parents")?.mode, files().stat("/new/parents/leaf")?.mode]).toEqual([
      0o755, 0o700,
    ]);
    const leaf = files().stat("/new/parents/leaf");
    const owner = { uid: leaf?.uid ?? 0, gid: leaf?.gid ?? 0 };
    if (owner.uid !== 0) return;
    files().makeDirectory("/new/parents/leaf", { mode: 0o750, owner: { uid: 4321, gid: 4322 } });
    expect(files().stat("/new/parents/leaf")).toMatchObject({ uid: 4321, gid: 4322, mode: 0o750 });
    expect(files().stat("/new/parents")).toMatchObject(owner);
  });

  function mkdirp(name: string): void {
    Bun.spawnSync(["mkdir", "-p", path.join(directory, name)]);
  }
});
