import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseConfig } from "../../src/config/parse.ts";
import { compareDistroVersions, versionTokens } from "../../src/distro/version-order.ts";
import { areFixturesThere, fixtures, skipWithoutFixtures } from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const read = (name: string): string => readFileSync(path.join(fixtures, name), "utf8");

  test("provisioning.md CONF-02 CONF-03 CONF-04 DB-21: the reference's test configuration", () => {
    const { config, warnings } = parseConfig(read("test_waagent.conf"), "/etc/waagent.conf");
    expect(config).toMatchObject({
      "Extensions.Enabled": true,
      "Provisioning.SshHostKeyPairType": "rsa",
      "Provisioning.DecodeCustomData": false,
      "OS.EnableFIPS": true,
      "OS.OpensslPath": "/usr/bin/openssl",
      "OS.SshClientAliveInterval": "42",
      "OS.SshDir": "/notareal/path",
      "OS.RootDeviceScsiTimeout": "300",
      "ResourceDisk.MountOptions": undefined,
      "Debug.EnableExtensionPolicy": false,
    });
    expect(warnings.map(({ message }) => message)).toEqual([
      "There is a value without a key; the line is ignored",
      'The key "FauxKey1" is unknown and ignored',
      'The key "FauxKey2" is unknown and ignored',
      'The key "FauxKey3" is unknown and ignored',
    ]);
  });

  test("provisioning.md CONF-10 CONF-11: every combination of the update keys", () => {
    for (const name of readdirSync(path.join(fixtures, "config"))) {
      const { config, present, warnings } = parseConfig(read(`config/${name}`), "/x");
      const word = (key: string): boolean | undefined => {
        const match = new RegExp(`${key}_(enabled|disabled)`).exec(name)?.[1];
        return match === undefined ? undefined : match === "enabled";
      };
      const enabled = word("auto_update") ?? true;
      const latest = word("update_to_latest_version");
      expect([name, config["AutoUpdate.Enabled"]]).toEqual([name, enabled]);
      expect([name, config["AutoUpdate.UpdateToLatestVersion"]]).toEqual([name, latest ?? enabled]);
      const both =
        present.has("AutoUpdate.Enabled") && present.has("AutoUpdate.UpdateToLatestVersion");
      expect([name, warnings.length]).toEqual([name, both ? 1 : 0]);
    }
  });

  test("provisioning.md DIST-05 DB-17: every version of the sample list has its place in one total order", () => {
    const versions = read("distro_versions.txt")
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.startsWith("#"));
    expect(versions.length).toBeGreaterThan(100);
    for (const version of versions) expect(versionTokens(version).length).toBeGreaterThan(0);
    const sorted = versions.toSorted(compareDistroVersions);
    for (let step = 1; step < sorted.length; step += 1) {
      for (const distance of [1, 17, 101]) {
        const left = sorted[step - 1] ?? "";
        const right = sorted[Math.min(sorted.length - 1, step - 1 + distance)] ?? "";
        expect(compareDistroVersions(left, right)).toBeLessThanOrEqual(0);
        expect(compareDistroVersions(right, left)).toBeGreaterThanOrEqual(0);
      }
    }
  });
}
