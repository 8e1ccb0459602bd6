import { AgentError } from "../base/error.ts";
import { formatJson, toJson } from "../base/json.ts";
import { loadConfig } from "../config/load.ts";
import { detectDistro } from "../distro/detect.ts";
import { parseDirectoryName } from "../extensions/layout.ts";
import {
  checkPolicy,
  isAllowed,
  isSignatureRequired,
  type Policy,
  type PolicyCheck,
} from "../extensions/policy.ts";
import { readAgentState } from "../report/agent-state.ts";
import { writeStdout } from "../system/process.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { earlySystem } from "./early.ts";
import { EXIT } from "./exit-codes.ts";
import type { OperatorData } from "./operator-commands.ts";
import { configurationPath } from "./run.ts";

/** What a policy means for one handler. */
export interface PolicyDecision {
  readonly handler: string;
  readonly allowed: boolean;
  readonly signatureRequired: boolean;
}

/**
 * `waagent policy check`: everything that is wrong with a policy file, by JSON pointer, and what it means for the
 * handlers that are installed (`extensions.md` DB-27). Exit 0 when it is valid, 1 otherwise.
 */
export async function checkPolicyFile(
  data: OperatorData,
  options: { readonly file?: string | undefined; readonly json?: boolean | undefined },
): Promise<number> {
  const system = earlySystem(data.root);
  const { configPath } = await detectDistro(system);
  const { config } = loadConfig(system, { configured: undefined, preferred: configPath });
  const file =
    options.file === undefined
      ? (config["Policy.PolicyFilePath"] as SystemPath)
      : configurationPath(options.file, data.root);
  const text = system.files.readTextIfExists(file, { maxBytes: 4 * 1024 * 1024 });
  if (text === undefined)
    throw new AgentError(
      "bad-input",
      `There is no policy file ${file}: every extension is allowed`,
    );
  const check = checkPolicy(text, file);
  const lib = config["Lib.Dir"] as SystemPath;
  const names = installedHandlers(system, lib);
  const decisions = check.ok ? decide(check.policy, names) : [];
  const report = { file, enabled: config["Debug.EnableExtensionPolicy"], decisions };
  writeStdout(options.json === true ? policyJson(check, report) : policyText(check, report));
  return check.ok ? EXIT.ok : EXIT.failure;
}

/** By their folders; whoever is not root gets the names that the running agent tells. */
function installedHandlers(system: Pick<System, "files">, lib: SystemPath): readonly string[] {
  try {
    const names = system.files
      .list(lib)
      .filter((name) => system.files.exists(join(lib, name, "config", "HandlerState")))
      .flatMap((name) => parseDirectoryName(name)?.name ?? []);
    return [...new Set(names)];
  } catch {
    return (readAgentState(system)?.handlers ?? []).map(({ name }) => name);
  }
}

export function decide(policy: Policy, handlers: readonly string[]): readonly PolicyDecision[] {
  return handlers.map((handler) => ({
    handler,
    allowed: isAllowed(policy, handler),
    signatureRequired: isSignatureRequired(policy, handler),
  }));
}

export interface PolicyReport {
  readonly file: string;
  /** `Debug.EnableExtensionPolicy`. */
  readonly enabled: boolean;
  readonly decisions: readonly PolicyDecision[];
}

export function policyText(check: PolicyCheck, report: PolicyReport): string {
  const { file, enabled, decisions } = report;
  if (!check.ok)
    return check.problems
      .map(({ pointer, message }) => `${file}: ${pointer === "" ? "" : `${pointer} `}${message}\n`)
      .join("");
  const { policy } = check;
  return [
    `${file}: no problems`,
    ...(enabled ? [] : ["Debug.EnableExtensionPolicy is not y, so the policy has no effect"]),
    policy.allowListedOnly
      ? `Only these are allowed: ${[...policy.extensions.keys()].join(", ") || "none"}`
      : "Every extension is allowed",
    ...decisions.map(
      (one) =>
        `  ${one.handler}: ${one.allowed ? "allowed" : "NOT allowed: it keeps running, and is neither enabled nor uninstalled"}${one.signatureRequired ? ", needs a valid signature" : ""}`,
    ),
    "",
  ].join("\n");
}

export function policyJson(check: PolicyCheck, report: PolicyReport): string {
  return `${formatJson(toJson({ ...report, valid: check.ok, problems: check.ok ? [] : check.problems }))}\n`;
}
