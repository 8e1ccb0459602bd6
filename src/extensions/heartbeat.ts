import { describe } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { baseOf, type HandlerRef, type Layout } from "./layout.ts";

/** What a handler's own service says about itself (`extensions.md` §10). */
export type Heartbeat =
  | { readonly state: "fresh"; readonly status: string; readonly message: string | undefined }
  | { readonly state: "stale" }
  | { readonly state: "broken"; readonly reason: string };

const FRESH_MS = 600_000;
const MAX_BYTES = 1024 * 1024;

/** Never throws: a file of any shape is "broken" with its reason (EXT-107, EXT-123). */
export function readHeartbeat(
  system: Pick<System, "files" | "clock">,
  layout: Layout,
  handler: HandlerRef,
): Heartbeat {
  const file = join(baseOf(layout, handler), "heartbeat.log");
  try {
    const stat = system.files.stat(file);
    if (stat === undefined)
      return { state: "broken", reason: `The heartbeat file ${file} does not exist` };
    const reader = JsonReader.parse(system.files.readText(file, { maxBytes: MAX_BYTES }), file);
    const first = reader.items()[0] ?? new JsonReader(undefined, file, "/0");
    const heartbeat = first.get("heartbeat");
    const status = heartbeat.get("status").string();
    if (system.clock.now() - stat.modifiedMs > FRESH_MS) return { state: "stale" };
    const message = heartbeat.get("formattedMessage").get("message").value;
    return {
      state: "fresh",
      status,
      message: typeof message === "string" ? message : undefined,
    };
  } catch (error) {
    return { state: "broken", reason: `The heartbeat cannot be read: ${describe(error)}` };
  }
}
