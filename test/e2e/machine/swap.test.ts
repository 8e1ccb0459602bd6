import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import { canSandbox } from "../sandbox.ts";
import { createLoopDisk, host, loopProblem } from "./loop-disk.ts";
import { createMachineSandbox, operate } from "./support.ts";

const able = canSandbox();
const problem = able.ok ? loopProblem() : able.reason;
const diskTest = testUnless(problem);

/** swapon acts on the whole machine, so this one only tells what the real one would have seen. */
const SWAPON = `#!/bin/sh
set -e
[ "$(stat -c '%s %a' "$1")" = "$WANTED 600" ]
[ "$(blkid -p -o value -s TYPE "$1")" = swap ]
[ "$(($(stat -c %b "$1") * 512))" -ge "$WANTED" ]
echo "$1" > /run/swapped
`;

for (const fileSystem of ["ext4", "ext3", "xfs", "btrfs"])
  diskTest(
    `system.md SWAP-02 SWAP-08 SWAP-09 BET-05: on ${fileSystem} the swap file is whole, without holes, and 0600`,
    async () => {
      using disk = createLoopDisk({ mib: 448 });
      host(`mkfs.${fileSystem}`, fileSystem.startsWith("ext") ? "-F" : "-f", disk.device);
      await using sandbox = await createMachineSandbox();
      await sandbox.run(["mount", "-t", "devtmpfs", "devtmpfs", "/dev"]);
      const options = fileSystem === "btrfs" ? ["-o", "compress=lzo"] : [];
      await sandbox.run(["mount", "-t", fileSystem, ...options, disk.device, "/mnt"]);
      // 100 MiB is no multiple of 64 MiB, which is where the Python agent's file comes out short.
      const bytes = 100 * 1024 * 1024;
      const stub = SWAPON.replaceAll("$WANTED", `${bytes}`);
      await sandbox.run(["rm", "-f", "/usr/sbin/swapon", "/sbin/swapon"]);
      sandbox.write("/usr/sbin/swapon", stub, 0o755);
      const outcome = await operate(sandbox, "swap", {
        mountPoint: "/mnt",
        "ResourceDisk.EnableSwap": true,
        "ResourceDisk.SwapSizeMB": 100,
      });
      expect(outcome.result, outcome.log).toEqual({
        state: "active",
        path: "/mnt/swapfile",
        bytes,
        changed: true,
      });
      expect(sandbox.read("/run/swapped")).toBe("/mnt/swapfile\n");
      expect(sandbox.changes().some((change) => change.path.startsWith("/etc"))).toBe(false);
      if (fileSystem === "btrfs")
        expect((await sandbox.run(["lsattr", "/mnt/swapfile"])).stdout.split(" ")[0]).toContain(
          "C",
        );
      await sandbox.run(["umount", "/mnt"]);
    },
  );
