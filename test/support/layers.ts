import path from "node:path";
import { lineOf, readSource } from "./source.ts";

/** One source file, by its path below the project ("src/azure/wire.ts"). */
export interface SourceFile {
  readonly path: string;
  readonly text: string;
}

/** Height of each folder below src; a file may import lower folders and its own (`design.md` §2). */
const LAYER: Readonly<Record<string, number>> = {
  base: 0,
  system: 1,
  config: 2,
  distro: 2,
  azure: 3,
  machine: 3,
  provision: 4,
  extensions: 4,
  report: 4,
  agent: 5,
  cli: 6,
  "main.ts": 7,
};

/** Modules of the runtime that have no effects, allowed everywhere. */
const PURE_MODULES = new Set([
  "node:crypto",
  "node:path",
  "node:zlib",
  "node:util",
  "node:buffer",
  "node:url",
]);

/** The npm packages and the one place each may be used in (design D7). */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  "fast-xml-parser": ["src/base/"],
  consola: ["src/system/"],
  citty: ["src/cli/"],
};

/** What only `src/system` may touch: effects belong to the seam. */
const IMPURE: readonly (readonly [RegExp, string])[] = [
  [/(?<![\w$.])Bun\b/g, "Bun"],
  [/(?<![\w$.])process\s*(?:\.|\[|\?\.)/g, "process"],
  [/(?<![\w$.])fetch\s*\(/g, "fetch("],
  [/(?<![\w$])globalThis\b/g, "globalThis"],
  [/(?<![\w$.])(?:WebSocket|XMLHttpRequest|EventSource)\b/g, "a network global"],
  [/(?<![\w$.])(?:setTimeout|setInterval|setImmediate)\s*\(/g, "a timer"],
  [/(?<![\w$.])Date\.now\s*\(|(?<![\w$.])new\s+Date\s*\(\s*\)/g, "the current time"],
  [/(?<![\w$.])console\s*\./g, "console"],
];

const FORBIDDEN_EVERYWHERE: readonly (readonly [RegExp, string])[] = [
  [/(?<![\w$.])export\s+default\b/g, "a default export"],
  [/(?<![\w$.])export\s*\*/g, "a barrel (export *)"],
  [/(?<![\w$.])(?:const\s+)?enum\s+[\w$]+\s*\{/g, "an enum"],
  [/(?<![\w$.])require\s*\(/g, "require("],
];

/** Every breach of the architecture rules as `file:line: sentence`; an empty list is what we want. */
export function breaches(files: readonly SourceFile[]): string[] {
  return files.flatMap(breachesOf);
}

/** Files above the house's 400 lines: a note, not a breach. */
export function longFiles(files: readonly SourceFile[]): string[] {
  return files
    .map((file) => ({ path: file.path, lines: file.text.split("\n").length - 1 }))
    .filter(({ lines }) => lines > 400)
    .map((file) => `${file.path}: ${file.lines} lines`);
}

function breachesOf(file: SourceFile): string[] {
  const found: string[] = [];
  const { code, strings } = readSource(file.text);
  const report = (offset: number, sentence: string) =>
    found.push(`${file.path}:${lineOf(file.text, offset)}: ${sentence}`);
  const inSystem = file.path.startsWith("src/system/");
  const own = folderOf(file.path);
  if (LAYER[own] === undefined) report(0, `folder src/${own} has no layer`);

  for (const [pattern, name] of FORBIDDEN_EVERYWHERE) {
    for (const match of code.matchAll(pattern)) report(match.index, `uses ${name}`);
  }
  if (!inSystem) {
    for (const [pattern, name] of IMPURE) {
      for (const match of code.matchAll(pattern)) {
        report(match.index, `uses ${name} outside src/system`);
      }
    }
  }
  for (const { offset, text } of strings) {
    if (!isModuleName(code, offset)) continue;
    const problem = importProblem(file.path, own, text);
    if (problem !== undefined) report(offset, problem);
  }
  for (const match of code.matchAll(/(?<![\w$.])import\s*\(\s*(?!["'])/g)) {
    report(match.index, "imports a module whose name is computed");
  }
  return found;
}

/** Whether the literal at this offset is the module name of an import or export. */
function isModuleName(code: string, offset: number): boolean {
  return /(?:(?<![\w$.])from|(?<![\w$.])import|(?<![\w$.])import\s*\()\s*$/.test(
    code.slice(Math.max(0, offset - 40), offset),
  );
}

function importProblem(importer: string, own: string, name: string): string | undefined {
  if (name.startsWith(".")) {
    const target = path.posix.join(path.posix.dirname(importer), name);
    if (!target.startsWith("src/")) {
      return target === "package.json" ? undefined : `imports ${target} from outside src`;
    }
    const folder = folderOf(target);
    if (folder === own) return undefined;
    const [from, to] = [LAYER[own] ?? 0, LAYER[folder]];
    if (to === undefined) return `imports ${target}, whose folder has no layer`;
    if (to >= from) return `imports ${target}: src/${folder} is not below src/${own}`;
    return undefined;
  }
  if (name.startsWith("node:")) {
    return importer.startsWith("src/system/") || PURE_MODULES.has(name)
      ? undefined
      : `imports ${name} outside src/system`;
  }
  if (name === "bun:ffi") return "imports bun:ffi, which needs the JIT (design D4)";
  if (name === "bun" || name.startsWith("bun:")) {
    return importer.startsWith("src/system/") ? undefined : `imports ${name} outside src/system`;
  }
  const [packageName = name] = name.split("/");
  const places = PACKAGES[packageName];
  if (places === undefined) return `imports the package ${name}, which is not one of ours`;
  return places.some((place) => importer.startsWith(place))
    ? undefined
    : `imports ${name} outside ${places.join(", ")}`;
}

/** "azure" for src/azure/wire.ts, "main.ts" for src/main.ts. */
function folderOf(file: string): string {
  return file.split("/")[1] ?? "";
}
