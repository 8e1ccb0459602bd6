import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { isAgentError } from "../../../src/base/error.ts";
import { createZip } from "../../../src/system/archive-writer.ts";
import { extractZip, listZip, readZipMember } from "../../../src/system/archive.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { buildZip, type ZipMember } from "../../fakes/zip.ts";

let system: FakeSystem;
beforeEach(() => {
  system = createFakeSystem();
});
afterEach(() => system[Symbol.dispose]());

const put = (members: readonly ZipMember[], options?: Parameters<typeof buildZip>[1]): void =>
  system.files.write("/a.zip", buildZip(members, options));
const extract = (options?: Parameters<typeof extractZip>[3]) =>
  extractZip(system, "/a.zip", "/out", options);

async function refusal(action: Promise<unknown>): Promise<string> {
  const error = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isAgentError(error, "bad-input")) throw new Error(`not refused: ${String(error)}`);
  expect(error.message).toStartWith("The archive /a.zip is refused: ");
  expect(system.files.exists("/out")).toBe(false);
  return error.message.slice("The archive /a.zip is refused: ".length);
}

describe("reading", () => {
  test("extensions.md EXT-45: permission bits in the archive are ignored, directories come from names alone", async () => {
    put([
      { name: "bin/run.sh", data: "#!/bin/sh\n", mode: 0o104755 },
      { name: "empty/", mode: 0o040700 },
      { name: "deep/er/still.txt", data: "x".repeat(5000) },
    ]);
    const result = await extract();
    expect(result).toEqual({ files: 2, bytes: 5010, links: [], neutralised: [] });
    expect(system.files.readText("/out/bin/run.sh")).toBe("#!/bin/sh\n");
    expect(system.files.stat("/out/bin/run.sh")?.mode).toBe(0o644);
    expect(system.files.stat("/out/empty")).toMatchObject({ kind: "directory", mode: 0o755 });
    expect(system.files.readText("/out/deep/er/still.txt").length).toBe(5000);
  });

  test("extensions.md EXT-45: absolute names and dot-dot land inside the target, a link becomes a text file", async () => {
    put([
      { name: "../../up.txt", data: "1" },
      { name: "/etc/passwd", data: "2" },
      { name: "a/../b/./c", data: "3" },
      { name: "link", data: "/etc/shadow", mode: 0o120777 },
      { name: "link2/x", data: "4" },
      { name: "back\\slash", data: "5" },
    ]);
    const result = await extract();
    expect(result.links).toEqual(["link"]);
    expect(result.neutralised).toEqual(["../../up.txt", "/etc/passwd", "a/../b/./c"]);
    expect(system.files.readText("/out/up.txt")).toBe("1");
    expect(system.files.readText("/out/etc/passwd")).toBe("2");
    expect(system.files.readText("/out/a/b/c")).toBe("3");
    expect(system.files.lstat("/out/link")?.kind).toBe("file");
    expect(system.files.readText("/out/link")).toBe("/etc/shadow");
    expect(system.files.readText("/out/back\\slash")).toBe("5");
  });

  test("large members are inflated as a stream, stored ones copied, names of the old code page read", async () => {
    const large = Buffer.alloc(3 * 1024 * 1024, "0123456789abcdef\n");
    put([
      { name: "large", data: large },
      { name: "stored", data: large, method: "store" },
      { name: "caf\x82".normalize(), data: "x", flags: 0 },
    ]);
    await extract();
    expect(Buffer.compare(system.files.read("/out/large"), large)).toBe(0);
    expect(Buffer.compare(system.files.read("/out/stored"), large)).toBe(0);
  });

  test("data in front, a comment behind, and what the zip program of others wrote are read", async () => {
    put([{ name: "a", data: "hello" }], {
      prefix: Buffer.from("#!/bin/sh\n"),
      comment: "PK\u0005\u0006 not the end",
    });
    expect(listZip(system, "/a.zip").map((entry) => entry.path)).toEqual(["a"]);
    expect(new TextDecoder().decode(readZipMember(system, "/a.zip", "a"))).toBe("hello");
    expect(() => readZipMember(system, "/a.zip", "b")).toThrow("it has no b");
  });

  test("a target that holds something is refused", async () => {
    put([{ name: "a", data: "hello" }]);
    system.files.makeDirectory("/out");
    await extract();
    await expect(extract()).rejects.toThrow("/out is not an empty directory");
  });
});

