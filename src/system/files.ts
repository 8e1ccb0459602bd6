import * as fs from "node:fs";
import path from "node:path";
import { AgentError, describe, errnoOf } from "../base/error.ts";
import type { Root, SystemPath } from "./root.ts";
import { temporaryBeside } from "./temporary.ts";

/**
 * The file system below a Root. Small files are read and written synchronously: state on disk must be whole
 * at every instant, and a write is a whole document (temporary file, fsync, rename, fsync of the folder).
 * Errors: AgentError "io" that names operation and path and carries the errno.
 */
export interface Files {
  /** The path other programs must be given. */
  realPath(file: SystemPath): string;
  exists(file: SystemPath): boolean;
  /** undefined when absent; follows links. */
  stat(file: SystemPath): FileInfo | undefined;
  /** undefined when absent; does not follow links. */
  lstat(file: SystemPath): FileInfo | undefined;
  read(file: SystemPath, options?: ReadOptions): Uint8Array;
  /** The first bytes of a regular file, however large it is. */
  readHead(file: SystemPath, bytes: number): Uint8Array;
  /** Strict UTF-8 without BOM; AgentError "bad-input" when it is not. */
  readText(file: SystemPath, options?: ReadOptions): string;
  /** undefined when absent. */
  readTextIfExists(file: SystemPath, options?: ReadOptions): string | undefined;
  /** Replaces the whole file atomically. Does nothing to the old one when it fails. */
  write(file: SystemPath, data: string | Uint8Array, options?: WriteOptions): void;
  /** One write of all data at the end of the file. */
  append(file: SystemPath, data: string | Uint8Array, options?: { mode?: number }): void;
  /** Writes into an existing special file (sysfs, procfs, device). */
  writeInto(file: SystemPath, data: string): void;
  /** Sorted names; empty when the directory is absent. */
  list(directory: SystemPath): string[];
  /** Paths matching a pattern of `*`, `?` and `[...]` per component, sorted. */
  glob(pattern: SystemPath): SystemPath[];
  /** With parents. `mode` is forced on the leaf also when it existed. */
  makeDirectory(
    directory: SystemPath,
    options?: { mode?: number; owner?: Owner; keepMode?: boolean },
  ): void;
  /** File or whole tree; links are not followed; absent is fine. */
  remove(file: SystemPath): void;
  /** Fails with ENOTEMPTY, or EBUSY for a control group that still holds processes. */
  removeEmptyDirectory(directory: SystemPath): void;
  rename(from: SystemPath, to: SystemPath): void;
  /** Copies content, times and mode. */
  copy(from: SystemPath, to: SystemPath, options?: { mode?: number }): void;
  link(target: string, file: SystemPath): void;
  readLink(file: SystemPath): string | undefined;
  chmod(file: SystemPath, mode: number): void;
  chown(file: SystemPath, owner: Owner): void;
  setTimes(file: SystemPath, modifiedMs: number): void;
  /** Of the file system that holds the path; undefined when it cannot be told. */
  freeSpace(directory: SystemPath): FreeSpace | undefined;
}

export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

export interface FileInfo {
  readonly kind: "file" | "directory" | "link" | "other";
  readonly size: number;
  /** Permission bits, e.g. 0o644. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly inode: number;
  readonly device: number;
  readonly modifiedMs: number;
  readonly changedMs: number;
}

export interface FreeSpace {
  /** Free for root. */
  readonly bytes: number;
  readonly inodes: number;
  /** Free or not, bytes. */
  readonly capacity: number;
}

export interface ReadOptions {
  /** A larger file is an AgentError "bad-input". Default 64 MiB. */
  readonly maxBytes?: number;
}

export interface WriteOptions {
  /** Default 0o600. Set from the first instant, not afterwards. */
  readonly mode?: number;
  readonly owner?: Owner;
  /** false: no fsync, for files that may be lost in a power cut (event spool, logs). Default true. */
  readonly durable?: boolean;
  /** Fails when the file exists. */
  readonly exclusive?: boolean;
}

const DEFAULT_MAX_BYTES = 64 * 1024 * 1024;

