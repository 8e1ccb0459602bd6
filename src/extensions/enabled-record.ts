import { createHash } from "node:crypto";
import type { SettingsGoal } from "../azure/goal-state.ts";
import { describe } from "../base/error.ts";
import { formatJson, JsonReader, toJson } from "../base/json.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { displayName, ownStateOf, type HandlerRef, type Layout } from "./layout.ts";
import { bootId } from "./run-once.ts";
import { settingsText } from "./settings-file.ts";

/**
 * Which extensions were enabled for the goal state at hand since the machine was booted, on disk: with
 * `Extensions.SkipUnchanged=y` an agent that is restarted does not enable them once more (`extensions.md` DB-37). A
 * new goal state does, as does a boot, after which many handlers start their programs in enable (EXT-11, EXT-12).
 */
export interface EnabledRecord {
  has(goal: string, entry: EnabledEntry): boolean;
  /** Never throws: without the record enable runs once more. */
  add(goal: string, entry: EnabledEntry): void;
}

export interface EnabledEntry {
  readonly handler: HandlerRef;
  readonly extension: string | undefined;
  readonly settings: SettingsGoal | undefined;
}

interface Document {
  readonly goal: string;
  readonly bootId: string;
  /** By display name, what was enabled: version, sequence number and a digest of the settings. */
  readonly enabled: Readonly<Record<string, string>>;
}

const VERSION = 1;

export function createEnabledRecord(
  system: Pick<System, "files" | "log">,
  layout: Layout,
): EnabledRecord {
  const file = join(ownStateOf(layout), "enabled.json");
  const boot = bootId(system);
  let known = readDocument(system, file);
  const current = (goal: string): Document =>
    known?.goal === goal && known.bootId === boot ? known : { goal, bootId: boot, enabled: {} };
  return {
    has: (goal, entry) => boot !== "" && current(goal).enabled[keyOf(entry)] === valueOf(entry),
    add: (goal, entry) => {
      const before = current(goal);
      const next = { ...before, enabled: { ...before.enabled, [keyOf(entry)]: valueOf(entry) } };
      try {
        system.files.makeDirectory(ownStateOf(layout), { mode: 0o700 });
        const text = formatJson(toJson({ version: VERSION, ...next }));
        system.files.write(file, text, { mode: 0o600 });
        known = next;
      } catch (error) {
        system.log.warning(`${file} could not be written: ${describe(error)}`);
      }
    },
  };
}

function keyOf({ handler, extension }: EnabledEntry): string {
  return displayName(handler.name, extension).toLowerCase();
}

function valueOf({ handler, settings }: EnabledEntry): string {
  const text = settings === undefined ? "" : settingsText(settings);
  const digest = createHash("sha256").update(text).digest("hex");
  return `${handler.version} ${settings?.sequence ?? 0} ${digest}`;
}

function readDocument(
  system: Pick<System, "files" | "log">,
  file: SystemPath,
): Document | undefined {
  try {
    const text = system.files.readTextIfExists(file, { maxBytes: 4 * 1024 * 1024 });
    if (text === undefined) return undefined;
    const reader = JsonReader.parse(text, file);
    if (reader.get("version").integer() !== VERSION) return undefined;
    const enabled = [...reader.get("enabled").object().keys()].map(
      (key) => [key, reader.get("enabled").get(key).string()] as const,
    );
    return {
      goal: reader.get("goal").string(),
      bootId: reader.get("bootId").string(),
      enabled: Object.fromEntries(enabled),
    };
  } catch (error) {
    system.log.warning(`${file} is ignored: ${describe(error)}`);
    return undefined;
  }
}
