import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  isRdmaWanted,
  parsePairs,
  rdmaDevice,
  readKvp,
  setUpRdma,
} from "../../../src/machine/rdma.ts";
import { installRdmaDriver, parseZypper } from "../../../src/machine/rdma-driver.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant, plantInterface } from "./support.ts";

const SHARED = `<SharedConfig version="1.0"><Instances>
<Instance id="a" address="10.0.0.4" rdmaMacAddress="00155D33FF1D" rdmaIPv4Address="172.16.5.6"/>
<Instance id="b" rdmaMacAddress="FFFFFFFFFFFF" rdmaIPv4Address="1.2.3.4"/></Instances></SharedConfig>`;
const MAC = "00:15:5d:33:ff:1d";
const config = { ...defaultConfig(), "OS.EnableRDMA": true, "OS.CheckRdmaDriver": false };
const options = { sharedConfig: () => Promise.resolve(SHARED), kernelRelease: "4.4.0-31-generic" };

function release(name: string, version = "1", like: string[] = []) {
  return { release: { name, version, codeName: "", fullName: name, like } };
}

function plantPool(system: FakeSystem, values: Readonly<Record<string, string>>): void {
  const pool = Buffer.alloc(2560 * Object.keys(values).length);
  Object.entries(values).forEach(([key, value], index) => {
    pool.write(key, index * 2560);
    pool.write(value, index * 2560 + 512);
  });
  const file = path.join(system.root.directory, "/var/lib/hyperv/.kvp_pool_0");
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, pool);
}

const shown = (system: FakeSystem): string[] => system.commands.map((argv) => argv.join(" "));
const errors = (system: FakeSystem): string[] =>
  system.lines.filter((line) => line.startsWith("ERROR"));

test("system.md RDMA-01: any of the three keys turns RDMA on, none is on by default", async () => {
  expect(isRdmaWanted(defaultConfig())).toBe(false);
  for (const key of ["OS.EnableRDMA", "OS.UpdateRdmaDriver", "OS.CheckRdmaDriver"] as const)
    expect(isRdmaWanted({ ...defaultConfig(), [key]: true })).toBe(true);
  using system = createFakeSystem();
  await setUpRdma(system, defaultConfig(), release("ubuntu"), options);
  expect(system.lines).toHaveLength(1);
  expect(system.lines[0]).toContain("skipping");
});

test("system.md RDMA-02: values of the host are read from records of 512 and 2048 bytes", () => {
  using system = createFakeSystem();
  expect(readKvp(system, "NdDriverVersion")).toBeUndefined();
  plantPool(system, { Other: "x", NdDriverVersion: "144.0" });
  expect(readKvp(system, "NdDriverVersion")).toBe("144.0");
  expect(readKvp(system, "NdDriver")).toBeUndefined();
});

test("system.md RDMA-04: the first Instance of SharedConfig tells MAC and address; a missing one is an error", async () => {
  expect(rdmaDevice(SHARED)).toEqual({ ipv4: "172.16.5.6", mac: "00:15:5D:33:FF:1D" });
  expect(() =>
    rdmaDevice('<SharedConfig><Instance rdmaMacAddress="00155D33FF1D"/></SharedConfig>'),
  ).toThrow("the first Instance has no rdmaIPv4Address");
  expect(() =>
    rdmaDevice('<S><Instance rdmaMacAddress="00155D33FF1D" rdmaIPv4Address="1.2.3.4/8; x"/></S>'),
  ).toThrow("is no RDMA device");
  using system = createFakeSystem();
  plantPool(system, { NdDriverVersion: "144.0" });
  await setUpRdma(system, config, release("ubuntu"), {
    ...options,
    sharedConfig: () => Promise.resolve("<SharedConfig/>"),
  });
  expect(errors(system)[0]).toContain("the first Instance has no");
  expect(system.commands).toEqual([]);
});

test("system.md RDMA-05: Network Direct writes dat.conf, loads the driver, tells an old one its address, and sets the interface", async () => {
  for (const [version, tells] of [
    ["4.0.1", true],
    ["4.1.0", false],
    ["5.0.0", false],
    ["4.1", true],
  ] as const) {
    using system = createFakeSystem();
    plantPool(system, { NdDriverVersion: "144.0" });
    plant(system, {
      "/etc/rdma/dat.conf": 'other entry\nofa-v2-ib0 u2.0 old "1.1.1.1 0"\n',
      "/dev/hvnd_rdma": "",
    });
    plantInterface(system, "eth0", { mac: "00:0d:3a:00:00:00" });
    plantInterface(system, "eth1", { mac: MAC });
    system.programs.set("modprobe", (argv) =>
      argv[1] === "-R" ? { stdout: "hv_network_direct_144_0\n" } : {},
    );
    system.programs.set("modinfo", () => ({ stdout: `${version}\n` }));
    system.programs.set("ip", () => ({}));
    system.programs.set("apt-get", () => ({}));
    await setUpRdma(system, { ...config, "OS.CheckRdmaDriver": true }, release("alpine"), options);
    expect(errors(system)).toEqual([]);
    expect(system.files.readText("/etc/rdma/dat.conf")).toBe(
      'other entry\nofa-v2-ib0 u2.0 nonthreadsafe default libdaplofa.so.2 dapl.2.0 "172.16.5.6 0"\n',
    );
    expect(system.files.readText("/dev/hvnd_rdma")).toBe(
      tells ? 'rdmaMacAddress="00:15:5D:33:FF:1D" rdmaIPv4Address="172.16.5.6"' : "",
    );
    expect(shown(system)).toEqual([
      "modprobe -R hv_network_direct",
      "modprobe hv_network_direct_144_0",
      "modinfo -F version hv_network_direct_144_0",
      "ip link set eth1 up",
      "ip addr add 172.16.5.6/16 dev eth1",
    ]);
  }
});