export function createFiles(root: Root): Files {
  const real = (file: SystemPath): string => root.real(file);

  const guard = <Result>(
    doing: string,
    file: SystemPath,
    action: (realPath: string) => Result,
  ): Result => {
    try {
      return action(real(file));
    } catch (error) {
      if (error instanceof AgentError) throw error;
      throw new AgentError("io", `Could not ${doing} ${file}`, {
        cause: plain(error),
        errno: errnoOf(error),
      });
    }
  };

  const info = (file: SystemPath, read: typeof fs.statSync): FileInfo | undefined => {
    let stat: fs.Stats;
    try {
      stat = read(real(file));
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === "ENOENT" || errno === "ENOTDIR" || errno === "ELOOP") return undefined;
      throw new AgentError("io", `Could not look at ${file}`, { cause: plain(error), errno });
    }
    return {
      kind: stat.isFile()
        ? "file"
        : stat.isDirectory()
          ? "directory"
          : stat.isSymbolicLink()
            ? "link"
            : "other",
      size: stat.size,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      inode: stat.ino,
      device: stat.dev,
      modifiedMs: stat.mtimeMs,
      changedMs: stat.ctimeMs,
    };
  };

  const read = (file: SystemPath, options: ReadOptions = {}): Uint8Array =>
    guard("read", file, (realPath) => {
      const limit = options.maxBytes ?? DEFAULT_MAX_BYTES;
      const descriptor = fs.openSync(realPath, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
      try {
        const stat = fs.fstatSync(descriptor);
        if (stat.isDirectory())
          throw Object.assign(new Error("it is a directory"), { code: "EISDIR" });
        if (stat.isFIFO() || stat.isSocket())
          throw new AgentError("bad-input", `${file} is not a regular file`);
        if (stat.size > limit)
          throw new AgentError(
            "bad-input",
            `${file} has ${stat.size} bytes, more than the ${limit} allowed`,
          );
        const data = fs.readFileSync(descriptor);
        if (data.length > limit)
          throw new AgentError("bad-input", `${file} has more than the ${limit} bytes allowed`);
        return data;
      } finally {
        fs.closeSync(descriptor);
      }
    });

  const readText = (file: SystemPath, options: ReadOptions = {}): string => {
    const data = read(file, options);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(data);
    } catch (error) {
      throw new AgentError("bad-input", `${file} is not UTF-8 text`, { cause: plain(error) });
    }
  };

  const write = (file: SystemPath, data: string | Uint8Array, options: WriteOptions = {}): void =>
    guard("write", file, (realPath) => {
      const temporary = temporaryBeside(realPath);
      const durable = options.durable ?? true;
      const mode = options.mode ?? 0o600;
      try {
        const descriptor = fs.openSync(temporary, "wx", mode);
        try {
          fs.writeFileSync(descriptor, data);
          fs.fchmodSync(descriptor, mode);
          if (options.owner !== undefined)
            fs.fchownSync(descriptor, options.owner.uid, options.owner.gid);
          if (durable) fs.fsyncSync(descriptor);
        } finally {
          fs.closeSync(descriptor);
        }
        if (options.exclusive === true) {
          fs.linkSync(temporary, realPath);
          fs.unlinkSync(temporary);
        } else fs.renameSync(temporary, realPath);
      } catch (error) {
        fs.rmSync(temporary, { force: true });
        throw error;
      }
      if (durable) syncDirectory(path.dirname(realPath));
    });

  return {
    realPath: real,
    exists: (file) => info(file, fs.statSync as typeof fs.statSync) !== undefined,
    stat: (file) => info(file, fs.statSync as typeof fs.statSync),
    lstat: (file) => info(file, fs.lstatSync as typeof fs.statSync),
    read,
    readHead: (file, bytes) =>
      guard("read", file, (realPath) => {
        const descriptor = fs.openSync(realPath, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
        try {
          if (!fs.fstatSync(descriptor).isFile())
            throw new AgentError("bad-input", `${file} is not a regular file`);
          const buffer = Buffer.alloc(bytes);
          let done = 0;
          for (let count = -1; count !== 0 && done < bytes; done += count)
            count = fs.readSync(descriptor, buffer, done, bytes - done, done);
          return buffer.subarray(0, done);
        } finally {
          fs.closeSync(descriptor);
        }
      }),
    readText,
    readTextIfExists: (file, options) => {
      try {
        return readText(file, options);
      } catch (error) {
        if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
        throw error;
      }
    },
    write,
    append: (file, data, options = {}) =>
      guard("append to", file, (realPath) => {
        const flags = fs.constants.O_WRONLY | fs.constants.O_APPEND | fs.constants.O_CREAT;
        const descriptor = fs.openSync(realPath, flags, options.mode ?? 0o600);
        try {
          fs.writeSync(descriptor, typeof data === "string" ? Buffer.from(data) : data);
        } finally {
          fs.closeSync(descriptor);
        }
      }),
    writeInto: (file, data) =>
      guard("write", file, (realPath) => {
        const descriptor = fs.openSync(
          realPath,
          fs.constants.O_WRONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY,
        );
        try {
          fs.writeSync(descriptor, data);
        } finally {
          fs.closeSync(descriptor);
        }
      }),
    list: (directory) =>
      guard("list", directory, (realPath) => {
        try {
          return fs.readdirSync(realPath).sort();
        } catch (error) {
          if (errnoOf(error) === "ENOENT") return [];
          throw error;
        }
      }),
    glob: (pattern) => expandGlob(root, pattern),
    makeDirectory: (directory, options = {}) =>
      guard("create the directory", directory, (realPath) => {
        const existed = fs.existsSync(realPath);
        const mode = options.mode ?? 0o755;
        fs.mkdirSync(path.dirname(realPath), { recursive: true });
        if (!existed) fs.mkdirSync(realPath, { recursive: true, mode });
        if (!existed || options.keepMode !== true) fs.chmodSync(realPath, mode);
        if (options.owner !== undefined)
          fs.chownSync(realPath, options.owner.uid, options.owner.gid);
      }),
    remove: (file) =>
      guard("remove", file, (realPath) => {
        if (realPath === root.directory)
          throw new AgentError("refused", "Refusing to remove the root directory");
        fs.rmSync(realPath, { recursive: true, force: true });
      }),
    removeEmptyDirectory: (directory) =>
      guard("remove the directory", directory, (realPath) => fs.rmdirSync(realPath)),
    rename: (from, to) =>
      guard(`rename to ${to}`, from, (realPath) => fs.renameSync(realPath, real(to))),
    copy: (from, to, options = {}) =>
      guard(`copy to ${to}`, from, (realPath) => {
        const stat = fs.statSync(realPath);
        fs.copyFileSync(realPath, real(to));
        fs.chmodSync(real(to), options.mode ?? stat.mode & 0o7777);
        fs.utimesSync(real(to), stat.atime, stat.mtime);
      }),
    link: (target, file) =>
      guard("create the link", file, (realPath) => fs.symlinkSync(target, realPath)),
    readLink: (file) => {
      try {
        return fs.readlinkSync(real(file));
      } catch {
        return undefined; // absent or no link: both mean "no link here"
      }
    },
    chmod: (file, mode) =>
      guard("change the mode of", file, (realPath) => fs.chmodSync(realPath, mode)),
    chown: (file, owner) =>
      guard("change the owner of", file, (realPath) =>
        fs.chownSync(realPath, owner.uid, owner.gid),
      ),
    setTimes: (file, modifiedMs) =>
      guard("set the time of", file, (realPath) =>
        fs.utimesSync(realPath, modifiedMs / 1000, modifiedMs / 1000),
      ),
    freeSpace: (directory) => {
      try {
        const space = fs.statfsSync(real(directory));
        return {
          bytes: space.bavail * space.bsize,
          inodes: space.ffree,
          capacity: space.blocks * space.bsize,
        };
      } catch {
        return undefined; // some virtual file systems cannot tell; the caller then goes on without the check
      }
    },
  };
}

