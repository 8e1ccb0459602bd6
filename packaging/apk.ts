import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import type { PackageOptions } from "./deb.ts";
import { alpineName, DATE_OF_RELEASE, PRODUCT } from "./product.ts";
import { END_OF_TAR, tarOf } from "./tar.ts";
import { type Entry, openrcScript, tree } from "./tree.ts";

const scripts = path.join(import.meta.dir, "alpine");

/** The runtime links libstdc++; the agent calls the programs of the others. */
export const ALPINE_DEPENDENCIES = [
  "libstdc++",
  "ca-certificates",
  "openssl",
  "iproute2",
  "shadow",
  "openssh-server",
  "sfdisk",
  "util-linux",
  "e2fsprogs",
] as const;

/** A package for Alpine, not signed. Path of the package. */
export function buildApk(_work: string, options: PackageOptions): string {
  const architecture = alpineName(options.architecture);
  const revision = options.revision ?? PRODUCT.revision;
  const entries = tree({
    family: "generic",
    configuration: "alpine",
    executable: options.executable,
    udev: "standard",
    etc: true,
    documentation: `/usr/share/doc/${PRODUCT.name}`,
  }).filter(({ path: where }) => !/systemd|replace-execstart/.test(where));
  const bytes = writeApk(
    {
      name: PRODUCT.name,
      version: `${PRODUCT.version}-r${revision}`,
      summary: PRODUCT.summary,
      license: PRODUCT.license,
      architecture,
      depends: ALPINE_DEPENDENCIES,
    },
    [...entries, { path: "/etc/init.d/waagent", mode: 0o755, content: openrcScript() }],
    {
      level: options.compression === "small" ? 9 : 1,
      scripts: { "pre-deinstall": fs.readFileSync(path.join(scripts, "pre-deinstall")) },
    },
  );
  const name = `${PRODUCT.name}-${PRODUCT.version}-r${revision}.${architecture}.apk`;
  const file = path.join(options.out, name);
  fs.writeFileSync(file, bytes);
  return file;
}

export interface ApkInfo {
  readonly name: string;
  /** Ends with "-r" and a number. */
  readonly version: string;
  readonly summary: string;
  readonly license: string;
  /** As apk calls it. */
  readonly architecture: string;
  readonly depends: readonly string[];
  readonly provides?: readonly string[];
}

/**
 * The second version of the format, which all apk programs read: two gzip streams, data about the package and the files
 * themselves, together one tar archive. A signature would be a third one before them.
 */
export function writeApk(
  info: ApkInfo,
  entries: readonly Entry[],
  options: {
    readonly level: number;
    readonly scripts?: Readonly<Record<string, string | Uint8Array>>;
  },
): Buffer {
  const { level } = options;
  const data = gzipSync(Buffer.concat([tarOf(entries), END_OF_TAR]), { level });
  const lines = [
    `pkgname = ${info.name}`,
    `pkgver = ${info.version}`,
    `pkgdesc = ${info.summary}`,
    `url = https://github.com/Azure/WALinuxAgent`,
    `builddate = ${DATE_OF_RELEASE}`,
    `packager = ${PRODUCT.maintainer}`,
    `size = ${entries.reduce((sum, { content }) => sum + content.length, 0)}`,
    `arch = ${info.architecture}`,
    `origin = ${info.name}`,
    `license = ${info.license}`,
    ...info.depends.map((name) => `depend = ${name}`),
    ...(info.provides ?? []).map((name) => `provides = ${name}`),
    `datahash = ${createHash("sha256").update(data).digest("hex")}`,
  ];
  const control: Entry[] = [
    { path: "/.PKGINFO", mode: 0o644, content: `${lines.join("\n")}\n` },
    ...Object.entries(options.scripts ?? {}).map(([name, content]) => ({
      path: `/.${name}`,
      mode: 0o755,
      content,
    })),
  ];
  return Buffer.concat([gzipSync(tarOf(control), { level: 9 }), data]);
}
