import * as fs from "node:fs";
import { AgentError, errnoOf } from "../base/error.ts";
import type { Owner } from "./files.ts";
import type { Root, SystemPath } from "./root.ts";
import { temporaryBeside } from "./temporary.ts";

/**
 * A file in a directory that belongs to somebody else (a user's home). Every part below `base` is opened relative to
 * the one before and without following links, so no swap of a directory for a link can lead root astray.
 */
export interface BeneathOptions {
  /** Names below `base`; the last one is the file. No `.`, `..` or empty names. */
  readonly parts: readonly string[];
  /** Owner of the file, of its directory, and of every directory that has to be made. */
  readonly owner: Owner;
  readonly mode: number;
  /** Forced on the directory of the file. */
  readonly directoryMode: number;
}

const FOLLOW_NOT = fs.constants.O_NOFOLLOW;
const MAX_BYTES = 16 * 1024 * 1024;

/**
 * Replaces the file atomically by what `change` makes of its present text ("" when there is none). Returns whether
 * anything was different. Errors: AgentError "refused" for a link or a file with a second name, else "io".
 */
export function changeBeneath(
  root: Root,
  base: SystemPath,
  options: BeneathOptions,
  change: (old: string) => string | Uint8Array,
): boolean {
  const { parts, owner } = options;
  const shown = `${base}/${parts.join("/")}`;
  const name = parts.at(-1);
  if (name === undefined || parts.some((part) => !/^[^/\0]+$/.test(part) || /^\.\.?$/.test(part)))
    throw new AgentError("refused", `${shown} is not a plain path below ${base}`);

  let directory = guard(base, () =>
    fs.openSync(root.real(base), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY),
  );
  try {
    for (const [index, part] of parts.slice(0, -1).entries()) {
      const next = openDirectory(
        directory,
        part,
        `${base}/${parts.slice(0, index + 1).join("/")}`,
        owner,
      );
      fs.closeSync(directory);
      directory = next;
    }
    const changed = parts.length > 1 && settle(directory, owner, options.directoryMode);
    return guard(shown, () => replace(directory, name, shown, options, change)) || changed;
  } finally {
    fs.closeSync(directory);
  }
}

function openDirectory(parent: number, name: string, shown: string, owner: Owner): number {
  const at = inside(parent, name);
  const open = (): number =>
    fs.openSync(at, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | FOLLOW_NOT);
  return guard(shown, () => {
    try {
      return open();
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      fs.mkdirSync(at, { mode: 0o700 });
      const made = open();
      fs.fchownSync(made, owner.uid, owner.gid);
      return made;
    }
  });
}

/** Owner and mode of an open directory; true when they were different. */
function settle(directory: number, owner: Owner, mode: number): boolean {
  const stat = fs.fstatSync(directory);
  const wrongOwner = stat.uid !== owner.uid || stat.gid !== owner.gid;
  const wrongMode = (stat.mode & 0o7777) !== mode;
  if (wrongOwner) fs.fchownSync(directory, owner.uid, owner.gid);
  if (wrongMode) fs.fchmodSync(directory, mode);
  return wrongOwner || wrongMode;
}

function replace(
  directory: number,
  name: string,
  shown: string,
  options: BeneathOptions,
  change: (old: string) => string | Uint8Array,
): boolean {
  const { owner, mode } = options;
  const old = readPlain(directory, name, shown);
  const next = Buffer.from(change(old?.text.toString("utf8") ?? "") as Uint8Array);
  if (
    old !== undefined &&
    old.text.equals(next) &&
    old.stat.uid === owner.uid &&
    old.stat.gid === owner.gid &&
    (old.stat.mode & 0o7777) === mode
  )
    return false;
  const temporary = temporaryBeside(inside(directory, name));
  try {
    const descriptor = fs.openSync(temporary, "wx", 0o600);
    try {
      fs.writeFileSync(descriptor, next);
      fs.fchownSync(descriptor, owner.uid, owner.gid);
      fs.fchmodSync(descriptor, mode);
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
    fs.renameSync(temporary, inside(directory, name));
    fs.fsyncSync(directory);
  } catch (error) {
    fs.rmSync(temporary, { force: true });
    throw error;
  }
  return true;
}

function readPlain(
  directory: number,
  name: string,
  shown: string,
): { text: Buffer; stat: fs.Stats } | undefined {
  let descriptor: number;
  try {
    descriptor = fs.openSync(
      inside(directory, name),
      fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | FOLLOW_NOT,
    );
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const stat = fs.fstatSync(descriptor);
    // A second name could be a hard link to somebody else's file, whose text must not end up here.
    if (!stat.isFile() || stat.nlink > 1 || stat.size > MAX_BYTES)
      throw new AgentError("refused", `${shown} is not a plain file with one name`);
    return { text: fs.readFileSync(descriptor), stat };
  } finally {
    fs.closeSync(descriptor);
  }
}

/** A path relative to an open directory: what openat(2) is for, which node:fs does not offer. */
function inside(directory: number, name: string): string {
  return `/proc/self/fd/${directory}/${name}`;
}

function guard<Result>(shown: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    if (error instanceof AgentError) throw error;
    const errno = errnoOf(error);
    if (errno === "ELOOP" || errno === "ENOTDIR")
      throw new AgentError("refused", `${shown} is a symbolic link or not a directory`, { errno });
    throw new AgentError("io", `Could not write ${shown} (${errno ?? "unknown reason"})`, {
      errno,
    });
  }
}
