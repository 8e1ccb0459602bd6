import type { Config } from "../config/table.ts";
import type { System } from "../system/system.ts";

const FILE = "/etc/hosts";
/** Tells our line from the user's, whose lines are never touched (`provisioning.md` DB-13). */
const MARK = "# waagent";
/** Debian's address for a machine's own name: it resolves without a network, and is not localhost. */
const ADDRESS = "127.0.1.1";

/**
 * With `Provisioning.ManageEtcHosts=y`: one line of ours that makes the machine's own name resolve, so that sudo and
 * mail do not wait for DNS. A name that another line has already needs none. Errors: AgentError "io".
 */
export function writeHostsEntry(
  system: Pick<System, "files">,
  config: Pick<Config, "Provisioning.ManageEtcHosts">,
  name: string,
): void {
  if (!config["Provisioning.ManageEtcHosts"]) return;
  const text = system.files.readTextIfExists(FILE) ?? "";
  replace(system, text, editHosts(text, name));
}

/** Takes our line away again. */
export function removeHostsEntry(system: Pick<System, "files">): void {
  const text = system.files.readTextIfExists(FILE);
  if (text !== undefined) replace(system, text, editHosts(text, undefined));
}

/** Whether the file has a line of ours. */
export function hasHostsEntry(system: Pick<System, "files">): boolean {
  return (system.files.readTextIfExists(FILE) ?? "").split("\n").some(isOurs);
}

/** The text with our line for the name, or without one. */
export function editHosts(text: string, name: string | undefined): string {
  const others = text.split("\n").filter((line) => !isOurs(line));
  if (others.at(-1) === "") others.pop();
  const lines = [...others];
  if (name !== undefined && !others.some((line) => namesOf(line).includes(name))) {
    const short = name.split(".")[0] ?? name;
    lines.push(`${ADDRESS} ${short === name ? name : `${name} ${short}`} ${MARK}`);
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

function isOurs(line: string): boolean {
  return line.trimEnd().endsWith(MARK);
}

function namesOf(line: string): readonly string[] {
  return (line.split("#")[0] ?? "").trim().split(/\s+/).slice(1);
}

function replace(system: Pick<System, "files">, old: string, text: string): void {
  if (text === old) return;
  const info = system.files.stat(FILE);
  system.files.write(FILE, text, {
    mode: info?.mode ?? 0o644,
    ...(info === undefined ? {} : { owner: { uid: info.uid, gid: info.gid } }),
  });
}
