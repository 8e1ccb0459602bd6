import { describe, expect, test } from "bun:test";
import fs from "node:fs";
import path from "node:path";
import { packageVersion } from "../../build.ts";
import { configReference } from "../../src/config/docs.ts";
import { claimedInReadme, loadContract, partOf, project } from "../contract/load.ts";
import { binary } from "../support/binary.ts";

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

  test("the sizes it states are those of the executable", async () => {
    const megabytes = fs.statSync(await binary()).size / 1e6;
    expect(megabytes).toBeGreaterThan(105);
    expect(megabytes).toBeLessThan(120);
  });
});
