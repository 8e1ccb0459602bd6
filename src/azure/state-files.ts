import { describe } from "../base/error.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** Files of the state directory that an older agent or other software on the machine knows (`wire-protocol.md` §1.2). */

/** Creates the state directory, closed to everyone else (FILE-01). */
export function prepareStateDirectory(system: Pick<System, "files">, libDir: SystemPath): void {
  system.files.makeDirectory(libDir, { mode: 0o700 });
}

const SECRET_PATTERNS = ["*.crt", "*.p7m", "*.pem", "*.prv", "Certificates.xml", "ovf-env.xml"];
/** Packaged, not a secret: anyone may verify signatures with it. */
const SIGNING_ROOT = /microsoft.*root.*\.pem$/i;

/** At each start: what an older agent left readable is closed (FILE-20). One file that fails does not stop the rest. */
export function restrictSecrets(system: Pick<System, "files" | "log">, libDir: SystemPath): void {
  for (const file of SECRET_PATTERNS.flatMap((name) => system.files.glob(join(libDir, name)))) {
    const info = system.files.lstat(file);
    if (SIGNING_ROOT.test(nameOf(file)) || info?.kind !== "file" || info.mode === 0o400) continue;
    try {
      system.files.chmod(file, 0o400);
    } catch (error) {
      system.log.warning(`Could not protect a state file: ${describe(error)}`);
    }
  }
}

const LEGACY_NAMES = [
  /^VmSettings\.\d+\.json$/,
  /^.+\.\d+\.agentsManifest$/,
  /^.+\.\d+\.manifest\.xml$/,
  /^.+\.\d+\.xml$/,
  /^HostingEnvironmentConfig\.xml$/,
  /^RemoteAccess\.xml$/,
  /^waagent_status\.\d+\.json$/,
];
const KEPT_NAMES = ["GoalState.1.xml", "SharedConfig.xml"];

/** At start: goal state files of agents that did not have a history folder yet (HIST-06). */
export function removeLegacyFiles(
  system: Pick<System, "files" | "log">,
  libDir: SystemPath,
): readonly string[] {
  const legacy = system.files
    .list(libDir)
    .filter((name) => !KEPT_NAMES.includes(name) && LEGACY_NAMES.some((form) => form.test(name)));
  for (const name of legacy) {
    try {
      system.files.remove(join(libDir, name));
    } catch (error) {
      system.log.warning(`Could not remove an old state file: ${describe(error)}`);
    }
  }
  return legacy;
}

/** Other agents look for this name to see that a goal state was there (FILE-12). */
export function writePlaceholder(system: Pick<System, "files">, libDir: SystemPath): void {
  writeIfChanged(system, join(libDir, "GoalState.1.xml"), "<xml>empty placeholder file</xml>");
}

/** SharedConfig, verbatim: RDMA, security and HPC tools read it (GS-51, FILE-11). A failure is a warning. */
export function writeSharedConfig(
  system: Pick<System, "files" | "log">,
  libDir: SystemPath,
  text: string,
): void {
  try {
    writeIfChanged(system, join(libDir, "SharedConfig.xml"), text);
  } catch (error) {
    system.log.warning(`SharedConfig could not be saved: ${describe(error)}`);
  }
}

function writeIfChanged(system: Pick<System, "files">, file: SystemPath, text: string): void {
  const size = Buffer.byteLength(text);
  if (system.files.stat(file)?.size === size && system.files.readText(file) === text) return;
  system.files.write(file, text, { mode: 0o644 });
}
