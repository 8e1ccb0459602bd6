import type { ExtensionsGoalState, HandlerGoal, SettingsGoal } from "../azure/goal-state.ts";
import {
  displayName,
  extensionNameProblem,
  nameProblem,
  sameName,
  versionProblem,
} from "./layout.ts";

/**
 * What a pass over a goal state will do, decided without touching anything (`extensions.md` §3, §13).
 * The order is that of the items; `after` and `needs` say which of them have to wait for which.
 */
export type Plan =
  | { readonly outcome: "on-hold" }
  | { readonly outcome: "unsupported"; readonly features: readonly string[] }
  | { readonly outcome: "process"; readonly items: readonly WorkItem[] };

export interface WorkItem {
  /** Position in the order of execution. */
  readonly index: number;
  /** `<Handler>` or `<Handler>.<Ext>`. */
  readonly label: string;
  readonly handler: HandlerGoal;
  /** undefined for a handler without settings. */
  readonly settings: SettingsGoal | undefined;
  /** Negative for removals (SEQ-02). */
  readonly level: number;
  readonly action: "enable" | "disable-extension" | "disable" | "uninstall" | "invalid" | "refuse";
  /** Only for "refuse" and "invalid": what the platform is told. */
  readonly refusal: Refusal | undefined;
  /** Items that must be over, however they ended. */
  readonly after: readonly number[];
  /** Items that must have succeeded, with a status that says so; else this one is skipped (SEQ-03..07, DB-03). */
  readonly needs: readonly number[];
}

export interface Refusal {
  readonly code: number;
  readonly operation: string;
  readonly message: string;
  /** Overwrites a status file of the extension (POL-06, EXT-20); else only one that is missing is written. */
  readonly overwritesStatus: boolean;
  /** Dependants are skipped (POL-07); otherwise each item has a refusal of its own anyway. */
  readonly failsDependants: boolean;
}

export interface PlanOptions {
  /** `EnableOverProvisioning` (EXT-15). */
  readonly honourOnHold: boolean;
  /** Names the platform may require (EXT-16). */
  readonly features: readonly string[];
  /** Says why a handler must not be processed; undefined when it may. */
  readonly refuse?: (handler: HandlerGoal) => Refusal | undefined;
}

export function plan(goal: ExtensionsGoalState, options: PlanOptions): Plan {
  if (goal.onHold && options.honourOnHold) return { outcome: "on-hold" };
  const missing = goal.requiredFeatures.filter((name) => !options.features.includes(name));
  if (missing.length > 0) return { outcome: "unsupported", features: missing };

  const drafts = goal.handlers.flatMap((handler) => {
    const checked = withProblem(handler, goal.handlers);
    const refusal = refusalOf(checked, options);
    const entries = checked.settings.length === 0 ? [undefined] : checked.settings;
    return entries.map((settings) => ({
      handler: checked,
      settings,
      refusal,
      level: levelOf(checked, settings),
      label: displayName(checked.name, checked.multiConfig ? settings?.name : undefined),
      action: refusal === undefined ? actionOf(checked, settings) : refusal.kind,
    }));
  });
  // toSorted is stable: items of one level keep the order of the goal state (SEQ-01).
  const sorted = drafts.toSorted((a, b) => a.level - b.level);
  const items = sorted.map((draft, index): WorkItem => {
    const before = sorted.slice(0, index).map((other, position) => ({ ...other, position }));
    const isRefusedAnyway = draft.refusal !== undefined && !draft.refusal.refusal.failsDependants;
    const needs = draft.level < 0 || isRefusedAnyway ? [] : neededBy(draft, before);
    const after = before
      .filter(
        (other) =>
          // One command for a handler at a time, in the order of the plan (DB-01).
          sameName(other.handler.name, draft.handler.name) ||
          // Removals come first, in the reverse order of dependencies (SEQ-02).
          (other.level < 0 && other.level < draft.level),
      )
      .map((other) => other.position);
    return {
      index,
      label: draft.label,
      handler: draft.handler,
      settings: draft.settings,
      level: draft.level,
      action: draft.action,
      refusal: draft.refusal?.refusal,
      after,
      needs,
    };
  });
  return { outcome: "process", items };
}

