import type { SettingsGoal } from "../azure/goal-state.ts";
import { formatJson, type Json } from "../base/json.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { configOf, sequenceFile, type HandlerRef, type Layout } from "./layout.ts";

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
 */
export function writeSettings(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
  settings: SettingsGoal | undefined,
  options: { readonly multiConfig: boolean },
): SystemPath {
  const config = configOf(layout, handler);
  const name =
    settings === undefined
      ? "0.settings"
      : sequenceFile(
          settings.sequence,
          "settings",
          options.multiConfig ? settings.name : undefined,
        );
  const file = join(config, name);
  system.files.makeDirectory(config, { mode: 0o700 });
  system.files.write(file, settings === undefined ? "" : settingsText(settings), { mode: 0o600 });
  return file;
}
