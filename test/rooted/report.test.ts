import { afterAll, beforeAll, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { VERSION } from "../../src/base/identity.ts";
import { binary } from "../support/binary.ts";

/** The report that operators attach to a question: of a machine that has a secret in every place that can hold one. */
let program = "";
let scratch = "";

beforeAll(async () => {
  program = await binary();
  scratch = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-report-"));
});

afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

const SECRETS = {
  signature: "SIGNATURE-OF-A-BLOB",
  proxyPassword: "PASSWORD-OF-THE-PROXY",
  environmentPassword: "PASSWORD-IN-THE-ENVIRONMENT",
  storageKey: "KEY-OF-THE-STORAGE-ACCOUNT==",
  userPassword: "PASSWORD-OF-THE-USER",
  protectedSettings: "MIIB-PROTECTED-SETTINGS",
  settingsFile: "MIIB-SETTINGS-ON-DISK",
} as const;
const PRIVATE_KEY = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({
  type: "pkcs8",
  format: "pem",
}) as string;
const SAS = `https://account.blob.core.windows.net/c/b?sv=2021&se=2030-01-01&sig=${SECRETS.signature}&sp=r`;

function machine(): string {
  const directory = fs.mkdtempSync(path.join(scratch, "root-"));
  const stamp = "2030-01-01T00:00:00.000000Z";
  const filler = Array.from({ length: 180 }, (_, line) => `${stamp} INFO ExtHandler line ${line}`);
  const log = [
    `${stamp} INFO Daemon Daemon too old to be shown`,
    // A key of which only the end is among the lines that are shown.
    `${stamp} INFO ExtHandler an extension printed:`,
    ...PRIVATE_KEY.trimEnd().split("\n"),
    ...filler,
    `${stamp} ERROR ExtHandler GET ${SAS} failed`,
    `${stamp} INFO ExtHandler second order: https://h/p?x=1&sig=${SECRETS.signature}`,
    `${stamp} INFO ExtHandler DefaultEndpointsProtocol=https;AccountKey=${SECRETS.storageKey};x`,
    `${stamp} INFO ExtHandler <UserPassword>${SECRETS.userPassword}</UserPassword>`,
    `${stamp} INFO ExtHandler {"protectedSettings": "${SECRETS.protectedSettings}"}`,
    `${stamp} INFO ExtHandler proxy http://me:${SECRETS.proxyPassword}@proxy.test:3128`,
  ];
  const handler = { name: "Pub.Ext", version: "1.0", state: "NotReady", detail: `no ${SAS}` };
  const state = {
    version: 1,
    agent: { version: VERSION, pid: 4, startedAt: "2030-01-01T00:00:00Z" },
    handlers: [{ ...handler, lastOperation: null, running: null }],
    components: [{ name: "status upload", state: "failed", detail: SAS, since: "t" }],
  };
  const base = "/var/lib/waagent/Pub.Ext-1.0";
  const files: Readonly<Record<string, string>> = {
    "/etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "/etc/waagent.conf": `HttpProxy.Host=http://me:${SECRETS.proxyPassword}@proxy.test\nBogus=1\n`,
    "/var/log/waagent.log": `${log.join("\n")}\n`,
    "/run/waagent/status.json": JSON.stringify(state),
    [`${base}/config/HandlerState`]: "Enabled",
    [`${base}/config/0.settings`]: JSON.stringify({
      runtimeSettings: [
        {
          handlerSettings: {
            protectedSettings: SECRETS.settingsFile,
            protectedSettingsCertThumbprint: "A".repeat(40),
          },
        },
      ],
    }),
    [`/var/lib/waagent/${"A".repeat(40)}.crt`]: "no certificate",
    [`/var/lib/waagent/${"A".repeat(40)}.prv`]: PRIVATE_KEY,
    "/bin/.keep": "",
  };
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(directory, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
  return directory;
}

test("extensions.md DB-22; wire-protocol.md HTTP-22: the report has what is needed and none of the secrets", () => {
  const directory = machine();
  const ended = spawnSync(program, [`--root=${directory}`, "doctor", "--report=/report.txt"], {
    encoding: "utf8",
    cwd: scratch,
    env: { https_proxy: `http://me:${SECRETS.environmentPassword}@other.test:3128` },
    timeout: 20_000,
  });
  expect(ended.status).toBe(2);
  expect(ended.stderr).toBe(
    "The report is in /report.txt. Look through it before you give it to others.\n",
  );
  const file = path.join(directory, "report.txt");
  expect(fs.statSync(file).mode & 0o777).toBe(0o600);
  const report = fs.readFileSync(file, "utf8");
  const keyLines = PRIVATE_KEY.trim().split("\n").slice(1, -1);
  for (const told of [report, ended.stdout])
    for (const secret of [...Object.values(SECRETS), ...keyLines])
      expect(told.includes(secret) ? secret : "").toBe("");
  const log = report.slice(report.indexOf("== Last 200 lines of /var/log/waagent.log ==\n"));
  expect(log.trimEnd().split("\n")).toHaveLength(201);
  expect(log).not.toContain("too old to be shown");
  for (const wanted of [
    `WALinuxAgent-${VERSION} running on debian 12`,
    "certificate-mismatch: Pub.Ext: ",
    'The key "Bogus" is unknown',
    "HttpProxy.Host = http://<redacted>@proxy.test",
    "Pub.Ext 1.0: NotReady",
    "not looked at: ",
    "INFO ExtHandler line 179",
    "ERROR ExtHandler GET https://account.blob.core.windows.net/c/b?<redacted>",
  ])
    expect(report).toContain(wanted);
});

test("a report that cannot be written is exit 1; JSON is one document for machines", () => {
  const directory = machine();
  const run = (...args: readonly string[]) =>
    spawnSync(program, [`--root=${directory}`, "doctor", ...args], {
      encoding: "utf8",
      cwd: scratch,
      env: {},
      timeout: 20_000,
    });
  const failed = run("--report=/no/such/folder/report.txt");
  expect(failed.status).toBe(1);
  expect(failed.stderr).toStartWith("waagent doctor: the report could not be written: ");
  expect(run("--report").status).toBe(64);
  const { status, stdout } = run("--json");
  expect(status).toBe(2);
  const { findings, well, unseen } = JSON.parse(stdout);
  expect(findings.map((one: { id: string }) => one.id)).toEqual([
    "agent-not-running",
    "configuration",
    "certificate-mismatch",
    "status-upload-failed",
  ]);
  expect(well).toContain("there is room on the disks");
  expect(unseen).toContain("mounts: /proc/self/mountinfo is not there");
});
