import { afterAll, beforeAll, describe, expect } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { buildDeb } from "../../packaging/deb.ts";
import { createSandbox, type RunResult, type Sandbox } from "../e2e/sandbox.ts";
import { testUnless } from "../support/skip.ts";
import { debianAgent } from "./debian.ts";
import { cannotInstall } from "./kinds.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-takeover-"));
const theirs = debianAgent();
const reason =
  cannotInstall("dpkg-deb") ??
  (theirs === undefined ? "Debian's waagent package could not be fetched" : undefined);
const takeover = testUnless(reason);
let ours = "";

beforeAll(() => {
  if (reason !== undefined) return;
  // What matters here is what the package managers do; a small program is quicker to unpack a hundred times.
  const executable = Buffer.from('#!/bin/sh\necho "our $*"\n');
  const options = { architecture: "x64", executable, out: work, compression: "fast" } as const;
  ours = path.basename(buildDeb(path.join(work, "tree"), options));
  fs.copyFileSync(theirs ?? "", path.join(work, "theirs.deb"));
});
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

/** State as an agent that has worked leaves it: path below /var/lib/waagent → text. */
const STATE: Readonly<Record<string, string>> = {
  provisioned: "d5c1b1f5-1f3c-4b0a-9f0e-3b8f5a2f9d11",
  "ovf-env.xml": "<Environment/>",
  "GoalState.1.xml": "<GoalState/>",
  "TransportPrivate.pem": "key",
  "history/2026-01-01T00-00-00_incarnation_1/GoalState.xml": "<GoalState/>",
  "Contoso.Web.Server-1.2.3/config/HandlerState": "Enabled",
  "Contoso.Web.Server-1.2.3/config/3.settings": "{}",
  "Contoso.Web.Server-1.2.3/status/3.status": "[]",
  "Contoso.Web.Server-1.2.3/mrseq": "3",
  "Contoso.Web.Server-1.2.3/bin/run": "#!/bin/sh\n",
};

function putState(sandbox: Sandbox): void {
  for (const [name, text] of Object.entries(STATE)) {
    const mode = name.endsWith(".pem") ? 0o600 : name.endsWith("/run") ? 0o744 : 0o644;
    sandbox.write(`/var/lib/waagent/${name}`, text, mode);
  }
  fs.chmodSync(`${sandbox.root}/var/lib/waagent`, 0o700);
}

function expectState(sandbox: Sandbox): void {
  const folder = `${sandbox.root}/var/lib/waagent`;
  const found = (fs.readdirSync(folder, { recursive: true }) as string[])
    .filter((name) => fs.statSync(path.join(folder, name)).isFile())
    .sort();
  expect(found).toEqual(Object.keys(STATE).sort());
  for (const [name, text] of Object.entries(STATE)) {
    expect(fs.readFileSync(path.join(folder, name), "utf8")).toBe(text);
    expect(fs.statSync(path.join(folder, name)).nlink).toBe(1);
  }
  const mode = (name: string) => fs.statSync(path.join(folder, name)).mode & 0o777;
  expect([
    mode("."),
    mode("TransportPrivate.pem"),
    mode("Contoso.Web.Server-1.2.3/bin/run"),
  ]).toEqual([0o700, 0o600, 0o744]);
  expect(sandbox.exists("/var/lib/.waagent-takeover")).toBe(false);
}

async function dpkg(sandbox: Sandbox, ...words: string[]): Promise<RunResult> {
  for (let attempt = 0; ; attempt += 1) {
    const done = await sandbox.run(["dpkg", "--force-unsafe-io", ...words], { allowFailure: true });
    // One that was killed may hold its lock until the kernel has taken it down.
    if (attempt === 50 || !done.stderr.includes("lock was locked by another process")) return done;
    await Bun.sleep(50);
  }
}

async function statusOf(sandbox: Sandbox, name: string): Promise<string> {
  const asked = await sandbox.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], {
    allowFailure: true,
  });
  return asked.stdout;
}

async function install(sandbox: Sandbox, name: string): Promise<void> {
  // Theirs conflicts with network-manager, which this machine may have.
  const force = name === "theirs.deb" ? ["--force-conflicts"] : [];
  const done = await dpkg(sandbox, ...force, "-i", `/opt/packages/${name}`);
  expect({ said: done.code === 0 ? "" : done.stderr, code: done.code }).toEqual({
    said: "",
    code: 0,
  });
}

/** Theirs can come only after ours has left: their package does not say that it takes the place of another. */
async function goBack(sandbox: Sandbox): Promise<void> {
  expect((await dpkg(sandbox, "-r", "waagent-native")).code).toBe(0);
  await install(sandbox, "theirs.deb");
}

const withPackages = () => createSandbox({ binds: [{ from: work, to: "/opt/packages" }] });

