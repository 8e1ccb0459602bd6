import fs from "node:fs";
import path from "node:path";
import { run } from "./run.ts";
import { type ArchitectureName, DATE_OF_RELEASE, packagedFor, PRODUCT } from "./product.ts";
import { type Entry, tree, writeTree } from "./tree.ts";

const scripts = path.join(import.meta.dir, "debian");

/** The Python agent's packages in Debian and Ubuntu, which ours takes the place of. */
const REPLACED = ["waagent", "walinuxagent"] as const;

export interface PackageOptions {
  readonly architecture: ArchitectureName;
  readonly executable: Uint8Array;
  /** Folder the package gets into. */
  readonly out: string;
  /** "fast" for tests: hardly compressed. */
  readonly compression: "small" | "fast";
  /** Raised by a test of an upgrade; default PRODUCT.revision. */
  readonly revision?: string;
}

/** Path of the package. Errors: what dpkg-deb said. */
export function buildDeb(work: string, options: PackageOptions): string {
  const architecture = packagedFor(options.architecture).debian;
  const version = `${PRODUCT.version}-${options.revision ?? PRODUCT.revision}`;
  const folder = path.join(work, `deb-${architecture}`);
  const entries: Entry[] = tree({
    family: "debian",
    configuration: "debian",
    executable: options.executable,
    udev: "own",
    etc: false,
    documentation: `/usr/share/doc/${PRODUCT.name}`,
  });
  entries.push(
    {
      path: `/usr/share/doc/${PRODUCT.name}/changelog.Debian.gz`,
      mode: 0o644,
      content: Bun.gzipSync(Buffer.from(changelog(version)), { level: 9 }),
    },
    {
      path: `/usr/share/lintian/overrides/${PRODUCT.name}`,
      mode: 0o644,
      content: fs.readFileSync(path.join(scripts, "lintian-overrides")),
    },
  );
  const size = entries.reduce((sum, entry) => sum + Math.ceil(entry.content.length / 1024), 0);
  const control: Entry[] = [
    { path: "/DEBIAN/control", mode: 0o644, content: controlFile(version, architecture, size) },
    { path: "/DEBIAN/md5sums", mode: 0o644, content: md5sums(entries) },
    ...["preinst", "postinst", "prerm", "postrm"].map((name) => ({
      path: `/DEBIAN/${name}`,
      mode: 0o755,
      content: fs.readFileSync(path.join(scripts, name)),
    })),
  ];
  writeTree(folder, [...entries, ...control]);
  const file = path.join(options.out, `${PRODUCT.name}_${version}_${architecture}.deb`);
  const compression = options.compression === "small" ? ["-Zxz"] : ["-Zgzip", "-z1"];
  run(["dpkg-deb", "--root-owner-group", ...compression, "--build", folder, file], {
    environment: { SOURCE_DATE_EPOCH: String(DATE_OF_RELEASE) },
  });
  return file;
}

function controlFile(version: string, architecture: string, kibibytes: number): string {
  return [
    `Package: ${PRODUCT.name}`,
    `Version: ${version}`,
    `Architecture: ${architecture}`,
    `Maintainer: ${PRODUCT.maintainer}`,
    `Installed-Size: ${kibibytes}`,
    "Depends: libc6 (>= 2.17), ca-certificates, openssl, iproute2, passwd, openssh-client | openssh-server",
    "Recommends: openssh-server, iptables | nftables, parted, e2fsprogs, sudo, eject",
    "Suggests: cloud-init, mdadm",
    // Not walinuxagent: Debian's package conflicts with that name, and dpkg would then refuse to exchange the two.
    `Provides: waagent (= ${version})`,
    `Conflicts: ${REPLACED.join(", ")}`,
    `Replaces: ${REPLACED.join(", ")}`,
    "Section: admin",
    "Priority: optional",
    `Description: ${PRODUCT.summary}`,
    ...PRODUCT.description.map((line) => ` ${line}`),
    "",
  ].join("\n");
}

function md5sums(entries: readonly Entry[]): string {
  return entries
    .map(({ path: where, content }) => {
      const sum = new Bun.CryptoHasher("md5").update(content).digest("hex");
      return `${sum}  ${where.slice(1)}\n`;
    })
    .join("");
}

function changelog(version: string): string {
  const date = new Date(DATE_OF_RELEASE * 1000).toUTCString().replace("GMT", "+0000");
  return `${PRODUCT.name} (${version}) unstable; urgency=medium\n\n  * See the project's history.\n\n -- ${PRODUCT.maintainer}  ${date}\n`;
}
