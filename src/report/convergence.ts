import type { HandlerReport } from "../azure/vm-status.ts";

/** Name and status of one reported entry: the extension's where there is one, else the handler's (EXT-116). */
export interface SummaryEntry {
  readonly name: string;
  readonly status: string | null;
}

/** What the extensions of a goal state have come to (`wire-protocol.md` STAT-51). */
export interface ExtensionsSummary {
  /** Sorted by name; equal names keep their order in the report. */
  readonly entries: readonly SummaryEntry[];
  /** Every entry has reached a state that will not change by itself. */
  readonly converged: boolean;
  /** `[('Pub.Ext', 'success')]`: the text that is logged, sent, and kept in `initial_goal_state` (FILE-17). */
  readonly text: string;
}

/** Name of the file in the library directory whose existence says that a goal state has converged once (FILE-17). */
export const INITIAL_GOAL_STATE_FILE = "initial_goal_state";

const TERMINAL: ReadonlySet<string | null> = new Set(["success", "error", "Ready", "NotReady"]);

export function summarizeExtensions(handlers: readonly HandlerReport[]): ExtensionsSummary {
  const entries = handlers
    .flatMap((handler): readonly SummaryEntry[] =>
      handler.extensions.length === 0
        ? [{ name: handler.name, status: handler.status }]
        : handler.extensions.map(({ status }) => ({
            name: status.name ?? handler.name,
            status: status.status,
          })),
    )
    .toSorted((left, right) => (left.name < right.name ? -1 : left.name > right.name ? 1 : 0));
  return {
    entries,
    converged: entries.every((entry) => TERMINAL.has(entry.status)),
    text: `[${entries.map((entry) => `(${literal(entry.name)}, ${literal(entry.status)})`).join(", ")}]`,
  };
}

/** A text as Python prints it inside a list: the form that tools and older agents know. */
function literal(text: string | null): string {
  if (text === null) return "None";
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text
    .replaceAll("\\", "\\\\")
    .replaceAll("\n", "\\n")
    .replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t");
  return `${quote}${quote === "'" ? escaped.replaceAll("'", "\\'") : escaped}${quote}`;
}
