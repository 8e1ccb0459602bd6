import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { packageVersion } from "../../build.ts";
import { deliver, type Delivery } from "../../packaging/build.ts";
import { buildRpm } from "../../packaging/rpm.ts";
import { components } from "../../packaging/sbom.ts";
import { missing, testWith } from "../support/skip.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-delivery-"));
const OPTIONS = {
  architectures: ["x64"],
  compression: "fast",
  formats: ["deb", "rpm", "tar", "sysext"],
} as const;
let delivery: Delivery;

beforeAll(() => {
  delivery = deliver({ ...OPTIONS, out: work });
}, 120_000);
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

const first = `${packageVersion()}-1`;
const deb = path.join(work, `waagent-native_${first}_amd64.deb`);
const rpm = path.join(work, `waagent-native-${first}.x86_64.rpm`);

describe("the deb", () => {
  testWith({ programs: ["lintian"] })(
    "lintian has no complaint that is not explained",
    () => {
      const done = Bun.spawnSync(["lintian", "--allow-root", "--fail-on", "error,warning", deb], {
        stdout: "pipe",
        stderr: "pipe",
      });
      expect(done.stdout.toString()).toBe("");
      expect(done.exitCode).toBe(0);
    },
    120_000,
  );

  testWith({ programs: ["dpkg-deb"] })("says whom it takes the place of", () => {
    const control = Bun.spawnSync(["dpkg-deb", "--field", deb]).stdout.toString();
    expect(control).toContain(`Provides: waagent (= ${first})\n`);
    expect(control).toContain("Conflicts: waagent, walinuxagent\n");
    expect(control).toContain("Replaces: waagent, walinuxagent\n");
  });
});

describe("the rpm", () => {
  testWith({ programs: ["rpmbuild", "rpmlint"] })(
    "rpmlint has no complaint that is not explained",
    () => {
      // How the executable is built is the runtime's matter; a small one is looked through at once.
      const file = buildRpm(path.join(work, "linted"), {
        architecture: "x64",
        executable: fs.readFileSync("/bin/true"),
        out: path.join(work, "linted"),
        compression: "fast",
      });
      const rules = path.resolve(import.meta.dir, "../../packaging/rpm/rpmlint.toml");
      const done = Bun.spawnSync(["rpmlint", "--config", rules, file]);
      expect(done.stdout.toString()).toContain("; 0 errors, 0 warnings");
      expect(done.exitCode).toBe(0);
    },
    60_000,
  );

  testWith({ programs: ["rpm"] })(
    "conflicts with the Python agent instead of overwriting it",
    () => {
      const asked = Bun.spawnSync(["rpm", "-qp", "--conflicts", "--provides", rpm]);
      expect(asked.stdout.toString().split("\n")).toEqual(
        expect.arrayContaining(["WALinuxAgent", `WALinuxAgent = ${packageVersion()}`]),
      );
    },
  );
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
    expect(deliver({ ...OPTIONS, out: again })).toEqual(delivery);
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
