import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { DER, readDer } from "../../../src/base/der.ts";
import { verifySigningTime } from "../../../src/extensions/signature.ts";
import { readTimeStamped } from "../../../src/extensions/time-stamp.ts";
import { createExec } from "../../../src/system/exec.ts";
import { Root } from "../../../src/system/root.ts";
import { createFakeSystem } from "../../fakes/system.ts";

const OPENSSL = "/usr/bin/openssl";
const LIB = "/var/lib/waagent";
const ARCHIVE = `${LIB}/package.zip` as const;
const CONFIGURATION = `[ca]
default_ca=own
[own]
database=index
serial=serial
new_certs_dir=.
default_md=sha256
policy=any
[any]
commonName=supplied
[tsa]
serial=stamps
signer_digest=sha256
default_policy=1.2.3.4
digests=sha256
[stamping]
extendedKeyUsage=critical,timeStamping
keyUsage=digitalSignature
`;

let keys = "";
/** Signed while the certificate was valid, which it is no more. */
let expired: Buffer;
let stamped: Buffer;
let valid: Buffer;
const file = (name: string): Buffer => readFileSync(path.join(keys, name));
function openssl(...argv: string[]): void {
  const result = spawnSync(OPENSSL, argv, { cwd: keys });
  if (result.status !== 0) throw new Error(`${argv.join(" ")}: ${result.stderr.toString()}`);
}

function encode(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const digits = content.length.toString(16);
  const length = Buffer.from(digits.length % 2 === 0 ? digits : `0${digits}`, "hex");
  const header = content.length < 128 ? [content.length] : [0x80 + length.length, ...length];
  return Buffer.concat([Buffer.from([tag, ...header]), content]);
}

/** The signature with the token among the unsigned attributes of its signer. */
function withToken(cms: Uint8Array, token: Uint8Array): Buffer {
  const [type, wrapped] = readDer(readDer(cms, "x")[0]!.content, "x");
  const fields = readDer(readDer(wrapped!.content, "x")[0]!.content, "x");
  const signer = readDer(fields.at(-1)!.content, "x")[0]!;
  const name = Buffer.from("060b2a864886f70d010910020e", "hex");
  const attribute = encode(DER.sequence, name, encode(DER.set, token));
  const next = encode(DER.sequence, signer.content, encode(0xa1, attribute));
  const data = fields.slice(0, -1).map(({ encoding }) => encoding);
  return encode(
    DER.sequence,
    type!.encoding,
    encode(0xa0, encode(DER.sequence, ...data, encode(DER.set, next))),
  );
}

function stamp(signature: Uint8Array): Buffer {
  writeFileSync(path.join(keys, "value"), signature);
  openssl("ts", "-query", "-data", "value", "-sha256", "-cert", "-out", "query");
  const signer = ["-signer", "tsa.pem", "-inkey", "tsa.key"];
  const config = ["-config", "config", "-section", "tsa"];
  openssl(
    "ts",
    "-reply",
    ...config,
    "-queryfile",
    "query",
    ...signer,
    "-token_out",
    "-out",
    "token",
  );
  return file("token");
}

function sign(signer: string, data: string): Buffer {
  writeFileSync(path.join(keys, "data"), data);
  const words = ["-binary", "-in", "data", "-signer", `${signer}.pem`, "-inkey", "signer.key"];
  openssl("cms", "-sign", ...words, "-outform", "der", "-out", "data.sig");
  return file("data.sig");
}

