import { isAgentError } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { Config } from "../config/table.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * What an unfinished provisioning has done so far. It is there from the first change of the machine until the platform
 * knows the outcome, so a run that was interrupted between any two steps goes on where it was (DB-27).
 */
export interface Journal {
  readonly version: 1;
  /** The VM it belongs to; in a captured image it means nothing. */
  readonly vmId: string;
  /** Names of finished steps. */
  readonly done: readonly string[];
  /** Whether the document had a password: its saved copy does not say. */
  readonly hadPassword: boolean | undefined;
  /** The DVD to hand back once the password is set. */
  readonly device: string | undefined;
  /** Number of the last run of custom data, 0 before the first. */
  readonly customDataRun: number;
}

export function emptyJournal(vmId: string): Journal {
  return {
    version: 1,
    vmId,
    done: [],
    hadPassword: undefined,
    device: undefined,
    customDataRun: 0,
  };
}

export function journalPath(config: Pick<Config, "Lib.Dir">): SystemPath {
  return join(config["Lib.Dir"] as SystemPath, "provisioning.json");
}

/** undefined when there is none, when it is another VM's, or when it cannot be understood: then all is done again. */
export function readJournal(
  system: Pick<System, "files" | "log">,
  config: Pick<Config, "Lib.Dir">,
  vmId: string,
): Journal | undefined {
  const file = journalPath(config);
  try {
    const text = system.files.readTextIfExists(file);
    if (text === undefined) return undefined;
    const reader = JsonReader.parse(text, file);
    if (reader.get("version").integer() !== 1 || reader.get("vmId").string() !== vmId)
      return undefined;
    return {
      version: 1,
      vmId,
      done: reader
        .get("done")
        .items()
        .map((item) => item.string()),
      hadPassword: reader.get("hadPassword").optionalBoolean(),
      device: reader.get("device").optionalString(),
      customDataRun: reader.get("customDataRun").integer(),
    };
  } catch (error) {
    if (!isAgentError(error, "bad-input")) throw error;
    system.log.warning(`Provisioning starts from its beginning: ${error.message}`);
    return undefined;
  }
}

export function writeJournal(
  system: Pick<System, "files">,
  config: Pick<Config, "Lib.Dir">,
  journal: Journal,
): void {
  system.files.write(journalPath(config), `${JSON.stringify(journal)}\n`, { mode: 0o600 });
}
