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
})[] = [
  {
    where: "role-properties",
    only: "ours",
    why: "We send the SSH host key's fingerprint; 2.7.3 and 2.15 compute it and drop it (provisioning.md HLTH-08)",
  },
];

/** Members of the status document that differ in some stage of the scenario. */
export const STATUS_DIFFERENCES: readonly Difference[] = [
  {
    where: "aggregateStatus.guestAgentStatus.version",
    why: "Each tells its own version",
  },
  {
    where: "guestOSInfo.version",
    why: "Each tells its own version",
  },
  {
    where: "supportedFeatures.*",
    why: "2.7.3 has no Fast Track, 2.15 tells that it has it (wire-protocol.md STAT-20)",
  },
];
