import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join, nameOf, parentOf, type SystemPath } from "../system/root.ts";
import type { FileInfo } from "../system/files.ts";
import type { System } from "../system/system.ts";
import {
  dropInPattern,
  editSshdConfig,
  opensshVersion,
  sshdSettings,
  type SshdSetting,
} from "./sshd-settings.ts";

type Machine = Pick<System, "exec" | "files" | "log">;

/** Sorts before the drop-ins of cloud images (`50-cloud-init.conf`): sshd takes the first value it sees. */
const DROP_IN = "00-waagent.conf";
const DEFAULT_ALIVE = "180";
/** What `sshd -t` says after the configuration was found good: the service makes both when it starts. */
const NOT_ABOUT_SYNTAX = /no hostkeys available|privilege separation (?:directory|user)/i;

/**
 * Password authentication and ClientAliveInterval of sshd (SSH-10), in a drop-in where the file has an Include that
 * decides, else in the file itself. The result is checked by `sshd -t` and is taken back when sshd refuses it.
 * Does nothing on systems whose sshd is left alone (SSH-15) or that have none.
 * Errors: AgentError "os-utility" or "io"; the configuration then is as it was.
 */
export async function configureSshd(
  system: Machine,
  distro: Pick<Distro, "editSshdConfig">,
  config: Pick<Config, "OS.SshDir" | "OS.SshClientAliveInterval">,
  options: { readonly disablePasswordAuthentication: boolean },
): Promise<void> {
  if (!distro.editSshdConfig) return;
  const directory = config["OS.SshDir"] as SystemPath;
  const file = join(directory, "sshd_config");
  const text = system.files.readTextIfExists(file);
  if (text === undefined) {
    system.log.warning(`${file} does not exist: password authentication over SSH is left as it is`);
    return;
  }
  const settings = sshdSettings({
    disablePasswordAuthentication: options.disablePasswordAuthentication,
    clientAliveInterval: aliveInterval(system, config["OS.SshClientAliveInterval"]),
    version: await readVersion(system),
  });
  const pattern = dropInPattern(text, settings, directory);
  if (pattern === undefined) await editMain(system, file, editSshdConfig(text, settings));
  else await writeDropIn(system, file, join(parentOf(pattern as SystemPath), DROP_IN), settings);
  const answer = options.disablePasswordAuthentication ? "Disabled" : "Enabled";
  system.log.info(`${answer} SSH password-based authentication methods.`);
}

/** The file that `configureSshd` makes beside the distribution's own; removed by deprovision. */
export function dropInFiles(config: Pick<Config, "OS.SshDir">): readonly SystemPath[] {
  return [join(config["OS.SshDir"] as SystemPath, "sshd_config.d", DROP_IN)];
}

async function editMain(system: Machine, file: SystemPath, text: string): Promise<void> {
  if (system.files.readText(file) === text) return;
  const info = system.files.stat(file);
  const candidate = join(parentOf(file), `.${nameOf(file)}.waagent`);
  system.files.write(candidate, text, attributes(info, 0o644));
  try {
    await checkSshd(system, candidate);
    await copyLabel(system, file, candidate);
    system.files.rename(candidate, file);
  } catch (error) {
    system.files.remove(candidate);
    throw error;
  }
}

async function writeDropIn(
  system: Machine,
  main: SystemPath,
  file: SystemPath,
  settings: readonly SshdSetting[],
): Promise<void> {
  const text = [
    "# Written by waagent when this machine was provisioned.",
    ...settings.map(({ keyword, value }) => `${keyword} ${value}`),
    "",
  ].join("\n");
  const old = system.files.readTextIfExists(file);
  if (old === text) return;
  if (!system.files.exists(parentOf(file))) system.files.makeDirectory(parentOf(file));
  system.files.write(file, text, attributes(system.files.stat(file), 0o600));
  try {
    await checkSshd(system, main);
  } catch (error) {
    if (old === undefined) system.files.remove(file);
    else system.files.write(file, old, attributes(system.files.stat(file), 0o600));
    throw error;
  }
  await restoreLabel(system, file);
}

function attributes(info: FileInfo | undefined, mode: number) {
  return info === undefined
    ? { mode }
    : { mode: info.mode, owner: { uid: info.uid, gid: info.gid } };
}

async function checkSshd(system: Machine, file: SystemPath): Promise<void> {
  try {
    const { code, stderr } = await system.exec.run({
      argv: ["sshd", "-t", "-f", system.files.realPath(file)],
      okCodes: "any",
    });
    if (code !== 0 && !NOT_ABOUT_SYNTAX.test(stderr))
      throw new AgentError("os-utility", `sshd refuses the new configuration: ${stderr.trim()}`);
  } catch (error) {
    if (!isAgentError(error, "program-missing")) throw error;
    system.log.verbose("sshd is not installed: its configuration was not checked");
  }
}

async function readVersion(system: Pick<System, "exec">): Promise<number | undefined> {
  for (const argv of [
    ["sshd", "-V"],
    ["ssh", "-V"],
  ]) {
    try {
      const { stdout, stderr } = await system.exec.run({ argv, okCodes: "any", timeoutMs: 10_000 });
      const version = opensshVersion(`${stdout}${stderr}`);
      if (version !== undefined) return version;
    } catch (error) {
      if (!isAgentError(error, "program-missing")) throw error;
    }
  }
  return undefined;
}

/** Free text of the configuration file must not get into sshd_config (DB-36). */
function aliveInterval(system: Pick<System, "log">, text: string): string {
  const value = text.trim();
  if (/^\d{1,9}$/.test(value)) return value;
  system.log.warning(
    `OS.SshClientAliveInterval is ${JSON.stringify(text)}, not a number of seconds: using ${DEFAULT_ALIVE}`,
  );
  return DEFAULT_ALIVE;
}

/** Keeps the SELinux type of the file that is about to be replaced. */
async function copyLabel(system: Machine, from: SystemPath, to: SystemPath): Promise<void> {
  if (system.exec.find("getenforce") === undefined) return;
  await attempt(system, ["chcon", `--reference=${from}`, to]);
}

async function restoreLabel(system: Machine, file: SystemPath): Promise<void> {
  if (system.exec.find("restorecon") === undefined) return;
  await attempt(system, ["restorecon", file]);
}

async function attempt(system: Machine, argv: readonly string[]): Promise<void> {
  try {
    await system.exec.run({ argv });
  } catch (error) {
    system.log.verbose(`Could not set an SELinux label: ${describe(error)}`);
  }
}
