import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Secret } from "../../../src/base/secret.ts";
import { createExec } from "../../../src/system/exec.ts";
import { Root } from "../../../src/system/root.ts";

const exec = createExec(new Root("/"));

describe("exec", () => {
  test("arguments arrive as they are, output and exit code come back", async () => {
    const result = await exec.run({ argv: ["printf", "%s|", "a b", "$HOME", "*"], okCodes: [0] });
    expect(result.stdout).toBe("a b|$HOME|*|");
    expect((await exec.run({ argv: ["sh", "-c", "exit 3"], okCodes: [3] })).code).toBe(3);
  });

  test("system.md THR-05: helpers get a fixed environment with the agent's marker and nothing else", async () => {
    const { stdout } = await exec.run({ argv: ["env"], environment: { OPENSSL_FIPS: "1" } });
    const names = stdout
      .trim()
      .split("\n")
      .map((line) => line.split("=")[0])
      .sort();
    expect(names).toEqual([
      "AZURE_GUEST_AGENT_PARENT_PROCESS_NAME",
      "LC_ALL",
      "OPENSSL_FIPS",
      "PATH",
    ]);
    expect(stdout).toContain("AZURE_GUEST_AGENT_PARENT_PROCESS_NAME=AZURE_GUEST_AGENT");
    expect(stdout).toContain("LC_ALL=C");
  });

  test("a failure names program, exit code and the end of its output, never its input", async () => {
    const failing = exec.run({
      argv: ["sh", "-c", "cat >/dev/null; echo gone wrong >&2; exit 7"],
      stdin: new Secret("hunter2"),
    });
    await expect(failing).rejects.toThrow("failed with exit code 7: gone wrong");
    const text = await failing.catch((error: Error) => error.message);
    expect(text).not.toContain("hunter2");
  });

  test("a program that is missing is named", async () => {
    await expect(exec.run({ argv: ["no-such-program"] })).rejects.toThrow(
      "The program no-such-program is not installed",
    );
    expect(exec.find("no-such-program")).toBeUndefined();
    expect(exec.find("sh")).toMatch(/\/sh$/);
  });

  test("system.md BET-07: a program that hangs is ended with all of its group", async () => {
    const started = performance.now();
    const hung = exec.run({ argv: ["sh", "-c", "sleep 30 & sleep 30"], timeoutMs: 100 });
    await expect(hung).rejects.toThrow("did not end within 0.1 s and was killed");
    await hung.catch(() => undefined);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  test("a background child that keeps the pipes does not hold us", async () => {
    const result = await exec.run({
      argv: ["sh", "-c", "echo done; sleep 30 & exit 0"],
      timeoutMs: 20_000,
    });
    expect(result.stdout).toBe("done\n");
  });

  test("endless output is cut and the program ended", async () => {
    await expect(exec.run({ argv: ["yes"], maxOutputBytes: 10_000 })).rejects.toThrow(
      "wrote more than 10000 bytes",
    );
  });

  test("a signal cancels", async () => {
    const controller = new AbortController();
    const running = exec.run({ argv: ["sleep", "30"], signal: controller.signal });
    setTimeout(() => controller.abort(), 50);
    await expect(running).rejects.toThrow("was cancelled");
    await running.catch(() => undefined);
  });

  test("under a scratch root only its own bin folder is searched, also for absolute names", async () => {
    const directory = mkdtempSync(path.join(tmpdir(), "waagent-exec-"));
    mkdirSync(path.join(directory, "bin"));
    writeFileSync(path.join(directory, "bin/useradd"), "#!/bin/sh\necho stub\n");
    chmodSync(path.join(directory, "bin/useradd"), 0o755);
    const rooted = createExec(new Root(directory));
    expect((await rooted.run({ argv: ["/usr/sbin/useradd"] })).stdout).toBe("stub\n");
    await expect(rooted.run({ argv: ["/usr/bin/id"] })).rejects.toThrow(
      "The program /usr/bin/id is not installed",
    );
    rmSync(directory, { recursive: true });
  });
});
