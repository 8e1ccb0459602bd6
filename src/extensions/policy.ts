import { describe } from "../base/error.ts";
import { JsonNumber, parseJson, type Json, type JsonObject } from "../base/json.ts";
import { compareVersions } from "../base/version.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

/** The operator's policy for extensions (`extensions.md` §11). */
export interface Policy {
  readonly version: string;
  readonly allowListedOnly: boolean;
  readonly signatureRequired: boolean;
  /** Keys in lower case: names are looked up without case (POL-02). */
  readonly extensions: ReadonlyMap<string, { readonly signatureRequired: boolean | undefined }>;
}

/** One thing that is wrong, with the JSON pointer to it; "" is the whole document. */
export interface PolicyProblem {
  readonly pointer: string;
  readonly message: string;
}

export type PolicyCheck =
  | { readonly ok: true; readonly policy: Policy }
  | { readonly ok: false; readonly problems: readonly PolicyProblem[] };

/** Highest schema that is understood. */
export const POLICY_VERSION = "0.1.0";
const VERSION_TEXT = /^\d+(\.\d+(\.\d+)?)?$/;
const MAX_BYTES = 4 * 1024 * 1024;
const MAX_SHOWN = 80;

/** Checks the whole document and names everything that is wrong, not only the first (POL-02, DB-27). */
export function checkPolicy(text: string, what: string): PolicyCheck {
  let document: Json;
  try {
    document = parseJson(text, what);
  } catch (error) {
    return { ok: false, problems: [{ pointer: "", message: describe(error) }] };
  }
  const problems: PolicyProblem[] = [];
  const fail = (pointer: string, message: string): undefined => {
    problems.push({ pointer, message });
    return undefined;
  };
  const object = (value: Json | undefined, pointer: string, allowed: readonly string[] | "any") => {
    if (!(value instanceof Map)) return fail(pointer, `must be an object, it is ${shown(value)}`);
    const map = value as JsonObject;
    if (allowed !== "any")
      for (const key of map.keys())
        if (!allowed.includes(key))
          fail(child(pointer, key), `is not a known key; known are ${allowed.join(", ")}`);
    return map;
  };
  const flag = (map: JsonObject | undefined, key: string, pointer: string): boolean | undefined => {
    const value = map?.get(key);
    if (value === undefined || typeof value === "boolean") return value;
    return fail(child(pointer, key), `must be true or false, it is ${shown(value)}`);
  };

  const top = object(document, "", ["policyVersion", "extensionPolicies"]);
  const version = top === undefined ? "" : versionIn(top, fail);
  const section = top?.get("extensionPolicies");
  const at = "/extensionPolicies";
  const policies =
    section === undefined || section === null
      ? undefined
      : object(section, at, ["allowListedExtensionsOnly", "signatureRequired", "extensions"]);
  const allowListedOnly = flag(policies, "allowListedExtensionsOnly", at) ?? false;
  const signatureRequired = flag(policies, "signatureRequired", at) ?? false;
  const list = policies?.get("extensions");
  const listAt = child(at, "extensions");
  const named = list === undefined ? undefined : object(list, listAt, "any");
  const extensions = new Map<string, { signatureRequired: boolean | undefined }>();
  for (const [name, value] of named ?? []) {
    const pointer = child(listAt, name);
    const entry = object(value, pointer, ["signatureRequired", "runtimePolicy"]);
    extensions.set(fold(name), { signatureRequired: flag(entry, "signatureRequired", pointer) });
  }
  if (problems.length > 0) return { ok: false, problems };
  return { ok: true, policy: { version, allowListedOnly, signatureRequired, extensions } };
}

/** POL-03: by handler, whatever its extensions are called. */
export function isAllowed(policy: Policy, handler: string): boolean {
  return !policy.allowListedOnly || policy.extensions.has(fold(handler));
}

/** The handler's own value, else the one for all (POL-10). */
export function isSignatureRequired(policy: Policy, handler: string): boolean {
  return policy.extensions.get(fold(handler))?.signatureRequired ?? policy.signatureRequired;
}

/** `/a/b: must be ...; /c: ...`, short enough for a status (DB-29). */
export function describeProblems(problems: readonly PolicyProblem[]): string {
  const lines = problems.map(({ pointer, message }) =>
    pointer === "" ? message : `${pointer} ${message}`,
  );
  const some = lines.slice(0, 5).join("; ");
  return lines.length > 5 ? `${some}; and ${lines.length - 5} more` : some;
}

export type PolicyState =
  | { readonly state: "off" }
  | { readonly state: "on"; readonly policy: Policy; readonly text: string }
  | { readonly state: "invalid"; readonly reason: string; readonly text: string | undefined };

/** Read anew for every pass (POL-01): off unless it is enabled and the file is there; unreadable fails closed (POL-05). */
export function readPolicy(
  system: Pick<System, "files">,
  file: SystemPath,
  options: { readonly enabled: boolean },
): PolicyState {
  if (!options.enabled) return { state: "off" };
  let text: string | undefined;
  try {
    if (system.files.lstat(file) === undefined) return { state: "off" };
    text = system.files.readText(file, { maxBytes: MAX_BYTES });
  } catch (error) {
    return { state: "invalid", reason: describe(error), text: undefined };
  }
  const check = checkPolicy(text, file);
  return check.ok
    ? { state: "on", policy: check.policy, text }
    : { state: "invalid", reason: describeProblems(check.problems), text };
}

function versionIn(top: JsonObject, fail: (pointer: string, message: string) => undefined): string {
  const value = top.get("policyVersion");
  const pointer = "/policyVersion";
  if (typeof value !== "string" || !VERSION_TEXT.test(value) || value.length > 50) {
    fail(
      pointer,
      value === undefined
        ? 'is missing; it must be a text such as "0.1.0"'
        : `must be a text such as "0.1.0", it is ${shown(value)}`,
    );
    return "";
  }
  if (compareVersions(value, POLICY_VERSION) > 0)
    fail(pointer, `is ${value}, this agent knows versions up to ${POLICY_VERSION}`);
  return value;
}

function child(pointer: string, key: string): string {
  return `${pointer}/${key.replaceAll("~", "~0").replaceAll("/", "~1").slice(0, MAX_SHOWN)}`;
}

function fold(name: string): string {
  return name.toUpperCase().toLowerCase();
}

function shown(value: Json | undefined): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (typeof value === "string") return JSON.stringify(value.slice(0, MAX_SHOWN));
  if (value instanceof JsonNumber) return `the number ${value.text.slice(0, MAX_SHOWN)}`;
  if (typeof value === "boolean") return String(value);
  return Array.isArray(value) ? "an array" : "an object";
}
