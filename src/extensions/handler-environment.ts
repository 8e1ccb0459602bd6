import { describe } from "../base/error.ts";
import { formatJson, JsonNumber } from "../base/json.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { baseOf, eventsOf, logFolderOf, type HandlerRef, type Layout } from "./layout.ts";
import { listHandlers } from "./store.ts";

/** Text of `HandlerEnvironment.json`; shell scripts cut it with sed, so every byte counts (`extensions.md` EXT-52). */
export function handlerEnvironment(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
): string {
  const base = system.files.realPath(baseOf(layout, handler));
  const events = system.files.realPath(eventsOf(layout, handler.name));
  return formatJson([
    new Map<string, string | JsonNumber | Map<string, string>>([
      ["name", handler.name],
      ["version", new JsonNumber("1.0")],
      [
        "handlerEnvironment",
        new Map([
          ["logFolder", system.files.realPath(logFolderOf(layout, handler.name))],
          ["configFolder", `${base}/config`],
          ["statusFolder", `${base}/status`],
          ["heartbeatFile", `${base}/heartbeat.log`],
          ["eventsFolder", events],
          ["eventsFolder_preview", events],
        ]),
      ],
    ]),
  ]);
}

/** Writes the file and makes the folders it names (EXT-48). Errors: AgentError "io". */
export function writeHandlerEnvironment(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
): void {
  const { files } = system;
  const base = baseOf(layout, handler);
  files.makeDirectory(join(base, "status"), { mode: 0o700 });
  files.makeDirectory(join(base, "config"), { mode: 0o700 });
  files.makeDirectory(logFolderOf(layout, handler.name), { mode: 0o755, keepMode: true });
  files.makeDirectory(eventsOf(layout, handler.name), { mode: 0o700 });
  files.write(join(base, "HandlerEnvironment.json"), handlerEnvironment(system, layout, handler), {
    mode: 0o644,
  });
}

/** EXT-53: at every start for every handler directory, so that changed paths reach installed handlers. */
export function refreshHandlerEnvironments(
  system: Pick<System, "files" | "log">,
  layout: Layout,
): void {
  for (const handler of listHandlers(system, layout)) {
    if (!system.files.exists(join(baseOf(layout, handler), "HandlerManifest.json"))) continue;
    try {
      writeHandlerEnvironment(system, layout, handler);
    } catch (error) {
      system.log.warning(
        `The environment of ${handler.name} ${handler.version} was not refreshed: ${describe(error)}`,
      );
    }
  }
}