/** One line for each item, for logs and tests: `3 enable A.x level 1 after 0,1 needs 2`. */
export function printPlan(of: Plan): string {
  if (of.outcome === "on-hold") return "on hold: nothing is processed";
  if (of.outcome === "unsupported") return `unsupported features: ${of.features.join(", ")}`;
  return of.items
    .map((item) =>
      [
        `${item.index} ${item.action} ${item.label} level ${item.level}`,
        ...(item.after.length === 0 ? [] : [`after ${item.after.join(",")}`]),
        ...(item.needs.length === 0 ? [] : [`needs ${item.needs.join(",")}`]),
      ].join(" "),
    )
    .join("\n");
}

type Draft = Pick<WorkItem, "handler" | "settings" | "level" | "label">;

/** SEQ-02: removals get negative levels, the most dependent ones first. */
function levelOf(handler: HandlerGoal, settings: SettingsGoal | undefined): number {
  const level = settings?.dependencyLevel ?? 0;
  const isRemoval =
    (handler.state !== undefined && handler.state !== "enabled") ||
    (handler.multiConfig && settings?.state === "disabled");
  return isRemoval ? -level - 1 : level;
}

/**
 * What an item depends on (DB-02, DB-03). Where the goal state names it and the named items come earlier, it is
 * those; where it does not, everything of a lower level (SEQ-07).
 */
function neededBy(
  draft: Draft,
  before: readonly (Draft & { readonly position: number })[],
): number[] {
  if (draft.level === 0) return [];
  const lower = before.filter((other) => other.level >= 0 && other.level < draft.level);
  const named = draft.settings?.dependsOn ?? [];
  const found = named.map(({ handler, extension }) =>
    lower.filter(
      (other) =>
        sameName(other.handler.name, handler) &&
        (extension === undefined ||
          !other.handler.multiConfig ||
          other.settings?.name === extension),
    ),
  );
  const isWhole = found.length > 0 && found.every((matches) => matches.length > 0);
  const needed = isWhole ? found.flat() : lower;
  return [...new Set(needed.map((other) => other.position))].sort((a, b) => a - b);
}

function actionOf(handler: HandlerGoal, settings: SettingsGoal | undefined): WorkItem["action"] {
  if (handler.state === "uninstall") return "uninstall";
  if (handler.state === "disabled") return "disable";
  return handler.multiConfig && settings?.state === "disabled" ? "disable-extension" : "enable";
}

function refusalOf(
  handler: HandlerGoal,
  options: PlanOptions,
): { readonly kind: "refuse" | "invalid"; readonly refusal: Refusal } | undefined {
  const refusal = options.refuse?.(handler);
  if (refusal !== undefined) return { kind: "refuse", refusal };
  if (handler.invalid === undefined) return undefined;
  return {
    kind: "invalid",
    refusal: {
      code: -1,
      operation: "InvalidExtensionConfig",
      message: `The extension's configuration in the goal state is not valid: ${handler.invalid}`,
      overwritesStatus: false,
      failsDependants: true,
    },
  };
}

/** Names become parts of paths and commands; what cannot be one is an invalid configuration of that handler only. */
function withProblem(handler: HandlerGoal, all: readonly HandlerGoal[]): HandlerGoal {
  const twins = all.filter((other) => sameName(other.name, handler.name));
  const problem =
    nameProblem(handler.name) ??
    versionProblem(handler.version) ??
    handler.invalid ??
    (handler.state === undefined
      ? "its state is none of enabled, disabled, uninstall"
      : undefined) ??
    (twins.length > 1 && twins[0] !== handler
      ? "the goal state names it more than once"
      : undefined) ??
    (handler.multiConfig
      ? handler.settings.map((entry) => extensionNameProblem(entry.name)).find(Boolean)
      : undefined) ??
    handler.settings
      .filter((entry) => !Number.isSafeInteger(entry.sequence) || entry.sequence < 0)
      .map((entry) => `its sequence number ${entry.sequence} is not a whole number`)[0];
  return problem === handler.invalid ? handler : { ...handler, invalid: problem };
}
