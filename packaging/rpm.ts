import fs from "node:fs";
import path from "node:path";
import type { PackageOptions } from "./deb.ts";
import { DATE_OF_RELEASE, packagedFor, PRODUCT } from "./product.ts";
import { run } from "./run.ts";
import { tree, writeTree } from "./tree.ts";

const spec = path.join(import.meta.dir, "rpm/waagent-native.spec");

/** Path of the package. Errors: what rpmbuild said. */
export function buildRpm(work: string, options: PackageOptions): string {
  const architecture = packagedFor(options.architecture).rpm;
  const release = options.revision ?? PRODUCT.revision;
  const top = path.join(work, `rpm-${architecture}`);
  const source = path.join(top, "tree");
  writeTree(
    source,
    tree({
      family: "generic",
      configuration: "generic",
      executable: options.executable,
      udev: "standard",
      etc: false,
      documentation: `/usr/share/doc/${PRODUCT.name}`,
    }),
  );
  const defines: Readonly<Record<string, string>> = {
    _topdir: top,
    _sourcedir: source,
    _rpmdir: path.join(top, "out"),
    _buildhost: "localhost",
    _unitdir: "/usr/lib/systemd/system",
    agent_version: PRODUCT.version,
    agent_release: release,
    use_source_date_epoch_as_buildtime: "1",
    clamp_mtime_to_source_date_epoch: "1",
    _binary_payload: options.compression === "small" ? "w19.zstdio" : "w1.gzdio",
  };
  run(
    [
      "rpmbuild",
      "-bb",
      "--quiet",
      `--target=${architecture}-linux`,
      ...Object.entries(defines).flatMap(([name, value]) => ["--define", `${name} ${value}`]),
      spec,
    ],
    { environment: { SOURCE_DATE_EPOCH: String(DATE_OF_RELEASE), HOME: top } },
  );
  const name = `${PRODUCT.name}-${PRODUCT.version}-${release}.${architecture}.rpm`;
  const file = path.join(options.out, name);
  fs.copyFileSync(path.join(top, "out", architecture, name), file);
  return file;
}
