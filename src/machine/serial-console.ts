import { AgentError, describe } from "../base/error.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import {
  editCommandLine,
  editGrubDefault,
  editLoaderEntry,
  editMenuLst,
  type GrubKey,
  numaOption,
} from "./boot-options.ts";

/** One file as it is and as it shall be. `before` undefined: it is made. */
export interface FileEdit {
  readonly file: SystemPath;
  readonly before: string | undefined;
  readonly after: string;
}

/** What has to be done for new kernel options; can be shown before it is done. */
export interface BootPlan {
  readonly loader: "grub2" | "boot loader entries" | "grub1";
  readonly options: readonly string[];
  readonly edits: readonly FileEdit[];
  /** Run afterwards, in order; they write what the loader reads. Empty when nothing is edited. */
  readonly commands: readonly (readonly string[])[];
}

type Needs = Pick<System, "exec" | "files" | "log">;

const GRUB_DEFAULT = "/etc/default/grub";
const GRUB_DROP_INS = "/etc/default/grub.d";
const DROP_IN = "/etc/default/grub.d/90-waagent.cfg";
const ENTRIES = "/boot/loader/entries";
const COMMAND_LINE = "/etc/kernel/cmdline";
const MENU_LST: readonly SystemPath[] = ["/boot/grub/menu.lst", "/boot/grub/grub.conf"];
const BACKUP_SUFFIX = ".waagent-backup";
const TIMEOUT_MS = 5 * 60_000;

/**
 * Options that put the kernel's console on the first serial port, which Azure shows and records (`system.md` CON-01):
 * what current images use, and for GRUB 1 the form of its time; and `numa=off` where the kernel needs it (NUMA-01).
 */
export function consoleOptions(
  architecture: string,
  kernelRelease: string,
  loader: BootPlan["loader"],
): string[] {
  const numa = numaOption(kernelRelease);
  const rest = numa === undefined ? [] : [numa];
  if (loader === "grub1") return ["console=ttyS0", "earlyprintk=ttyS0", ...rest];
  return architecture === "aarch64"
    ? ["console=tty1", "console=ttyAMA0,115200n8", "earlycon=pl011,0xeffec000", ...rest]
    : ["console=tty1", "console=ttyS0,115200n8", "earlyprintk=ttyS0,115200", ...rest];
}

/**
 * Finds the boot loader by its files and works out the edits. Nothing is written.
 * Errors: AgentError "not-supported" when there is no loader that we know, "bad-input" when its file has a shape
 * that cannot be edited safely.
 */
export function planSerialConsole(
  system: Pick<System, "exec" | "files">,
  distro: Pick<Distro, "bootOptions">,
  machine: { readonly architecture: string; readonly kernelRelease: string },
): BootPlan {
  const optionsFor = (loader: BootPlan["loader"]): string[] =>
    consoleOptions(machine.architecture, machine.kernelRelease, loader);
  const entries = system.files.list(ENTRIES).filter((name) => name.endsWith(".conf"));
  const hasGrub2 = system.files.exists(GRUB_DEFAULT);
  if (hasGrub2 && distro.bootOptions !== "none") {
    const options = optionsFor("grub2");
    const edits = [
      ...grub2Edits(system, options),
      ...(entries.length === 0 ? [] : entryEdits(system, entries, options)),
    ];
    return plan("grub2", options, edits, grub2Commands(system));
  }
  if (entries.length > 0) {
    const options = optionsFor("boot loader entries");
    return plan("boot loader entries", options, entryEdits(system, entries, options), []);
  }
  const menu = MENU_LST.find((file) => system.files.exists(file));
  if (menu !== undefined) {
    const options = optionsFor("grub1");
    const before = system.files.readText(menu);
    const after = editMenuLst(before, options);
    if (after === undefined)
      throw new AgentError("bad-input", `${menu} has no kernel line; it is left alone`);
    return plan("grub1", options, changed([{ file: menu, before, after }]), []);
  }
  throw new AgentError(
    "not-supported",
    "No boot loader is found whose kernel options can be changed here (GRUB, or boot loader entries); nothing is changed",
  );
}

/**
 * Carries a plan out: a backup of each file beside it, the edits, the loader's own program. When that fails the files
 * are put back. Errors: AgentError "exec" or "io" that says so.
 */
export async function applyBootPlan(system: Needs, bootPlan: BootPlan): Promise<void> {
  if (bootPlan.edits.length === 0) {
    system.log.info(`The kernel options are there already: ${bootPlan.options.join(" ")}`);
    return;
  }
  for (const { file, before } of bootPlan.edits) {
    const backup = `${file}${BACKUP_SUFFIX}` as SystemPath;
    // The oldest one is worth keeping: it is the file before we ever touched it.
    if (before !== undefined && !system.files.exists(backup)) system.files.copy(file, backup);
  }
  const written: FileEdit[] = [];
  try {
    for (const edit of bootPlan.edits) {
      writeLike(system, edit.file, edit.after);
      written.push(edit);
    }
    for (const argv of bootPlan.commands) await system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
  } catch (error) {
    for (const { file, before } of written) {
      if (before === undefined) system.files.remove(file);
      else writeLike(system, file, before);
    }
    throw new AgentError("exec", `The kernel options were not changed: ${describe(error)}`, {
      cause: error,
    });
  }
  system.log.info(
    `Added kernel options for ${bootPlan.loader}: ${bootPlan.options.join(" ")}; they take effect at the next boot`,
  );
}

