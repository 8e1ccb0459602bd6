import { expect, test } from "bun:test";
import type { Release } from "../../../src/distro/distro.ts";
import { selectAdapter } from "../../../src/distro/select.ts";
import { distroNamed } from "../../fakes/distro.ts";

const release = (name: string, version: string, rest: Partial<Release> = {}): Release => ({
  name,
  version,
  codeName: "",
  fullName: name,
  like: [],
  ...rest,
});

const adapter = (name: string, version: string, rest: Partial<Release> = {}): string =>
  selectAdapter(release(name, version, rest)).adapter;

function expectAdapters(
  vectors: readonly (readonly [name: string, version: string, adapter: string])[],
) {
  for (const [name, version, expected] of vectors) {
    expect([name, version, selectAdapter(release(name, version))]).toEqual([
      name,
      version,
      { adapter: expected, facts: expected, known: true },
    ]);
  }
}

test("provisioning.md DIST-10: Photon", () => {
  expectAdapters([["photonos", "5.0", "Photon"]]);
});

test("provisioning.md DIST-11: Arch", () => {
  expectAdapters([["arch", "", "Arch"]]);
});

test("provisioning.md DIST-13: Ubuntu by version lists, everything else is UbuntuOther", () => {
  expectAdapters([
    ["ubuntu", "12.04", "Ubuntu12"],
    ["ubuntu", "12.10", "Ubuntu12"],
    ["ubuntu", "14.04", "Ubuntu14"],
    ["ubuntu", "14.10", "Ubuntu14"],
    ["ubuntu", "16.04", "Ubuntu16"],
    ["ubuntu", "17.04", "Ubuntu16"],
    ["ubuntu", "17.10", "UbuntuOther"],
    ["ubuntu", "18.04", "Ubuntu18"],
    ["ubuntu", "20.10", "Ubuntu18"],
    ["ubuntu", "22.04", "Ubuntu18"],
    ["ubuntu", "24.04", "Ubuntu18"],
    ["ubuntu", "24.10", "UbuntuOther"],
    ["ubuntu", "26.04", "UbuntuOther"],
  ]);
});

test("provisioning.md DIST-14: Alpine and Alpaquita", () => {
  expectAdapters([
    ["alpine", "3.20.1", "Alpine"],
    ["alpaquita", "23", "Alpine"],
  ]);
});

test("provisioning.md DIST-15: Chainguard", () => {
  expectAdapters([["chainguard", "20230214", "Chainguard"]]);
});

test("provisioning.md DIST-16: Kali is DebianBase", () => {
  expectAdapters([["kali", "2024.1", "DebianBase"]]);
});

test("provisioning.md DIST-17: Flatcar and CoreOS", () => {
  expectAdapters([
    ["flatcar", "3815.2.0", "CoreOS"],
    ["coreos", "2512.3.0", "CoreOS"],
  ]);
});

test("system.md PKG-10: Flatcar from 3550 keeps generated units in /etc, has its sshd edited and never restarted, and core for everybody", () => {
  const flatcar = distroNamed("flatcar", "3975.2.1", {
    capabilities: { systemd: true, sshUnit: "sshd.socket", networkManagers: ["networkd"] },
  });
  expect(flatcar).toMatchObject({
    adapter: "CoreOS",
    unitDirectory: "/etc/systemd/system",
    editSshdConfig: true,
    restartSsh: undefined,
    renewLease: "networkd",
    ordinaryUsers: ["core"],
  });
  for (const [name, version] of [
    ["flatcar", "3510.3.7"],
    ["coreos", "3975.2.1"],
  ] as const)
    expect(distroNamed(name, version)).toMatchObject({
      unitDirectory: "/lib/systemd/system",
      editSshdConfig: false,
    });
});

test("provisioning.md DIST-18: the SUSE family", () => {
  expectAdapters([
    ["suse", "15.5", "SUSE"],
    ["sles", "15.6", "SUSE"],
    ["sle_hpc", "15.3", "SUSE"],
    ["sle-micro", "5.5", "SUSE"],
    ["opensuse", "15.6", "SUSE"],
  ]);
});

