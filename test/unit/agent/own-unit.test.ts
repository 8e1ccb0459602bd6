import { expect, test } from "bun:test";
import { prepareOwnUnit } from "../../../src/agent/own-unit.ts";
import { createResources } from "../../../src/extensions/resources.ts";
import { distroNamed } from "../../fakes/distro.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

const UNITS = "/lib/systemd/system";
const DROP_INS = `${UNITS}/walinuxagent.service.d` as const;
const distro = {
  ...distroNamed("ubuntu", "22.04", { capabilities: { systemd: true } }),
  unitDirectory: UNITS,
  serviceName: "walinuxagent",
} as const;

function machine(unit: string | undefined): FakeSystem {
  const system = createFakeSystem();
  system.files.makeDirectory(UNITS);
  if (unit !== undefined) system.files.write(`${UNITS}/walinuxagent.service`, unit);
  return system;
}

test("system.md THR-08: slices and drop-in are made once without a reload, and what older agents left goes", () => {
  using system = machine("[Service]\nExecStart=/usr/sbin/waagent -daemon\n#Slice=x\n");
  system.files.makeDirectory("/sys/fs/cgroup");
  system.files.write("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
  for (const name of ["systemctl", "systemd-run"]) system.programs.set(name, () => ({}));
  const old = "/etc/systemd/system/system-walinuxagent.extensions.slice";
  system.files.makeDirectory("/etc/systemd/system");
  system.files.write(old, "");
  system.files.write(`${UNITS}/azure-walinuxagent-logcollector.slice`, "");
  system.files.makeDirectory(DROP_INS);
  for (const name of ["11-CPUAccounting", "12-CPUQuota", "13-MemoryAccounting", "50-operator"])
    system.files.write(`${DROP_INS}/${name}.conf`, "");
  createResources(system, { systemd: true, unitDirectory: UNITS }).prepare();
  prepareOwnUnit(system, distro);
  prepareOwnUnit(system, distro);
  expect(system.files.list(DROP_INS)).toEqual(["10-Slice.conf", "50-operator.conf"]);
  expect(system.files.readText(`${DROP_INS}/10-Slice.conf`)).toBe("[Service]\nSlice=azure.slice\n");
  expect(system.files.list(UNITS)).toEqual([
    "azure-vmextensions.slice",
    "azure.slice",
    "walinuxagent.service",
    "walinuxagent.service.d",
  ]);
  expect(system.files.exists(old)).toBe(false);
  expect(system.commands).toEqual([]);
  const said = system.lines.filter((line) => line.includes("from the next boot on"));
  expect(said).toHaveLength(1);
});

test("system.md THR-08: a unit that says its slice keeps it, and needs no drop-in", () => {
  using system = machine("[Service]\nSlice=azure.slice\n");
  system.files.makeDirectory(DROP_INS);
  system.files.write(`${DROP_INS}/10-Slice.conf`, "");
  prepareOwnUnit(system, distro);
  expect(system.files.list(DROP_INS)).toEqual([]);
});

test("without systemd or without the unit nothing is written, and a disk that refuses stops nothing", () => {
  using bare = machine(undefined);
  prepareOwnUnit(bare, distro);
  prepareOwnUnit(bare, distroNamed("alpine", "3.20"));
  expect(bare.files.list(UNITS)).toEqual([]);
  using full = machine("[Service]\n");
  full.files.write(DROP_INS, "a file in the way");
  prepareOwnUnit(full, distro);
  expect(full.lines.join()).toContain("could not be changed");
});
