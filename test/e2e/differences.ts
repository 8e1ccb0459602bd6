/**
 * Where our agent deliberately, or for its version, differs from Debian's waagent 2.7.3 in what the platform sees. The
 * differential test fails on a difference that is not listed here, and on a listed one that is gone.
 */
export interface Difference {
  /** Name of a request kind, or path in the status document ("*" stands for any list index). */
  readonly where: string;
  readonly why: string;
}

/** Kinds of requests that only one of both sends. */
export const REQUEST_DIFFERENCES: readonly (Difference & {
  readonly only: "ours" | "reference";
})[] = [];

/** Members of the status document that differ after every stage of the scenario. */
export const STATUS_DIFFERENCES: readonly Difference[] = [];