/** The plan for people, before anything is done. */
export function describeBootPlan(bootPlan: BootPlan): string {
  const lines = [`Boot loader: ${bootPlan.loader}`, `Options: ${bootPlan.options.join(" ")}`];
  if (bootPlan.edits.length === 0) lines.push("Nothing to do: they are there already.");
  for (const { file, before, after } of bootPlan.edits) {
    lines.push(
      before === undefined
        ? `Makes ${file}:`
        : `Changes ${file} (backup: ${file}${BACKUP_SUFFIX}):`,
    );
    const old = new Set((before ?? "").split("\n"));
    for (const line of after.split("\n")) if (!old.has(line)) lines.push(`  ${line}`);
  }
  for (const argv of bootPlan.commands) lines.push(`Runs ${argv.join(" ")}`);
  return `${lines.join("\n")}\n`;
}

function plan(
  loader: BootPlan["loader"],
  options: readonly string[],
  edits: readonly FileEdit[],
  commands: BootPlan["commands"],
): BootPlan {
  return { loader, options, edits, commands: edits.length === 0 ? [] : commands };
}

/** A drop-in where the distribution reads such (Debian, Ubuntu): nobody's file is edited (`system.md` BET-32). */
function grub2Edits(system: Pick<System, "files">, options: readonly string[]): FileEdit[] {
  const before = system.files.readText(GRUB_DEFAULT);
  const key: GrubKey = /^GRUB_CMDLINE_LINUX_DEFAULT=/m.test(before)
    ? "GRUB_CMDLINE_LINUX_DEFAULT"
    : "GRUB_CMDLINE_LINUX";
  if (system.files.stat(GRUB_DROP_INS)?.kind === "directory") {
    const others = system.files
      .list(GRUB_DROP_INS)
      .filter((name) => name.endsWith(".cfg") && !DROP_IN.endsWith(`/${name}`))
      .map((name) => system.files.readText(`${GRUB_DROP_INS}/${name}`));
    const all = [before, ...others].join("\n").replace(/["']/g, " ");
    const missing = options.filter(
      (option) =>
        !new RegExp(`(?:^|\\s)${escape(option.split(",")[0] ?? "")}(?:[,\\s]|$)`, "m").test(all),
    );
    if (missing.length === 0) return [];
    const after = `# Written by the Azure VM agent (waagent -serialconsole).\n${key}="$${key} ${missing.join(" ")}"\n`;
    return changed([{ file: DROP_IN, before: system.files.readTextIfExists(DROP_IN), after }]);
  }
  const after = editGrubDefault(before, key, options);
  if (after === undefined)
    throw new AgentError(
      "bad-input",
      `${GRUB_DEFAULT} has no line ${key}="..." that can be edited safely; it is left alone`,
    );
  return changed([{ file: GRUB_DEFAULT, before, after }]);
}

function entryEdits(
  system: Pick<System, "files">,
  names: readonly string[],
  options: readonly string[],
): FileEdit[] {
  const edits = names.map((name): FileEdit => {
    const file: SystemPath = `${ENTRIES}/${name}`;
    const before = system.files.readText(file);
    const after = editLoaderEntry(before, options);
    // Red Hat's entries may say `options $kernelopts`, which grub2-mkconfig fills.
    if (after === undefined || /^options\s+\$/m.test(before))
      return { file, before, after: before };
    return { file, before, after };
  });
  const line = system.files.readTextIfExists(COMMAND_LINE);
  if (line !== undefined)
    edits.push({ file: COMMAND_LINE, before: line, after: editCommandLine(line, options) });
  return changed(edits);
}

function grub2Commands(system: Pick<System, "exec" | "files">): readonly (readonly string[])[] {
  if (system.exec.find("update-grub") !== undefined) return [["update-grub"]];
  const program = ["grub2-mkconfig", "grub-mkconfig"].find(
    (name) => system.exec.find(name) !== undefined,
  );
  const target = (["/boot/grub2/grub.cfg", "/boot/grub/grub.cfg"] as const).find((file) =>
    system.files.exists(file),
  );
  if (program === undefined || target === undefined)
    throw new AgentError(
      "not-supported",
      `${GRUB_DEFAULT} is there, but neither update-grub nor grub2-mkconfig with its grub.cfg; nothing is changed`,
    );
  return [[program, "-o", target]];
}

function changed(edits: readonly FileEdit[]): FileEdit[] {
  return edits.filter((edit) => edit.before !== edit.after);
}

/** In place of the old one, with its mode and owner. */
function writeLike(system: Pick<System, "files">, file: SystemPath, text: string): void {
  const info = system.files.stat(file);
  system.files.write(file, text, {
    mode: info?.mode ?? 0o644,
    ...(info === undefined ? {} : { owner: { uid: info.uid, gid: info.gid } }),
  });
}

function escape(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
