/** One thing that is wrong, in the order in which a reader asks: what, where, why, and what now. */
export interface Finding {
  /** A word for machines that stays the same. */
  readonly id: FindingId;
  /** What it is about: an address, a file, an extension. */
  readonly object: string;
  /** What is wrong with it, as a sentence without its full stop. */
  readonly problem: string;
  /** How we know, or what caused it. */
  readonly reason: string;
  /** What to do next. */
  readonly next: string;
}

export type FindingId =
  | "agent-disabled"
  | "agent-not-running"
  | "certificate-mismatch"
  | "clock-skew"
  | "command-hangs"
  | "command-timeout"
  | "configuration"
  | "disk-full"
  | "dns"
  | "extension-failed"
  | "firewall-absent"
  | "firewall-self-block"
  | "goal-state-failed"
  | "malformed-status"
  | "missing-interpreter"
  | "no-route"
  | "noexec"
  | "not-executable"
  | "platform-silent"
  | "policy-deny"
  | "policy-invalid"
  | "provisioning-failed"
  | "proxy-407"
  | "proxy-unusable"
  | "resource-disk-failed"
  | "sas-expired"
  | "stale-heartbeat"
  | "status-upload-failed"
  | "storage-silent"
  | "wrong-architecture";

/** What a check found; "unseen" when it could not look, so that nothing is called well that is not known. */
export type Found = readonly Finding[] | "unseen";

export function isFound(found: Found): boolean {
  return found !== "unseen" && found.length > 0;
}

/** One line. */
export function formatFinding({ id, object, problem, reason, next }: Finding): string {
  const why = reason === "" ? "" : ` (${oneLine(reason)})`;
  return `${id}: ${object}: ${oneLine(problem)}${why}. Next: ${oneLine(next)}.`;
}

const MAX_SHOWN = 600;

function oneLine(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > MAX_SHOWN ? `${line.slice(0, MAX_SHOWN)}...` : line;
}