test("system.md RDMA-03 RDMA-06: without a firmware version it is SR-IOV, each pair on its NIC, also by the 20 bytes of an ib address", async () => {
  using system = createFakeSystem();
  plantPool(system, { IPoIB_Data: "NUMPAIRS:2|00155D33FF1D:172.16.5.6|0011223344FF:172.16.5.7" });
  plantInterface(system, "eth1", { mac: MAC });
  const ib = "80:00:02:08:fe:80:00:00:00:00:00:00:00:11:22:ff:fe:33:44:ff";
  system.programs.set("ip", (argv) => {
    // The second interface comes later; an address that is there already is exit code 2.
    plantInterface(system, "ib0", { mac: ib });
    return argv.includes("eth1") && argv.includes("add") ? { code: 2, stderr: "File exists" } : {};
  });
  await setUpRdma(system, config, release("sles"), options);
  expect(shown(system)).toEqual([
    "ip link set eth1 up",
    "ip addr add 172.16.5.6/16 dev eth1",
    "ip link set ib0 up",
    "ip addr add 172.16.5.7/16 dev ib0",
  ]);
  expect(errors(system)).toHaveLength(1); // the missing firmware version
  expect(() => parsePairs("NUMPAIRS:2|00155D33FF1D:172.16.5.6")).toThrow("not understood");
});

test("system.md RDMA-06 RDMA-10: what does not appear in time is an error in the log, and nothing else", async () => {
  using system = createFakeSystem();
  const before = system.clock.monotonic();
  await setUpRdma(system, config, release("sles"), options);
  expect(system.clock.monotonic() - before).toBe(120_000);
  expect(errors(system).at(-1)).toContain(
    "an entry in /sys/class/infiniband did not appear within 120 s",
  );

  using other = createFakeSystem();
  plant(other, { "/sys/class/infiniband/mlx5_0/x": "" });
  plantInterface(other, "ib0", { mac: MAC });
  other.programs.set("ip", () => ({}));
  await setUpRdma(other, config, release("sles"), options);
  expect(shown(other)).toEqual(["ip link set ib0 up", "ip addr add 172.16.5.6/16 dev ib0"]);
});

const request = { firmware: "144.0", kernelRelease: "4.11.0-1013-azure", update: true };

test("system.md RDMA-07: Ubuntu takes the module that the kernel has, else with OS.UpdateRdmaDriver a newer linux-azure and a restart", async () => {
  using system = createFakeSystem();
  system.programs.set("modprobe", () => ({ stdout: "hv_network_direct_144_0\n" }));
  await installRdmaDriver(system, release("ubuntu"), request);
  expect(shown(system)).toEqual(["modprobe -R hv_network_direct"]);

  system.programs.set("modprobe", () => ({ stdout: "hv_network_direct_142_0\n" }));
  system.programs.set("modinfo", () => ({}));
  plant(system, {
    "/etc/modprobe.d/vmbus-rdma.conf": "# mine\nalias hv_network_direct hv_network_direct_142_0\n",
  });
  await installRdmaDriver(system, release("ubuntu"), request);
  expect(system.files.readText("/etc/modprobe.d/vmbus-rdma.conf")).toBe(
    "# mine\nalias hv_network_direct hv_network_direct_144_0\n",
  );

  for (const [change, last] of [
    [{ update: false }, "modinfo hv_network_direct_144_0"],
    [{ kernelRelease: "4.4.0-31-generic" }, "modinfo hv_network_direct_144_0"],
    [{}, "shutdown -r now"],
    [{ kernelRelease: "4.15.0-1082-azure" }, "apt-cache show --no-all-versions linux-azure"],
  ] as const) {
    using fresh = createFakeSystem();
    fresh.programs.set("modprobe", () => ({ code: 1 }));
    fresh.programs.set("modinfo", () => ({ code: 1 }));
    fresh.programs.set("apt-get", () => ({}));
    fresh.programs.set("apt-cache", () => ({
      stdout: "Package: linux-azure\nVersion: 4.15.0.1082.52\n",
    }));
    fresh.programs.set("shutdown", () => ({}));
    await installRdmaDriver(fresh, release("ubuntu"), { ...request, ...change });
    expect(shown(fresh).at(-1)).toBe(last);
  }
});

