import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { JsonNumber } from "../../src/base/json.ts";
import { parseHandlerManifest } from "../../src/extensions/handler-manifest.ts";
import { MICROSOFT_ROOT_PEM } from "../../src/extensions/microsoft-root.ts";
import { isMicrosoftRoot } from "../../src/extensions/signature.ts";
import { readStatusFile } from "../../src/extensions/status-file.ts";
import { createFakeSystem } from "../fakes/system.ts";
import {
  areFixturesThere,
  readFixture,
  readFixtureBytes,
  skipWithoutFixtures,
} from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const manifest = (name: string) =>
    parseHandlerManifest(readFixture(`ext/handler_manifest/${name}.json`), name);
  const status = (name: string) => {
    using system = createFakeSystem();
    const handler = { name: "Sample", version: "1.0" };
    system.files.makeDirectory("/lib/Sample-1.0/status");
    system.files.write("/lib/Sample-1.0/status/0.status", readFixtureBytes(`ext/${name}.json`));
    const layout = { lib: "/lib", logs: "/logs" } as const;
    const source = { handler, name: "Sample", extension: undefined, sequence: 0 };
    return readStatusFile(system, layout, source);
  };

  test("extensions.md EXT-50: booleans of handler manifests, well and badly written", () => {
    const flags = (name: string) => {
      const { reportHeartbeat, continueOnUpdateFailure, supportsMultipleExtensions, oddBooleans } =
        manifest(name);
      return [
        reportHeartbeat,
        continueOnUpdateFailure,
        supportsMultipleExtensions,
        oddBooleans.length,
      ];
    };
    expect(flags("valid_manifest")).toEqual([true, true, true, 0]);
    expect(flags("manifest_no_optional_fields")).toEqual([false, false, false, 0]);
    expect(flags("manifest_boolean_fields_strings")).toEqual([true, true, true, 3]);
    expect(flags("manifest_boolean_fields_false")).toEqual([false, false, false, 3]);
    expect(flags("manifest_boolean_fields_invalid")).toEqual([false, false, false, 3]);
    expect(manifest("valid_manifest").commands).toEqual({
      install: "install_cmd",
      enable: "enable_cmd",
      update: "update_cmd",
      disable: "disable_cmd",
      uninstall: "uninstall_cmd",
    });
  });

  test("extensions.md EXT-102 EXT-104 wire-protocol.md STAT-31 STAT-33: status files, good and broken", () => {
    expect(status("sample-status")).toMatchObject({ status: "success", code: new JsonNumber("1") });
    for (const name of [
      "sample-status-invalid-format-emptykey-line7",
      "sample-status-invalid-json-format",
    ]) {
      expect(status(name)).toMatchObject({ status: "error", code: new JsonNumber("1012") });
      expect(status(name).message).toContain("has an incorrect format");
    }
    const shapeless = status("sample-status-invalid-status-no-status-status-key");
    expect(shapeless).toMatchObject({ status: "error", code: new JsonNumber("1012") });
    expect(shapeless.message).toContain("/0/status/status");
  });

  test("extensions.md EXT-104 wire-protocol.md STAT-34: very large status files are cut to what may be reported", () => {
    for (const name of [
      "sample-status-very-large",
      "sample-status-very-large-multiple-substatuses",
    ]) {
      const large = status(name);
      expect(large.status).toBe("success");
      expect(large.message?.length).toBe(1024);
      expect(large.message).toEndWith(" ... [TRUNCATED]");
      const texts = large.substatuses.flatMap((one) => [one.name ?? "", one.message ?? ""]);
      expect(Math.max(0, ...texts.map((text) => text.length))).toBeLessThanOrEqual(10_240);
      expect(texts.join("").length + 1024).toBeLessThanOrEqual(131_072);
    }
  });

  test("extensions.md SIG-03 SIG-04: the certificates of a real package signature lead to the anchor, another root is told apart", () => {
    expect(isMicrosoftRoot(readFixture("signing/incorrect_microsoft_root_cert.pem"))).toBe(false);
    const folder = mkdtempSync(path.join(tmpdir(), "waagent-chain-"));
    try {
      const file = (name: string): string => path.join(folder, name);
      const openssl = (...argv: string[]) => spawnSync("openssl", argv, { encoding: "utf8" });
      writeFileSync(file("root"), MICROSOFT_ROOT_PEM);
      writeFileSync(
        file("sig"),
        Buffer.from(readFixture("signing/vm_access_signature.txt"), "base64"),
      );
      const { stdout } = openssl("pkcs7", "-inform", "der", "-in", file("sig"), "-print_certs");
      const certificates = stdout.match(/-----BEGIN[^]*?-----END CERTIFICATE-----/g) ?? [];
      expect(certificates.length).toBe(2);
      writeFileSync(file("leaf"), certificates[0] ?? "");
      writeFileSync(file("between"), certificates[1] ?? "");
      const chain = [
        "-untrusted",
        file("between"),
        "-purpose",
        "any",
        "-no_check_time",
        file("leaf"),
      ];
      expect(openssl("verify", "-CAfile", file("root"), ...chain).status).toBe(0);
      writeFileSync(file("wrong"), readFixture("signing/incorrect_microsoft_root_cert.pem"));
      expect(openssl("verify", "-CAfile", file("wrong"), ...chain).status).not.toBe(0);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
