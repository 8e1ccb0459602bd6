/**
 * Every package in one go: `npm run package [-- --arch x64,arm64,x64-musl,arm64-musl] [--format deb,rpm,apk,tar,sysext] [--out DIR] [--fast]`.
 * A format whose tool is missing is left out by name; with `--format` that is an error.
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { compile } from "../build.ts";
import { buildApk } from "./apk.ts";
import { buildSysext, buildTar } from "./archives.ts";
import { buildDeb, type PackageOptions } from "./deb.ts";
import { type Architecture, ARCHITECTURES, type ArchitectureName } from "./product.ts";
import { buildRpm } from "./rpm.ts";
import { MissingProgram } from "./run.ts";
import { sbom } from "./sbom.ts";

export const FORMATS = {
  deb: buildDeb,
  rpm: buildRpm,
  apk: buildApk,
  tar: buildTar,
  sysext: buildSysext,
} as const satisfies Record<string, (work: string, options: PackageOptions) => string>;

export type Format = keyof typeof FORMATS;

export interface Delivery {
  /** File names below the folder with their SHA-256. */
  readonly files: Readonly<Record<string, string>>;
  /** Formats that could not be built here, with the reason. */
  readonly left: readonly string[];
}

export interface DeliveryOptions {
  readonly architectures: readonly ArchitectureName[];
  readonly formats: readonly Format[];
  readonly out: string;
  readonly compression: "small" | "fast";
  readonly revision?: string;
}

/** Builds packages, SHA256SUMS and sbom.spdx.json into one folder. */
export function deliver(options: DeliveryOptions): Delivery {
  const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-package-"));
  const files: Record<string, string> = {};
  const left: string[] = [];
  fs.mkdirSync(options.out, { recursive: true });
  try {
    for (const architecture of options.architectures) {
      const { target, packaged, alpine }: Architecture = ARCHITECTURES[architecture];
      const built = compile(target, { out: path.join(work, "compiled") });
      const executable = fs.readFileSync(built.file);
      for (const format of options.formats) {
        if (format !== "tar" && (format === "apk" ? alpine : packaged) === undefined) continue;
        try {
          const file = FORMATS[format](work, {
            architecture,
            executable,
            out: options.out,
            compression: options.compression,
            ...(options.revision === undefined ? {} : { revision: options.revision }),
          });
          files[path.basename(file)] = sha256(file);
        } catch (error) {
          if (!(error instanceof MissingProgram)) throw error;
          left.push(`${format} for ${architecture}: ${error.message}`);
        }
      }
    }
    fs.writeFileSync(path.join(options.out, "sbom.spdx.json"), sbom(files));
    files["sbom.spdx.json"] = sha256(path.join(options.out, "sbom.spdx.json"));
    const sums = Object.entries(files).map(([name, sum]) => `${sum}  ${name}\n`);
    fs.writeFileSync(path.join(options.out, "SHA256SUMS"), sums.join(""));
    return { files, left };
  } finally {
    fs.rmSync(work, { recursive: true, force: true });
  }
}

function sha256(file: string): string {
  return createHash("sha256").update(fs.readFileSync(file)).digest("hex");
}

function parseOptions(words: readonly string[]): DeliveryOptions & { strict: boolean } {
  const rest = words.flatMap((word) => (word.startsWith("--") ? word.split(/=(.*)/s, 2) : [word]));
  const all = Object.keys(FORMATS) as Format[];
  let architectures = Object.keys(ARCHITECTURES) as ArchitectureName[];
  let formats = all;
  let out = path.resolve(import.meta.dir, "../dist/packages");
  let compression: "small" | "fast" = "small";
  let strict = false;
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--fast") compression = "fast";
    else if (word === "--out") out = path.resolve(rest.shift() ?? out);
    else if (word === "--arch") architectures = pick(rest.shift(), architectures);
    else if (word === "--format") [formats, strict] = [pick(rest.shift(), all), true];
    else throw new Error(`packaging/build.ts does not know "${word}"`);
  }
  return { architectures, formats, out, compression, strict };
}

function pick<Name extends string>(list: string | undefined, known: readonly Name[]): Name[] {
  return (list ?? "").split(",").map((name) => {
    const found = known.find((candidate) => candidate === name);
    if (found === undefined) throw new Error(`"${name}" is none of ${known.join(", ")}`);
    return found;
  });
}

if (import.meta.main) {
  try {
    const options = parseOptions(Bun.argv.slice(2));
    const { files, left } = deliver(options);
    for (const name of Object.keys(files)) {
      const { size } = fs.statSync(path.join(options.out, name));
      console.log(`${name}: ${(size / 1e6).toFixed(1)} MB`);
    }
    for (const reason of left) console.error(`left out: ${reason}`);
    if (options.strict && left.length > 0) process.exitCode = 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
}
