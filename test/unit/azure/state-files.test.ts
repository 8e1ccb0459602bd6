import { expect, test } from "bun:test";
import {
  prepareStateDirectory,
  removeLegacyFiles,
  restrictSecrets,
  writePlaceholder,
  writeSharedConfig,
} from "../../../src/azure/state-files.ts";
import { createMachine, LIB } from "./platform.ts";

test("wire-protocol.md FILE-01: the state directory is closed to others, also when it was there", () => {
  using system = createMachine();
  system.files.chmod(LIB, 0o755);
  prepareStateDirectory(system, LIB);
  expect(system.files.stat(LIB)?.mode).toBe(0o700);
});

test("wire-protocol.md FILE-20 FILE-06: secrets an older agent left readable are closed, the signing root and other files are not touched", () => {
  using system = createMachine();
  const secrets = [
    "A.crt",
    "A.prv",
    "Certificates.p7m",
    "Certificates.pem",
    "Certificates.xml",
    "TransportPrivate.pem",
    "ovf-env.xml",
  ];
  const others = ["microsoft_root_certificate.pem", "SharedConfig.xml", "Protocol"];
  for (const name of [...secrets, ...others])
    system.files.write(`${LIB}/${name}`, "x", { mode: 0o644 });
  restrictSecrets(system, LIB);
  for (const name of secrets)
    expect([name, system.files.stat(`${LIB}/${name}`)?.mode]).toEqual([name, 0o400]);
  for (const name of others)
    expect([name, system.files.stat(`${LIB}/${name}`)?.mode]).toEqual([name, 0o644]);
});

test("a link among the secrets is not followed", () => {
  using system = createMachine();
  system.files.write("/tmp/elsewhere", "x", { mode: 0o644 });
  system.files.link(system.files.realPath("/tmp/elsewhere"), `${LIB}/evil.pem`);
  restrictSecrets(system, LIB);
  expect(system.files.stat("/tmp/elsewhere")?.mode).toBe(0o644);
});

test("wire-protocol.md HIST-06: files of agents without a history folder go, what others read stays", () => {
  using system = createMachine();
  const legacy = [
    "VmSettings.12.json",
    "Prod.3.agentsManifest",
    "Pub.Ext.4.manifest.xml",
    "ExtensionsConfig.5.xml",
    "GoalState.7.xml",
    "HostingEnvironmentConfig.xml",
    "RemoteAccess.xml",
    "waagent_status.8.json",
  ];
  const kept = [
    "GoalState.1.xml",
    "SharedConfig.xml",
    "Certificates.xml",
    "waagent_status.json",
    "ovf-env.xml",
    "Pub.Ext.manifest.xml",
  ];
  for (const name of [...legacy, ...kept]) system.files.write(`${LIB}/${name}`, "x");
  expect([...removeLegacyFiles(system, LIB)].toSorted()).toEqual(legacy.toSorted());
  expect(system.files.list(LIB)).toEqual(kept.toSorted());
});

test("wire-protocol.md FILE-11 FILE-12 GS-51: the placeholder and SharedConfig are written verbatim, and only when they change", () => {
  using system = createMachine();
  writePlaceholder(system, LIB);
  writeSharedConfig(system, LIB, "<SharedConfig>\u00e9\n</SharedConfig>");
  const inodes = () =>
    ["GoalState.1.xml", "SharedConfig.xml"].map(
      (name) => system.files.stat(`${LIB}/${name}`)?.inode,
    );
  const before = inodes();
  writePlaceholder(system, LIB);
  writeSharedConfig(system, LIB, "<SharedConfig>\u00e9\n</SharedConfig>");
  expect(inodes()).toEqual(before);
  expect(system.files.readText(`${LIB}/SharedConfig.xml`)).toBe(
    "<SharedConfig>\u00e9\n</SharedConfig>",
  );
  expect(system.files.readText(`${LIB}/GoalState.1.xml`)).toBe("<xml>empty placeholder file</xml>");
});

test("wire-protocol.md GS-51: a SharedConfig that cannot be written is a warning", () => {
  using system = createMachine();
  system.files.makeDirectory(`${LIB}/SharedConfig.xml`);
  writeSharedConfig(system, LIB, "<SharedConfig/>");
  expect(system.lines[0]).toStartWith("WARNING");
});