function syncDirectory(directory: string): void {
  const descriptor = fs.openSync(directory, "r");
  try {
    fs.fsyncSync(descriptor);
  } finally {
    fs.closeSync(descriptor);
  }
}

function expandGlob(root: Root, pattern: SystemPath): SystemPath[] {
  let found: SystemPath[] = ["/"];
  for (const component of pattern.split("/").filter((part) => part !== "")) {
    const next: SystemPath[] = [];
    const special = /[*?[]/.test(component);
    const matcher = special ? globComponent(component) : undefined;
    for (const directory of found) {
      const prefix = directory === "/" ? "" : directory;
      if (matcher === undefined) {
        const candidate = `${prefix}/${component}` as SystemPath;
        if (isThere(root.real(candidate))) next.push(candidate);
        continue;
      }
      let names: string[];
      try {
        names = fs.readdirSync(root.real(directory)).sort();
      } catch {
        continue; // not a directory, or gone meanwhile: nothing matches there
      }
      for (const name of names) {
        if (matcher.test(name) && (component.startsWith(".") || !name.startsWith(".")))
          next.push(`${prefix}/${name}`);
      }
    }
    found = next;
  }
  return pattern === "/" ? ["/"] : found;
}

/** Below a file there is nothing; that and a path that cannot be looked at are no match. */
function isThere(realPath: string): boolean {
  try {
    return fs.lstatSync(realPath, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
}

function globComponent(component: string): RegExp {
  const source = component.replace(/\[!?[^\]]*\]|[*?.+^${}()|\\]/g, (token) => {
    if (token === "*") return "[^/]*";
    if (token === "?") return "[^/]";
    if (token.startsWith("[")) return token.replace("[!", "[^");
    return `\\${token}`;
  });
  return new RegExp(`^${source}$`);
}

/** Node's texts repeat path and call; what remains is the reason. */
function plain(error: unknown): Error {
  const errno = errnoOf(error);
  const reason = errno === undefined ? describe(error) : (REASONS[errno] ?? errno);
  return Object.assign(
    new Error(errno === undefined ? reason : `${reason} (${errno})`),
    errno === undefined ? {} : { code: errno },
  );
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EBUSY: "it is busy",
  EDQUOT: "the disk quota is used up",
  EEXIST: "it already exists",
  EIO: "input/output error",
  EISDIR: "it is a directory",
  ELOOP: "it is a symbolic link, or there are too many links",
  EMFILE: "too many open files",
  ENOENT: "no such file or directory",
  ENOSPC: "no space left on the device",
  ENOTDIR: "a part of the path is not a directory",
  ENOTEMPTY: "it is not empty",
  EPERM: "operation not permitted",
  EROFS: "the file system is read-only",
};
