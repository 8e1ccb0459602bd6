import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { testUnless } from "../support/skip.ts";

const project = path.resolve(import.meta.dir, "../..");

/** Samples of the reference, which stay outside the repository. */
export const fixtures =
  process.env["WAAGENT_FIXTURES"] ?? path.resolve(project, "../shared/fixtures/waagent-2.15");

export const areFixturesThere = existsSync(fixtures);

/** One skipped test in place of a file's, with its reason in the closing list of `npm test`. */
export function skipWithoutFixtures(): void {
  testUnless(
    `no samples at ${fixtures}: they are not ours to pass on; WAAGENT_FIXTURES names another place`,
  )("the samples of the platform and of the reference", () => undefined);
}

export function readFixture(name: string): string {
  return readFileSync(path.join(fixtures, name), "utf8");
}

export function readFixtureBytes(name: string): Uint8Array {
  return readFileSync(path.join(fixtures, name));
}

/** Files directly in a folder, sorted. */
export function listFixtures(folder: string): string[] {
  return readdirSync(path.join(fixtures, folder), { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name)
    .toSorted();
}
