import { expect, test } from "bun:test";
import { restartSsh } from "../../../src/provision/ssh-service.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const RELOAD = ["systemctl", "--job-mode=ignore-dependencies", "try-reload-or-restart", "ssh"];

async function changesOn(state: string, argv: readonly string[] | undefined): Promise<string[][]> {
  using system = createFakeSystem();
  answer(system, state);
  await restartSsh(system, { restartSsh: argv });
  return system.commands.filter((command) => command[1] !== "show");
}
const answer = (system: FakeSystem, state: string) =>
  system.programs.set("systemctl", (argv) => ({
    stdout: argv[1] === "show" ? `${state}\n` : "",
  }));

test("provisioning.md SSH-16: a running sshd is reloaded by the adapter's command, one that waits for its turn too", async () => {
  for (const state of ["active", "inactive", "reloading"])
    expect(await changesOn(state, RELOAD)).toEqual([RELOAD]);
  expect(await changesOn("active", undefined)).toEqual([]);
});

test("an sshd that systemd has given up for want of host keys is started, one that still tries may go on trying", async () => {
  expect(await changesOn("failed", RELOAD)).toEqual([
    ["systemctl", "reset-failed", "ssh"],
    ["systemctl", "--no-block", "start", "ssh"],
  ]);
  expect(await changesOn("activating", RELOAD)).toEqual([["systemctl", "reset-failed", "ssh"]]);
});

test("a refusal is a warning; other service managers are not asked for a state", async () => {
  using system = createFakeSystem();
  system.programs.set("rc-service", () => ({ code: 1, stderr: "no such service" }));
  await restartSsh(system, { restartSsh: ["rc-service", "sshd", "restart"] });
  expect(system.commands).toEqual([["rc-service", "sshd", "restart"]]);
  expect(system.lines.join("\n")).toContain("WARNING");
  expect(system.lines.join("\n")).toContain("no such service");
});
