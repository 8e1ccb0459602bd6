import { AgentError } from "../base/error.ts";
import { Secret } from "../base/secret.ts";
import { descendant, descendants, parseXml, type XmlElement } from "../base/xml.ts";

/** The provisioning document of the platform, `ovf-env.xml` (`provisioning.md` §2), after all checks. */
export interface OvfEnvironment {
  readonly hostName: string;
  readonly userName: string;
  /** undefined when none is wanted, or when this is the redacted copy of the document (`isRedacted`). */
  readonly password: Secret | undefined;
  /** There was a password, but somebody has put a placeholder in its place. */
  readonly isRedacted: boolean;
  readonly disablePasswordAuthentication: boolean;
  readonly publicKeys: readonly PublicKeyEntry[];
  readonly keyPairs: readonly KeyPairEntry[];
  /** Base64 text as written; undefined when there is none. */
  readonly customData: string | undefined;
  /** As written; only "false" in any case turns the agent off (OVF-23). */
  readonly provisionGuestAgent: string;
  /** Oddities that are no errors, e.g. a newer version (OVF-03). */
  readonly warnings: readonly string[];
}

/** Every field may be missing here; what is needed is judged where it is used (SSH-20). */
export interface PublicKeyEntry {
  readonly path: string | undefined;
  readonly fingerprint: string | undefined;
  readonly value: string | undefined;
}

export interface KeyPairEntry {
  readonly path: string | undefined;
  readonly fingerprint: string | undefined;
}

export const OVF_NAMESPACE = "http://schemas.dmtf.org/ovf/environment/1";
export const WA_NAMESPACE = "http://schemas.microsoft.com/windowsazure";

const SUPPORTED_VERSION = "1.0";
/** What we (`*`), the Python agent (`*`) and cloud-init (`REDACTED`) leave in the place of a password. */
const PLACEHOLDERS: readonly string[] = ["*", "REDACTED"];
const MAX_USER_NAME = 32;
const MAX_HOST_NAME = 253;

/**
 * Errors: AgentError "bad-input" that names the element: `<Element> not found` when a required one is missing or
 * empty (OVF-04), the reason when host or user name cannot be used (DB-02). Never contains the password.
 */
export function parseOvf(text: string, what = "ovf-env.xml"): OvfEnvironment {
  const root = parseXml(text, what);
  if (root.local !== "Environment" || root.namespace !== OVF_NAMESPACE)
    throw missing("Environment", what);
  const section = required(root, "ProvisioningSection", what);
  const version = requiredText(root, "Version", what).trim();
  const configuration = required(section, "LinuxProvisioningConfigurationSet", what);
  const hostName = requiredText(configuration, "HostName", what).trim();
  const userName = requiredText(configuration, "UserName", what).trim();
  checkHostName(hostName, what);
  checkUserName(userName, what);
  const password = textOf(configuration, "UserPassword");
  const settings = required(
    required(root, "PlatformSettingsSection", what),
    "PlatformSettings",
    what,
  );
  const isRedacted = [...descendantsOfAnyNamespace(configuration, "UserPassword")].some(
    (element) => element.text !== undefined && PLACEHOLDERS.includes(element.text),
  );

  return {
    hostName,
    userName,
    password: password === undefined || isRedacted ? undefined : new Secret(password),
    isRedacted,
    disablePasswordAuthentication:
      textOf(configuration, "DisableSshPasswordAuthentication")?.toLowerCase() === "true",
    publicKeys: [...descendants(configuration, "PublicKey", WA_NAMESPACE)].map((entry) => ({
      path: trimmedText(entry, "Path"),
      fingerprint: trimmedText(entry, "Fingerprint"),
      value: trimmedText(entry, "Value"),
    })),
    keyPairs: [...descendants(configuration, "KeyPair", WA_NAMESPACE)].map((entry) => ({
      path: trimmedText(entry, "Path"),
      fingerprint: trimmedText(entry, "Fingerprint"),
    })),
    customData: trimmedText(configuration, "CustomData"),
    provisionGuestAgent: requiredText(settings, "ProvisionGuestAgent", what),
    warnings:
      version > SUPPORTED_VERSION
        ? [
            `${what} has version ${JSON.stringify(version)}, newer than ${SUPPORTED_VERSION}: parts of it may not be understood`,
          ]
        : [],
  };
}

/** OVF-23: the platform wants no agent on this VM. */
export function isAgentUnwanted(document: Pick<OvfEnvironment, "provisionGuestAgent">): boolean {
  return document.provisionGuestAgent.toLowerCase() === "false";
}

