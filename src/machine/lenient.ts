import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/**
 * Text in which others may have put any bytes: names of mount points, files and processes, what a device says of
 * itself. Bytes that are no UTF-8 become U+FFFD, so that one such name does not hide all the others. Empty when there
 * is no such file. Errors: AgentError "io" when it cannot be read.
 */
export function readLenient(system: Pick<System, "files">, file: SystemPath): string {
  if (!system.files.exists(file)) return "";
  return new TextDecoder("utf-8").decode(system.files.read(file));
}
