import { expect, test } from "bun:test";
import { VERSION } from "../../../src/base/identity.ts";
import { helpText } from "../../../src/cli/help.ts";
import { daemonCommand, registerService } from "../../../src/cli/service.ts";
import { runningGoalStateAgent, versionText } from "../../../src/cli/version.ts";
import { distroNamed } from "../../fakes/distro.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

test("provisioning.md CLI-22: the usage text begins with an empty line and lists every command and flag", () => {
  const text = helpText("/usr/sbin/waagent");
  expect(text.startsWith("\nusage: /usr/sbin/waagent ")).toBe(true);
  for (const word of [
    "-verbose",
    "-force",
    "-help",
    "-configuration-path:",
    "-deprovision[+user]",
    "-register-service",
    "-version",
    "-daemon",
    "-start",
    "-run-exthandlers",
    "-show-configuration",
    "-collect-logs [-full]",
    "-setup-firewall=<IP>",
  ]) {
    expect(text.split("Commands:")[0]).toContain(word);
  }
  expect(text.split("\n").every((line) => line.length <= 110)).toBe(true);
});

test("provisioning.md CLI-07: -debug is not in the usage text", () => {
  expect(helpText("waagent")).not.toContain("-debug");
});

function process(system: FakeSystem, pid: number, ...words: readonly string[]): void {
  system.files.makeDirectory(`/proc/${pid}`);
  system.files.write(`/proc/${pid}/cmdline`, words.map((word) => `${word}\0`).join(""));
}

test("provisioning.md CLI-20; system.md INIT-06; extensions.md UPD-36: three lines, the third from the process list", async () => {
  using system = createFakeSystem();
  system.files.makeDirectory("/etc");
  system.files.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n");
  expect(await versionText(system, "1.4.5")).toBe(
    `WALinuxAgent-${VERSION} running on debian 12\nBun: 1.4.5\nGoal state agent: ${VERSION}\n`,
  );
  process(system, 1, "/sbin/init");
  process(system, 20, "/usr/sbin/waagent", "-daemon");
  process(system, 100, "python3", "-u", "bin/WALinuxAgent-2.8.0.11-py3.egg", "-run-exthandlers");
  process(
    system,
    31,
    "python3",
    "-u",
    "/var/lib/waagent/WALinuxAgent-9.9.9.9/bin/WALinuxAgent-9.9.9.9-py3.8.egg",
    "-run-exthandlers",
  );
  expect(await versionText(system, "1.4.5")).toEndWith("Goal state agent: 9.9.9.9\n");
});

test("provisioning.md CLI-20: only a folder WALinuxAgent-<version> with the verb behind it counts", () => {
  using system = createFakeSystem();
  expect(runningGoalStateAgent(system)).toBeUndefined();
  process(system, 5, "/usr/sbin/waagent", "-run-exthandlers");
  process(system, 6, "vi", "/var/lib/waagent/WALinuxAgent-1.2.3.4/bin/x");
  process(system, 7, "");
  system.files.makeDirectory("/proc/11");
  system.files.makeDirectory("/proc/self");
  expect(runningGoalStateAgent(system)).toBeUndefined();
  process(system, 8, "x", "/".repeat(50_000), "-run-exthandlers", "/WALinuxAgent-1.2.3.4");
  expect(runningGoalStateAgent(system)).toBeUndefined();
  process(system, 9, "/x/WALinuxAgent-1.2.3.4/bin/a", "-debug", "-run-exthandlers");
  expect(runningGoalStateAgent(system)).toBe("1.2.3.4");
});

test("provisioning.md CLI-26 OS-40; system.md INIT-05 PKG-01: three lines, each before its action", async () => {
  using system = createFakeSystem();
  const seen: string[] = [];
  for (const program of ["systemctl", "service"]) {
    system.programs.set(program, (argv) => void seen.push(argv.join(" ")));
  }
  await registerService({ system, distro: distroNamed("rhel", "7.9") }, (line) => seen.push(line));
  expect(seen).toEqual([
    "Register WALinuxAgent service\n",
    "systemctl enable waagent",
    "Stop WALinuxAgent service\n",
    "/sbin/service waagent stop",
    "Start WALinuxAgent service\n",
    "/sbin/service waagent start",
  ]);
});

test("provisioning.md DB-19: a service that cannot be enabled is an error, one that cannot be stopped is not", async () => {
  using system = createFakeSystem();
  const distro = distroNamed("azurelinux", "3.0");
  system.programs.set("systemctl", (argv) => ({ code: argv[1] === "stop" ? 5 : 0 }));
  await registerService({ system, distro }, () => undefined);
  system.programs.set("systemctl", (argv) => ({ code: argv[1] === "enable" ? 1 : 0 }));
  await expect(registerService({ system, distro }, () => undefined)).rejects.toThrow(
    "systemctl enable",
  );
});

test("provisioning.md CLI-23; system.md INIT-04: -start runs -daemon and hands the configuration path on", () => {
  expect(daemonCommand(["/usr/sbin/waagent"], { root: undefined }, "/etc/my.conf")).toEqual([
    "/usr/sbin/waagent",
    "-daemon",
    "-configuration-path:/etc/my.conf",
  ]);
  expect(daemonCommand(["/x"], { root: "/tmp/r" }, undefined)).toEqual([
    "/x",
    "--root=/tmp/r",
    "-daemon",
  ]);
});
