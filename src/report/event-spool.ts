import { errnoOf } from "../base/error.ts";
import { nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * Event files waiting for delivery (`wire-protocol.md` TEL-15, TEL-17): bounded by count, bytes and age. What lies
 * in the folder is known from memory; it is listed once at the start and again when its time stamp says that
 * somebody else wrote into it, so an idle agent reads and writes nothing (DB-18).
 */
export interface SpoolLimits {
  /** Files; the oldest makes room for a new one (TEL-17). */
  readonly maxFiles: number;
  readonly maxBytes: number;
  readonly maxAgeMs: number;
}

export const SPOOL_LIMITS: SpoolLimits = {
  maxFiles: 1000,
  maxBytes: 8 * 1024 * 1024,
  maxAgeMs: 3 * 24 * 3600 * 1000,
};

export interface SpoolFile {
  readonly path: SystemPath;
  readonly size: number;
  readonly modifiedMs: number;
  /** Written by an agent, complete; the others are legacy files (TEL-19). */
  readonly byAgent: boolean;
  /** Monotonic time at which it is given up: the wall clock of a young VM may jump by years. */
  readonly expiresAt: number;
}

export interface FileSpool {
  /** Writes one event; false when it could not be kept. Never throws. */
  add(text: string): boolean;
  /** Everything that waits, oldest name first. */
  list(): readonly SpoolFile[];
  /** After delivery, or when it must be given up. Never throws. */
  remove(file: SpoolFile): void;
  /** Events lost to the limits or to a full disk since the last call. */
  takeDropped(): number;
}

const DIRECTORY_MODE = 0o700;
/** The folder has changed, or changed so recently that its coarse time stamp may hide another change. */
const UNCERTAIN = -2;
const TIMESTAMP_GRAIN_MS = 1000;
const AGENT_SUFFIX = ".waagent.tld";
const LEGACY_SUFFIX = ".tld";

export function createFileSpool(
  system: Pick<System, "files" | "clock">,
  directory: SystemPath,
  limits: SpoolLimits = SPOOL_LIMITS,
): FileSpool {
  const { files, clock } = system;
  let known: Map<string, SpoolFile> | undefined;
  let total = 0;
  let seenMtime = UNCERTAIN;
  let lastName = 0;
  let dropped = 0;

  const forget = (file: SpoolFile): void => {
    const name = nameOf(file.path);
    if (known?.delete(name) === true) total -= file.size;
  };

  const discard = (file: SpoolFile): void => {
    try {
      files.remove(file.path);
      seenMtime = UNCERTAIN;
    } catch {
      // Read-only or failing disk: it is dropped from memory all the same, the next start sees it again.
    }
    forget(file);
  };

  const directoryTime = (): number => files.stat(directory)?.modifiedMs ?? -1;

  const scan = (): Map<string, SpoolFile> => {
    const before = directoryTime();
    const found = new Map<string, SpoolFile>();
    total = 0;
    for (const name of files.list(directory)) {
      const file = `${directory}/${name}` as SystemPath;
      const info = files.lstat(file);
      if (info === undefined) continue;
      // A temporary file of a process that ended while writing; a living one is done within milliseconds.
      if (name.endsWith(".tmp") && info.kind === "file" && clock.now() - info.modifiedMs > 60_000)
        files.remove(file);
      if (!name.endsWith(LEGACY_SUFFIX) || name.startsWith(".") || info.kind !== "file") continue;
      const age = Math.min(Math.max(clock.now() - info.modifiedMs, 0), limits.maxAgeMs);
      found.set(name, {
        path: file,
        size: info.size,
        modifiedMs: info.modifiedMs,
        byAgent: name.endsWith(AGENT_SUFFIX),
        expiresAt: known?.get(name)?.expiresAt ?? clock.monotonic() + limits.maxAgeMs - age,
      });
      total += info.size;
    }
    known = found;
    seenMtime = Math.abs(clock.now() - before) < TIMESTAMP_GRAIN_MS ? UNCERTAIN : before;
    return found;
  };

  const current = (): Map<string, SpoolFile> =>
    known === undefined || directoryTime() !== seenMtime ? scan() : known;

  /** Names are times and sort so; a clock that stands still or steps back must not reuse one (TRAP-10). */
  const nextName = (): string => {
    lastName = Math.max(Math.floor(clock.now() * 1000), lastName + 1);
    return `${lastName}${AGENT_SUFFIX}`;
  };

  const writeNew = (text: string): SystemPath => {
    for (let attempt = 0; ; attempt += 1) {
      const file = `${directory}/${nextName()}` as SystemPath;
      try {
        files.write(file, text, { durable: false, exclusive: true });
        return file;
      } catch (error) {
        const errno = errnoOf(error);
        if (attempt >= 3 || (errno !== "ENOENT" && errno !== "EEXIST")) throw error;
        // Another agent process may have taken the same microsecond; the folder may have been removed.
        if (errno === "ENOENT") files.makeDirectory(directory, { mode: DIRECTORY_MODE });
      }
    }
  };

  const makeRoom = (waiting: Map<string, SpoolFile>, bytes: number): void => {
    if (waiting.size < limits.maxFiles && total + bytes <= limits.maxBytes) return;
    for (const file of byName(waiting)) {
      if (waiting.size < limits.maxFiles && total + bytes <= limits.maxBytes) return;
      discard(file);
      dropped += 1;
    }
  };

  const add = (text: string): boolean => {
    try {
      const bytes = Buffer.byteLength(text);
      if (bytes > limits.maxBytes) throw new RangeError("larger than the whole spool");
      if (known === undefined) {
        if (!files.exists(directory)) files.makeDirectory(directory, { mode: DIRECTORY_MODE });
        scan();
      }
      const waiting = known ?? scan();
      makeRoom(waiting, bytes);
      const file = writeNew(text);
      const expiresAt = clock.monotonic() + limits.maxAgeMs;
      waiting.set(nameOf(file), {
        path: file,
        size: bytes,
        modifiedMs: clock.now(),
        byAgent: true,
        expiresAt,
      });
      total += bytes;
      seenMtime = UNCERTAIN;
      return true;
    } catch {
      // An event is never worth more than what it tells about; the loss is counted and reported (TEL-33).
      dropped += 1;
      return false;
    }
  };

  return {
    add,
    list: () => {
      const waiting = current();
      const now = clock.monotonic();
      for (const file of byName(waiting)) {
        if (now < file.expiresAt) continue;
        discard(file);
        dropped += 1;
      }
      return byName(waiting);
    },
    remove: discard,
    takeDropped: () => {
      const count = dropped;
      dropped = 0;
      return count;
    },
  };
}

function byName(waiting: ReadonlyMap<string, SpoolFile>): SpoolFile[] {
  return [...waiting.entries()]
    .sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0))
    .map(([, file]) => file);
}
