import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import { Glob } from "bun";
import { breaches, longFiles, type SourceFile } from "./support/layers.ts";
import { readSource } from "./support/source.ts";

const project = path.resolve(import.meta.dir, "..");

function sources(): SourceFile[] {
  return [...new Glob("src/**/*.ts").scanSync(project)]
    .sort()
    .map((file) => ({ path: file, text: readFileSync(path.join(project, file), "utf8") }));
}

test("the source tree keeps to its layers", () => {
  const files = sources();
  expect(files.length).toBeGreaterThan(10);
  expect(breaches(files)).toEqual([]);
  for (const note of longFiles(files)) console.log(`note: ${note}`);
});

const one = (file: string, text: string) => breaches([{ path: file, text }]);

test("imports may go down and stay inside a folder, not up and not sideways", () => {
  expect(one("src/azure/a.ts", `import { x } from "../system/files.ts";`)).toEqual([]);
  expect(one("src/azure/a.ts", `import { x } from "./b.ts";`)).toEqual([]);
  expect(one("src/main.ts", `import { run } from "./cli/run.ts";`)).toEqual([]);
  expect(one("src/base/a.ts", `import { x } from "../system/files.ts";`)).toEqual([
    "src/base/a.ts:1: imports src/system/files.ts: src/system is not below src/base",
  ]);
  expect(one("src/azure/a.ts", `\nimport type { X } from "../machine/x.ts";`)).toEqual([
    "src/azure/a.ts:2: imports src/machine/x.ts: src/machine is not below src/azure",
  ]);
  expect(one("src/agent/a.ts", `export { x } from "../cli/x.ts";`)).toHaveLength(1);
  expect(one("src/agent/a.ts", `const x = await import("../cli/x.ts");`)).toHaveLength(1);
  expect(one("src/agent/a.ts", `const x = await import(name);`)).toHaveLength(1);
  expect(one("src/agent/a.ts", `import { x } from "../../test/x.ts";`)).toHaveLength(1);
  expect(one("src/other/a.ts", ``)).toEqual(["src/other/a.ts:1: folder src/other has no layer"]);
});

test("effects are found outside src/system and allowed inside", () => {
  const effects = [
    `await fetch("http://x/");`,
    `const x = Bun.version;`,
    `process.exit(1);`,
    `const e = process["env"];`,
    `import fs from "node:fs";`,
    `import { readFile } from "node:fs/promises";`,
    `import { spawn } from "node:child_process";`,
    `import net from "node:net";`,
    `import dgram from "node:dgram";`,
    `import { $ } from "bun";`,
    `setTimeout(f, 1);`,
    `const t = Date.now();`,
    `const t = new Date();`,
    `globalThis.fetch;`,
    `console.log(1);`,
    'const t = `${await fetch("x")}`;',
  ];
  for (const text of effects) {
    expect({ text, found: one("src/azure/a.ts", text).length }).toEqual({ text, found: 1 });
    expect({ text, found: one("src/system/a.ts", text) }).toEqual({ text, found: [] });
  }
  expect(one("src/system/a.ts", `import { dlopen } from "bun:ffi";`)).toHaveLength(1);
});

test("comments, strings, regular expressions and methods of the same name are no effects", () => {
  const harmless = [
    `// fetch("x") and Bun.spawn`,
    `/** process.env and node:fs; setTimeout() */`,
    `const a = "fetch(x) Bun.version process.exit()";`,
    "const a = `fetch(x) ${name} process.exit()`;",
    `const a = /fetch\\(|Bun\\.x|"/.test(b); const c = 'x';`,
    `await system.http.fetch(request);`,
    `const moment = new Date(text);`,
    `import { createHash } from "node:crypto";`,
    `system.process.argv;`,
    `const half = total / 2; const rest = (a + b) / c; // fetch(`,
  ];
  for (const text of harmless) {
    expect({ text, found: one("src/azure/a.ts", text) }).toEqual({ text, found: [] });
  }
});

test("default exports, barrels, enums and foreign packages are found everywhere", () => {
  for (const text of [
    `export default function run() {}`,
    `export * from "./a.ts";`,
    `export const enum Colour { Red }`,
    `enum Colour { Red }`,
    `const fs = require("fs");`,
    `import _ from "lodash";`,
    `import { createConsola } from "citty";`,
  ]) {
    expect({ text, found: one("src/system/b.ts", text).length }).toEqual({ text, found: 1 });
  }
  expect(one("src/base/xml.ts", `import { XMLParser } from "fast-xml-parser";`)).toEqual([]);
});

test("the reader keeps offsets and separates literals from code", () => {
  const text = "const a = `x ${b ? `y ${'z'}` : {}} w`; // c\nconst d = 'it\\'s';";
  const { code, strings } = readSource(text);
  expect(code).toHaveLength(text.length);
  expect(code).toContain("b ?");
  expect(code).not.toContain("// c");
  expect(strings.map((literal) => literal.text)).toEqual(["x … w", "y …", "z", "it's"]);
});
