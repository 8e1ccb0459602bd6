import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  MICROSOFT_ROOT_PEM,
  MICROSOFT_TIME_ROOT_PEM,
  MICROSOFT_TIME_ROOT_SHA256,
} from "../../../src/extensions/microsoft-root.ts";
import { createExtensionsRunner } from "../../../src/extensions/runner.ts";
import { canVerify, isMicrosoftRoot } from "../../../src/extensions/signature.ts";
import { createExec } from "../../../src/system/exec.ts";
import { Root } from "../../../src/system/root.ts";
import { buildExtension, RECORDING_SCRIPT } from "../../fixtures/extensions/package.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { createWorld, goal, handler, LIB, type World } from "./world.ts";

const NAME = "Contoso.Ext.Demo";
const OPENSSL = "/usr/bin/openssl";

/** A root and a signer of our own, in the place of Microsoft's. */
let keys = "";
beforeAll(() => {
  keys = mkdtempSync(path.join(tmpdir(), "waagent-sign-"));
  const openssl = (...argv: string[]): void => {
    const result = spawnSync(OPENSSL, argv, { cwd: keys });
    if (result.status !== 0) throw new Error(result.stderr.toString());
  };
  const make = (name: string, subject: string): void =>
    openssl(
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.pem`,
      "-subj",
      subject,
      "-days",
      "2",
    );
  make("root", "/CN=Own Root");
  make("other", "/CN=Other Root");
  openssl(
    "req",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    "signer.key",
    "-out",
    "signer.csr",
    "-subj",
    "/CN=Signer",
  );
  const own = ["-CA", "root.pem", "-CAkey", "root.key", "-days", "2", "-set_serial", "8"];
  openssl("x509", "-req", "-in", "signer.csr", ...own, "-out", "valid.pem");
  // Expired as soon as it is made: only the chain counts (SIG-03).
  openssl(
    "x509",
    "-req",
    "-in",
    "signer.csr",
    "-CA",
    "root.pem",
    "-CAkey",
    "root.key",
    "-set_serial",
    "7",
    "-out",
    "signer.pem",
    "-days",
    "0",
  );
});
afterAll(() => rmSync(keys, { recursive: true, force: true }));

const sign = (data: Uint8Array, signer = "signer"): string => {
  writeFileSync(path.join(keys, "data"), data);
  const result = spawnSync(
    OPENSSL,
    [
      "cms",
      "-sign",
      "-binary",
      "-in",
      "data",
      "-signer",
      `${signer}.pem`,
      "-inkey",
      "signer.key",
      "-outform",
      "der",
      "-out",
      "data.sig",
    ],
    { cwd: keys },
  );
  if (result.status !== 0) throw new Error(result.stderr.toString());
  return readFileSync(path.join(keys, "data.sig")).toString("base64");
};

let world: World;
beforeEach(() => {
  world = createWorld();
});
afterEach(() => world[Symbol.dispose]());

const good = (info: unknown = { type: "demo", publisher: "CONTOSO.ext", version: "1.0" }) =>
  buildExtension({
    name: NAME,
    version: "1.0",
    script: RECORDING_SCRIPT,
    top: { signingInfo: info },
  });

async function process(
  bytes: Uint8Array,
  encodedSignature: string,
  options: { anchor?: string; policy?: unknown; enabled?: boolean; state?: "uninstall" } = {},
) {
  const { system } = world;
  if (options.policy !== undefined) {
    system.files.makeDirectory("/etc");
    system.files.write("/etc/waagent_policy.json", JSON.stringify(options.policy));
  }
  const real = createExec(new Root("/"));
  const runner = createExtensionsRunner(
    { ...system, exec: real },
    {
      ...defaultConfig(),
      "Debug.EnableSignatureValidation": options.enabled ?? true,
      "Debug.EnableExtensionPolicy": options.policy !== undefined,
    },
    {
      source: {
        versions: () => Promise.resolve({ packages: [{ version: "1.0", uris: ["x"] }] }),
        download: async ({ file, accept }) => {
          system.files.write(file, bytes);
          try {
            await accept(file);
          } finally {
            system.files.remove(file);
          }
        },
      },
      wireServerAddress: "",
      environment: {},
    },
  );
  runner.prepare();
  system.files.write(
    `${LIB}/microsoft_root_certificate.pem`,
    readFileSync(path.join(keys, `${options.anchor ?? "root"}.pem`)),
  );
  const wanted = goal([
    handler(NAME, "1.0", {
      encodedSignature,
      ...(options.state === undefined ? {} : { state: options.state }),
    }),
  ]);
  await runner.process(wanted);
  return runner.reports(wanted)[0];
}
const marker = (): boolean => world.system.files.exists(`${LIB}/${NAME}-1.0/package_validated`);
const lines = (): string => world.system.lines.join("\n");
const results = (operation: string): boolean[] =>
  world.system.events
    .filter((event) => event.operation === operation)
    .map((event) => event.success);

describe("the anchor", () => {
  test("extensions.md SIG-04: is Microsoft's root of 2011 and nothing else", () => {
    const certificate = new X509Certificate(MICROSOFT_ROOT_PEM);
    expect(certificate.fingerprint256.replaceAll(":", "")).toBe(
      "847DF6A78497943F27FC72EB93F9A637320A02B561D0A91B09E87A7807ED7C61",
    );
    expect(certificate.fingerprint.replaceAll(":", "")).toBe(
      "8F43288AD272F3103B6FB1428485EA3014C0BCFE",
    );
    expect(certificate.serialNumber).toBe("3F8BC8B5FC9FB29643B569D66C42E144");
    expect(isMicrosoftRoot(MICROSOFT_ROOT_PEM)).toBe(true);
    expect(isMicrosoftRoot(readFileSync(path.join(keys, "root.pem"), "utf8"))).toBe(false);
    expect(isMicrosoftRoot("nothing")).toBe(false);
    const ofTime = new X509Certificate(MICROSOFT_TIME_ROOT_PEM);
    expect(ofTime.fingerprint256.replaceAll(":", "")).toBe(MICROSOFT_TIME_ROOT_SHA256);
    expect(ofTime.subject).toContain("CN=Microsoft Root Certificate Authority 2010");
  });

  test.each([
    ["OpenSSL 1.1.0 25 Aug 2016", true],
    ["OpenSSL 1.1.1w  11 Sep 2023", true],
    ["OpenSSL 3.0.19 27 Jan 2026 (Library: OpenSSL 3.0.19)", true],
    ["OpenSSL 1.0.2k-fips  26 Jan 2017", false],
    ["LibreSSL 3.8.2", false],
    ["", false],
  ])("extensions.md SIG-01: %p can verify: %p", async (text, able) => {
    using system = createFakeSystem();
    system.programs.set("openssl", () => ({ stdout: text }));
    expect(await canVerify(system, OPENSSL)).toBe(able);
  });

  test("extensions.md SIG-01 SIG-09: a program that is missing or fails cannot", async () => {
    using system = createFakeSystem();
    expect(await canVerify(system, "/opt/openssl")).toBe(false);
    system.programs.set("openssl", () => ({ code: 1 }));
    expect(await canVerify(system, OPENSSL)).toBe(false);
  });
});

describe("a package", () => {
  test("extensions.md SIG-03 SIG-06 SIG-07 SIG-08 E2E-27: good signature and information leave their mark and the lines tools look for", async () => {
    const bytes = good();
    expect(await process(bytes, sign(bytes))).toMatchObject({ status: "Ready" });
    expect(marker()).toBe(true);
    expect(world.system.files.stat(`${LIB}/${NAME}-1.0/package_validated`)?.size).toBe(0);
    expect(lines()).toContain(`Successfully validated signature for package '${NAME}-1.0'`);
    expect(lines()).toContain(
      `Successfully validated handler manifest 'signingInfo' for extension '${NAME}-1.0'`,
    );
    expect([
      results("PackageSignatureResult"),
      results("PackageSigningInfoResult"),
      results("ExtensionSigned"),
    ]).toEqual([[true], [true], [true]]);
    expect(world.system.files.list(LIB).filter((name) => name.endsWith("_signature.pem"))).toEqual(
      [],
    );
  });

  test.each<[string, (bytes: Uint8Array) => [Uint8Array, string, string?]]>([
    ["of other data", (bytes) => [bytes, sign(Buffer.from("other"))]],
    ["of another root", (bytes) => [bytes, sign(bytes), "other"]],
    ["that is no signature", (bytes) => [bytes, Buffer.alloc(500, 7).toString("base64")]],
    ["that is nothing", (bytes) => [bytes, "!!!"]],
  ])(
    "extensions.md SIG-03 SIG-05: a signature %s is a warning that can be ignored",
    async (_name, make) => {
      const [bytes, signature, anchor] = make(good());
      expect(await process(bytes, signature, anchor === undefined ? {} : { anchor })).toMatchObject(
        { status: "Ready" },
      );
      expect(marker()).toBe(false);
      expect(lines()).toMatch(/WARNING .*Signature validation of .* failed, which can be ignored/);
      expect(results("PackageSignatureResult")).toEqual([false]);
    },
  );

  test.each<[string, unknown]>([
    ["without information", null],
    ["of another type", { type: "Other", publisher: "Contoso.Ext", version: "1.0" }],
    ["of another publisher", { type: "Demo", publisher: "Evil", version: "1.0" }],
    ["of another version", { type: "Demo", publisher: "Contoso.Ext", version: "1.0.0" }],
    ["with a part missing", { type: "Demo", publisher: "Contoso.Ext" }],
  ])("extensions.md SIG-07: a package %s is not marked", async (_name, info) => {
    const bytes = good(info);
    await process(bytes, sign(bytes));
    expect(marker()).toBe(false);
    expect(results("PackageSigningInfoResult")).toEqual([false]);
  });

  test("extensions.md SIG-01 SIG-02 POL-10: without a signature, or when it is off, nobody looks", async () => {
    await process(good(), "");
    expect(lines()).not.toContain("ignature validation");
    expect(results("ExtensionSigned")).toEqual([false]);
    using other = createWorld();
    world[Symbol.dispose]();
    world = other;
    const bytes = good();
    await process(bytes, sign(bytes), { enabled: false });
    expect([marker(), results("PackageSignatureResult")]).toEqual([false, []]);
  });

  test("extensions.md SIG-02: a package that was there already is looked at too, an uninstall is not", async () => {
    const bytes = good();
    world.system.files.makeDirectory(LIB);
    world.system.files.write(`${LIB}/${NAME}__1.0.zip`, bytes);
    await process(bytes, sign(bytes));
    expect(marker()).toBe(true);
    await process(bytes, sign(bytes), { state: "uninstall" });
    expect(results("PackageSignatureResult")).toEqual([true]);
  });

  test("extensions.md DB-28: a policy that requires signatures refuses what has no good one, and says why", async () => {
    const policy = { policyVersion: "0.1", extensionPolicies: { signatureRequired: true } };
    const bytes = good();
    const unsigned = await process(bytes, "", { policy });
    expect(unsigned).toMatchObject({ status: "NotReady", code: -1 });
    expect(unsigned?.message).toContain(
      "The policy requires a valid signature of Contoso.Ext.Demo-1.0, and the goal state has no signature for it",
    );
    expect(world.calls(NAME)).toEqual([]);
    expect((await process(bytes, sign(Buffer.from("x")), { policy }))?.message).toContain(
      "does not accept the signature",
    );
    // The certificate has expired, and nothing says that it had not when it was used.
    expect((await process(bytes, sign(bytes), { policy }))?.message).toContain(
      "the certificate it was signed with is not valid now, and it has no time stamp",
    );
    expect(await process(bytes, sign(bytes, "valid"), { policy })).toMatchObject({
      status: "Ready",
    });
  });
});