describe("takeover and rollback", () => {
  takeover(
    "what the README says of Debian's package: it cannot be installed freshly where there is state",
    async () => {
      await using sandbox = await withPackages();
      await dpkg(sandbox, "--purge", "--force-all", "waagent");
      await sandbox.run(["mkdir", "-p", "/var/lib/waagent"]);
      const done = await dpkg(sandbox, "--force-conflicts", "-i", "/opt/packages/theirs.deb");
      expect(done.code).not.toBe(0);
      expect(done.stderr).toMatch(/\/var\/lib\/waagent.*(?:exists|File exists)/);
    },
    120_000,
  );

  takeover(
    "over Debian's agent: users, state, configuration and the service's name stay, and back again",
    async () => {
      await using sandbox = await withPackages();
      await install(sandbox, "theirs.deb");
      await sandbox.run(["useradd", "-m", "provisioned-user"]);
      await sandbox.run(["sh", "-c", "echo 'ResourceDisk.EnableSwap=y' >>/etc/waagent.conf"]);
      putState(sandbox);
      const configuration = sandbox.read("/etc/waagent.conf");

      await install(sandbox, ours);
      expect((await sandbox.run(["waagent", "-version"])).stdout).toBe("our -version\n");
      expect(await statusOf(sandbox, "waagent")).toBe("config-files");
      expectState(sandbox);
      expect(sandbox.read("/etc/waagent.conf")).toBe(configuration);
      expect((await sandbox.run(["id", "-un", "provisioned-user"])).code).toBe(0);
      const alias = await sandbox.run([
        "readlink",
        "-f",
        "/etc/systemd/system/walinuxagent.service",
      ]);
      expect(alias.stdout).toBe("/usr/lib/systemd/system/waagent.service\n");
      expect(sandbox.read("/usr/lib/systemd/system/waagent.service")).toContain("-daemon");

      await goBack(sandbox);
      expect(sandbox.read("/usr/sbin/waagent")).toStartWith("#!/usr/bin/python3");
      expect(await statusOf(sandbox, "waagent")).toBe("installed");
      expectState(sandbox);
      expect(sandbox.read("/etc/waagent.conf")).toBe(configuration);
      // Their unit is theirs again, not an alias of ours.
      expect(sandbox.exists("/etc/systemd/system/walinuxagent.service")).toBe(false);
      expect(sandbox.read("/lib/systemd/system/walinuxagent.service")).toContain(
        "/usr/sbin/waagent",
      );
      expect(sandbox.exists("/lib/udev/rules.d/66-azure-storage.rules")).toBe(true);
      // Purging what is left of ours takes nothing away from theirs.
      expect((await dpkg(sandbox, "-P", "waagent-native")).code).toBe(0);
      expectState(sandbox);
      expect(sandbox.exists("/etc/logrotate.d/waagent.logrotate")).toBe(true);
    },
    60_000,
  );

  takeover(
    "neither overwrites the other: theirs is refused while ours is there, and an upgrade of ours keeps the state",
    async () => {
      await using sandbox = await withPackages();
      await install(sandbox, ours);
      putState(sandbox);
      expect((await dpkg(sandbox, "-i", "/opt/packages/theirs.deb")).code).not.toBe(0);
      expect((await sandbox.run(["waagent", "-version"])).stdout).toBe("our -version\n");
      await install(sandbox, ours);
      expectState(sandbox);
    },
    60_000,
  );

  takeover(
    "killed at any point, twenty times there and back: the state is whole once the package manager has finished",
    async () => {
      await using sandbox = await withPackages();
      await install(sandbox, "theirs.deb");
      putState(sandbox);
      const started = performance.now();
      await install(sandbox, ours);
      const usual = performance.now() - started;
      await goBack(sandbox);
      let killed = 0;
      for (let round = 0; round < 20; round += 1) {
        const interrupted = sandbox.spawn([
          "dpkg",
          "--force-unsafe-io",
          "-i",
          `/opt/packages/${ours}`,
        ]);
        // Spread over the whole run, so that each script and the removal of theirs gets its share.
        await Promise.race([Bun.sleep(((round + 0.5) / 20) * usual), interrupted.exited]);
        await interrupted.kill();
        if ((await interrupted.exited) !== 0) killed += 1;
        await dpkg(sandbox, "--configure", "-a");
        await install(sandbox, ours);
        expectState(sandbox);
        expect(await statusOf(sandbox, "waagent-native")).toBe("installed");

        const removal = sandbox.spawn(["dpkg", "--force-unsafe-io", "-r", "waagent-native"]);
        await Promise.race([Bun.sleep(((round + 0.5) / 20) * 0.5 * usual), removal.exited]);
        await removal.kill();
        await dpkg(sandbox, "--configure", "-a");
        await goBack(sandbox);
        expectState(sandbox);
        expect(sandbox.read("/usr/sbin/waagent")).toStartWith("#!/usr/bin/python3");
      }
      expect(killed).toBeGreaterThan(10);
    },
    180_000,
  );
});
