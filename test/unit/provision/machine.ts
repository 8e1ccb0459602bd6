import { defaultConfig, type Config } from "../../../src/config/table.ts";
import type { Distro } from "../../../src/distro/distro.ts";
import { rowOf } from "../../../src/distro/rows.ts";
import type { ProvisioningPlatform } from "../../../src/provision/platform.ts";
import type { ProvisionOptions } from "../../../src/provision/outcome.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

/** Firmware's byte order, and the platform's (ID-02). */
export const FIRMWARE_UUID = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8";
export const VM_ID = "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8";

/** Ordinary users may run the tests too, so the fake users are the tester where root's rights are missing. */
export const USER_ID = process.getuid!() === 0 ? 1001 : process.getuid!();
const GROUP_ID = process.getuid!() === 0 ? 1001 : process.getgid!();

export interface OvfParts {
  readonly hostName?: string;
  readonly userName?: string;
  /** Inside of the configuration set. */
  readonly more?: string;
  readonly password?: string;
  readonly guestAgent?: string;
}

/** A document as the platform writes it, own sample. */
export function ovf(parts: OvfParts = {}): string {
  const password =
    parts.password === undefined ? "" : `<UserPassword>${parts.password}</UserPassword>`;
  return `<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <HostName>${parts.hostName ?? "vm01"}</HostName>
      <UserName>${parts.userName ?? "alice"}</UserName>
      ${password}
      ${parts.more ?? ""}
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <wa:PlatformSettings>
      <wa:ProvisionGuestAgent>${parts.guestAgent ?? "true"}</wa:ProvisionGuestAgent>
    </wa:PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
`;
}

export const ED25519_KEY =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE8tTGlUGm1YSUuP2ZhDqRQeWBbZpLrqwUPaXDmMhEa4 first@example";

export function sshKeys(...values: readonly string[]): string {
  const keys = values.map(
    (value) =>
      `<PublicKey><Path>$HOME/alice/.ssh/authorized_keys</Path><Value>${value}</Value></PublicKey>`,
  );
  return `<SSH><PublicKeys>${keys.join("")}</PublicKeys></SSH>`;
}

/** The row of an adapter as a whole machine; ssh is not restarted unless asked for. */
export function distroOf(adapter: string, changes: Partial<Distro> = {}): Distro {
  return {
    ...rowOf(adapter),
    release: {
      name: adapter.toLowerCase(),
      version: "12",
      codeName: "",
      fullName: adapter,
      like: [],
    },
    capabilities: {
      systemd: true,
      serviceManager: "systemd",
      networkManagers: [],
      sshUnit: undefined,
      agentUnit: undefined,
      readOnlyUsr: false,
    },
    known: true,
    ...changes,
  };
}

export function configOf(changes: Partial<Config> = {}): Config {
  return { ...defaultConfig(), ...changes };
}