describe("extensions.md DB-12: hostile archives are refused by name", () => {
  const zeros = Buffer.alloc(80 * 1024 * 1024);
  const cases: [string, ZipMember[], string, Parameters<typeof buildZip>[1]?][] = [
    ["a device", [{ name: "dev", mode: 0o020666 }], '"dev" is a device, socket or pipe'],
    ["a pipe", [{ name: "fifo", mode: 0o010666 }], '"fifo" is a device, socket or pipe'],
    [
      "two files of one name",
      [
        { name: "a", data: "1" },
        { name: "a", data: "2" },
      ],
      "two entries for a",
    ],
    [
      "two files of one name after neutralising",
      [
        { name: "a", data: "1" },
        { name: "../a", data: "2" },
      ],
      "two entries for a",
    ],
    [
      "a file that is also a directory",
      [
        { name: "a", data: "1" },
        { name: "a/b", data: "2" },
      ],
      "a is a file and also",
    ],
    ["a wrong checksum", [{ name: "a", data: "hello", crc: 1 }], '"a": its checksum is wrong'],
    [
      "more data than declared",
      [{ name: "a", data: "hello".repeat(100), size: 10 }],
      "larger than it says",
    ],
    ["less data than declared", [{ name: "a", data: "hello", size: 10 }], "5 bytes instead of 10"],
    ["a bomb", [{ name: "a", data: zeros }], "this is no honest package"],
    [
      "another name in the local header",
      [{ name: "a", data: "1", localName: "b" }],
      "another name in its own header",
    ],
    [
      "overlapping members",
      [
        { name: "a", data: "1" },
        { name: "a", data: "2", offset: 0 },
      ],
      "overlap",
    ],
    ["encryption", [{ name: "a", data: "1", flags: 0x801 }], '"a" is encrypted'],
    ["an unknown method", [{ name: "a", data: "1", method: 14 }], "compression method 14"],
    ["a wrong count", [{ name: "a", data: "1" }], "it says it has 7 entries", { entries: 7 }],
    ["a name with a line feed", [{ name: "a\nb", data: "1" }], "it has the name"],
    ["a name that is too long", [{ name: "x".repeat(300), data: "1" }], "longer than 255 bytes"],
    [
      "a link with a novel in it",
      [{ name: "l", data: "x".repeat(5000), mode: 0o120777 }],
      "5000 bytes of text",
    ],
  ];
  test.each(cases)("%s", async (_name, members, reason, options) => {
    put(members, options);
    expect(await refusal(extract())).toContain(reason);
  });

  test("damaged data, small and streamed", async () => {
    const random = new Uint8Array(2 * 1024 * 1024).map((_, index) => (index * 7919) >> 3);
    for (const data of [Buffer.from("hello hello hello hello"), random]) {
      const bytes = Buffer.from(buildZip([{ name: "a", data }]));
      bytes.fill(0xff, 40, 50);
      system.files.write("/a.zip", bytes);
      expect(await refusal(extract())).toMatch(/damaged|checksum|larger than|instead of/);
    }
  });

  test("too many entries and too many bytes", async () => {
    put([
      { name: "a", data: "1" },
      { name: "b", data: "22" },
    ]);
    expect(await refusal(extract({ maxEntries: 1 }))).toContain(
      "2 entries, more than the 1 allowed",
    );
    expect(await refusal(extract({ maxTotalBytes: 2 }))).toContain("more than the 2 bytes allowed");
  });

  test("what is no archive at all, and every truncation of one", async () => {
    system.files.write("/a.zip", "<html>not found</html>");
    expect(await refusal(extract())).toContain("not a ZIP archive");
    const whole = buildZip([
      { name: "a", data: "hello hello hello" },
      { name: "b/c", data: "x" },
    ]);
    for (let length = 0; length < whole.length; length += 1) {
      system.files.write("/a.zip", whole.subarray(0, length), { durable: false });
      expect((await refusal(extract())).length).toBeGreaterThan(10);
    }
  });
});

describe("writing", () => {
  test("what is written is read back, by us and by the unzip program where there is one", async () => {
    system.files.write("/log", "line\n".repeat(100_000));
    const zip = createZip(system, "/new.zip");
    expect(await zip.addFile("logs/all", "/log")).toBe(500_000);
    expect(await zip.addFile("/logs/end", "/log", { tailBytes: 10 })).toBe(10);
    expect(await zip.addBytes("päth", "text")).toBe(4);
    expect(zip.bytes).toBeLessThan(10_000);
    expect(system.files.exists("/new.zip")).toBe(false);
    zip.close();
    expect(system.files.stat("/new.zip")?.mode).toBe(0o600);
    expect(listZip(system, "/new.zip").map((entry) => [entry.path, entry.size])).toEqual([
      ["logs/all", 500_000],
      ["logs/end", 10],
      ["päth", 4],
    ]);
    expect(new TextDecoder().decode(readZipMember(system, "/new.zip", "logs/end"))).toBe(
      "line\nline\n",
    );
    const python = spawnSync("python3", [
      "-c",
      "import sys,zipfile;z=zipfile.ZipFile(sys.argv[1]);sys.exit(z.testzip() is not None)",
      system.files.realPath("/new.zip"),
    ]);
    if (python.error === undefined) expect(python.status).toBe(0);
  });

  test("a member that fails leaves the archive whole, abort leaves nothing", async () => {
    const zip = createZip(system, "/new.zip");
    await zip.addBytes("a", "1");
    const before = zip.bytes;
    await expect(zip.addFile("b", "/missing")).rejects.toThrow("Could not read /missing");
    expect(zip.bytes).toBe(before);
    zip.close();
    expect(listZip(system, "/new.zip").length).toBe(1);
    const other = createZip(system, "/other.zip");
    await other.addBytes("a", "1");
    other.abort();
    expect(system.files.list("/")).toEqual(["new.zip", "tmp"]);
  });
});
