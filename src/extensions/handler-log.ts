import * as zlib from "node:zlib";
import { describe } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { fullName, logFolderOf, type HandlerRef, type Layout } from "./layout.ts";

/** A larger log is compressed and begun anew (`extensions.md` EXT-85, DB-15). */
const MAX_BYTES = 10 * 1024 * 1024;

/** The system with a logger for one handler: its prefix, and a copy of every line in the handler's own log. */
export function handlerLog(
  system: System,
  layout: Layout,
  handler: HandlerRef,
  extension?: string,
): System {
  const prefix = `[${fullName(handler, extension)}]`;
  const also = logFileOf(layout, handler.name, extension);
  return { ...system, log: system.log.named({ prefix, also }) };
}

/** Makes the log folder, whose mode is only set when it is new, and rotates a log that has grown. Never throws. */
export function prepareHandlerLog(
  system: Pick<System, "files" | "log">,
  layout: Layout,
  handler: HandlerRef,
  extension: string | undefined,
): void {
  const file = logFileOf(layout, handler.name, extension);
  try {
    system.files.makeDirectory(logFolderOf(layout, handler.name), { mode: 0o755, keepMode: true });
    if ((system.files.stat(file)?.size ?? 0) <= MAX_BYTES) return;
    const packed = zlib.gzipSync(system.files.read(file));
    system.files.write(`${file}.1.gz`, packed, { mode: 0o640, durable: false });
    system.files.remove(file);
  } catch (error) {
    system.log.warning(`The log ${file} could not be prepared: ${describe(error)}`);
  }
}

function logFileOf(layout: Layout, name: string, extension: string | undefined): SystemPath {
  return join(
    logFolderOf(layout, name),
    extension === undefined ? "CommandExecution.log" : `CommandExecution_${extension}.log`,
  );
}
