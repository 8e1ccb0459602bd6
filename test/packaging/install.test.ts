import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { compile, packageVersion } from "../../build.ts";
import { deliver } from "../../packaging/build.ts";
import { startGuest } from "../e2e/guest.ts";
import { createSandbox, type Sandbox } from "../e2e/sandbox.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { readElf } from "./elf.ts";
import { cannotInstall, KINDS, type Kind } from "./kinds.ts";

/** Every package of both kinds of machine: installed, run, upgraded, removed, and nothing left but what is documented. */

setDefaultTimeout(120_000);
const version = packageVersion();
const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-install-"));
const PACKAGES = "/opt/packages";
const readme = fs.readFileSync(path.resolve(import.meta.dir, "../../README.md"), "utf8");

beforeAll(() => {
  const architectures = KINDS.map(({ name }) => name);
  const common = { architectures, compression: "fast" } as const;
  deliver({ ...common, formats: ["deb", "rpm", "tar", "sysext"], out: work });
  deliver({ ...common, formats: ["deb", "rpm"], out: path.join(work, "next"), revision: "2" });
});
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

const deb = (kind: Kind, revision: 1 | 2) =>
  `${revision === 2 ? "next/" : ""}waagent-native_${version}-${revision}_${kind.debian}.deb`;
const rpm = (kind: Kind, revision: 1 | 2) =>
  `${revision === 2 ? "next/" : ""}waagent-native-${version}-${revision}.${kind.rpm}.rpm`;
const archive = (kind: Kind, ending: string) => `waagent-${version}-linux-${kind.name}.${ending}`;

/** A machine that never had an agent, with the packages in `PACKAGES`. */
async function emptyMachine(): Promise<Sandbox> {
  const sandbox = await createSandbox({ binds: [{ from: work, to: PACKAGES }] });
  await sandbox.run(["dpkg", "--purge", "--force-all", "waagent"], { allowFailure: true });
  await sandbox.run(["rm", "-rf", "/etc/waagent.conf", "/etc/logrotate.d/waagent.logrotate"]);
  return sandbox;
}

const agentIn =
  (sandbox: Sandbox, { through }: Kind) =>
  (...words: string[]) =>
    sandbox.run([...through, "/usr/sbin/waagent", ...words], { allowFailure: true });

/** systemd-sysext lays an overlay over the throw-away machine's, which is one over this machine's root. */
function cannotMerge(): string | undefined {
  const OVERLAYFS_SUPER_MAGIC = 0x794c7630;
  return fs.statfsSync("/").type === OVERLAYFS_SUPER_MAGIC
    ? "the root of this machine is an overlay, and the kernel stacks no third one upon two"
    : undefined;
}

/** The executable that was installed is whole. */
async function expectAnswer(sandbox: Sandbox, kind: Kind): Promise<void> {
  const said = (await agentIn(sandbox, kind)("-version")).stdout;
  expect(said).toContain(`WALinuxAgent-${version} running on `);
}

/** It also does its work, and the configuration that came with it is good. */
async function expectRuns(sandbox: Sandbox, kind: Kind): Promise<void> {
  const agent = agentIn(sandbox, kind);
  await expectAnswer(sandbox, kind);
  const status = await agent("status");
  expect({ code: status.code, said: status.stdout }).toMatchObject({
    code: 3,
    said: expect.stringContaining("No agent runs"),
  });
  const shown = await agent("-show-configuration");
  expect(shown.stdout).toContain("Provisioning.Agent = ");
  const checked = await agent("config", "check");
  expect({ code: checked.code, said: checked.stdout }).toMatchObject({ code: 0 });
}

