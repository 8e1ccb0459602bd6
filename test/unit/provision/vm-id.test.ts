import { describe, expect, test } from "bun:test";
import { isSameVm, readReportedVmId, readVmId, swapUuid } from "../../../src/provision/vm-id.ts";
import { createMachine, FIRMWARE_UUID, VM_ID } from "./machine.ts";

const FILE = "/sys/class/dmi/id/product_uuid";

describe("the id of the VM", () => {
  test("provisioning.md ID-02: the first three groups are byte-swapped, case kept", () => {
    expect(swapUuid(FIRMWARE_UUID)).toBe(VM_ID);
    expect(swapUuid(FIRMWARE_UUID.toLowerCase())).toBe(VM_ID.toLowerCase());
    expect(swapUuid("not-a-uuid")).toBe("not-a-uuid");
  });

  test("provisioning.md ID-01: product_uuid, trimmed; as it is when it is no UUID; else dmidecode; else nothing", async () => {
    using system = createMachine();
    expect(await readVmId(system)).toBe(VM_ID);
    system.files.write(FILE, "  odd id \n");
    expect(await readVmId(system)).toBe("odd id");
    system.files.remove(FILE);
    expect(await readVmId(system)).toBe("");
    system.programs.set("dmidecode", () => ({ stdout: `${FIRMWARE_UUID}\n` }));
    expect(await readVmId(system)).toBe(VM_ID);
    expect(system.commands.at(-1)).toEqual(["dmidecode", "--string", "system-uuid"]);
    system.programs.set("dmidecode", () => ({ stdout: "Not Settable\n" }));
    expect(await readVmId(system)).toBe("");
    system.programs.set("dmidecode", () => ({ code: 1 }));
    expect(await readVmId(system)).toBe("");
    system.programs.set("sysctl", () => ({ stdout: `${FIRMWARE_UUID}\n` }));
    expect(await readVmId(system, { isOpenBsd: true })).toBe(FIRMWARE_UUID);
  });

  test("system.md PEER-07: reports to the host have it in lower case, swapped only where there is no EFI", () => {
    using system = createMachine();
    expect(readReportedVmId(system)).toBe(VM_ID.toLowerCase());
    system.files.makeDirectory("/sys/firmware/efi");
    expect(readReportedVmId(system)).toBe(FIRMWARE_UUID.toLowerCase());
    system.files.remove(FILE);
    expect(readReportedVmId(system)).toBe("");
  });

  test("system.md UTIL-06: product_uuid before dmidecode, always swapped, and equal to the id in either form", async () => {
    using system = createMachine();
    system.programs.set("dmidecode", () => ({ stdout: "00000000-0000-0000-0000-000000000001\n" }));
    system.files.makeDirectory("/sys/firmware/efi");
    expect(await readVmId(system)).toBe(VM_ID);
    expect(system.commands).toEqual([]);
    system.files.remove(FILE);
    expect(await readVmId(system)).toBe("00000000-0000-0000-0000-000000000001");
    expect(system.commands).toEqual([["dmidecode", "--string", "system-uuid"]]);
    expect(isSameVm(VM_ID, FIRMWARE_UUID)).toBe(true);
    expect(isSameVm(VM_ID, VM_ID)).toBe(true);
  });

  test("provisioning.md ID-04: the same in any case and either byte order", () => {
    expect(isSameVm(VM_ID, VM_ID)).toBe(true);
    expect(isSameVm(`${VM_ID.toLowerCase()}\n`, VM_ID)).toBe(true);
    expect(isSameVm(FIRMWARE_UUID, VM_ID)).toBe(true);
    expect(isSameVm("00000000-0000-0000-0000-000000000000", VM_ID)).toBe(false);
    expect(isSameVm("", VM_ID)).toBe(false);
  });
});
