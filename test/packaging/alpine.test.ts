import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { compile, packageVersion } from "../../build.ts";
import { ALPINE_DEPENDENCIES, writeApk } from "../../packaging/apk.ts";
import { deliver } from "../../packaging/build.ts";
import { startGuest } from "../e2e/guest.ts";
import { createSandbox } from "../e2e/sandbox.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { cannotInstall } from "./kinds.ts";
import { buildRuntime, cannotRunMusl, installRuntime } from "./musl.ts";

/** For systems with musl: the apk, and the executable. */

setDefaultTimeout(120_000);
const version = packageVersion();
const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-alpine-"));
const noMusl = cannotRunMusl();
let executable = "";
let runtime = "";

const ARCHITECTURES = ["x86_64", "aarch64"] as const;
const apk = (architecture: string, revision = 1) =>
  path.join(
    revision === 1 ? work : path.join(work, "next"),
    `waagent-native-${version}-r${revision}.${architecture}.apk`,
  );

beforeAll(() => {
  const common = { compression: "fast", formats: ["apk"] } as const;
  deliver({ ...common, architectures: ["x64-musl", "arm64-musl"], out: work });
  const next = path.join(work, "next");
  deliver({ ...common, architectures: ["x64-musl"], out: next, revision: "2" });
  executable = compile("linux-x64-musl", { out: path.join(work, "compiled") }).file;
  if (noMusl === undefined) runtime = buildRuntime(executable, work);
});
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

const hash = (algorithm: string, bytes: Uint8Array) =>
  createHash(algorithm).update(bytes).digest("hex");

