import { describe, expect, test } from "bun:test";
import { productUuidRules, storageRules } from "../../packaging/udev.ts";

/**
 * A device with its parents, nearest first, as udev sees them. Enough of udev's rules is evaluated here to read off the
 * links: match operators with globs, SUBSYSTEMS/KERNELS/ATTRS on one and the same parent, ENV, GOTO, SYMLINK.
 */
interface Device {
  readonly action: string;
  readonly kernel: string;
  readonly subsystem: string;
  readonly type: string;
  readonly partition?: number;
  readonly attributes: Readonly<Record<string, string>>;
  readonly parents: readonly {
    readonly kernel: string;
    readonly subsystem: string;
    readonly attributes: Readonly<Record<string, string>>;
  }[];
}

function links(rules: string, device: Device): string[] {
  const found: string[] = [];
  const environment: Record<string, string> = { DEVTYPE: device.type };
  const lines = rules.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const expand = (text: string) =>
    text
      .replaceAll(/\$env\{([^}]+)\}/g, (_, name: string) => environment[name] ?? "")
      .replaceAll("%n", String(device.partition ?? ""));
  for (let at = 0; at < lines.length; at += 1) {
    const tokens = [
      ...(lines[at] ?? "").matchAll(/([A-Z]+)(?:\{([^}]+)\})?\s*(==|!=|\+=|=)\s*"([^"]*)"/g),
    ].map(([, key = "", name = "", operator = "", value = ""]) => ({ key, name, operator, value }));
    const upwards = tokens.filter(({ key }) => /^(ATTRS|KERNELS|SUBSYSTEMS)$/.test(key));
    const chain = [device, ...device.parents];
    const onOneParent = (wanted: typeof tokens) =>
      chain.some((link) =>
        wanted.every(({ key, name, value }) =>
          globMatch(
            value,
            key === "KERNELS"
              ? link.kernel
              : key === "SUBSYSTEMS"
                ? link.subsystem
                : link.attributes[name]?.trimEnd(),
          ),
        ),
      );
    const positive = upwards.filter(({ operator }) => operator === "==");
    const negative = upwards.filter(({ operator }) => operator === "!=");
    if (positive.length > 0 && !onOneParent(positive)) continue;
    if (negative.some((token) => onOneParent([token]))) continue;
    const own = tokens.filter(
      ({ key, operator }) => /^(ACTION|SUBSYSTEM|ENV)$/.test(key) && /^[=!]=$/.test(operator),
    );
    const holds = own.every(({ key, name, operator, value }) => {
      const actual =
        key === "ACTION"
          ? device.action
          : key === "SUBSYSTEM"
            ? device.subsystem
            : (environment[name] ?? "");
      return globMatch(value, actual) === (operator === "==");
    });
    if (!holds) continue;
    for (const { key, name, operator, value } of tokens) {
      if (key === "ENV" && operator === "=") environment[name] = expand(value);
      if (key === "SYMLINK") found.push(expand(value));
    }
    const label = tokens.find(({ key }) => key === "GOTO")?.value;
    if (label !== undefined) {
      const target = lines.indexOf(`LABEL="${label}"`);
      if (target < at) throw new Error(`GOTO ${label} leads nowhere`);
      at = target;
    }
  }
  return found;
}

function globMatch(pattern: string, text: string | undefined): boolean {
  if (text === undefined) return false;
  return pattern.split("|").some((one) => {
    const source = one
      .replaceAll(/[.+^${}()\\]/g, "\\$&")
      .replaceAll("*", ".*")
      .replaceAll("?", ".");
    return new RegExp(`^${source}$`).test(text);
  });
}

