/**
 * Exit codes of the command line. Decision for `provisioning.md` DB-19 and `system.md` BET-17: what fails is not 0;
 * 0 stays for help (also when an unknown argument led to it, CLI-02), for version, for an answer of "no", and for a
 * daemon that already runs, because init scripts and image pipelines rely on these.
 */
export const EXIT = {
  ok: 0,
  failure: 1,
  /** `status`, `explain`, `doctor`: something has failed, or keeps the agent from its work. */
  degraded: 2,
  /** `status`: no agent runs (as in LSB init scripts). */
  notRunning: 3,
  /** Arguments of an operator command that make no sense (EX_USAGE). */
  usage: 64,
  /** A command this version does not have (EX_SOFTWARE). */
  notBuilt: 70,
} as const;
