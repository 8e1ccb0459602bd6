import type { ExtensionsGoalState } from "../../src/azure/goal-state.ts";

/**
 * A goal in a few short lines, so that a table of them can be read: `time blob hold sequence`, families as
 * `name/version/from/fromRsm/enabled/uris`, and handlers as `state manifests [multi] [signed] settings...`, where
 * settings are `sequence:state:level:values:targets` with p for public and x for protected values.
 */
export function goalText(goal: ExtensionsGoalState): string[] {
  const flag = (value: boolean | undefined): string =>
    value === undefined ? "" : value ? "y" : "n";
  return [
    [
      goal.createdAt,
      goal.statusBlob?.type ?? "no blob",
      goal.onHold ? "held" : "free",
      ...goal.requiredFeatures.map((name) => `+${name}`),
    ].join(" "),
    goal.agentFamilies
      .map((family) =>
        [
          family.name,
          family.version ?? "",
          family.fromVersion ?? "",
          flag(family.isVersionFromRsm),
          flag(family.isVmEnabledForRsmUpgrades),
          family.uris.length,
        ].join("/"),
      )
      .join(" "),
    ...goal.handlers.map((handler) =>
      [
        handler.state,
        handler.manifestUris.length,
        ...(handler.multiConfig ? ["multi"] : []),
        ...(handler.encodedSignature === "" ? [] : ["signed"]),
        ...(handler.invalid === undefined ? [] : ["INVALID"]),
        ...handler.settings.map((settings) =>
          [
            settings.sequence,
            settings.state === "enabled" ? "on" : "off",
            settings.dependencyLevel,
            `${settings.publicSettings === null ? "-" : "p"}${settings.protectedSettings === null ? "-" : "x"}`,
            settings.dependsOn.length,
          ].join(":"),
        ),
      ].join(" "),
    ),
  ];
}