/** UTF-8, with or without byte order mark (OVF-01, DVD-05). Errors: AgentError "bad-input". */
export function decodeOvf(bytes: Uint8Array, what = "ovf-env.xml"): string {
  const hasMark = bytes.length > 3 && bytes.subarray(0, 3).every((byte) => byte > 128);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(hasMark ? bytes.subarray(3) : bytes);
  } catch (error) {
    throw new AgentError("bad-input", `${what} is not UTF-8 text`, { cause: error });
  }
}

/** A name that sshd, sudo and useradd take without quoting, and that can never be read as an option (DB-02). */
export function checkUserName(name: string, what: string): void {
  const reason =
    name.length > MAX_USER_NAME
      ? `it has more than ${MAX_USER_NAME} characters`
      : !/^[A-Za-z_]/.test(name)
        ? "it must begin with a letter or an underscore"
        : !/^[A-Za-z0-9_.-]+$/.test(name)
          ? "only letters, digits, '.', '_' and '-' are allowed"
          : undefined;
  if (reason !== undefined)
    throw new AgentError("bad-input", `${what}: UserName ${shown(name)} cannot be used: ${reason}`);
}

/** A label or a fully qualified name as in RFC 1123 (DB-02). */
export function checkHostName(name: string, what: string): void {
  const labels = name.split(".");
  const reason =
    name.length > MAX_HOST_NAME
      ? `it has more than ${MAX_HOST_NAME} characters`
      : labels.some((label) => label.length > 63)
        ? "a part of it has more than 63 characters"
        : labels.some((label) => !/^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?$/.test(label))
          ? "each part must consist of letters, digits and inner hyphens"
          : undefined;
  if (reason !== undefined)
    throw new AgentError("bad-input", `${what}: HostName ${shown(name)} cannot be used: ${reason}`);
}

/**
 * The same document with `<UserPassword>*</UserPassword>` in the place of every password, whatever its prefix,
 * attributes, lines or CDATA (DVD-06, DB-03). Works on the well-formed text, so everything else stays as it is.
 * Errors: AgentError "bad-input" when the document is not well-formed, so that nothing unredacted is ever saved.
 */
export function redactOvf(text: string, what = "ovf-env.xml"): string {
  parseXml(text, what);
  let result = "";
  let at = 0;
  for (const tag of passwordTags(text)) {
    result += `${text.slice(at, tag.open)}<UserPassword>*</UserPassword>`;
    at = tag.end;
  }
  result += text.slice(at);
  return result;
}

/** Positions of whole UserPassword elements. Comments and CDATA sections are stepped over, not searched. */
function* passwordTags(text: string): Generator<{ open: number; end: number }> {
  const token =
    /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<(\/?)([^\s<>/]+)((?:"[^"]*"|'[^']*'|[^<>"'])*?)(\/?)>/g;
  let open: number | undefined;
  let depth = 0;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const name = match[2];
    if (name === undefined || (name.split(":").at(-1) ?? "") !== "UserPassword") continue;
    const closes = match[1] === "/";
    const isEmpty = match[4] === "/";
    if (!closes && isEmpty) continue;
    if (!closes) {
      if (depth === 0) open = match.index;
      depth += 1;
      continue;
    }
    depth -= 1;
    if (depth !== 0 || open === undefined) continue;
    const whole = text.slice(open, token.lastIndex);
    // An empty element hides nothing, and has to go on meaning "no password".
    if (!/^<[^>]*><\/[^>]*>$/.test(whole)) yield { open, end: token.lastIndex };
  }
}

function required(element: XmlElement, name: string, what: string): XmlElement {
  const found = descendant(element, name, WA_NAMESPACE);
  if (found === undefined) throw missing(name, what);
  return found;
}

function requiredText(element: XmlElement, name: string, what: string): string {
  const text = textOf(element, name);
  if (text === undefined) throw missing(name, what);
  return text;
}

/** First element of that name at any depth (OVF-02); an empty text is no text. */
function textOf(element: XmlElement, name: string): string | undefined {
  const text = descendant(element, name, WA_NAMESPACE)?.text;
  return text === "" ? undefined : text;
}

/** The placeholder is written without prefix (DVD-06), so its namespace says nothing. */
function* descendantsOfAnyNamespace(element: XmlElement, local: string): Generator<XmlElement> {
  for (const candidate of element.children) {
    if (candidate.local === local) yield candidate;
    yield* descendantsOfAnyNamespace(candidate, local);
  }
}

function trimmedText(element: XmlElement, name: string): string | undefined {
  const text = textOf(element, name)?.trim();
  return text === "" ? undefined : text;
}

function missing(name: string, what: string): AgentError {
  return new AgentError("bad-input", `${name} not found in ${what}`);
}

function shown(name: string): string {
  return JSON.stringify(name.length <= 80 ? name : `${name.slice(0, 77)}...`);
}