beforeAll(async () => {
  keys = mkdtempSync(path.join(tmpdir(), "waagent-stamp-"));
  writeFileSync(path.join(keys, "config"), CONFIGURATION);
  writeFileSync(path.join(keys, "index"), "");
  writeFileSync(path.join(keys, "serial"), "01");
  writeFileSync(path.join(keys, "stamps"), "01");
  const fresh = (name: string) => ["-newkey", "rsa:2048", "-nodes", "-keyout", `${name}.key`];
  for (const name of ["root", "time-root"])
    openssl(
      "req",
      "-x509",
      ...fresh(name),
      "-out",
      `${name}.pem`,
      "-subj",
      `/CN=${name}`,
      "-days",
      "2",
    );
  for (const name of ["signer", "tsa"])
    openssl("req", ...fresh(name), "-out", `${name}.csr`, "-subj", `/CN=${name}`);
  const below = ["-CA", "root.pem", "-CAkey", "root.key", "-set_serial", "9", "-days", "2"];
  openssl("x509", "-req", "-in", "signer.csr", ...below, "-out", "valid.pem");
  const time = [
    "-CA",
    "time-root.pem",
    "-CAkey",
    "time-root.key",
    "-set_serial",
    "7",
    "-days",
    "2",
  ];
  const stamping = ["-extfile", "config", "-extensions", "stamping"];
  openssl("x509", "-req", "-in", "tsa.csr", ...time, ...stamping, "-out", "tsa.pem");
  const end = Math.ceil(Date.now() / 1000) * 1000 + 3000;
  const text = (at: number) => `${new Date(at).toISOString().replace(/[-:T]|\.\d+/g, "")}`;
  const period = ["-startdate", text(end - 60_000), "-enddate", text(end)];
  const ca = [
    "-batch",
    "-notext",
    "-config",
    "config",
    "-cert",
    "root.pem",
    "-keyfile",
    "root.key",
  ];
  openssl("ca", ...ca, ...period, "-in", "signer.csr", "-out", "short.pem");
  expired = sign("short", "content");
  stamped = withToken(expired, stamp(readTimeStamped(expired).signature));
  if (Date.now() >= end) throw new Error("The certificate was too short for this machine");
  valid = sign("valid", "content");
  await Bun.sleep(end + 1100 - Date.now());
}, 20_000);
afterAll(() => rmSync(keys, { recursive: true, force: true }));

async function verify(signature: Uint8Array, timeRoot = "time-root"): Promise<string | undefined> {
  using system = createFakeSystem();
  system.files.makeDirectory(LIB);
  system.files.write(ARCHIVE, "content");
  system.files.write(`${LIB}/microsoft_root_certificate.pem`, file("root.pem"));
  const before = system.files.list(LIB);
  const problem = await verifySigningTime(
    { files: system.files, exec: createExec(new Root("/")) },
    { lib: LIB, logs: "/var/log/azure" },
    {
      handler: { name: "Contoso.Ext.Demo", version: "1.0" },
      archive: ARCHIVE,
      encodedSignature: Buffer.from(signature).toString("base64"),
      opensslPath: OPENSSL,
      timeAnchor: file(`${timeRoot}.pem`).toString(),
    },
  );
  expect(system.files.list(LIB)).toEqual(before);
  return problem;
}

test("extensions.md DB-28: a certificate that is valid needs no time stamp, one that has expired does", async () => {
  expect(await verify(valid)).toBeUndefined();
  expect(await verify(expired)).toBe(
    "the certificate it was signed with is not valid now, and it has no time stamp",
  );
  expect(await verify(stamped)).toBeUndefined();
});

test("extensions.md DB-28: a stamp that came too late, is for something else, or is of nobody who may stamp, helps nobody", async () => {
  const { signature } = readTimeStamped(expired);
  expect(await verify(withToken(expired, stamp(signature)))).toMatch(/certificate has expired/);
  expect(await verify(withToken(expired, stamp(Buffer.from("other"))))).toContain(
    "The time stamp is for another signature",
  );
  expect(await verify(stamped, "root")).toMatch(/it cannot be said that it was signed while/);
  // The signer itself has no right to stamp.
  expect(await verify(withToken(expired, expired))).toContain("another content than a time");
});

test("extensions.md DB-28: what is no DER is refused, wherever it is cut or changed", async () => {
  for (const length of [0, 1, 5, 100, stamped.length - 1])
    expect(() => readTimeStamped(stamped.subarray(0, length))).toThrow(/is not|is cut off/);
  for (let at = 0; at < stamped.length; at += 97) {
    const bent = Buffer.from(stamped);
    bent[at] = (bent[at] ?? 0) ^ 0xff;
    try {
      readTimeStamped(bent);
    } catch (error) {
      expect(error).toMatchObject({ code: "bad-input" });
    }
  }
  expect(await verify(Buffer.alloc(300, 0x30))).toContain("it cannot be said");
});
