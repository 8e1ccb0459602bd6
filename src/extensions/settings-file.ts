import type { SettingsGoal } from "../azure/goal-state.ts";
import { formatJson, type Json } from "../base/json.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { configOf, sequenceFile, statusOf, type HandlerRef, type Layout } from "./layout.ts";

/** Text of a settings file: key order, blanks and null members as extensions know them (`extensions.md` EXT-54). */
export function settingsText(settings: SettingsGoal): string {
  return formatJson(
    new Map<string, Json>([
      [
        "runtimeSettings",
        [
          new Map<string, Json>([
            [
              "handlerSettings",
              new Map<string, Json>([
                ["publicSettings", settings.publicSettings],
                ["protectedSettings", settings.protectedSettings],
                ["protectedSettingsCertThumbprint", settings.thumbprint],
              ]),
            ],
          ]),
        ],
      ],
    ]),
  );
}

/**
 * Writes the settings that the next command is to use. Extensions take the newest settings file, so this is the
 * last one written and no older one is touched (EXT-56). Without settings it is an empty `0.settings` (EXT-23).
 * Of each extension the newest hundred settings and status files stay: a disk has only so many inodes.
 */
export function writeSettings(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
  settings: SettingsGoal | undefined,
  options: { readonly multiConfig: boolean },
): SystemPath {
  const config = configOf(layout, handler);
  const sequence = settings?.sequence ?? 0;
  const extension = options.multiConfig ? settings?.name : undefined;
  const file = join(config, sequenceFile(sequence, "settings", extension));
  system.files.makeDirectory(config, { mode: 0o700 });
  removeOldest(system, config, { kind: "settings", sequence, extension });
  removeOldest(system, statusOf(layout, handler), { kind: "status", sequence, extension });
  system.files.write(file, settings === undefined ? "" : settingsText(settings), { mode: 0o600 });
  return file;
}

const KEPT_FILES = 100;

/** Makes room for one more file; the one of the sequence itself stays. What cannot be removed stays, too. */
function removeOldest(
  system: Pick<System, "files">,
  folder: SystemPath,
  about: {
    readonly kind: "settings" | "status";
    readonly sequence: number;
    readonly extension: string | undefined;
  },
): void {
  const { kind, sequence, extension } = about;
  const prefix = extension === undefined ? "" : `${extension}.`;
  const names = system.files
    .list(folder)
    .filter(
      (name) =>
        name.startsWith(prefix) &&
        name.endsWith(`.${kind}`) &&
        /^\d+$/.test(name.slice(prefix.length, -kind.length - 1)),
    );
  if (names.length < KEPT_FILES) return;
  const oldest = names
    .filter((name) => name !== sequenceFile(sequence, kind, extension))
    .map((name) => join(folder, name))
    .map((file) => ({ file, modifiedMs: system.files.lstat(file)?.modifiedMs ?? 0 }))
    .toSorted((a, b) => a.modifiedMs - b.modifiedMs);
  for (const { file } of oldest.slice(0, names.length - KEPT_FILES + 1)) {
    try {
      system.files.remove(file);
    } catch {
      // it is only in the way of the disk's limits, and tried again with the next settings
    }
  }
}