/** A machine whose account, SSH and mount programs work on its files. */
export function createMachine(): FakeSystem {
  const system = createFakeSystem();
  const { files, programs } = system;
  for (const directory of [
    "/etc/ssh",
    "/etc/sudoers.d",
    "/home",
    "/dev",
    "/proc/self",
    "/run",
    "/var/lib/waagent",
  ] as const)
    files.makeDirectory(directory);
  // Nothing here has to survive a power cut, and fsync is what tests would wait for.
  const put = (file: SystemPath, text: string): void => files.write(file, text, { durable: false });
  put("/etc/login.defs", "# comment\nUID_MIN\t\t\t 1000\nUID_MAX 60000\n");
  put("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/bin/sh\n");
  put("/etc/shadow", "root:$6$old$hash:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n");
  put("/etc/sudoers", "root ALL=(ALL:ALL) ALL\n\n@includedir /etc/sudoers.d\n");
  put("/etc/ssh/sshd_config", "Port 22\n");
  put("/proc/uptime", "123.45 400.00\n");
  put("/proc/self/mounts", "overlay / overlay rw 0 0\n");
  files.makeDirectory("/sys/class/dmi/id");
  put("/sys/class/dmi/id/product_uuid", `${FIRMWARE_UUID}\n`);

  programs.set("getent", ([, , name]) => {
    const line = lines(files.readText("/etc/passwd")).find((entry) => entry.startsWith(`${name}:`));
    return line === undefined ? { code: 2 } : { stdout: `${line}\n` };
  });
  programs.set("useradd", (argv) => {
    const name = argv[2] ?? "";
    if (files.readText("/etc/passwd").includes(`\n${name}:`)) return { code: 9, stderr: "exists" };
    const comment = argv.includes("-c") ? argv[argv.indexOf("-c") + 1] : "";
    append(
      system,
      "/etc/passwd",
      `${name}:x:${USER_ID}:${GROUP_ID}:${comment}:/home/${name}:/bin/sh\n`,
    );
    append(system, "/etc/shadow", `${name}:!:19000:0:99999:7:::\n`);
    files.makeDirectory(`/home/${name}`, { mode: 0o755 });
    return {};
  });
  programs.set("chpasswd", (_, stdin) => {
    const [name, hash] = stdin.trimEnd().split(/:(.*)/s);
    const next = lines(files.readText("/etc/shadow")).map((line) =>
      line.startsWith(`${name}:`)
        ? [name, hash, "20000", ...line.split(":").slice(3)].join(":")
        : line,
    );
    files.write("/etc/shadow", `${next.join("\n")}\n`);
  });
  programs.set("userdel", (argv) => {
    const name = argv.at(-1) ?? "";
    for (const file of ["/etc/passwd", "/etc/shadow"] as const)
      files.write(
        file,
        files
          .readText(file)
          .split("\n")
          .filter((line) => !line.startsWith(`${name}:`))
          .join("\n"),
      );
    files.remove(`/home/${name}`);
    return {};
  });
  programs.set("visudo", () => ({}));
  programs.set("hostname", ([, name]) => {
    files.makeDirectory("/proc/sys/kernel");
    files.write("/proc/sys/kernel/hostname", `${name}\n`);
  });
  programs.set("ssh-keygen", (argv) => {
    const file = logical(system, argv[argv.indexOf("-f") + 1] ?? "");
    const type = argv[argv.indexOf("-t") + 1] ?? "";
    const wire = { rsa: "ssh-rsa", ecdsa: "ecdsa-sha2-nistp256", ed25519: "ssh-ed25519" }[type];
    if (wire === undefined) return { code: 1, stderr: `unknown key type ${type}` };
    files.write(file, `private ${type}\n`, { mode: 0o600 });
    files.write(`${file}.pub`, `${wire} ${blobOf(wire, type)} root@fake\n`, { mode: 0o644 });
    return {};
  });
  programs.set("mount", (argv) => {
    const [device = "", point = ""] = argv.slice(-2);
    const source = `/media${device}` as SystemPath;
    if (!files.exists(source)) return { code: 32, stderr: `${device}: no medium found` };
    const at = logical(system, point);
    for (const name of files.list(source)) files.copy(`${source}/${name}`, `${at}/${name}`);
    append(system, "/proc/self/mounts", `${device} ${at} udf ro 0 0\n`);
    return {};
  });
  programs.set("umount", ([, point = ""]) => {
    const at = logical(system, point);
    for (const name of files.list(at)) files.remove(`${at}/${name}`);
    files.write(
      "/proc/self/mounts",
      files
        .readText("/proc/self/mounts")
        .split("\n")
        .filter((line) => line.split(" ")[1] !== at)
        .join("\n"),
    );
    return {};
  });
  programs.set("eject", () => ({}));
  return system;
}

/** Puts a document on a DVD. */
export function insertDvd(system: FakeSystem, document: string | Uint8Array, device = "sr0"): void {
  system.files.write(`/dev/${device}`, "");
  system.files.makeDirectory(`/media/dev/${device}`);
  system.files.write(`/media/dev/${device}/ovf-env.xml`, document);
}

/** The logical path of one that a program was given. */
export function logical(system: FakeSystem, real: string): SystemPath {
  return (
    real.startsWith(system.root.directory) ? real.slice(system.root.directory.length) : real
  ) as SystemPath;
}

