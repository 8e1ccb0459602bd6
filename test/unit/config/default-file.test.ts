import { expect, test } from "bun:test";
import {
  defaultFile,
  defaultFileFor,
  type DefaultFileName,
  defaultFileNames,
} from "../../../src/config/default-file.ts";
import { parseConfig, readAssignments } from "../../../src/config/parse.ts";
import { distroNamed } from "../../fakes/distro.ts";

const config = (name: DefaultFileName) =>
  parseConfig(defaultFile(name), "/etc/waagent.conf").config;
const keysOf = (name: DefaultFileName): readonly string[] =>
  readAssignments(defaultFile(name), "/x").map(({ key }) => key);

test("every shipped file parses without a warning and explains each key", () => {
  for (const name of defaultFileNames()) {
    const text = defaultFile(name);
    expect([name, parseConfig(text, "/x").warnings]).toEqual([name, []]);
    expect(text.split("\n").every((line) => line.length <= 110)).toBe(true);
  }
});

test("the generic file has the values of the reference's", () => {
  expect(config("generic")).toMatchObject({
    "Extensions.Enabled": true,
    "Extensions.GoalStatePeriod": 6,
    "Logs.Collect": true,
    "Logs.CollectPeriod": 3600,
    "Logs.Verbose": false,
    "OS.EnableFIPS": false,
    "OS.EnableFirewall": true,
    "OS.EnableFirewallPeriod": 30,
    "OS.OpensslPath": "/usr/bin/openssl",
    "OS.RootDeviceScsiTimeout": "300",
    "OS.SshDir": "/etc/ssh",
    "Provisioning.Agent": "auto",
    "Provisioning.DeleteRootPassword": true,
    "Provisioning.MonitorHostName": true,
    "Provisioning.RegenerateSshHostKeyPair": true,
    "Provisioning.SshHostKeyPairType": "rsa",
    "ResourceDisk.Filesystem": "ext4",
    "ResourceDisk.Format": true,
    "ResourceDisk.MountOptions": undefined,
    "OS.EnableRDMA": false,
    "OS.CheckRdmaDriver": false,
  });
  expect(defaultFile("generic")).toContain("\n# OS.HomeDir=/home\n");
});

test("system.md PKG-13 PKG-14: Ubuntu leaves the disk to cloud-init at /mnt, SUSE's is a compressed btrfs", () => {
  const release = { codeName: "", fullName: "" };
  expect(defaultFileFor({ ...release, name: "ubuntu" })).toBe("ubuntu");
  expect(config("ubuntu")).toMatchObject({
    "ResourceDisk.Format": false,
    "ResourceDisk.MountPoint": "/mnt",
  });
  for (const name of ["suse", "sles", "sle-micro", "opensuse"]) {
    const file = defaultFileFor({ ...release, name });
    expect(config(file)).toMatchObject({
      "ResourceDisk.Format": true,
      "ResourceDisk.Filesystem": "btrfs",
      "ResourceDisk.MountOptions": "compress=lzo",
    });
    // Where its interfaces belong to wicked, that is who is asked for a new lease.
    const capabilities = { systemd: true, networkManagers: ["wicked"] } as const;
    expect(distroNamed(name, "15.6", { capabilities })).toMatchObject({
      adapter: "SUSE",
      renewLease: "wicked",
      dhcpClientPids: ["pidof", "wickedd-dhcp4"],
    });
  }
});

test("provisioning.md CONF-100 CONF-101 CONF-102 CONF-103 CONF-104 CONF-105 CONF-106 CONF-107 CONF-108 CONF-109: deviations of the Linux files", () => {
  expect(config("ubuntu")).toMatchObject({
    "Provisioning.RegenerateSshHostKeyPair": false,
    "Provisioning.MonitorHostName": false,
    "ResourceDisk.Format": false,
    "ResourceDisk.MountPoint": "/mnt",
  });
  expect(config("debian")).toMatchObject({
    "Provisioning.SshHostKeyPairType": "auto",
    "OS.EnableFirewall": false,
  });
  expect(config("devuan")["Provisioning.SshHostKeyPairType"]).toBe("auto");
  expect(config("suse")).toMatchObject({
    "ResourceDisk.Filesystem": "btrfs",
    "ResourceDisk.MountOptions": "compress=lzo",
  });
  for (const name of ["mariner", "photonos"] as const) {
    expect(config(name)).toMatchObject({
      "Provisioning.DecodeCustomData": true,
      "ResourceDisk.Format": false,
    });
    expect(keysOf(name)).toContain("AutoUpdate.GAFamily");
    expect(keysOf(name)).not.toContain("ResourceDisk.MountOptions");
  }
  expect(config("photonos")["OS.EnableFirewall"]).toBe(false);
  expect(keysOf("photonos")).not.toContain("Extensions.Enabled");
  expect(keysOf("photonos")).not.toContain("Provisioning.Agent");
  expect(config("coreos")).toMatchObject({
    "Provisioning.DeleteRootPassword": false,
    "Provisioning.RegenerateSshHostKeyPair": false,
    "Provisioning.SshHostKeyPairType": "ed25519",
    "OS.AllowHTTP": true,
  });
  expect(config("arch")["Provisioning.DeleteRootPassword"]).toBe(false);
  expect(keysOf("arch")).not.toContain("Extensions.Enabled");
  expect(config("alpine")).toMatchObject({
    "Provisioning.MonitorHostName": false,
    "Provisioning.DecodeCustomData": true,
    "Provisioning.ExecuteCustomData": true,
  });
  expect(keysOf("alpine")).toContain("Logs.Console");
  expect(keysOf("alpine")).not.toContain("Provisioning.AllowResetSysUser");
  expect(config("chainguard")).toMatchObject({
    "Extensions.Enabled": false,
    "AutoUpdate.UpdateToLatestVersion": false,
    "Provisioning.SshHostKeyPairType": "auto",
  });
});

