import { expect, test } from "bun:test";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { defaultConfig } from "../../../src/config/table.ts";
import { SCSI_TIMEOUT_PERIOD, setScsiTimeouts } from "../../../src/machine/scsi-timeout.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const config = { ...defaultConfig(), "OS.RootDeviceScsiTimeout": "300" };

test("system.md SCSI-01 SCSI-02 ENV-04 provisioning.md OS-62: every SCSI disk with another timeout gets the configured one, the rest is not written", () => {
  using system = createFakeSystem();
  expect(config[SCSI_TIMEOUT_PERIOD]).toBe(30);
  plant(system, {
    "/sys/block/sda/device/timeout": "30\n",
    "/sys/block/sdb/device/timeout": "300\n",
    "/sys/block/sdc/device/timeout": "0300\n",
    "/sys/block/sr0/device/timeout": "30\n",
    "/sys/block/loop0/size": "0\n",
  });
  setScsiTimeouts(system, config);
  expect(system.files.readText("/sys/block/sda/device/timeout")).toStartWith("300");
  expect(system.files.readText("/sys/block/sr0/device/timeout")).toBe("30\n");
  expect(system.lines).toEqual([
    "INFO ExtHandler ExtHandler Set the timeout of sda from 30 to 300",
  ]);
  setScsiTimeouts(system, defaultConfig());
  setScsiTimeouts(system, { "OS.RootDeviceScsiTimeout": "long" });
  expect(system.lines.at(-1)).toContain("is not a number of seconds");
});

test("system.md SCSI-03 BET-26: a disk that has vanished stops nobody, and remote NVMe disks get the platform's value", () => {
  using system = createFakeSystem();
  mkdirSync(path.join(system.root.directory, "/sys/block/sda"), { recursive: true });
  mkdirSync(path.join(system.root.directory, "/sys/block/sdb/device/timeout"), { recursive: true });
  plant(system, {
    "/sys/block/sdz/device/timeout": "30\n",
    "/sys/block/nvme0n1/device/model": "MSFT NVMe Accelerator v1.0 \n",
    "/sys/block/nvme0n1/queue/io_timeout": "30000\n",
    "/sys/block/nvme1n1/device/model": "Microsoft NVMe Direct Disk v2\n",
    "/sys/block/nvme1n1/queue/io_timeout": "30000\n",
  });
  setScsiTimeouts(system, config);
  setScsiTimeouts(system, config);
  expect(system.files.readText("/sys/block/sdz/device/timeout")).toStartWith("300");
  expect(system.files.readText("/sys/block/nvme0n1/queue/io_timeout")).toStartWith("240000");
  expect(system.files.readText("/sys/block/nvme1n1/queue/io_timeout")).toBe("30000\n");
  const warnings = system.lines.filter((line) => line.startsWith("WARNING"));
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("Could not set the timeout of sdb");
});
