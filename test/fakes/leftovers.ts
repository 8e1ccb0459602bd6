import { afterAll } from "bun:test";
import { readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

/** Directories of fake machines begin so, one prefix for each run of tests. */
export function fakePrefix(): string {
  return `waagent-fake-${process.pid}-`;
}

// Loaded before all tests (bunfig.toml): a test that fails before it disposes of its machine leaves nothing behind.
afterAll(() => {
  for (const name of readdirSync(tmpdir()))
    if (name.startsWith(fakePrefix()))
      rmSync(path.join(tmpdir(), name), { recursive: true, force: true });
});