test("provisioning.md CONF-110 CONF-111 CONF-112 CONF-113 CONF-114 CONF-115 CONF-116: deviations of the other files", () => {
  expect(config("clearlinux")["Provisioning.DecodeCustomData"]).toBe(true);
  expect(keysOf("clearlinux")).not.toContain("ResourceDisk.MountOptions");
  expect(config("iosxe")).toMatchObject({
    "Provisioning.RegenerateSshHostKeyPair": false,
    "Provisioning.MonitorHostName": false,
    "ResourceDisk.Format": false,
  });
  expect(config("bigip")["Lib.Dir"]).toBe("/shared/vadc/azure/waagent/");
  expect(keysOf("bigip")).not.toContain("Provisioning.DecodeCustomData");
  expect(config("gaia")).toMatchObject({
    "Provisioning.AllowResetSysUser": true,
    "Provisioning.PasswordCryptId": "1",
    "OS.OpensslPath": "/var/lib/waagent/openssl",
    "ResourceDisk.Filesystem": "ext3",
    "ResourceDisk.EnableSwap": true,
    "ResourceDisk.SwapSizeMB": 1024,
    "AutoUpdate.Enabled": false,
  });
  expect(config("freebsd")).toMatchObject({
    "ResourceDisk.Filesystem": "ufs",
    "ResourceDisk.SwapSizeMB": 16384,
    "OS.PasswordPath": "/etc/master.passwd",
    "OS.SudoersDir": "/usr/local/etc/sudoers.d",
  });
  expect(config("openbsd")).toMatchObject({
    "ResourceDisk.Filesystem": "ufs2",
    "ResourceDisk.SwapSizeMB": 65536,
    "OS.OpensslPath": "/usr/local/bin/eopenssl",
  });
  expect(config("nsbsd")).toMatchObject({
    "Lib.Dir": "/usr/Firewall/lib/waagent",
    "Extension.LogDir": "/log/azure",
    "AutoUpdate.Enabled": false,
    "ResourceDisk.Format": false,
  });
});

test("provisioning.md CONF-118: files without log collection keys, and none but the generic one names periods", () => {
  const without = defaultFileNames().filter((name) => !keysOf(name).includes("Logs.Collect"));
  expect(without.toSorted()).toEqual(
    ["clearlinux arch alpine bigip coreos devuan freebsd gaia iosxe mariner nsbsd openbsd photonos"]
      .flatMap((names) => names.split(" "))
      .toSorted() as DefaultFileName[],
  );
  for (const name of defaultFileNames()) {
    expect(keysOf(name).includes("OS.EnableFirewallPeriod")).toBe(name === "generic");
  }
});

test.each([
  ["ubuntu", "Ubuntu", "ubuntu"],
  ["rhel", "Red Hat Enterprise Linux", "generic"],
  ["oracle", "Oracle Linux Server", "generic"],
  ["sles", "SLES", "suse"],
  ["opensuse-tumbleweed", "openSUSE Tumbleweed", "suse"],
  ["azurelinux", "Microsoft Azure Linux", "mariner"],
  ["flatcar", "Flatcar Container Linux by Kinvolk", "coreos"],
  ["clear-linux-os", "Clear Linux OS", "clearlinux"],
  ["alpaquita", "Alpaquita", "alpine"],
  ["toString", "x", "generic"],
] as const)(
  "provisioning.md PKG-01 PKG-04 PKG-08 PKG-10 PKG-13: %s takes the %p file %s",
  (name, fullName, file) => {
    expect(defaultFileFor({ name, codeName: "", fullName })).toBe(file);
  },
);
