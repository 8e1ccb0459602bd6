import { test } from "bun:test";
import fs from "node:fs";

/** What a test needs from the machine it runs on. */
export interface Needs {
  readonly root?: boolean;
  /** Programs that must be found on PATH or in an sbin folder. */
  readonly programs?: readonly string[];
  /** Files or devices that must exist. */
  readonly files?: readonly string[];
}

const SEARCHED = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Why this machine cannot run such a test, in words; undefined when it can. */
export function missing(needs: Needs): string | undefined {
  if (needs.root === true && process.getuid?.() !== 0) return "it needs root";
  for (const program of needs.programs ?? []) {
    if (!SEARCHED.some((folder) => fs.existsSync(`${folder}/${program}`))) {
      return `the program ${program} is missing`;
    }
  }
  for (const file of needs.files ?? []) {
    if (!fs.existsSync(file)) return `${file} is missing`;
  }
  return undefined;
}

/**
 * `test`, or a `test` that skips and has the reason in the report: `const rooted = testWith({ root: true });`, then
 * `rooted("name", run, milliseconds)`. A skipped test is named in the closing list of `npm test`.
 */
export function testWith(needs: Needs): typeof test {
  return testUnless(missing(needs));
}

/** Like `testWith` with a reason found elsewhere. */
export function testUnless(reason: string | undefined): typeof test {
  if (reason === undefined) return test;
  const list = process.env["WAAGENT_SKIP_REASONS"];
  if (list !== undefined) fs.appendFileSync(list, `${reason}\n`);
  return test.skip as typeof test;
}

/** Like `testUnless`, and run beside the other tests of its file that are of this kind. */
export function concurrentUnless(reason: string | undefined): typeof test {
  const known = testUnless(reason);
  return reason === undefined ? (test.concurrent as typeof test) : known;
}
