import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { packageVersion } from "../../build.ts";
import { deliver, type Delivery } from "../../packaging/build.ts";
import { components } from "../../packaging/sbom.ts";
import { createSandbox, type Sandbox } from "../e2e/sandbox.ts";
import { missing, testUnless, testWith } from "../support/skip.ts";
import { cannotInstall } from "./debian.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-packages-"));
const next = path.join(work, "next");
let delivery: Delivery;

beforeAll(() => {
  const common = { architectures: ["x64"], compression: "fast" } as const;
  delivery = deliver({ ...common, formats: ["deb", "rpm", "tar", "sysext"], out: work });
  deliver({ ...common, formats: ["deb", "rpm"], out: next, revision: "2" });
}, 120_000);
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

const first = `${packageVersion()}-1`;
const deb = (folder: string, revision: string) =>
  path.join(folder, `waagent-native_${packageVersion()}-${revision}_amd64.deb`);
const rpm = (folder: string, revision: string) =>
  path.join(folder, `waagent-native-${packageVersion()}-${revision}.x86_64.rpm`);

async function answers(sandbox: Sandbox): Promise<string> {
  return (await sandbox.run(["/usr/sbin/waagent", "-version"])).stdout;
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

describe("the deb", () => {
  testUnless(cannotInstall())(
    "extensions.md UPD-34: installs beside nothing, runs unstripped, upgrades, and a purge leaves nothing",
    async () => {
      await using sandbox = await createSandbox({
        binds: [{ from: work, to: "/opt/packages" }],
      });
      // A machine that never had the Python agent.
      await sandbox.run(["dpkg", "--purge", "--force-all", "waagent"], { allowFailure: true });
      await sandbox.run(["rm", "-rf", "/etc/waagent.conf", "/etc/logrotate.d/waagent.logrotate"]);
      const before = new Set(leftBehind(sandbox));

      await sandbox.run(["dpkg", "-i", deb("/opt/packages", "1")]);
      expect(await answers(sandbox)).toContain(`WALinuxAgent-${packageVersion()} running on `);
      const status = await sandbox.run(["waagent", "status"], { allowFailure: true });
      expect({ code: status.code, said: status.stdout }).toMatchObject({
        code: 3,
        said: expect.stringContaining("No agent runs"),
      });
      expect(sandbox.read("/etc/waagent.conf")).toContain("Provisioning.Agent=");
      expect((await sandbox.run(["stat", "-c", "%a", "/var/lib/waagent"])).stdout).toBe("700\n");
      const links = await sandbox.run([
        "sh",
        "-c",
        "readlink /etc/systemd/system/walinuxagent.service /etc/systemd/system/multi-user.target.wants/waagent.service",
      ]);
      expect(links.stdout.match(/\/lib\/systemd\/system\/waagent\.service/g)).toHaveLength(2);

      await sandbox.run([
        "sh",
        "-c",
        "echo '# mine' >>/etc/waagent.conf; echo state >/var/lib/waagent/provisioned",
      ]);
      await sandbox.run(["dpkg", "-i", deb("/opt/packages/next", "2")]);
      expect(await answers(sandbox)).toContain(packageVersion());
      expect(sandbox.read("/etc/waagent.conf")).toEndWith("# mine\n");
      expect(sandbox.read("/var/lib/waagent/provisioned")).toBe("state\n");

      await sandbox.run(["dpkg", "-r", "waagent-native"]);
      expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
      expect(sandbox.exists("/etc/systemd/system/walinuxagent.service")).toBe(false);
      // Another agent can go on from here.
      expect(sandbox.read("/var/lib/waagent/provisioned")).toBe("state\n");
      expect(sandbox.read("/etc/waagent.conf")).toEndWith("# mine\n");

      await sandbox.run(["dpkg", "-P", "waagent-native"]);
      expect(leftBehind(sandbox).filter((file) => !before.has(file))).toEqual([]);
      expect(sandbox.exists("/var/lib/waagent")).toBe(false);
    },
    120_000,
  );

  testWith({ programs: ["lintian"] })(
    "lintian has no complaint that is not explained",
    () => {
      const done = Bun.spawnSync(
        ["lintian", "--allow-root", "--fail-on", "error,warning", deb(work, "1")],
        { stdout: "pipe", stderr: "pipe" },
      );
      expect(done.stdout.toString()).toBe("");
      expect(done.exitCode).toBe(0);
    },
    120_000,
  );

  testWith({ programs: ["dpkg-deb"] })("says whom it takes the place of", () => {
    const control = Bun.spawnSync(["dpkg-deb", "--field", deb(work, "1")]).stdout.toString();
    expect(control).toContain(`Provides: waagent (= ${first})\n`);
    expect(control).toContain("Conflicts: waagent, walinuxagent\n");
    expect(control).toContain("Replaces: waagent, walinuxagent\n");
  });
});

describe("the rpm", () => {
  testUnless(cannotInstall("rpm"))(
    "installs, runs unstripped, upgrades keeping the configuration, and an erase leaves only state",
    async () => {
      await using sandbox = await createSandbox({
        binds: [{ from: work, to: "/opt/packages" }],
      });
      await sandbox.run(["dpkg", "--purge", "--force-all", "waagent"], { allowFailure: true });
      await sandbox.run(["rm", "-rf", "/etc/waagent.conf", "/etc/logrotate.d/waagent.logrotate"]);
      const before = new Set(leftBehind(sandbox));
      // Debian's rpm knows nothing of what dpkg has installed.
      const rpmOf = (...words: string[]) =>
        sandbox.run(["rpm", "--force-debian", "--nodeps", ...words]);

      await rpmOf("-i", rpm("/opt/packages", "1"));
      expect(await answers(sandbox)).toContain(`WALinuxAgent-${packageVersion()} running on `);
      expect(sandbox.read("/etc/waagent.conf")).toContain("Provisioning.Agent=");
      expect(sandbox.exists("/etc/systemd/system/multi-user.target.wants/waagent.service")).toBe(
        false,
      );
      const wants = await sandbox.run([
        "readlink",
        "/etc/systemd/system/multi-user.target.wants/waagent.service",
      ]);
      expect(wants.stdout).toContain("/waagent.service");

      await sandbox.run([
        "sh",
        "-c",
        "echo '# mine' >>/etc/waagent.conf; mkdir -m 0700 /var/lib/waagent; echo state >/var/lib/waagent/provisioned",
      ]);
      await rpmOf("-U", rpm("/opt/packages/next", "2"));
      expect(await answers(sandbox)).toContain(packageVersion());
      expect(sandbox.read("/etc/waagent.conf")).toEndWith("# mine\n");

      await rpmOf("-e", "waagent-native");
      expect(sandbox.exists("/usr/sbin/waagent")).toBe(false);
      expect(leftBehind(sandbox).filter((file) => !before.has(file))).toEqual([
        "/etc/waagent.conf",
        "/var/lib/waagent/provisioned",
      ]);
    },
    120_000,
  );

  testWith({ programs: ["rpm"] })(
    "conflicts with the Python agent instead of overwriting it",
    () => {
      const asked = Bun.spawnSync(["rpm", "-qp", "--conflicts", "--provides", rpm(work, "1")]);
      expect(asked.stdout.toString().split("\n")).toEqual(
        expect.arrayContaining(["WALinuxAgent", `WALinuxAgent = ${packageVersion()}`]),
      );
    },
  );
});

describe("archives", () => {
  test("the plain archive unpacks to a running agent and holds the scripts of other service managers", () => {
    const folder = path.join(work, "unpacked");
    fs.mkdirSync(folder);
    const archive = path.join(work, `waagent-${packageVersion()}-linux-x64.tar.gz`);
    expect(Bun.spawnSync(["tar", "-xf", archive, "-C", folder]).exitCode).toBe(0);
    const said = Bun.spawnSync([path.join(folder, "usr/sbin/waagent"), "-version"]).stdout;
    expect(said.toString()).toContain(packageVersion());
    for (const [file, mode] of [
      ["usr/share/waagent/init/openrc", 0o755],
      ["usr/share/waagent/init/sysv", 0o755],
      ["etc/waagent.conf", 0o644],
      ["usr/lib/systemd/system/waagent.service", 0o644],
    ] as const) {
      expect(fs.statSync(path.join(folder, file)).mode & 0o777).toBe(mode);
    }
  });

  testWith({ programs: ["unsquashfs"] })(
    "the extension image holds /usr only, pulls in its service and seeds its configuration",
    () => {
      const image = path.join(work, `waagent-${packageVersion()}-linux-x64.sysext.raw`);
      const folder = path.join(work, "merged");
      const unpacked = Bun.spawnSync(["unsquashfs", "-q", "-n", "-d", folder, image], {
        stderr: "pipe",
      });
      expect(unpacked.exitCode).toBe(0);
      expect(fs.readdirSync(folder)).toEqual(["usr"]);
      const read = (file: string) => fs.readFileSync(path.join(folder, file), "utf8");
      expect(read("usr/lib/extension-release.d/extension-release.waagent")).toMatch(
        /^ID=_any\nARCHITECTURE=x86-64\n/,
      );
      expect(read("usr/lib/systemd/system/multi-user.target.d/10-waagent.conf")).toContain(
        "Upholds=waagent.service",
      );
      expect(read("usr/share/waagent/waagent.conf")).toContain("AutoUpdate.Enabled=n");
      const said = Bun.spawnSync([path.join(folder, "usr/sbin/waagent"), "-version"]).stdout;
      expect(said.toString()).toContain(packageVersion());
    },
  );
});

describe("for arm64", () => {
  test("the same command makes every package, with the architecture in its data and in the executable", () => {
    const out = path.join(work, "arm64");
    const { files } = deliver({
      architectures: ["arm64"],
      compression: "fast",
      formats: ["deb", "rpm", "tar", "sysext"],
      out,
    });
    const named = (ending: string) =>
      path.join(out, Object.keys(files).find((name) => name.endsWith(ending)) ?? "absent");
    const read = (...command: string[]) =>
      Bun.spawnSync(command, { stdout: "pipe", stderr: "pipe" }).stdout.toString();
    expect(read("dpkg-deb", "--field", named(".deb"), "Architecture")).toBe("arm64\n");
    if (missing({ programs: ["rpm"] }) === undefined) {
      expect(read("rpm", "-qp", "--queryformat", "%{ARCH}", named(".rpm"))).toBe("aarch64");
    }
    const folder = path.join(work, "arm64-unpacked");
    fs.mkdirSync(folder);
    read("tar", "-xf", named(".tar.gz"), "-C", folder, "usr/sbin/waagent");
    // e_machine of the ELF header: 183 is AArch64.
    const head = fs.readFileSync(path.join(folder, "usr/sbin/waagent")).subarray(0, 20);
    expect([head.subarray(1, 4).toString(), head.readUInt16LE(18)]).toEqual(["ELF", 183]);
  }, 120_000);
});

describe("the delivery", () => {
  test("every format was built, and the sums are those of the files", () => {
    const tools = { rpm: "rpmbuild", deb: "dpkg-deb", sysext: "mksquashfs" };
    const absent = Object.values(tools).filter(
      (program) => missing({ programs: [program] }) !== undefined,
    );
    expect(delivery.left).toHaveLength(absent.length);
    const sums = fs.readFileSync(path.join(work, "SHA256SUMS"), "utf8");
    expect(Object.keys(delivery.files)).toHaveLength(5 - absent.length);
    for (const [name, sum] of Object.entries(delivery.files)) {
      expect(sums).toContain(`${sum}  ${name}\n`);
      const bytes = fs.readFileSync(path.join(work, name));
      expect(new Bun.CryptoHasher("sha256").update(bytes).digest("hex")).toBe(sum);
    }
  });

  test("equal sources give equal packages", () => {
    const again = path.join(work, "again");
    const formats = ["deb", "tar", "sysext"] as const;
    const { files } = deliver({ architectures: ["x64"], compression: "fast", formats, out: again });
    for (const [name, sum] of Object.entries(files)) {
      if (name !== "sbom.spdx.json")
        expect({ name, sum }).toEqual({ name, sum: delivery.files[name] ?? "" });
    }
  }, 60_000);

  test("the bill of materials names the runtime and every package of the lock file that is inside", () => {
    const document = JSON.parse(fs.readFileSync(path.join(work, "sbom.spdx.json"), "utf8")) as {
      spdxVersion: string;
      packages: { SPDXID: string; name: string; licenseDeclared: string }[];
      relationships: { spdxElementId: string; relatedSpdxElement: string }[];
    };
    expect(document.spdxVersion).toBe("SPDX-2.3");
    const names = document.packages.map(({ name }) => name);
    expect(names).toEqual(["waagent-native", ...components().map(({ name }) => name)]);
    expect(names).toEqual(
      expect.arrayContaining(["bun", "citty", "consola", "fast-xml-parser", "strnum"]),
    );
    expect(names).not.toContain("bun-types");
    for (const part of document.packages)
      expect(part.licenseDeclared).toMatch(/^(MIT|Apache-2\.0)$/);
    const ids = new Set([...document.packages.map(({ SPDXID }) => SPDXID), "SPDXRef-DOCUMENT"]);
    for (const { spdxElementId, relatedSpdxElement } of document.relationships) {
      expect(ids.has(spdxElementId) && ids.has(relatedSpdxElement)).toBe(true);
    }
  });
});
