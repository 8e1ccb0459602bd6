import { expect } from "bun:test";
import { WARNING_TEXT } from "../../src/machine/resource-disk.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine } from "./machine.ts";

const reason = bootProblem() ?? missing({ programs: ["sfdisk", "mkntfs"] });
const MOUNT_POINT = "/mnt/resource";

for (const generation of [1, 2] as const) {
  testUnless(reason)(
    `system.md DISK-04 DISK-05: generation ${generation}: the temporary disk that VMBus names is formatted and mounted at the first boot, and only mounted at the second`,
    async () => {
      await using machine = await bootMachine(
        { ...firstBoot(), packages: [], goalStates: [{ incarnation: "1" }] },
        {
          layers: [await agentLayer()],
          configuration: `ResourceDisk.Format=y\nResourceDisk.MountPoint=${MOUNT_POINT}\n`,
          resourceDisk: { generation, mib: 128 },
        },
      );
      await machine.until("ready");
      const mounted = async () =>
        (await machine.run(["findmnt", "-n", "-o", "SOURCE,FSTYPE", MOUNT_POINT])).stdout.trim();
      const disk = machine.read("/etc/test-resource").trim();
      const ours = `/dev/${disk}p1 ext4`;
      const identity = async () =>
        (await machine.run(["blkid", "-p", "-s", "UUID", "-o", "value", `/dev/${disk}p1`])).stdout;
      expect(await mounted()).toBe(ours);
      expect(machine.read(`${MOUNT_POINT}/DATALOSS_WARNING_README.txt`)).toBe(WARNING_TEXT);
      const uuid = await identity();
      machine.write(`${MOUNT_POINT}/kept`, "of the first boot\n");

      await machine.reboot();
      for (let waited = 0; waited < 10_000; waited += 100) {
        const found = await machine.run(["findmnt", MOUNT_POINT], { allowFailure: true });
        if (found.code === 0) break;
        await Bun.sleep(100);
      }
      expect(await mounted()).toBe(ours);
      expect(machine.read(`${MOUNT_POINT}/kept`)).toBe("of the first boot\n");
      expect(await identity()).toBe(uuid);
      expect(machine.fabric.violations).toEqual([]);
    },
    120_000,
  );
}
