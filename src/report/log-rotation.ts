import { describe } from "../base/error.ts";
import { parentOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { Monitor } from "./monitors.ts";

/**
 * Rotation for machines without logrotate. Its rule moves the agent's log at 20 MB (`system.md` LOG-09), once a day as a
 * rule; only a log that has become twice as long has nobody who looks after it.
 */
export const ROTATE_AT_BYTES = 40 * 1024 * 1024;
/** On a small disk that is too late: there each file may have this part of it. */
const PART_OF_DISK = 1 / 16;
const KEPT = 3;
const PERIOD_MS = 3_600_000;

export function logRotation(system: Pick<System, "files" | "log">, file: SystemPath): Monitor {
  return {
    name: "RotateLog",
    periodMs: PERIOD_MS,
    run: async () => rotateLog(system, file),
  };
}

/** `file` becomes `file.1`, `file.1` becomes `file.2`, ...; the oldest goes. The log is opened for each line. */
export function rotateLog(
  system: Pick<System, "files" | "log">,
  file: SystemPath,
  limit = rotationLimit(system, file),
): void {
  const { files, log } = system;
  const info = files.lstat(file);
  if (info?.kind !== "file" || info.size < limit) return;
  try {
    for (let number = KEPT - 1; number >= 0; number -= 1) {
      const from = (number === 0 ? file : `${file}.${number}`) as SystemPath;
      if (files.exists(from)) files.rename(from, `${file}.${number + 1}`);
    }
  } catch (error) {
    log.warning(`The log could not be rotated: ${describe(error)}`);
    return;
  }
  log.info(
    `${file} had ${info.size} bytes and was moved to ${file}.1; logrotate does not look after it`,
  );
}

function rotationLimit(system: Pick<System, "files">, file: SystemPath): number {
  const capacity = system.files.freeSpace(parentOf(file))?.capacity ?? Infinity;
  return Math.min(ROTATE_AT_BYTES, capacity * PART_OF_DISK);
}
