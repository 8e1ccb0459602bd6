import { expect, test } from "bun:test";
import { detectDistro, detectRelease, unknownDistroWarning } from "../../../src/distro/detect.ts";
import { parentOf } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

function machine(files: Readonly<Record<`/${string}`, string>>): FakeSystem {
  const system = createFakeSystem();
  for (const [file, text] of Object.entries(files)) write(system, file as `/${string}`, text);
  return system;
}

function write(system: FakeSystem, file: `/${string}`, text: string): void {
  system.files.makeDirectory(parentOf(file));
  system.files.write(file, text, { mode: 0o644 });
}

test("provisioning.md DIST-01: os-release gives name, version, code name and full name", async () => {
  using system = machine({
    "/etc/os-release":
      'PRETTY_NAME="Ubuntu 22.04.4 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nID=ubuntu\nID_LIKE=debian\n',
    "/usr/lib/os-release": "ID=wrong\n",
  });
  expect(await detectRelease(system)).toEqual({
    name: "ubuntu",
    version: "22.04",
    codeName: "jammy",
    fullName: "Ubuntu",
    like: ["debian"],
  });
});

test.each([
  ["ID=ol\nVERSION_ID=9.4\n", "oracle"],
  ["ID='opensuse-leap'\n", "opensuse"],
  ['ID="Some Thing"\n', "some_thing"],
])("provisioning.md DIST-01: %p is named %s", async (text, name) => {
  using system = machine({ "/usr/lib/os-release": text });
  expect((await detectRelease(system)).name).toBe(name);
});

test("provisioning.md DIST-01: a Debian without VERSION_ID takes its version from debian_version", async () => {
  using system = machine({
    "/etc/os-release":
      'ID=debian\nNAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux trixie/sid"\n',
    "/etc/debian_version": "trixie/sid\n",
  });
  expect((await detectDistro(system)).adapter).toBe("DebianModern");
  expect((await detectRelease(system)).version).toBe("trixie/sid");
});

test("provisioning.md DIST-01: code name in parentheses of VERSION, version from PRETTY_NAME", async () => {
  using system = machine({
    "/etc/os-release": 'ID=x\nVERSION="9 (Nine Lives)"\nPRETTY_NAME="X Linux 9.3 (Nine Lives)"\n',
  });
  expect(await detectRelease(system)).toMatchObject({ version: "9.3", codeName: "nine lives" });
});

test("provisioning.md DIST-01: without os-release lsb_release is asked, then the release files", async () => {
  using system = machine({ "/etc/redhat-release": "CentOS release 6.10 (Final)\n" });
  expect(await detectRelease(system)).toMatchObject({
    name: "centos",
    version: "6.10",
    codeName: "final",
    fullName: "CentOS",
  });
  system.programs.set("lsb_release", () => ({
    stdout:
      "Distributor ID:\tUbuntu\nDescription:\tUbuntu 12.04\nRelease:\t12.04\nCodename:\tprecise\n",
  }));
  expect(await detectRelease(system)).toMatchObject({
    name: "ubuntu",
    version: "12.04",
    codeName: "precise",
  });
  write(system, "/etc/os-release", "ID=arch\n");
  system.commands.length = 0;
  expect((await detectRelease(system)).name).toBe("arch");
  expect(system.commands).toEqual([]);
});

test("provisioning.md DIST-01: an unnamed Red Hat release file means rhel", async () => {
  using system = machine({
    "/etc/redhat-release": "Red Hat Enterprise Linux Server release 6.9 (Santiago)\n",
  });
  expect(await detectRelease(system)).toMatchObject({ name: "rhel", version: "6.9" });
});

test("provisioning.md DIST-02: mariner takes the most precise version", async () => {
  using system = machine({
    "/etc/os-release": 'ID=mariner\nVERSION_ID="2.0"\nPRETTY_NAME="CBL-Mariner/Linux"\n',
    "/etc/mariner-release": "CBL-Mariner 2.0.20240301\n",
  });
  expect(await detectRelease(system)).toMatchObject({ name: "mariner", version: "2.0.20240301" });
});

test.each([
  [
    "/etc/oracle-release",
    "Oracle Linux Server release 9.4\n",
    { codeName: "oracle", fullName: "Oracle Linux" },
  ],
  ["/etc/euleros-release", "EulerOS V2.0\n", { name: "euleros" }],
  ["/etc/UnionTech-release", "UOS 20\n", { name: "uos" }],
  ["/etc/photon-release", "VMware Photon OS 5.0\n", { name: "photonos" }],
  ["/etc/alpaquita-release", "23\n", { name: "alpaquita" }],
  [
    "/home/guestshell/azure",
    "",
    { name: "iosxe", version: "csr1000v", fullName: "Cisco IOSXE Linux" },
  ],
] as const)("provisioning.md DIST-03: %s overrides os-release", async (file, text, expected) => {
  using system = machine({ "/etc/os-release": "ID=base\nNAME=Base\nVERSION_ID=1\n" });
  write(system, file, text);
  expect(await detectRelease(system)).toMatchObject(expected);
});

