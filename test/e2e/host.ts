import path from "node:path";
import { connectFabric } from "../fabric/control.ts";
import type { Fabric, FabricEvent } from "../fabric/fabric.ts";
import { ovfDocument } from "../fabric/ovf.ts";
import type { Scenario } from "../fabric/scenario.ts";
import type { Sandbox } from "./sandbox.ts";

const MAIN = path.resolve(import.meta.dir, "../fabric/main.ts");

/** Starts the emulated host in the sandbox's platform namespace; it ends with the sandbox at the latest. */
export async function startHost(
  sandbox: Sandbox,
  scenario: Scenario,
  options: {
    readonly onEvent?: (event: FabricEvent) => void;
    /** false: the guest does not know the root of the storage's certificate. Default true. */
    readonly trusted?: boolean;
  } = {},
): Promise<Fabric> {
  const file = path.join(sandbox.scratch, "scenario.json");
  const socket = path.join(sandbox.scratch, "control");
  await Bun.write(file, JSON.stringify(scenario));
  const host = sandbox.platform.spawn(
    [process.execPath, MAIN, "--scenario", file, "--inside", socket],
    // Its keys and certificates go when the sandbox goes, however that ends.
    { env: { TMPDIR: sandbox.scratch } },
  );
  const fabric = await connectFabric(socket, {
    ended: host.exited,
    log: host.output,
    ...(options.onEvent === undefined ? {} : { onEvent: options.onEvent }),
  });
  if (scenario.storage === "https" && options.trusted !== false)
    await trust(sandbox, fabric.authority);
  return fabric;
}

/** The guest's system store trusts the host's own root, as a machine trusts the public ones. */
async function trust(sandbox: Sandbox, authority: string): Promise<void> {
  const file = "/usr/local/share/ca-certificates/fabric.crt";
  sandbox.write(file, authority);
  const { stdout } = await sandbox.run(["openssl", "x509", "-noout", "-hash", "-in", file]);
  await sandbox.run(["ln", "-sf", file, `/etc/ssl/certs/${stdout.trim()}.0`]);
  await sandbox.run(["sh", "-c", `cat ${file} >>/etc/ssl/certs/ca-certificates.crt`]);
}

/**
 * Presents the provisioning DVD. This kernel has neither UDF nor ISO9660, so it is a file system that is mounted
 * already, as it is when cloud-init or a person mounted the DVD before.
 */
export async function insertDvd(sandbox: Sandbox, scenario: Scenario): Promise<void> {
  if (scenario.provisioning === undefined)
    throw new Error("The scenario has no provisioning document");
  await sandbox.run(["mkdir", "-p", "/mnt/cdrom/secure"]);
  await sandbox.run([
    "sh",
    "-c",
    ": >/dev/sr0; mount -t tmpfs -o mode=0755 /dev/sr0 /mnt/cdrom/secure",
  ]);
  // There is no drive to open, and not every machine has the program.
  sandbox.write("/usr/local/sbin/eject", '#!/bin/sh\nrm -f "$1"\n', 0o755);
  sandbox.write("/mnt/cdrom/secure/ovf-env.xml", ovfDocument(scenario.provisioning));
}
