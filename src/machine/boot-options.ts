/** Kernel command lines in the files of boot loaders, as text in and text out. */

/** A shell variable in /etc/default/grub that holds options. */
export type GrubKey = "GRUB_CMDLINE_LINUX" | "GRUB_CMDLINE_LINUX_DEFAULT";

/**
 * Options that are missing from a command line: one with the same device in front of the first comma counts as
 * present, whatever its speed (`console=ttyS0` and `console=ttyS0,115200n8`).
 */
export function missingOptions(line: string, options: readonly string[]): string[] {
  const present = line.split(/\s+/).map((word) => word.split(",")[0]);
  return options.filter((option) => !present.includes(option.split(",")[0]));
}

/**
 * /etc/default/grub with the options at the end of the key's value, inside its quotes (`system.md` NUMA-02).
 * The same text when nothing is missing; undefined when there is no such line, or its value is not a plain one.
 */
export function editGrubDefault(
  text: string,
  key: GrubKey,
  options: readonly string[],
): string | undefined {
  const lines = text.split("\n");
  const index = lines.findLastIndex((line) => line.startsWith(`${key}=`));
  const line = lines[index];
  if (line === undefined) return undefined;
  // A value that the shell would put together from several words or expansions is not ours to guess.
  const match = /^(\w+=)(?:"([^"`\\]*)"|'([^']*)'|([^\s"'`\\]*))(\s*)$/.exec(line);
  if (match === null) return undefined;
  const [, name = "", double, single, bare, tail = ""] = match;
  const value = double ?? single ?? bare ?? "";
  const missing = missingOptions(value, options);
  if (missing.length === 0) return text;
  const quote = single === undefined ? '"' : "'";
  lines[index] =
    `${name}${quote}${[value, ...missing].filter((part) => part !== "").join(" ")}${quote}${tail}`;
  return lines.join("\n");
}

/** GRUB 1: every `kernel` line gets what it misses. undefined when there is none. */
export function editMenuLst(text: string, options: readonly string[]): string | undefined {
  return editLines(text, /^\s*kernel\s/, options);
}

/** Boot loader specification entries: the `options` line. undefined when there is none. */
export function editLoaderEntry(text: string, options: readonly string[]): string | undefined {
  return editLines(text, /^options\s/, options);
}

/** /etc/kernel/cmdline: one line, the source of new entries. */
export function editCommandLine(text: string, options: readonly string[]): string {
  const line = text.trimEnd();
  const missing = missingOptions(line, options);
  return missing.length === 0
    ? text
    : `${[line, ...missing].filter((part) => part !== "").join(" ")}\n`;
}

function editLines(text: string, which: RegExp, options: readonly string[]): string | undefined {
  let found = false;
  const lines = text.split("\n").map((line) => {
    if (!which.test(line)) return line;
    found = true;
    const missing = missingOptions(line, options);
    return missing.length === 0 ? line : `${line.trimEnd()} ${missing.join(" ")}`;
  });
  return found ? lines.join("\n") : undefined;
}

/**
 * `numa=off` for kernels up to 2.6.37, whose NUMA code does not bear what Hyper-V shows; each of the three numbers
 * is compared by itself (`system.md` NUMA-01). undefined for all others.
 */
export function numaOption(kernelRelease: string): string | undefined {
  const numbers = /^(\d+)\.(\d+)\.(\d+)/.exec(kernelRelease)?.slice(1).map(Number);
  if (numbers === undefined) return undefined;
  const [major = 9, minor = 9, patch = 99] = numbers;
  return major <= 2 && minor <= 6 && patch <= 37 ? "numa=off" : undefined;
}
