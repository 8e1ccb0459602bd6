import { afterAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { compile, FLAGS, nativeTarget, packageVersion, proveHardened } from "../../build.ts";
import { binary } from "../support/binary.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-build-test-"));
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

/** A program that answers as the agent does, so that the proof gets as far as the traps. */
const entry = path.join(work, "entry.ts");
fs.writeFileSync(entry, `console.log("WALinuxAgent-${packageVersion()}");`);

describe("build.ts", () => {
  test("two builds give the same bytes", async () => {
    const first = compile(nativeTarget(), { out: path.join(work, "one") });
    const second = compile(nativeTarget(), { out: path.join(work, "two") });
    expect(second.sha256).toBe(first.sha256);
    expect(first.bytes).toBeGreaterThan(50_000_000);
    const shipped = fs.readFileSync(await binary());
    expect(new Bun.CryptoHasher("sha256").update(shipped).digest("hex")).toBe(first.sha256);
  });

  test("the agent reads nothing of the directory it runs in", async () => {
    const agent = await binary();
    expect(() => proveHardened(agent)).not.toThrow();
  });

  test("the proof finds a program that was built without the switches", () => {
    const without = (...left: string[]) => FLAGS.filter((flag) => !left.includes(flag));
    const build = (flags: readonly string[]) =>
      compile(nativeTarget(), { out: path.join(work, "open"), entry, flags }).file;

    expect(() => proveHardened(build(FLAGS))).not.toThrow();
    expect(() => proveHardened(build(without("--no-compile-autoload-bunfig")))).toThrow(
      /ran code of its working directory/,
    );
    if (Bun.which("strace") !== null) {
      expect(() => proveHardened(build(without("--no-compile-autoload-dotenv")))).toThrow(
        /opened files of its working directory:[^]*\.env/,
      );
    }
  });

  test("code that cannot be resolved at build time is refused", () => {
    const dynamic = path.join(work, "dynamic.ts");
    fs.writeFileSync(dynamic, `await import("./" + process.argv[2]);`);
    expect(() => compile(nativeTarget(), { out: work, entry: dynamic })).toThrow(
      /Compiling for .* failed:[^]*will not be bundled/,
    );
  });
});
