import { AgentError, describe, isAgentError, type ErrorCode } from "../base/error.ts";
import type { Secret } from "../base/secret.ts";

/** The bracketed class that tools look for in a provisioning error (`provisioning.md` §10). */
const CLASSES: Readonly<Partial<Record<ErrorCode, string>>> = {
  "bad-input": "ProtocolError",
  protocol: "ProtocolError",
  "protocol-not-found": "ProtocolNotFoundError",
  http: "ProtocolError",
  gone: "ProtocolError",
  "invalid-container": "ProtocolError",
  dhcp: "DhcpError",
  provision: "ProvisionError",
};

/**
 * What the platform is told about a failed provisioning: `[ProvisionError] Failed to provision: [OSUtilError] ...`,
 * the cause on a new line after `Inner error: `. Every secret of the run is taken out, whoever put it there.
 */
export function failureText(error: unknown, secrets: readonly Secret[]): string {
  return withoutSecrets(nested(error), secrets);
}

/** A failed change of the machine, as a step of provisioning reports it (ERR-03..05). */
export function failedToProvision(error: unknown): AgentError {
  if (
    error instanceof AgentError &&
    CLASSES[error.code] !== undefined &&
    error.code !== "bad-input"
  )
    return error;
  return new AgentError("provision", "Failed to provision", { cause: error });
}

/** The agent is being ended: nothing failed, and nothing is told; the next start goes on. */
export function isCancelled(error: unknown): boolean {
  let current = error;
  for (let depth = 0; depth < 8 && current instanceof Error; depth += 1) {
    if (isAgentError(current, "cancelled")) return true;
    current = current.cause;
  }
  return false;
}

function nested(error: unknown): string {
  if (!(error instanceof AgentError)) return `[ProvisionError] ${describe(error)}`;
  if (error.code === "provision" && error.cause instanceof AgentError)
    return `[ProvisionError] ${error.message}: ${nested(error.cause)}`;
  const own = `[${CLASSES[error.code] ?? "OSUtilError"}] ${error.message}`;
  return error.cause === undefined ? own : `${own}\nInner error: ${describe(error.cause)}`;
}

function withoutSecrets(text: string, secrets: readonly Secret[]): string {
  let result = text;
  for (const secret of secrets) {
    const value = secret.reveal();
    if (value !== "") result = result.replaceAll(value, "[secret]");
  }
  return result;
}
