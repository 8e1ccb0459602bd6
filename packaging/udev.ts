/** udev rules: links below /dev/disk/azure that images and scripts rely on, and the readable product UUID. */

/** Generation 2 controllers by the VMBus device id, as the platform numbers them (`provisioning.md` PKG-30). */
const CONTROLLERS: readonly (readonly [string, string])[] = [
  ["f8b3781a", "scsi0"],
  ["f8b3781b", "scsi1"],
  ["f8b3781c", "scsi2"],
  ["f8b3781d", "scsi3"],
];

/** Azure offers 64 data disks per VM at most, so LUN 0 to 63. */
const LUNS = 64;

/**
 * `66-azure-storage.rules` (`system.md` SCSI-05). The LUN is read from the SCSI address in the device's path by matching,
 * so that no helper program is needed in an initramfs. azure-vm-utils makes its own links below
 * `/dev/disk/azure/{os,data,local}`; `root` and `resource` mean the same disks in both.
 */
export function storageRules(): string {
  const rules = [
    "# Links below /dev/disk/azure for the disks that the Azure host presents.",
    'ACTION!="add|change", GOTO="waagent_storage_end"',
    'SUBSYSTEM!="block", GOTO="waagent_storage_end"',
    "# Asked positively: != would hold for any parent that has another vendor.",
    'ATTRS{vendor}=="Msft*", ATTRS{model}=="Virtual[ _]Disk*", GOTO="waagent_storage_disk"',
    'GOTO="waagent_storage_end"',
    "",
    'LABEL="waagent_storage_disk"',
    "",
    "# Generation 1: the operating system's and the temporary disk by the begin of the device id.",
    'ATTRS{device_id}=="?00000000-0000-*", ENV{.waagent_disk}="root", GOTO="waagent_storage_link"',
    'ATTRS{device_id}=="?00000000-0001-*", ENV{.waagent_disk}="resource", GOTO="waagent_storage_link"',
    "",
    "# Generation 2 and data disks: a controller and a LUN.",
    ...CONTROLLERS.map(
      ([id, name]) =>
        `ATTRS{device_id}=="{${id}-1e82-4818-a1c3-63d806ec15bb}", ENV{.waagent_controller}="${name}"`,
    ),
    'ENV{.waagent_controller}=="", GOTO="waagent_storage_end"',
    ...Array.from(
      { length: LUNS },
      (_, lun) =>
        `SUBSYSTEMS=="scsi", KERNELS=="*:*:*:${lun}", ENV{.waagent_disk}="$env{.waagent_controller}/lun${lun}"`,
    ),
    'ENV{.waagent_disk}=="scsi0/lun0", ENV{.waagent_disk}="root"',
    'ENV{.waagent_disk}=="scsi0/lun1", ENV{.waagent_disk}="resource"',
    "# The provisioning media.",
    'ENV{.waagent_disk}=="scsi0/lun2", GOTO="waagent_storage_end"',
    "",
    'LABEL="waagent_storage_link"',
    'ENV{.waagent_disk}=="", GOTO="waagent_storage_end"',
    'ENV{DEVTYPE}=="disk", SYMLINK+="disk/azure/$env{.waagent_disk}"',
    'ENV{DEVTYPE}=="partition", SYMLINK+="disk/azure/$env{.waagent_disk}-part%n"',
    "",
    'LABEL="waagent_storage_end"',
  ];
  return `${rules.join("\n")}\n`;
}

/** `99-azure-product-uuid.rules` (PKG-31): programs without root read the VM's id there. */
export function productUuidRules(): string {
  return [
    "# The VM's unique id, readable for everybody.",
    'SUBSYSTEM=="dmi", ATTR{sys_vendor}=="Microsoft Corporation", ATTR{product_name}=="Virtual Machine",' +
      ' TEST=="/sys/devices/virtual/dmi/id/product_uuid",' +
      ' RUN+="/bin/chmod 0444 /sys/devices/virtual/dmi/id/product_uuid"',
    "",
  ].join("\n");
}