export function append(system: FakeSystem, file: SystemPath, text: string): void {
  system.files.write(file, `${system.files.readTextIfExists(file) ?? ""}${text}`, {
    durable: false,
  });
}

/** Every file below the root with mode and content, but those of the fake itself. */
export function snapshot(system: FakeSystem): Record<string, string> {
  const result: Record<string, string> = {};
  const walk = (directory: SystemPath): void => {
    for (const name of system.files.list(directory)) {
      const file = `${directory === "/" ? "" : directory}/${name}` as SystemPath;
      const info = system.files.lstat(file);
      if (info?.kind === "directory") walk(file);
      else if (info?.kind === "file")
        result[file] =
          `${info.mode.toString(8)} ${Buffer.from(system.files.read(file)).toString("latin1")}`;
      else if (info?.kind === "link") result[file] = `link ${system.files.readLink(file)}`;
    }
  };
  walk("/");
  return result;
}

export interface FakePlatform extends ProvisioningPlatform {
  /** In order: "detect", "NotReady Provisioning Starting", "Ready", ... */
  readonly told: string[];
}

export function createPlatform(changes: Partial<ProvisioningPlatform> = {}): FakePlatform {
  const told: string[] = [];
  return {
    told,
    // Who cannot be found cannot be reported to.
    identify: changes.detect ?? (async () => {}),
    detect: async () => void told.push("detect"),
    reportNotReady: async (subStatus, description) => {
      told.push(`NotReady ${subStatus} ${description}`);
      return true;
    },
    reportReady: async () => {
      told.push("Ready");
      return true;
    },
    reportFingerprint: async (fingerprint) => void told.push(`fingerprint ${fingerprint}`),
    ...changes,
  };
}

export function optionsOf(
  platform: ProvisioningPlatform,
  changes: Partial<ProvisionOptions> = {},
): ProvisionOptions {
  return {
    distro: distroOf("Default"),
    platform,
    agent: "WALinuxAgent/2.15.0.1",
    publishHostName: async () => {},
    ...changes,
  };
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** A blob that names its type, different for each kind. */
export function blobOf(type: string, salt: string): string {
  const name = Buffer.from(type);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  return Buffer.concat([length, name, Buffer.from(`\0\0\0\x10${salt.padEnd(16, "x")}`)]).toString(
    "base64",
  );
}

/** As the platform sends one for a key that is named by its thumbprint. */
export const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIICADCCAWmgAwIBAgIUfi/r9fdD1DaKfSEukJ51IIAQjdIwDQYJKoZIhvcNAQEL
BQAwETEPMA0GA1UEAwwGc2FtcGxlMCAXDTI2MTEyNTAxMjU0NVoYDzIxMjYxMTAx
MDEyNTQ1WjARMQ8wDQYDVQQDDAZzYW1wbGUwgZ8wDQYJKoZIhvcNAQEBBQADgY0A
MIGJAoGBALWtNFtsWDSLxP82KIaD7/gg0z2fsWbaM3JksPyB+J08Eb5WsHqDcfxc
NLjq8zYXOiYQQjZ4AJs4BXn49f11vqp13GvewrfgSlE0seDQ8NtnG1I5GJKZF1hR
DJBsx0HrNR8K9dQtdRXxVFAWdkm3BIS1+iWPSwGGzVlweOPtphlbAgMBAAGjUzBR
MB0GA1UdDgQWBBTn/AdWL4QU+3RMF9+7Z1W7KcnitDAfBgNVHSMEGDAWgBTn/AdW
L4QU+3RMF9+7Z1W7KcnitDAPBgNVHRMBAf8EBTADAQH/MA0GCSqGSIb3DQEBCwUA
A4GBAGptFBsR1A/WE5/3hOPtWVvlXVoaSxQA1sZlDp0reu6Ic9w7s8soEo44ujfR
7+ykzTCZGEyHyEZLtFitnMkcJDmIdXcmNIrLdQRFHk7y5Z7mkw9Z3pF+vRBbfUiP
Ps4Zl2E23b9FUoyRXxlXbIMWmqd57QCloZa8unPrM8M4rJOF
-----END CERTIFICATE-----
`;
