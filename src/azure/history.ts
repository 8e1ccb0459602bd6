import { describe } from "../base/error.ts";
import { createZip } from "../system/archive-writer.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { HistoryEntry, OpenHistory } from "./history-entry.ts";
import { redactExtensionsConfig, redactHostingEnvironment, redactVmSettings } from "./redaction.ts";

/**
 * The last goal states, without their secrets, for whoever has to find out what happened (`wire-protocol.md` §19).
 * Bounded in entries, bytes and age, also when every update fails.
 *
 *     const history = createHistory(system, libDir);
 *     history.begin("7-1234567890").save("ExtensionsConfig.xml", text);
 *     history.current()?.save("waagent_status.json", status);
 *     await history.archive();
 */
export interface History {
  /** The folder of a goal state. The tag of the folder in use gives that folder again (DB-19). */
  readonly begin: OpenHistory;
  /** The folder of the last goal state; undefined before the first. */
  current(): HistoryEntry | undefined;
  /** After a new extensions goal was processed: every folder but the newest becomes a zip (HIST-04). */
  archive(): Promise<void>;
}

export interface HistoryLimits {
  /** Folders and zips together. Default 50 (HIST-03). */
  readonly entries?: number;
  /** Default 16 MiB. */
  readonly bytes?: number;
  /** Default 90 days; the newest five stay, whatever the clock says. */
  readonly ageMs?: number;
}

interface Entry {
  readonly name: string;
  readonly changedMs: number;
  readonly bytes: number;
}

const ARCHIVABLE =
  /^\d{4}-\d{2}-\d{2}T\d{2}[:-]\d{2}[:-]\d{2}(?:\.\d+)?(?:_incarnation)?_+(?:\d+|status)(?:-\d+)?$/;
const NEWEST_KEPT = 5;
const MAX_LOGGED_ERRORS = 4;
const REDACTORS: Readonly<Record<string, (text: string) => string>> = {
  "ExtensionsConfig.xml": redactExtensionsConfig,
  "HostingEnvironmentConfig.xml": redactHostingEnvironment,
  "VmSettings.json": redactVmSettings,
};

export function createHistory(
  system: Pick<System, "root" | "files" | "clock" | "log">,
  libDir: SystemPath,
  limits: HistoryLimits = {},
): History {
  const directory = join(libDir, "history");
  const maxEntries = limits.entries ?? 50;
  const maxBytes = limits.bytes ?? 16 * 1024 * 1024;
  const maxAgeMs = limits.ageMs ?? 90 * 24 * 3600_000;
  let errors = 0;
  let used:
    { readonly tag: string; readonly name: string; readonly entry: HistoryEntry } | undefined;

  const complain = (doing: string, error: unknown): void => {
    errors += 1;
    if (errors <= MAX_LOGGED_ERRORS)
      system.log.warning(`Could not ${doing} the goal state history: ${describe(error)}`);
    if (errors === MAX_LOGGED_ERRORS + 1)
      system.log.warning("More errors of the goal state history will not be logged");
  };

  /** Oldest first, by inode change time. */
  const entries = (): Entry[] =>
    system.files
      .list(directory)
      .flatMap((name) => {
        const info = system.files.lstat(join(directory, name));
        if (info === undefined) return [];
        const bytes = info.kind === "directory" ? folderBytes(join(directory, name)) : info.size;
        return [{ name, changedMs: info.changedMs, bytes }];
      })
      .toSorted((a, b) => a.changedMs - b.changedMs || (a.name < b.name ? -1 : 1));

  const folderBytes = (folder: SystemPath): number =>
    system.files
      .list(folder)
      .reduce((sum, name) => sum + (system.files.lstat(join(folder, name))?.size ?? 0), 0);

  /**
   * Removes the oldest until everything fits, with room for what is about to be written; `keep` always stays.
   * Returns the bytes that are left. What cannot be bounded is not written: errors go to the caller.
   */
  const purge = (keep: string, room: { entries: number; bytes: number }): number => {
    const present = entries();
    const now = system.clock.now();
    let count = present.length;
    let bytes = present.reduce((sum, entry) => sum + entry.bytes, 0);
    for (const entry of present) {
      const tooMany = count + room.entries > maxEntries || bytes + room.bytes > maxBytes;
      const tooOld = count > NEWEST_KEPT && now - entry.changedMs > maxAgeMs;
      if (!tooMany && !tooOld) break;
      if (entry.name === keep) continue;
      system.files.remove(join(directory, entry.name));
      count -= 1;
      bytes -= entry.bytes;
    }
    return bytes;
  };

  const nameOf = (tag: string): string => {
    const time = new Date(system.clock.now()).toISOString().slice(0, 19).replaceAll(":", "-");
    return `${time}__${safeName(tag)}`;
  };

  const createEntry = (name: string): HistoryEntry => {
    const folder = join(directory, name);
    let created = false;
    let warned = false;
    /** Bytes of the whole history when it was last looked through, and what was written since. */
    let inUse = 0;
    return {
      save: (fileName, text) => {
        try {
          const content = (REDACTORS[fileName] ?? ((same) => same))(text);
          const bytes = Buffer.byteLength(content);
          if (bytes > maxBytes / 2) {
            system.log.verbose(`${fileName} is too large for the history (${bytes} bytes)`);
            return;
          }
          const file = join(folder, safeName(fileName));
          const growth = bytes - (created ? (system.files.stat(file)?.size ?? 0) : 0);
          if (!created || inUse + growth > maxBytes)
            inUse = purge(name, { entries: created ? 0 : 1, bytes: growth });
          inUse += growth;
          if (!created) {
            if (!system.files.exists(directory))
              system.files.makeDirectory(directory, { mode: 0o700 });
            system.files.makeDirectory(folder, { mode: 0o700 });
            created = true;
          }
          system.files.write(file, content, { mode: 0o600, durable: false });
        } catch (error) {
          if (!warned) complain(`save ${fileName} in`, error);
          warned = true;
        }
      },
    };
  };

  const archiveFolder = async (name: string): Promise<void> => {
    const folder = join(directory, name);
    const zip = createZip(system, join(directory, `${name}.zip`));
    try {
      for (const file of system.files.list(folder)) await zip.addFile(file, join(folder, file));
      zip.close();
    } finally {
      zip.abort();
    }
    system.files.remove(folder);
  };

  return {
    begin: (tag, { aside = false } = {}) => {
      if (aside) return createEntry(nameOf(tag));
      if (used?.tag !== tag) {
        const name = nameOf(tag);
        used = { tag, name, entry: createEntry(name) };
      }
      return used.entry;
    },
    current: () => used?.entry,
    archive: async () => {
      try {
        const folders = entries().filter(
          ({ name }) => system.files.lstat(join(directory, name))?.kind === "directory",
        );
        // Names of one second do not sort by age: the folder in use is the newest, if this process has one.
        const newest =
          used?.name ??
          folders
            .map(({ name }) => name)
            .toSorted()
            .at(-1);
        for (const { name } of folders)
          if (name !== newest && ARCHIVABLE.test(name)) await archiveFolder(name);
      } catch (error) {
        complain("archive", error);
      }
    },
  };
}

/** Tags and handler names come from outside: no separators, no leading dot, not longer than a file name may be. */
function safeName(text: string): string {
  return text
    .replace(/[^\w.+-]/g, "_")
    .replace(/^\.+/, "_")
    .slice(0, 120);
}
