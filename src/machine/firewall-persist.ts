import { AgentError, describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { Distro } from "../distro/distro.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { firewallRules, removeFirewallEverywhere } from "./firewall.ts";
import { mountOf, readMounts } from "./mounts.ts";
import { acceptDns, type FirewallRules, type RuleSpec, wantedRules } from "./firewall-rules.ts";

export interface PersistOptions {
  /** Absolute path of the agent's executable. */
  readonly executable: string;
  /** `Lib.Dir`: where the Python agent left its helper script. */
  readonly libDirectory: SystemPath;
}

export type PersistOutcome =
  | "firewalld" // permanent rules are in firewalld
  | "unit" // the boot unit is in place
  | "none"; // neither firewalld nor systemd: the rules come back when the agent starts

type Needs = Pick<System, "exec" | "files" | "log" | "emit">;

/** Differs from the 1.4 of the Python agent, so that each of us replaces the other's unit (`extensions.md` FW-12). */
const UNIT_VERSION = "2.0";
const NOTE = "waagent-firewall.json";
const OLD_HELPER = "waagent-network-setup.py";
const TIMEOUT_MS = 30_000;
const JOURNAL_BYTES = 16 * 1024;

/**
 * Makes the rules be there at the next boot before anything else can run: permanent rules where firewalld runs, else
 * a unit that calls this executable (`system.md` FW-04, BET-28). Nothing is written when all is in place.
 * Errors: AgentError of the file or program that failed; nothing half-made is left.
 */
export async function persistFirewall(
  system: Needs,
  distro: Pick<Distro, "serviceName" | "unitDirectory">,
  rules: FirewallRules,
  options: PersistOptions,
): Promise<PersistOutcome> {
  recordFirewall(system, options.libDirectory, rules.address);
  // Also where it is not ours to run any more: executing it is not safe once nobody maintains it (FW-06, FW-12).
  system.files.remove(join(options.libDirectory, OLD_HELPER));
  if (await isFirewalldRunning(system)) {
    await persistInFirewalld(system, rules);
    await removeUnit(system, distro);
    return "firewalld";
  }
  if (!system.files.exists("/run/systemd/system")) {
    system.log.info("Without systemd and firewalld the firewall is set up when the agent starts");
    return "none";
  }
  await persistAsUnit(system, distro, rules, options);
  return "unit";
}

/** Takes away the unit and the permanent rules. Absent ones are fine. */
export async function removePersistentFirewall(
  system: Needs,
  distro: Pick<Distro, "serviceName" | "unitDirectory">,
  rules: FirewallRules,
): Promise<void> {
  if (await isFirewalldRunning(system)) {
    for (const rule of firewalldRules({ ...rules, coverForwarded: true }))
      await removePassthrough(system, rule);
  }
  await removeUnit(system, distro);
}

/**
 * Takes the firewall away again after `OS.EnableFirewall` was turned off: rules, unit and permanent rules. Knows by its
 * own note that there is something of ours; what other agents set up is left alone. Returns whether there was.
 * Errors: AgentError of the program that failed; the note stays, so that the next start tries again.
 */
export async function withdrawFirewall(
  system: Needs,
  distro: Pick<Distro, "serviceName" | "unitDirectory">,
  libDirectory: SystemPath,
  userId: number,
): Promise<boolean> {
  const address = recordedAddress(system, libDirectory);
  if (address === undefined) return false;
  const rules = firewallRules({ "Firewall.CoverForwarded": true }, address, userId);
  await removePersistentFirewall(system, distro, rules);
  await removeFirewallEverywhere(system, rules);
  system.files.remove(join(libDirectory, NOTE));
  system.log.info(`OS.EnableFirewall=n: removed the firewall rules for ${address}`);
  return true;
}

function recordFirewall(system: Needs, libDirectory: SystemPath, address: string): void {
  if (recordedAddress(system, libDirectory) === address) return;
  system.files.makeDirectory(libDirectory, { mode: 0o700, keepMode: true });
  system.files.write(join(libDirectory, NOTE), `${JSON.stringify({ version: 1, address })}\n`);
}

/** undefined when there is no note, or it cannot be understood, which is a WARNING. */
function recordedAddress(system: Needs, libDirectory: SystemPath): string | undefined {
  const file = join(libDirectory, NOTE);
  try {
    const text = system.files.readTextIfExists(file);
    return text === undefined ? undefined : JsonReader.parse(text, file).get("address").string();
  } catch (error) {
    system.log.warning(`Ignoring ${file}: ${describe(error)}`);
    return undefined;
  }
}

// ---- firewalld

interface Passthrough {
  readonly add: "-A" | "-I";
  readonly chain: string;
  readonly spec: RuleSpec;
}

/** In the order in which firewalld must load them (`extensions.md` FW-10). */
function firewalldRules(rules: FirewallRules): Passthrough[] {
  return (["OUTPUT", "FORWARD"] as const).flatMap((chain) =>
    wantedRules(rules, chain).map((spec) => ({ add: "-A" as const, chain, spec })),
  );
}

async function isFirewalldRunning(system: Pick<System, "exec">): Promise<boolean> {
  if (system.exec.find("firewall-cmd") === undefined) return false;
  const result = await system.exec.run({
    argv: ["firewall-cmd", "--state"],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
  return result.stdout.trim() === "running";
}

async function persistInFirewalld(system: Needs, rules: FirewallRules): Promise<void> {
  const wanted = firewalldRules(rules);
  const unwanted = firewalldRules({ ...rules, coverForwarded: true }).slice(wanted.length);
  // Agents up to 2.7.0.6 put the DNS rule in with -I.
  const legacy: Passthrough = { add: "-I", chain: "OUTPUT", spec: acceptDns(rules.address) };
  for (const rule of [legacy, ...unwanted]) await removePassthrough(system, rule);

  const present: boolean[] = [];
  for (const rule of wanted) present.push(await hasPassthrough(system, rule));
  if (present.every(Boolean)) return;
  // Order counts, and firewalld keeps the order in which rules were added: all anew.
  for (const [index, rule] of wanted.entries())
    if (present[index] === true) await passthrough(system, "--remove-passthrough", rule);
  for (const rule of wanted) await passthrough(system, "--passthrough", rule);
  system.log.info("Stored the firewall rules in firewalld's permanent configuration");
}

async function removePassthrough(system: Needs, rule: Passthrough): Promise<void> {
  if (await hasPassthrough(system, rule)) await passthrough(system, "--remove-passthrough", rule);
}

async function hasPassthrough(system: Needs, rule: Passthrough): Promise<boolean> {
  return (await passthrough(system, "--query-passthrough", rule, [0, 1])).code === 0;
}

function passthrough(
  system: Needs,
  verb: string,
  rule: Passthrough,
  okCodes: readonly number[] = [0],
) {
  const words = ["ipv4", "-t", "security", rule.add, rule.chain, ...rule.spec];
  return system.exec.run({
    argv: ["firewall-cmd", "--permanent", "--direct", verb, ...words],
    okCodes,
    timeoutMs: TIMEOUT_MS,
  });
}

// ---- unit

async function persistAsUnit(
  system: Needs,
  distro: Pick<Distro, "serviceName" | "unitDirectory">,
  rules: FirewallRules,
  options: PersistOptions,
): Promise<void> {
  const name = unitName(distro);
  const directory = unitDirectory(system, distro);
  const file = join(directory, name);
  if (directory !== distro.unitDirectory) system.files.remove(join(distro.unitDirectory, name));

  const text = unitText(rules.address, options.executable);
  const enabled = (await systemctl(system, ["is-enabled", name])).stdout.trim() === "enabled";
  if (enabled && system.files.readTextIfExists(file) === text) {
    await reportLastBoot(system, name);
    return;
  }
  system.files.makeDirectory(directory, { keepMode: true });
  system.files.write(file, text, { mode: 0o644 });
  try {
    await system.exec.run({ argv: ["systemctl", "enable", name], timeoutMs: TIMEOUT_MS });
  } catch (error) {
    system.files.remove(file);
    throw readOnlyLinks(system, name) ?? error;
  }
  system.log.info(`The firewall will be set up at boot by ${file}`);
}

/** systemctl says of links it may not make that the unit does not exist. */
function readOnlyLinks(system: Pick<System, "files">, name: string): AgentError | undefined {
  const links = "/etc/systemd/system";
  const mount = mountOf(readMounts(system), links);
  if (mount?.options.includes("ro") !== true) return undefined;
  return new AgentError(
    "io",
    `Could not enable ${name}: ${links} is read-only (${mount.mountPoint}), so the firewall is set up by the agent only`,
  );
}

/** `extensions.md` FW-11, FW-12. */
export function unitText(address: string, executable: string): string {
  return `# This unit file (Version=${UNIT_VERSION}) was created by the Azure VM Agent.
# Do not edit: the agent replaces it when it differs.
[Unit]
Description=Sets up the firewall rules for the Azure WireServer
After=local-fs.target systemd-sysext.service
Before=network-pre.target
Wants=network-pre.target
DefaultDependencies=no
ConditionPathExists=${executable}

[Service]
Type=oneshot
ExecStart=${executable} -setup-firewall=${address}
RemainAfterExit=yes

[Install]
WantedBy=network.target
`;
}

export function unitName(distro: Pick<Distro, "serviceName">): string {
  return `${distro.serviceName}-network-setup.service`;
}

/** Where /usr is an image, only /etc can be written (`provisioning.md` OS-67). */
function unitDirectory(
  system: Pick<System, "files">,
  distro: Pick<Distro, "unitDirectory">,
): SystemPath {
  return system.files.exists("/run/ostree-booted") ? "/etc/systemd/system" : distro.unitDirectory;
}

async function removeUnit(
  system: Needs,
  distro: Pick<Distro, "serviceName" | "unitDirectory">,
): Promise<void> {
  const name = unitName(distro);
  const files = [join(distro.unitDirectory, name), join("/etc/systemd/system", name)];
  if (!files.some((file) => system.files.exists(file))) return;
  if (system.files.exists("/run/systemd/system")) await systemctl(system, ["disable", name]);
  for (const file of files) system.files.remove(file);
}

/** What the unit said at this boot, for whoever asks why the rules were or were not there (`extensions.md` FW-14). */
async function reportLastBoot(system: Needs, name: string): Promise<void> {
  try {
    const journal = await system.exec.run({
      argv: ["journalctl", "-u", name, "-b", "--utc", "--no-pager"],
      okCodes: "any",
      timeoutMs: TIMEOUT_MS,
      maxOutputBytes: JOURNAL_BYTES,
    });
    const success = (await systemctl(system, ["is-failed", name])).code !== 0;
    const message = `Logs from the ${name} since system boot:\n${journal.stdout.trimEnd()}`;
    system.log.info(message);
    system.emit({ operation: "PersistFirewallRules", success, message, log: false });
  } catch (error) {
    system.log.warning(`Could not read the journal of ${name}: ${describe(error)}`);
  }
}

function systemctl(system: Needs, words: readonly string[]) {
  return system.exec.run({
    argv: ["systemctl", ...words],
    okCodes: "any",
    timeoutMs: TIMEOUT_MS,
  });
}