/** Paths below the agent's own places that are not as they were before anything was installed. */
function leftBehind(sandbox: Sandbox): string[] {
  return sandbox
    .changes()
    .filter(({ kind }) => kind !== "directory" && kind !== "deleted")
    .map((change) => change.path)
    .filter(
      (file) =>
        !/^\/(var\/(lib\/(dpkg|rpm|systemd\/deb)|cache|log\/(apt|dpkg))|root|tmp|run|dev)\//.test(
          file,
        ),
    )
    .filter((file) => !/^\/(var\/log\/|etc\/ld\.so|var\/lib\/ucf)/.test(file));
}

for (const kind of KINDS) {
  const reason = kind.reason ?? cannotInstall();

  describe(`for ${kind.name}`, () => {
    testUnless(reason)(
      `extensions.md UPD-34: the deb for ${kind.name} installs beside nothing, runs unstripped, upgrades, and a purge leaves nothing`,
      async () => {
        await using sandbox = await emptyMachine();
        const before = new Set(leftBehind(sandbox));
        // The other kind's libraries are no packages of this machine's.
        const force = kind.through.length === 0 ? [] : ["--force-architecture", "--force-depends"];
        const install = (file: string) =>
          sandbox.run(["dpkg", ...force, "-i", `${PACKAGES}/${file}`]);

        await install(deb(kind, 1));
        await expectRuns(sandbox, kind);
        expect(sandbox.read("/etc/waagent.conf")).toContain("Provisioning.Agent=");
        expect((await sandbox.run(["stat", "-c", "%a", "/var/lib/waagent"])).stdout).toBe("700\n");
        const links = await sandbox.run([
          ...["readlink", "/etc/systemd/system/walinuxagent.service"],
          "/etc/systemd/system/multi-user.target.wants/waagent.service",
        ]);
        expect(links.stdout.match(/\/lib\/systemd\/system\/waagent\.service/g)).toHaveLength(2);

        await leaveTraces(sandbox);
        await install(deb(kind, 2));
        await expectAnswer(sandbox, kind);
        expectTraces(sandbox);

        await sandbox.run(["dpkg", "-r", "waagent-native"]);
        expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
        expect(sandbox.exists("/etc/systemd/system/walinuxagent.service")).toBe(false);
        // Another agent can go on from here.
        expectTraces(sandbox);

        await sandbox.run(["dpkg", "-P", "waagent-native"]);
        expect(leftBehind(sandbox).filter((file) => !before.has(file))).toEqual([]);
        expect(sandbox.exists("/var/lib/waagent")).toBe(false);
      },
    );

    testUnless(reason ?? cannotInstall("rpm"))(
      `the rpm for ${kind.name} installs, runs unstripped, upgrades keeping the configuration, and an erase leaves only state`,
      async () => {
        await using sandbox = await emptyMachine();
        const before = new Set(leftBehind(sandbox));
        // Debian's rpm knows nothing of what dpkg has installed.
        const force = ["--force-debian", "--nodeps"];
        const foreign = kind.through.length === 0 ? [] : ["--ignorearch"];
        const rpmOf = (...words: string[]) => sandbox.run(["rpm", ...force, ...words]);

        await rpmOf("-i", ...foreign, `${PACKAGES}/${rpm(kind, 1)}`);
        await expectRuns(sandbox, kind);
        const wants = await sandbox.run([
          "readlink",
          "/etc/systemd/system/multi-user.target.wants/waagent.service",
        ]);
        expect(wants.stdout).toContain("/waagent.service");

        await leaveTraces(sandbox);
        await rpmOf("-U", ...foreign, `${PACKAGES}/${rpm(kind, 2)}`);
        await expectAnswer(sandbox, kind);
        expectTraces(sandbox);

        await rpmOf("-e", "waagent-native");
        expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
        expect(leftBehind(sandbox).filter((file) => !before.has(file))).toEqual([
          "/etc/waagent.conf",
          "/var/lib/waagent/provisioned",
        ]);
      },
    );

    testUnless(reason)(
      `the archive for ${kind.name} unpacks to a running agent, is upgraded without /etc, and all of it is in its list`,
      async () => {
        await using sandbox = await emptyMachine();
        const before = new Set(leftBehind(sandbox));
        const file = `${PACKAGES}/${archive(kind, "tar.gz")}`;
        await sandbox.run(["tar", "-xf", file, "-C", "/"]);
        await expectRuns(sandbox, kind);
        for (const [name, mode] of [
          ["/usr/share/waagent/init/openrc", 0o755],
          ["/usr/share/waagent/init/sysv", 0o755],
          ["/etc/waagent.conf", 0o644],
          ["/usr/lib/systemd/system/waagent.service", 0o644],
        ] as const)
          expect(fs.statSync(sandbox.root + name).mode & 0o777).toBe(mode);

        await leaveTraces(sandbox);
        // An older one, while it runs: a file in use could not be written to.
        await sandbox.run(["cp", "/bin/sleep", "/usr/sbin/waagent"]);
        const older = sandbox.spawn(["/usr/sbin/waagent", "60"]);
        await sandbox.run(["tar", "-xf", file, "-C", "/", "--exclude=etc"]);
        await older.kill();
        await expectAnswer(sandbox, kind);
        expectTraces(sandbox);

        await sandbox.run(["sh", "-c", `tar -tf ${file} | grep -v '/$' | (cd / && xargs rm)`]);
        expect(leftBehind(sandbox).filter((one) => !before.has(one))).toEqual([
          "/var/lib/waagent/provisioned",
        ]);
      },
    );

    testUnless(reason ?? missing({ programs: ["unsquashfs", "systemd-sysext"] }) ?? cannotMerge())(
      `the extension image for ${kind.name} is merged by systemd-sysext, runs, is refreshed and unmerged, and nothing of it stays`,
      async () => {
        await using sandbox = await emptyMachine();
        const before = new Set(leftBehind(sandbox));
        // systemd-sysext mounts in a namespace of its own and lets the mounts come through.
        await sandbox.run(["mount", "--make-rshared", "/"]);
        const image = `${PACKAGES}/${archive(kind, "sysext.raw")}`;
        const folder = "/etc/extensions/waagent";
        await sandbox.run(["mkdir", "-p", path.dirname(folder)]);
        // Unpacked, as a throw-away machine has no loop devices.
        await sandbox.run(["unsquashfs", "-q", "-n", "-d", folder, image]);
        expect(fs.readdirSync(sandbox.root + folder)).toEqual(["usr"]);
        const sysext = (...words: string[]) => sandbox.run(["systemd-sysext", ...words]);
        if (kind.through.length > 0) {
          expect((await sysext("merge")).stderr).toContain("1 ignored due to incompatible version");
          expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
        }
        const force = kind.through.length === 0 ? [] : ["--force"];

        await sandbox.run(["touch", `${folder}/usr/share/waagent/of-the-older-image`]);
        await sysext(...force, "merge");
        await expectRuns(sandbox, kind);
        expect(sandbox.read("/usr/share/waagent/waagent.conf")).toMatch(/^AutoUpdate\.Enabled=n$/m);
        expect(
          sandbox.read("/usr/lib/systemd/system/multi-user.target.d/10-waagent.conf"),
        ).toContain("Upholds=waagent.service");

        await sandbox.run(["rm", "-rf", folder]);
        await sandbox.run(["unsquashfs", "-q", "-n", "-d", folder, image]);
        await sysext(...force, "refresh");
        await expectAnswer(sandbox, kind);
        expect(sandbox.exists("/usr/share/waagent/of-the-older-image")).toBe(false);

        await sandbox.run(["rm", "-rf", folder]);
        await sysext("refresh");
        expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
        expect(leftBehind(sandbox).filter((file) => !before.has(file))).toEqual([]);
      },
    );
  });
}

