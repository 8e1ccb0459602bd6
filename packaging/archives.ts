import path from "node:path";
import type { PackageOptions } from "./deb.ts";
import { ARCHITECTURES, DATE_OF_RELEASE, packagedFor, PRODUCT } from "./product.ts";
import { run } from "./run.ts";
import { otherInitEntries, sysextEntries, tree, writeTree } from "./tree.ts";

/** A tree to be unpacked in `/`, with the scripts of other service managers. Path of the archive. */
export function buildTar(work: string, options: PackageOptions): string {
  const { target } = ARCHITECTURES[options.architecture];
  const folder = path.join(work, `tar-${target}`);
  writeTree(folder, [
    ...tree({
      family: "generic",
      configuration: target.endsWith("-musl") ? "alpine" : "generic",
      executable: options.executable,
      udev: "standard",
      etc: true,
      documentation: "/usr/share/doc/waagent",
    }),
    ...otherInitEntries(),
  ]);
  const small = options.compression === "small";
  const file = path.join(
    options.out,
    `waagent-${PRODUCT.version}-${target}.tar.${small ? "xz" : "gz"}`,
  );
  run([
    "tar",
    "--create",
    `--file=${file}`,
    `--use-compress-program=${small ? "xz -T0 -6" : "gzip -n1"}`,
    "--sort=name",
    "--owner=0",
    "--group=0",
    "--numeric-owner",
    `--mtime=@${DATE_OF_RELEASE}`,
    `--directory=${folder}`,
    "etc",
    "usr",
  ]);
  return file;
}

/** A systemd-sysext image: `/usr` only, for systems whose own `/usr` cannot be written. Path of the image. */
export function buildSysext(work: string, options: PackageOptions): string {
  const { target } = ARCHITECTURES[options.architecture];
  const { systemd } = packagedFor(options.architecture);
  const folder = path.join(work, `sysext-${target}`);
  const entries = tree({
    family: "sysext",
    configuration: "coreos",
    executable: options.executable,
    udev: "standard",
    etc: false,
    documentation: "/usr/share/doc/waagent",
  });
  writeTree(folder, [...entries, ...sysextEntries(systemd)]);
  const file = path.join(options.out, `waagent-${PRODUCT.version}-${target}.sysext.raw`);
  run([
    "mksquashfs",
    folder,
    file,
    "-noappend",
    "-quiet",
    "-no-progress",
    "-all-root",
    "-no-xattrs",
    "-mkfs-time",
    String(DATE_OF_RELEASE),
    "-all-time",
    String(DATE_OF_RELEASE),
    ...(options.compression === "small"
      ? ["-comp", "zstd", "-Xcompression-level", "19", "-b", "1M"]
      : ["-comp", "gzip", "-Xcompression-level", "1"]),
  ]);
  return file;
}