test("provisioning.md DIST-19: Debian above 7, sid and no version are modern", () => {
  expectAdapters([
    ["debian", "7", "DebianBase"],
    ["debian", "7.11", "DebianModern"],
    ["debian", "12", "DebianModern"],
    ["debian", "trixie/sid", "DebianModern"],
    ["debian", "", "DebianModern"],
  ]);
});

test("provisioning.md DIST-20: Devuan from 4", () => {
  expectAdapters([
    ["devuan", "4", "Devuan"],
    ["devuan", "5", "Devuan"],
  ]);
});

test("provisioning.md DIST-21: the Red Hat family by version", () => {
  expectAdapters([
    ["redhat", "6.10", "RedHat6"],
    ["rhel", "7.9", "RedHat7"],
    ["centos", "8", "RedHat7"],
    ["centos", "9", "RedHatModern"],
    ["oracle", "8.5", "RedHat7"],
    ["oracle", "8.10", "RedHatModern"],
    ["almalinux", "8.6", "RedHatModern"],
    ["cloudlinux", "9.4", "RedHatModern"],
    ["rocky", "10.0", "RedHatModern"],
  ]);
});

test("provisioning.md DIST-22: EulerOS and UOS", () => {
  expectAdapters([
    ["euleros", "2.0", "RedHat7"],
    ["uos", "20", "RedHat7"],
  ]);
});

test("provisioning.md DIST-23: same-named adapters, mariner and azurelinux", () => {
  expectAdapters([
    ["freebsd", "14.1", "FreeBSD"],
    ["openbsd", "7.5", "OpenBSD"],
    ["bigip", "16.1", "BigIp"],
    ["gaia", "1.2", "Gaia"],
    ["iosxe", "csr1000v", "IosXE"],
    ["nsbsd", "4.3", "NSBSD"],
    ["openwrt", "23.05", "OpenWRT"],
    ["fedora", "40", "Fedora"],
    ["mariner", "2.0.20240301", "Mariner"],
    ["azurelinux", "3.0", "Mariner"],
  ]);
});

test("provisioning.md DIST-12 DIST-13 DIST-17 DIST-18: full name and code name decide too", () => {
  expect(adapter("clear-linux-os", "41000", { fullName: "Clear Linux OS" })).toBe("Clear");
  expect(adapter("ubuntu", "15.04", { fullName: "Snappy Ubuntu Core" })).toBe("Snappy");
  expect(adapter("other", "1", { codeName: "flatcar" })).toBe("CoreOS");
  expect(adapter("suse", "11", { fullName: "SUSE Linux Enterprise Server" })).toBe("SUSE11");
  expect(adapter("suse", "12", { fullName: "SUSE Linux Enterprise Server" })).toBe("SUSE");
  expect(adapter("suse", "13.1", { fullName: "openSUSE" })).toBe("SUSE11");
  expect(adapter("suse", "13.2", { fullName: "openSUSE" })).toBe("SUSE");
});

test.each([
  ["amzn", "2023", ["fedora"], "Fedora"],
  ["amzn", "2", ["centos", "rhel", "fedora"], "Fedora"],
  ["sl-micro", "6.0", ["suse"], "SUSE"],
  ["opensuse-tumbleweed", "20260101", ["opensuse", "suse"], "SUSE"],
  ["devuan", "3", ["debian"], "Devuan"],
  ["linuxmint", "22", ["ubuntu", "debian"], "UbuntuOther"],
  ["virtuozzo", "9", ["rhel", "fedora"], "RedHatModern"],
  ["bigiq", "8", [], "Default"],
  ["constructor", "1", [], "Default"],
] as const)(
  "provisioning.md DIST-24 DB-16: %s %s is reported as Default and borrows the facts of its relative %p",
  (name, version, like, facts) => {
    expect(selectAdapter(release(name, version, { like }))).toEqual({
      adapter: "Default",
      facts,
      known: false,
    });
    expect(distroNamed(name, version, { release: { like } }).adapter).toBe("Default");
  },
);