/** What an administrator changed and an agent left. */
async function leaveTraces(sandbox: Sandbox): Promise<void> {
  await sandbox.run([
    "sh",
    "-ec",
    `echo '# mine' >>/etc/waagent.conf
     mkdir -p -m 0700 /var/lib/waagent
     echo state >/var/lib/waagent/provisioned`,
  ]);
}

function expectTraces(sandbox: Sandbox): void {
  expect(sandbox.read("/etc/waagent.conf")).toContain("Provisioning.Agent=");
  expect(sandbox.read("/etc/waagent.conf")).toEndWith("# mine\n");
  expect(sandbox.read("/var/lib/waagent/provisioned")).toBe("state\n");
}

const arm = KINDS.find(({ name }) => name === "arm64")!;
const armTest = testUnless(
  arm.reason ?? cannotInstall("useradd", "chpasswd", "openssl", "ssh-keygen"),
);

/** The executable that is inside the archive of this kind. */
function packedExecutable({ name }: Kind): string {
  const file = path.join(work, "usr/sbin/waagent");
  const from = path.join(work, `waagent-${version}-linux-${name}.tar.gz`);
  expect(Bun.spawnSync(["tar", "-xf", from, "-C", work, "usr/sbin/waagent"]).exitCode).toBe(0);
  return file;
}

