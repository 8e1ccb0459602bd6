/** Errors: what we tell ourselves (AgentError) and what the platform is told (Failure). */

/** Why something failed, for code that has to decide; texts are for people. */
export type ErrorCode =
  | "bad-input" // a document, file or argument that does not have the shape it must have
  | "cancelled" // the caller's signal was aborted
  | "config"
  | "crypt" // openssl, hashes, certificates
  | "dhcp"
  | "exec" // a program ended with an exit code that was not allowed
  | "exec-timeout"
  | "gone" // HTTP 410: container or role config is stale
  | "http" // a request failed: I/O, or a status that is not a success
  | "invalid-container" // HTTP 400 with InvalidContainerConfiguration
  | "io" // file system
  | "not-supported"
  | "program-missing"
  | "protocol" // the WireServer or the host plugin did not answer as the protocol says
  | "protocol-not-found"
  | "provision"
  | "refused" // we could, but must not
  | "resource-disk"
  | "os-utility"; // a change of the machine (user, key, host name) failed

export interface AgentErrorOptions {
  readonly cause?: unknown;
  /** errno name of the file system or network error below, e.g. "ENOSPC". */
  readonly errno?: string | undefined;
  /** HTTP status or exit code, where there was one. */
  readonly status?: number | undefined;
}

/** An error whose message is written for an operator: it names the object and what was being done to it. */
export class AgentError extends Error {
  readonly code: ErrorCode;
  readonly errno: string | undefined;
  readonly status: number | undefined;

  constructor(code: ErrorCode, message: string, options: AgentErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AgentError";
    this.code = code;
    this.errno = options.errno ?? errnoOf(options.cause);
    this.status = options.status;
  }
}

/**
 * What the platform is told about a failed operation.
 * `code` is a number of `extensions.md` §21.2; `operation` a telemetry operation name of §21.5.
 */
export interface Failure {
  readonly code: number;
  readonly operation: string;
  readonly message: string;
}

/** The whole chain in one line: "could not write A: disk full". Never a stack, never a source excerpt. */
export function describe(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  for (let depth = 0; current !== undefined && current !== null && depth < 8; depth += 1) {
    const message = current instanceof Error ? current.message : String(current);
    const previous = parts.at(-1);
    if (message !== "" && (previous === undefined || !previous.includes(message)))
      parts.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.length === 0 ? "unknown error" : parts.join(": ");
}

/** errno name ("ENOENT") of a node error, also when it is wrapped. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof AgentError) return error.errno;
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  const code = error.code;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) ? code : undefined;
}

/** True for AgentErrors of one of the given codes. */
export function isAgentError(error: unknown, ...codes: readonly ErrorCode[]): error is AgentError {
  return error instanceof AgentError && (codes.length === 0 || codes.includes(error.code));
}
