import { AgentError, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { join, nameOf, parentOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

type Machine = Pick<System, "exec" | "files" | "log">;

const FILE_NAME = "waagent";
const MODE = 0o440;
const DOAS_FILE = "/etc/doas.conf";

/**
 * Lets a user become root: one line in `<OS.SudoersDir>/waagent` (USER-20), which takes the place of any other line
 * of that user there, so that a later, stricter one counts (DB-08). The file is checked by visudo before it is
 * put in place. Errors: AgentError "os-utility" or "io"; the file then is as it was.
 */
export async function allowSudo(
  system: Machine,
  distro: Pick<Distro, "sudo">,
  config: Pick<Config, "OS.SudoersDir">,
  options: { readonly userName: string; readonly withoutPassword: boolean },
): Promise<void> {
  if (distro.sudo === "none") return;
  if (distro.sudo === "doas") {
    allowDoas(system, options);
    return;
  }
  const directory = config["OS.SudoersDir"] as SystemPath;
  if (!system.files.exists(directory)) await includeDirectory(system, directory);
  const file = join(directory, FILE_NAME);
  const lines = linesOf(system.files.readTextIfExists(file));
  const wanted = sudoLine(options);
  const others = lines.filter((line) => !isLineOf(line, options.userName));
  const at = lines.findIndex((line) => isLineOf(line, options.userName));
  const next =
    at < 0
      ? [...others, wanted]
      : others.toSpliced(countBefore(lines, at, options.userName), 0, wanted);
  await replaceSudoers(system, file, next);
}

/** Takes away exactly the lines of this user, never those of one whose name merely contains it (DB-08). */
export async function removeSudo(
  system: Machine,
  distro: Pick<Distro, "sudo">,
  config: Pick<Config, "OS.SudoersDir">,
  userName: string,
): Promise<void> {
  if (distro.sudo === "none") return;
  const file =
    distro.sudo === "doas" ? DOAS_FILE : join(config["OS.SudoersDir"] as SystemPath, FILE_NAME);
  const text = system.files.readTextIfExists(file);
  if (text === undefined) return;
  const isTheirs = distro.sudo === "doas" ? isDoasLineOf : isLineOf;
  const lines = linesOf(text);
  const rest = lines.filter((line) => !isTheirs(line, userName));
  if (rest.length === lines.length) return;
  if (distro.sudo === "doas") system.files.write(file, `${rest.join("\n")}\n`, { mode: 0o644 });
  else if (rest.every((line) => line.trim() === "")) system.files.remove(file);
  else await replaceSudoers(system, file, rest);
}

/** `<user> ALL=(ALL) ALL`, NOPASSWD when the user has no password to type (USER-20). */
export function sudoLine(options: {
  readonly userName: string;
  readonly withoutPassword: boolean;
}): string {
  return `${sudoersName(options.userName)} ALL=(ALL) ${options.withoutPassword ? "NOPASSWD: " : ""}ALL`;
}

/** A name in capitals would be read as an alias, so it is quoted. */
function sudoersName(name: string): string {
  return /^[A-Z][A-Z0-9_]*$/.test(name) ? `"${name}"` : name;
}

function isLineOf(line: string, userName: string): boolean {
  const first = line.trim().split(/\s+/)[0];
  return first === userName || first === `"${userName}"`;
}

function countBefore(lines: readonly string[], end: number, userName: string): number {
  return lines.slice(0, end).filter((line) => !isLineOf(line, userName)).length;
}

async function replaceSudoers(
  system: Machine,
  file: SystemPath,
  lines: readonly string[],
): Promise<void> {
  const text = `${lines.join("\n")}\n`;
  const info = system.files.stat(file);
  if (info?.mode === MODE && info.uid === 0 && system.files.readTextIfExists(file) === text) return;
  // sudo passes over names with a dot, so a half-made file is never in force.
  const candidate = join(parentOf(file), `.${nameOf(file)}.new`);
  system.files.write(candidate, text, { mode: MODE });
  try {
    await checkSudoers(system, candidate);
    system.files.rename(candidate, file);
  } catch (error) {
    system.files.remove(candidate);
    throw error;
  }
}

async function checkSudoers(system: Machine, file: SystemPath): Promise<void> {
  try {
    await system.exec.run({ argv: ["visudo", "-cf", system.files.realPath(file)] });
  } catch (error) {
    if (isAgentError(error, "program-missing")) return; // no sudo yet: nothing that could be broken
    throw new AgentError("os-utility", `visudo refuses the new ${file}`, { cause: error });
  }
}

/** USER-21: a system whose sudo does not look into the directory yet. */
async function includeDirectory(system: Machine, directory: SystemPath): Promise<void> {
  system.files.makeDirectory(directory, { mode: 0o750 });
  const main = join(parentOf(directory), "sudoers");
  const text = system.files.readTextIfExists(main) ?? "";
  if (/^[#@]includedir\s/m.test(text) && text.includes(directory)) return;
  await replaceSudoers(system, main, [...linesOf(text), "", `#includedir ${directory}`]);
}

/** Lines without the empty one after the last line end. */
function linesOf(text: string | undefined): string[] {
  const lines = (text ?? "").split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

/** OpenBSD (USER-23). */
function allowDoas(
  system: Machine,
  options: { readonly userName: string; readonly withoutPassword: boolean },
): void {
  const lines = linesOf(system.files.readTextIfExists(DOAS_FILE));
  const how = options.withoutPassword ? "nopass" : "persist";
  const next = lines.filter((line) => !isDoasLineOf(line, options.userName));
  if (!next.some((line) => isDoasLineOf(line, "root"))) next.push("permit keepenv nopass root");
  next.push(`permit keepenv ${how} ${options.userName}`);
  if (next.join("\n") !== lines.join("\n"))
    system.files.write(DOAS_FILE, `${next.join("\n")}\n`, { mode: 0o644 });
}

function isDoasLineOf(line: string, userName: string): boolean {
  const words = line.trim().split(/\s+/);
  return words[0] === "permit" && words.at(-1) === userName;
}