describe("the apk", () => {
  for (const architecture of ARCHITECTURES) {
    test(`for ${architecture} is two compressed streams that are one archive, with the sums of the second and of each file`, () => {
      const bytes = fs.readFileSync(apk(architecture));
      // Where the second gzip stream begins.
      const begin = bytes.indexOf(Buffer.from([0x1f, 0x8b, 0x08]), 10);
      const control = Buffer.from(Bun.gunzipSync(bytes.subarray(0, begin))).toString("latin1");
      const field = (name: string) =>
        [...control.matchAll(new RegExp(`(?:^|\\0)${name} = (.*)$`, "gm"))].map(
          ([, value = ""]) => value,
        );
      expect(field("pkgname")).toEqual(["waagent-native"]);
      expect(field("pkgver")).toEqual([`${version}-r1`]);
      expect(field("arch")).toEqual([architecture]);
      expect(field("depend")).toEqual([...ALPINE_DEPENDENCIES]);
      expect(field("datahash")).toEqual([hash("sha256", bytes.subarray(begin))]);
      expect(control).toContain(".pre-deinstall\0");

      const folder = path.join(work, `unpacked-${architecture}`);
      fs.mkdirSync(folder);
      const unpack = ["tar", "--warning=no-unknown-keyword", "-xzf", apk(architecture)];
      expect(Bun.spawnSync([...unpack, "-C", folder]).exitCode).toBe(0);
      const files = (fs.readdirSync(folder, { recursive: true }) as string[]).filter((name) =>
        fs.statSync(path.join(folder, name)).isFile(),
      );
      const sums = files
        .filter((name) => !name.startsWith("."))
        .map((name) => hash("sha1", fs.readFileSync(path.join(folder, name))));
      const archive = Buffer.from(Bun.gunzipSync(bytes.subarray(begin)));
      const recorded = [
        ...archive.toString("latin1").matchAll(/\d+ APK-TOOLS\.checksum\.SHA1=(\w{40})\n/g),
      ].map(([, sum = ""]) => sum);
      expect(recorded.toSorted()).toEqual(sums.toSorted());
      expect(files).toContain("usr/sbin/waagent");
      expect(files).toContain("etc/init.d/waagent");
      expect(files.filter((name) => name.includes("systemd"))).toEqual([]);
    });
  }

  testUnless(
    cannotInstall() ??
      noMusl ??
      (missing({ programs: ["apk"] }) === undefined
        ? undefined
        : "the program apk is missing, and Debian has no package of it"),
  )(
    "apk itself accepts, installs, upgrades and deletes it; the agent runs, and only state and what was changed is left",
    async () => {
      fs.writeFileSync(
        path.join(work, "dependencies.apk"),
        writeApk(
          {
            ...{ name: "stand-in", version: "1-r0", summary: "Stands for Alpine's packages" },
            ...{ license: "MIT", architecture: "x86_64", depends: [] },
            provides: ALPINE_DEPENDENCIES.map((name) => `${name}=1`),
          },
          [],
          { level: 1 },
        ),
      );
      await using sandbox = await createSandbox({ binds: [{ from: work, to: "/opt/packages" }] });
      await sandbox.run(["dpkg", "--purge", "--force-all", "waagent"], { allowFailure: true });
      await sandbox.run(["rm", "-rf", "/etc/waagent.conf"]);
      await installRuntime(sandbox, runtime);
      const offline = ["--no-network", "--allow-untrusted", "--repositories-file", "/dev/null"];
      const run = (...words: string[]) => sandbox.run(["apk", ...offline, ...words]);
      const inside = (file: string) => file.replace(work, "/opt/packages");
      await run("verify", inside(apk("x86_64")), inside(apk("aarch64")));
      await run("add", "--initdb", "--arch", "x86_64", "/opt/packages/dependencies.apk");

      const outside = ["etc", "usr", "var"].map((name) => `/${name}/`);
      const changed = () =>
        sandbox
          .changes()
          .filter(({ kind }) => kind !== "directory" && kind !== "deleted")
          .map((change) => change.path)
          .filter((file) => outside.some((folder) => file.startsWith(folder)))
          // apk's own.
          .filter((file) => !/^\/(?:etc|usr\/lib|var\/(?:cache|log))\/apk/.test(file));
      const before = new Set(changed());
      await run("add", inside(apk("x86_64")));
      const said = await sandbox.run(["/usr/sbin/waagent", "-version"]);
      expect(said.stdout).toContain(`WALinuxAgent-${version} running on `);
      const status = await sandbox.run(["waagent", "status"], { allowFailure: true });
      expect([status.code, status.stdout]).toEqual([3, expect.stringContaining("No agent runs")]);
      expect((await sandbox.run(["waagent", "config", "check"])).code).toBe(0);

      await sandbox.run([
        "sh",
        "-ec",
        `echo '# mine' >>/etc/waagent.conf
         mkdir -m 0700 /var/lib/waagent; echo state >/var/lib/waagent/provisioned`,
      ]);
      await run("add", inside(apk("x86_64", 2)));
      expect((await run("info", "--installed", "--verbose", "waagent-native")).stdout).toContain(
        `waagent-native-${version}-r2`,
      );
      expect((await sandbox.run(["waagent", "-version"])).stdout).toContain(version);
      expect(sandbox.read("/etc/waagent.conf")).toEndWith("# mine\n");

      await run("del", "waagent-native");
      expect(changed().filter((file) => !before.has(file))).toEqual([
        "/etc/waagent.conf",
        "/var/lib/waagent/provisioned",
      ]);
    },
  );
});

testUnless(noMusl ?? cannotInstall("useradd", "chpasswd", "openssl", "ssh-keygen"))(
  "the executable for x64 with musl provisions a VM, reports Ready and enables an extension",
  async () => {
    await using guest = await startGuest(firstBoot(), {
      executable,
      prepare: (sandbox) => installRuntime(sandbox, runtime),
    });
    await guest.until("ready");
    await guest.until("status:Fabric.Demo=success");
    const pid = guest.sandbox.read("/run/waagent.pid").trim();
    const maps = await guest.sandbox.run(["cat", `/proc/${pid}/maps`]);
    expect(maps.stdout).toContain("/opt/musl/libstdc++.so.6");
    expect(maps.stdout).not.toContain("libc.so.6");
    expect(guest.fabric.violations).toEqual([]);
  },
);