const ZYPPER = `S | Name                  | Type    | Version                   | Arch   | Repository
--+-----------------------+---------+---------------------------+--------+-----------
  | msft-rdma-kmp-default | package | 20161111.144.0_k4.4.21-1  | x86_64 | repo
i | msft-rdma-kmp-default | package | 20150707.140.0_k3.12.28-1 | x86_64 | repo
  | msft-rdma-kmp-azure   | package | 1                         | x86_64 | repo
`;

test("system.md RDMA-08: SUSE 12 replaces a driver that does not fit and restarts, 15 needs nothing", async () => {
  expect(parseZypper(ZYPPER, "msft-rdma-kmp-default").map((one) => one.installed)).toEqual([
    false,
    true,
  ]);
  using system = createFakeSystem();
  await installRdmaDriver(system, release("sles", "15.4"), request);
  expect(system.commands).toEqual([]);
  for (const program of ["modprobe", "shutdown"]) system.programs.set(program, () => ({}));
  system.programs.set("zypper", () => ({ stdout: ZYPPER }));
  await installRdmaDriver(system, release("sles", "12.5"), {
    ...request,
    kernelRelease: "4.4.21-default",
  });
  expect(shown(system)).toEqual([
    "zypper -n se -s msft-rdma-kmp-default",
    "zypper removelock msft-rdma-kmp-default",
    "zypper -n remove msft-rdma-kmp-default",
    "zypper -n install --force msft-rdma-kmp-default=20161111.144.0_k4.4.21-1",
    "zypper addlock msft-rdma-kmp-default",
    "modprobe --first-time hv_network_direct",
    "shutdown -r now",
  ]);

  using local = createFakeSystem();
  plant(local, { "/opt/microsoft/rdma/msft-rdma-kmp-default-20161111.144.0.rpm": "" });
  local.programs.set("modprobe", () => ({}));
  local.programs.set("zypper", (argv) => (argv.includes("--no-refresh") ? { code: 106 } : {}));
  await installRdmaDriver(local, release("sles", "12.5"), request);
  expect(shown(local)[1]).toContain("--no-refresh install --force");
  expect(shown(local)).not.toContain("shutdown -r now");
});

test("system.md RDMA-09: Red Hat's relatives need the KVP daemon, compare the first number, and exchange packages when told to", async () => {
  using system = createFakeSystem();
  system.programs.set("rpm", (argv) => (argv.includes("hypervkvpd") ? {} : { stdout: "4.1.144" }));
  await expect(installRdmaDriver(system, release("centos", "7.9"), request)).rejects.toThrow(
    "hypervkvpd is installed, but does not run",
  );
  plant(system, {
    "/proc/50/comm": "hypervkvpd\n",
    "/proc/50/stat": "50 (hypervkvpd) S 1 1",
    "/proc/50/cmdline": "hypervkvpd\0",
  });
  system.programs.set("modprobe", () => ({}));
  system.commands.length = 0;
  const before = system.clock.monotonic();
  await installRdmaDriver(system, release("centos", "7.9"), request);
  expect(system.clock.monotonic() - before).toBe(20_000);
  expect(shown(system)).toEqual([
    "rpm -q --qf %{VERSION} microsoft-hyper-v-rdma",
    "modprobe hv_network_direct",
  ]);

  system.programs.set("rpm", () => ({ stdout: "4.1.142" }));
  system.programs.set("modprobe", () => ({ code: 1 }));
  for (const program of ["yum", "shutdown"]) system.programs.set(program, () => ({}));
  plant(system, {
    "/opt/microsoft/rdma/rhel79/kmod-microsoft-hyper-v-rdma-4.1.144.rpm": "",
    "/opt/microsoft/rdma/rhel79/microsoft-hyper-v-rdma-4.1.144.rpm": "",
  });
  await installRdmaDriver(system, release("centos", "7.9"), { ...request, update: false });
  expect(shown(system)).not.toContain("yum clean all");
  await installRdmaDriver(system, release("centos", "7.9"), request);
  expect(
    shown(system)
      .slice(-7)
      .map((line) => line.replace(/\S+\/(?=\w)/g, "")),
  ).toEqual([
    "yum updateinfo",
    "yum -y remove msft-rdma-drivers",
    "yum -y install msft-rdma-drivers",
    "yum -y install kmod-microsoft-hyper-v-rdma-4.1.144.rpm",
    "yum -y install microsoft-hyper-v-rdma-4.1.144.rpm",
    "modprobe hv_network_direct",
    "shutdown -r now",
  ]);
});