/** A disk of the Azure host on a VMBus device and SCSI address. */
function disk(deviceId: string, address: string, change: Partial<Device> = {}): Device {
  const scsi = {
    kernel: address,
    subsystem: "scsi",
    attributes: { vendor: "Msft    ", model: "Virtual Disk    " },
  };
  const bus = { kernel: "x", subsystem: "vmbus", attributes: { device_id: deviceId } };
  const base: Device = {
    action: "add",
    kernel: "sda",
    subsystem: "block",
    type: "disk",
    attributes: {},
    parents: [scsi, { kernel: "host0", subsystem: "scsi", attributes: {} }, bus],
  };
  if (change.type !== "partition") return { ...base, ...change };
  const parent = { kernel: base.kernel, subsystem: "block", attributes: {} };
  return { ...base, ...change, parents: [parent, ...base.parents] };
}

const scsi = (letter: string) => `{f8b3781${letter}-1e82-4818-a1c3-63d806ec15bb}`;

describe("udev rules", () => {
  const rules = storageRules();

  test("provisioning.md PKG-30 system.md SCSI-05: generation 1 disks by the begin of their device id", () => {
    expect(links(rules, disk("{00000000-0000-8899-0000-000000000000}", "0:0:0:0"))).toEqual([
      "disk/azure/root",
    ]);
    expect(links(rules, disk("{00000000-0001-8899-0000-000000000000}", "1:0:1:0"))).toEqual([
      "disk/azure/resource",
    ]);
    const partition = { type: "partition", kernel: "sda14", partition: 14 };
    expect(
      links(rules, disk("{00000000-0000-8899-0000-000000000000}", "0:0:0:0", partition)),
    ).toEqual(["disk/azure/root-part14"]);
  });

  test("provisioning.md PKG-30 system.md SCSI-05: generation 2 disks by controller and LUN, also on change", () => {
    const partition = { type: "partition", kernel: "sdc1", partition: 1 };
    const cases: readonly (readonly [Device, readonly string[]])[] = [
      [disk(scsi("a"), "0:0:0:0"), ["disk/azure/root"]],
      [disk(scsi("a"), "0:0:0:1"), ["disk/azure/resource"]],
      [disk(scsi("a"), "0:0:0:2"), []],
      [disk(scsi("a"), "0:0:0:3"), ["disk/azure/scsi0/lun3"]],
      [disk(scsi("b"), "1:0:0:0"), ["disk/azure/scsi1/lun0"]],
      [disk(scsi("b"), "1:0:0:63", { action: "change" }), ["disk/azure/scsi1/lun63"]],
      [disk(scsi("c"), "2:0:0:11"), ["disk/azure/scsi2/lun11"]],
      [disk(scsi("d"), "3:0:0:1", partition), ["disk/azure/scsi3/lun1-part1"]],
      [disk(scsi("a"), "0:0:0:1", partition), ["disk/azure/resource-part1"]],
    ];
    for (const [device, expected] of cases) expect(links(rules, device)).toEqual([...expected]);
  });

  test("other disks, devices and events get no link", () => {
    const foreign = disk(scsi("a"), "0:0:0:5");
    expect(
      links(rules, {
        ...foreign,
        parents: foreign.parents.map((parent) =>
          parent.subsystem === "scsi"
            ? { ...parent, attributes: { ...parent.attributes, vendor: "ATA" } }
            : parent,
        ),
      }),
    ).toEqual([]);
    expect(links(rules, disk("{12345678-0000-0000-0000-000000000000}", "0:0:0:0"))).toEqual([]);
    expect(links(rules, disk(scsi("b"), "0:0:0:0", { action: "remove" }))).toEqual([]);
    expect(links(rules, disk(scsi("b"), "0:0:0:0", { subsystem: "net" }))).toEqual([]);
  });

  test("provisioning.md PKG-31 system.md SCSI-06: the product UUID becomes readable on Microsoft's machines only", () => {
    const [rule = ""] = productUuidRules()
      .split("\n")
      .filter((line) => !line.startsWith("#"));
    expect(rule).toContain('SUBSYSTEM=="dmi"');
    expect(rule).toContain('ATTR{sys_vendor}=="Microsoft Corporation"');
    expect(rule).toContain('ATTR{product_name}=="Virtual Machine"');
    expect(rule).toMatch(
      /RUN\+="\/bin\/chmod 0444 \/sys\/devices\/virtual\/dmi\/id\/product_uuid"/,
    );
  });
});
