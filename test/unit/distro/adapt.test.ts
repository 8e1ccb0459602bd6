import { expect, test } from "bun:test";
import { detectDistro } from "../../../src/distro/detect.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { distroNamed } from "../../fakes/distro.ts";

const SYSTEMD = { systemd: true, serviceManager: "systemd" } as const;

test("provisioning.md DB-18 DB-22 OS-66: under systemd the installed unit is stopped, started and registered", () => {
  const distro = distroNamed("debian", "12", {
    capabilities: { ...SYSTEMD, agentUnit: "waagent" },
  });
  expect(distro.serviceName).toBe("waagent");
  expect(distro.stopService).toEqual(["systemctl", "stop", "waagent"]);
  expect(distro.startService).toEqual(["systemctl", "start", "waagent"]);
  expect(distro.registerService).toEqual(["systemctl", "enable", "waagent"]);
});

test("provisioning.md OS-33 OS-34: Ubuntu registers by unmask and mask", () => {
  for (const version of ["16.04", "22.04"]) {
    const distro = distroNamed("ubuntu", version, { capabilities: SYSTEMD });
    expect(distro.registerService).toEqual(["systemctl", "unmask", "walinuxagent"]);
    expect(distro.unregisterService).toEqual(["systemctl", "mask", "walinuxagent"]);
  }
});

test("provisioning.md DB-18: ssh is reloaded by the unit that exists, on Ubuntu too", () => {
  const ubuntu = distroNamed("ubuntu", "24.04", {
    capabilities: { ...SYSTEMD, sshUnit: "ssh.service" },
  });
  expect(ubuntu.restartSsh).toEqual([
    "systemctl",
    "--job-mode=ignore-dependencies",
    "try-reload-or-restart",
    "ssh",
  ]);
  const socketOnly = distroNamed("rhel", "9.4", {
    capabilities: { ...SYSTEMD, sshUnit: "sshd.socket" },
  });
  expect(socketOnly.restartSsh).toBeUndefined();
  const alpine = distroNamed("alpine", "3.20", { capabilities: { serviceManager: "openrc" } });
  expect(alpine.restartSsh?.[0]).toBe("rc-service");
});

test("provisioning.md DB-16: a new Ubuntu and a networkd Debian use networkd's leases and renewal", () => {
  for (const [name, version] of [
    ["ubuntu", "24.10"],
    ["ubuntu", "26.04"],
    ["debian", "13"],
  ] as const) {
    const distro = distroNamed(name, version, {
      capabilities: { ...SYSTEMD, networkManagers: ["networkd"] },
    });
    expect(distro.renewLease).toBe("networkd");
    expect(distro.dhcpClientPids).toEqual(["pidof", "systemd-networkd"]);
    expect(distro.leases).toEqual({ format: "networkd", globs: ["/run/systemd/netif/leases/*"] });
  }
});

test("provisioning.md DB-16: the row's own network manager stays while it is there", () => {
  const suse = distroNamed("sles", "15.6", {
    capabilities: { ...SYSTEMD, networkManagers: ["wicked", "ifupdown"] },
  });
  expect(suse.renewLease).toBe("wicked");
  const newSuse = distroNamed("sles", "16.0", {
    capabilities: { ...SYSTEMD, networkManagers: ["NetworkManager"] },
  });
  expect(newSuse.renewLease).toBe("network-manager");
  expect(newSuse.stopDhcp).toBeUndefined();
  const debian = distroNamed("debian", "11", {
    capabilities: { ...SYSTEMD, networkManagers: ["ifupdown", "dhclient"] },
  });
  expect(debian.renewLease).toBe("ifupdown");
});

test("provisioning.md DB-15: Fedora renews through NetworkManager", () => {
  expect(distroNamed("fedora", "40").renewLease).toBe("network-manager");
});

test("provisioning.md OS-67: generated units go to /etc where /usr belongs to ostree", () => {
  expect(
    distroNamed("rhel", "9.6", { capabilities: { ...SYSTEMD, readOnlyUsr: true } }).unitDirectory,
  ).toBe("/etc/systemd/system");
});

test("provisioning.md OS-67: /usr is read-only where ostree booted, or where the mount that holds it says so", async () => {
  using system = createFakeSystem();
  const found = async (mounts: string): Promise<boolean> => {
    system.files.write("/proc/mounts", mounts);
    return (await detectDistro(system)).capabilities.readOnlyUsr;
  };
  system.files.makeDirectory("/proc");
  expect(
    await found("/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sr0 /usr/share iso9660 ro 0 0\n"),
  ).toBe(false);
  expect(await found("/dev/sda1 / ext4 ro,relatime 0 0\n")).toBe(true);
  expect(await found("/dev/sda1 / ext4 ro 0 0\n/dev/sda2 /usr ext4 rw 0 0\n")).toBe(false);
  expect(await found("/dev/sda2 /usr ext4 rw 0 0\nsysext /usr overlay ro,nodev 0 0\n")).toBe(true);
  system.files.remove("/proc/mounts");
  expect((await detectDistro(system)).capabilities.readOnlyUsr).toBe(false);
  system.files.makeDirectory("/run");
  system.files.write("/run/ostree-booted", "");
  expect((await detectDistro(system)).capabilities.readOnlyUsr).toBe(true);
});

test("provisioning.md OS-66 DB-18: capabilities come from what is on disk, both unit names prefer the row's", async () => {
  using system = createFakeSystem();
  const touch = (file: `/${string}`): void => {
    system.files.makeDirectory(file.slice(0, file.lastIndexOf("/")) as `/${string}`);
    system.files.write(file, "");
  };
  system.files.makeDirectory("/etc");
  system.files.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n");
  expect((await detectDistro(system)).capabilities).toEqual({
    systemd: false,
    serviceManager: "none",
    networkManagers: [],
    sshUnit: undefined,
    agentUnit: undefined,
    readOnlyUsr: false,
  });
  system.files.makeDirectory("/run/systemd/system");
  touch("/run/systemd/netif/state");
  touch("/lib/systemd/system/ssh.service");
  touch("/lib/systemd/system/waagent.service");
  touch("/usr/lib/systemd/system/walinuxagent.service");
  touch("/run/dhclient.eth0.pid");
  expect((await detectDistro(system)).capabilities).toEqual({
    systemd: true,
    serviceManager: "systemd",
    networkManagers: ["networkd", "dhclient"],
    sshUnit: "ssh.service",
    agentUnit: "walinuxagent",
    readOnlyUsr: false,
  });
});
