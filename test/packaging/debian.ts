import fs from "node:fs";
import path from "node:path";

const folders = [".cache/debian", "dist/test/reference"].map((name) =>
  path.resolve(import.meta.dir, "../..", name),
);

/** Debian's own agent as a package file, which `npm test` fetches; undefined when it could not. */
export function debianAgent(): string | undefined {
  for (const folder of folders.filter((name) => fs.existsSync(name))) {
    const name = fs.readdirSync(folder).find((file) => /^waagent_.*\.deb$/.test(file));
    if (name !== undefined) return path.join(folder, name);
  }
  return undefined;
}