test("system.md PKG-02: each of these files forces its name over os-release; an unknown name is warned about and works", async () => {
  const forced: readonly (readonly [file: `/${string}`, text: string, name: string])[] = [
    ["/etc/euleros-release", "EulerOS V2.0\n", "euleros"],
    ["/etc/UnionTech-release", "UOS 20\n", "uos"],
    ["/etc/mariner-release", "CBL-Mariner 2.0.20240301\n", "mariner"],
    ["/shared/vadc/x", "", "bigip"],
    ["/etc/cp-release", "Check Point Gaia R81\n", "gaia"],
    ["/home/guestshell/azure", "", "iosxe"],
    ["/etc/photon-release", "VMware Photon OS 5.0\n", "photonos"],
    ["/etc/alpaquita-release", "23\n", "alpaquita"],
  ];
  for (const [file, text, name] of forced) {
    using system = machine({
      "/etc/os-release": `ID=${name === "mariner" ? "mariner" : "base"}\nNAME=Base\nVERSION_ID=1\n`,
      "/VERSION": "Product: BIG-IP\nVersion: 16.1.2\n",
      [file]: text,
    });
    expect([file, (await detectRelease(system)).name]).toEqual([file, name]);
  }
  using oracle = machine({
    "/etc/os-release": "ID=ol\nVERSION_ID=9.4\n",
    "/etc/oracle-release": "Oracle Linux Server release 9.4\n",
  });
  expect(await detectRelease(oracle)).toMatchObject({ name: "oracle", fullName: "Oracle Linux" });
  using router = machine({
    "/etc/openwrt_release": "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='23.05.3'\n",
  });
  expect((await detectDistro(router)).adapter).toBe("OpenWRT");
  using other = machine({ "/etc/os-release": "ID=other\nVERSION_ID=1\n" });
  const distro = await detectDistro(other);
  expect(distro.adapter).toBe("Default");
  expect(unknownDistroWarning(distro)).toStartWith(
    "Unable to load distro implementation for other",
  );
});

test("provisioning.md DIST-03: F5 products and Check Point read their own version files", async () => {
  using system = machine({
    "/etc/os-release": "ID=centos\nVERSION_ID=7\n",
    "/VERSION": "Product: BIG-IP\nVersion: 16.1.2\nBuild: 0.0.18\n",
  });
  system.files.makeDirectory("/shared/vadc");
  expect(await detectRelease(system)).toMatchObject({
    name: "bigip",
    version: "16.1.2",
    fullName: "BIG-IP",
  });
  write(system, "/etc/cp-release", "Check Point Gaia R81\n");
  write(system, "/etc/cloud-version", "take: 392\nbuild: 3\nrelease: R81\n");
  expect(await detectRelease(system)).toMatchObject({ name: "gaia", version: "392.3" });
});

test("provisioning.md DIST-04: BSD by uname, OpenWRT by its release file, everything else is unknown FFFF", async () => {
  using system = machine({});
  expect(await detectRelease(system)).toMatchObject({ name: "unknown", version: "FFFF" });
  system.programs.set("uname", () => ({ stdout: "FreeBSD 14.1-RELEASE\n" }));
  expect(await detectRelease(system)).toMatchObject({ name: "freebsd", version: "14.1" });
  write(system, "/etc/openwrt_release", "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='23.05.3'\n");
  expect(await detectRelease(system)).toMatchObject({ name: "openwrt", version: "23.05.3" });
});

test("provisioning.md DIST-24 LOG-10: an unknown distribution works and is named in one warning", async () => {
  using system = machine({ "/etc/os-release": "ID=nonesuch\nNAME=Nonesuch\n" });
  const distro = await detectDistro(system);
  expect(distro.adapter).toBe("Default");
  expect(unknownDistroWarning(distro)).toBe(
    "Unable to load distro implementation for nonesuch. Using default distro implementation instead.",
  );
  write(system, "/etc/os-release", "ID=fedora\nVERSION_ID=40\n");
  expect(unknownDistroWarning(await detectDistro(system))).toBeUndefined();
});

test("hostile release files never stop detection", async () => {
  using system = machine({});
  system.files.makeDirectory("/etc");
  system.files.write("/etc/os-release", new Uint8Array([0xff, 0xfe, 0x00, 0xd8, 0x0a]));
  expect((await detectDistro(system)).release.name).toBe("unknown");
  system.files.write("/etc/os-release", "x".repeat(70_000));
  expect((await detectDistro(system)).release.name).toBe("unknown");
  system.files.write("/etc/os-release", "ID=\nNAME=\n===\n=x\nID_LIKE=\n");
  expect((await detectDistro(system)).release.name).toBe("unknown");
});
