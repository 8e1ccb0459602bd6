import { describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * What was begun on the temporary disk and not finished: what a reset cut short may be done again, although the disk
 * is not blank any more. There is no note when all is well (`system.md` DISK-20).
 */
export interface DiskNote {
  /** PARTUUID of a partition, or UUID of an array, that is being formatted. */
  readonly formatting?: string;
  /** Identities of the disks that are being joined. */
  readonly joining?: readonly string[];
}

type Needs = Pick<System, "files" | "log">;
type Keys = Pick<Config, "Lib.Dir">;

const STATE_FILE = "waagent-resource-disk.json";

/** On disk before the first byte of the work itself is. */
export function writeNote(system: Needs, config: Keys, note: DiskNote): void {
  system.files.makeDirectory(config["Lib.Dir"], { mode: 0o700, keepMode: true });
  system.files.write(noteFile(config), `${JSON.stringify({ version: 1, ...note })}\n`);
}

/** Emptied durably first: a note that came back after a power cut would have what is in use by then formatted. */
export function removeNote(system: Needs, config: Keys): void {
  writeNote(system, config, {});
  system.files.remove(noteFile(config));
}

/** A file that cannot be understood says nothing. */
export function readNote(system: Needs, config: Keys): DiskNote {
  const file = noteFile(config);
  try {
    const text = system.files.readTextIfExists(file);
    if (text === undefined) return {};
    const json = JsonReader.parse(text, file);
    const formatting = json.get("formatting").optionalString() ?? "";
    const joining = json.get("joining");
    return {
      ...(formatting === "" ? {} : { formatting }),
      ...(joining.isAbsent ? {} : { joining: joining.items().map((entry) => entry.string()) }),
    };
  } catch (error) {
    system.log.warning(`Ignoring ${file}: ${describe(error)}`);
    return {};
  }
}

function noteFile(config: Keys): SystemPath {
  return join(config["Lib.Dir"], STATE_FILE);
}
