import { describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { packageVersion } from "../../build.ts";
import { configReference } from "../../src/config/docs.ts";
import { claimedInReadme, loadContract, partOf, project } from "../contract/load.ts";
import { binary } from "../support/binary.ts";
import { testWith } from "../support/skip.ts";

const readme = fs.readFileSync(path.join(project, "README.md"), "utf8");

describe("the README", () => {
  test("its configuration reference is that of the table of keys", () => {
    // Whether the columns of a table line up is the formatter's matter.
    const lines = (text: string) =>
      text
        .replaceAll(/ +/g, " ")
        .split("\n")
        .filter((line) => line !== "" && !/^[|: -]+$/.test(line));
    expect(lines(partOf(readme, "configuration"))).toEqual(lines(configReference()));
  });

  test("its contract table claims no more than the tests cite", () => {
    const claimed = claimedInReadme(readme);
    expect(claimed.size).toBe(4);
    for (const { document, cited } of loadContract().tallies) {
      expect(claimed.get(document) ?? 0).toBeLessThanOrEqual(cited);
    }
  });

  test("the commands it names exist", async () => {
    const { scripts } = JSON.parse(fs.readFileSync(path.join(project, "package.json"), "utf8")) as {
      scripts: Record<string, string>;
    };
    const named = [...readme.matchAll(/(?:`|^)npm (?:run )?([a-z]+)/gm)].map(
      ([, name = ""]) => name,
    );
    expect(named.length).toBeGreaterThan(5);
    for (const name of named) {
      expect(Object.keys(scripts)).toContain(name);
    }
    const agent = await binary();
    const help = Bun.spawnSync([agent, "help"]).stdout.toString();
    for (const [, name = ""] of readme.matchAll(/(?:^|`)waagent ([a-z]+)/gm)) {
      expect(help).toMatch(new RegExp(`^  ${name}\\b`, "m"));
    }
  });

  test("the files it links to exist, and package names carry the version", () => {
    for (const [, target = ""] of readme.matchAll(/\]\(((?!https?:|#)[^)]+)\)/g)) {
      expect({ target, exists: fs.existsSync(path.join(project, target)) }).toEqual({
        target,
        exists: true,
      });
    }
    for (const [, version = ""] of readme.matchAll(
      /waagent(?:-native)?[-_](\d+\.\d+\.\d+\.\d+)/g,
    )) {
      expect(version).toBe(packageVersion());
    }
  });

  test("each row of what works and each difference names its proof", () => {
    const section = (title: string) =>
      readme
        .slice(readme.indexOf(`\n## ${title}`))
        .slice(4)
        .split("\n## ")[0] ?? "";
    const works = section("What works");
    const rows = works.slice(works.indexOf("| Area")).trim().split("\n").slice(2);
    const differences = section("Differences").split(/^- /m).slice(1);
    expect([rows.length > 7, differences.length > 5]).toEqual([true, true]);
    for (const statement of [...rows, ...differences])
      expect(statement).toMatch(/\]\((?:test\/|#figures\))/);
  });

  test("the size it states is that of the executable, and most of it is the runtime", async () => {
    const { size } = fs.statSync(await binary());
    const [, least = "", most = ""] = /An executable has (\d+) to (\d+) MB/.exec(readme) ?? [];
    expect(size / 1e6).toBeGreaterThan(Number(least));
    expect(size / 1e6).toBeLessThan(Number(most));
    expect(fs.statSync(process.execPath).size).toBeGreaterThan(size / 2);
  });

  testWith({ programs: ["strip"] })(
    "a stripped executable is the bare runtime, as it warns",
    async () => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-stripped-"));
      try {
        const stripped = path.join(folder, "waagent");
        fs.copyFileSync(await binary(), stripped);
        expect(Bun.spawnSync(["strip", stripped]).exitCode).toBe(0);
        const said = Bun.spawnSync([stripped, "--help"], { env: { HOME: folder } });
        expect(said.stdout.toString()).toContain("Usage: bun");
      } finally {
        fs.rmSync(folder, { recursive: true, force: true });
      }
    },
  );
});
