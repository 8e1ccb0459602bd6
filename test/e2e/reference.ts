import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { missing } from "../support/skip.ts";
import { AGENT_CONF } from "./guest.ts";
import type { Sandbox, SandboxProcess } from "./sandbox.ts";

const INSTALLED = "/usr/lib/python3/dist-packages/azurelinuxagent";
const CACHE = path.resolve(import.meta.dir, "../../dist/test/reference");

/** Why Debian's own agent cannot run here; undefined when it can. */
export function referenceMissing(): string | undefined {
  const lacking = missing({
    root: true,
    programs: ["dpkg-deb", "apt-get"],
    files: [
      "/usr/bin/python3",
      "/usr/lib/python3/dist-packages/distro",
      "/usr/lib/python3/dist-packages/pkg_resources",
    ],
  });
  if (lacking !== undefined) return lacking;
  if (existsSync(INSTALLED) || archive() !== undefined || download()) return undefined;
  return "Debian's waagent package is neither installed nor can apt-get download it";
}

/**
 * Puts Debian's unmodified agent into the sandbox. The package is unpacked, not installed: it conflicts with
 * network-manager, which the machine may need for other tests.
 */
export async function installReference(
  sandbox: Sandbox,
  configuration = AGENT_CONF,
): Promise<void> {
  if (!existsSync(INSTALLED)) {
    const file = archive();
    if (file === undefined) throw new Error("Debian's waagent package is not here");
    sandbox.write("/tmp/waagent.deb", readFileSync(file));
    // /lib is a link on merged systems; plain extraction would put a folder in its place.
    await sandbox.run([
      "sh",
      "-c",
      "dpkg-deb --fsys-tarfile /tmp/waagent.deb | tar -x -C / --keep-directory-symlink --no-overwrite-dir",
    ]);
  }
  sandbox.write("/etc/waagent.conf", configuration);
  // It publishes the host name with ifupdown, which Debian's cloud images have.
  for (const program of ["ifup", "ifdown"])
    sandbox.write(`/usr/local/sbin/${program}`, "#!/bin/sh\n", 0o755);
}

export function startReference(sandbox: Sandbox): SandboxProcess {
  return sandbox.spawn(["/usr/bin/python3", "-u", "/usr/sbin/waagent", "-daemon"]);
}

function archive(): string | undefined {
  if (!existsSync(CACHE)) return undefined;
  const name = readdirSync(CACHE).find((file) => /^waagent_.*\.deb$/.test(file));
  return name === undefined ? undefined : path.join(CACHE, name);
}

function download(): boolean {
  mkdirSync(CACHE, { recursive: true });
  const result = Bun.spawnSync(
    ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "waagent"],
    {
      cwd: CACHE,
      stdout: "ignore",
      stderr: "ignore",
      timeout: 60_000,
    },
  );
  return result.exitCode === 0 && archive() !== undefined;
}
