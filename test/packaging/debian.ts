import fs from "node:fs";
import path from "node:path";
import { canSandbox } from "../e2e/sandbox.ts";
import { missing } from "../support/skip.ts";

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

/** Why packages cannot be installed in a throw-away machine here. */
export function cannotInstall(...programs: string[]): string | undefined {
  const able = canSandbox();
  return able.ok ? missing({ root: true, programs: ["dpkg", ...programs] }) : able.reason;
}