describe("the executables", () => {
  for (const { target, machine, interpreter, libraries } of [
    {
      target: "x64",
      machine: "x86-64",
      interpreter: "/lib64/ld-linux-x86-64.so.2",
      libraries: [],
    },
    {
      target: "arm64",
      machine: "aarch64",
      interpreter: "/lib/ld-linux-aarch64.so.1",
      libraries: [],
    },
    {
      target: "x64-musl",
      machine: "x86-64",
      interpreter: "/lib/ld-musl-x86_64.so.1",
      libraries: ["libstdc++.so.6"],
    },
    {
      target: "arm64-musl",
      machine: "aarch64",
      interpreter: "/lib/ld-musl-aarch64.so.1",
      libraries: ["libstdc++.so.6"],
    },
  ] as const) {
    test(`that for ${target} is a program for it, and needs ${libraries[0] ?? "no library"} besides the C library of 2012`, () => {
      const { file, bytes } = compile(`linux-${target}`, { out: path.join(work, "compiled") });
      const [, least = "", most = ""] = /An executable has (\d+) to (\d+) MB/.exec(readme) ?? [];
      expect(bytes / 1e6).toBeGreaterThan(Number(least));
      expect(bytes / 1e6).toBeLessThan(Number(most));
      const elf = readElf(file);
      expect(elf).toMatchObject({ machine, interpreter });
      const ofC = /^(?:lib(?:c|m|dl|pthread)\.so\.\d|ld-linux-.*|libc\.musl-.*)$/;
      expect(elf.needed.filter((name) => !ofC.test(name))).toEqual([...libraries]);
      // What the packages' dependencies say.
      const minors = elf.symbolVersions.map((name) =>
        Number(/^GLIBC_2\.(\d+)/.exec(name)?.[1] ?? 0),
      );
      expect(Math.max(...minors)).toBeLessThanOrEqual(17);
    });
  }

  armTest(
    "that for arm64 provisions a VM, reports Ready and enables an extension, through an emulator",
    async () => {
      const program = "/usr/local/sbin/waagent-emulated";
      await using guest = await startGuest(firstBoot(), {
        program,
        executable: packedExecutable(arm),
        prepare: ({ write }) => {
          const words = [...arm.through, "/usr/sbin/waagent"].join(" ");
          write(program, `#!/bin/sh\nexec ${words} "$@"\n`, 0o755);
        },
      });
      await guest.until("ready", { timeoutMs: 60_000 });
      await guest.until("status:Fabric.Demo=success", { timeoutMs: 60_000 });
      expect(guest.sandbox.read("/var/log/waagent.log")).toContain("Arch: aarch64;");
      expect(guest.fabric.violations).toEqual([]);
    },
  );
});
