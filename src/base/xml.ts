import { XMLParser } from "fast-xml-parser";
import { AgentError } from "./error.ts";

/**
 * Strict XML reader. A document with a DOCTYPE is refused, so there are no entities to expand; a document
 * that is not well-formed is an error naming it. Reads the subset that the platform's documents use.
 */
export interface XmlElement {
  /** Name as written, prefix included (`wire-protocol.md` WIRE-07). */
  readonly name: string;
  /** Name without prefix. */
  readonly local: string;
  /** Namespace URI in force, or "". */
  readonly namespace: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly children: readonly XmlElement[];
  /**
   * First text node, untrimmed, or the CDATA content when the rest is blank; undefined when there is neither
   * (`wire-protocol.md` WIRE-08, `provisioning.md` OVF-02).
   */
  readonly text: string | undefined;
}

const MAX_CHARACTERS = 16 * 1024 * 1024;
const MAX_DEPTH = 100;

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: "",
  attributesGroupName: false,
  textNodeName: "#text",
  cdataPropName: "#cdata",
  commentPropName: "#comment",
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  htmlEntities: true,
});

/** Errors: AgentError "bad-input"; the message begins with `what`. */
export function parseXml(text: string, what: string): XmlElement {
  const body = text.startsWith("\uFEFF") ? text.slice(1) : text;
  if (body.length > MAX_CHARACTERS) {
    throw new AgentError(
      "bad-input",
      `${what} is too large for an XML document of the platform (${body.length} characters)`,
    );
  }
  if (/<!DOCTYPE/i.test(body))
    throw new AgentError("bad-input", `${what} has a DOCTYPE, which is not allowed`);
  const start = body.trimStart();
  if (!start.startsWith("<")) {
    const hint =
      start === "" ? "it is empty" : `it starts with ${JSON.stringify(start.slice(0, 40))}`;
    throw new AgentError("bad-input", `${what} is not XML: ${hint}`);
  }
  if (body.slice(body.lastIndexOf(">") + 1).trim() !== "") {
    throw new AgentError("bad-input", `${what} has text behind its root element`);
  }
  let nodes: unknown;
  try {
    nodes = parser.parse(body, true);
  } catch (error) {
    throw new AgentError("bad-input", `${what} is not well-formed XML`, { cause: error });
  }
  const roots = toElements(nodes as RawNode[], new Map(), 0, what);
  const root = roots[0];
  if (root === undefined || roots.length !== 1) {
    throw new AgentError(
      "bad-input",
      `${what} must have exactly one root element, it has ${roots.length}`,
    );
  }
  // Error pages of proxies and gateways can be well-formed, and a reader that only looks for elements by name would
  // take one for an empty document.
  if (root.local.toLowerCase() === "html")
    throw new AgentError("bad-input", `${what} is an HTML page`);
  return root;
}

/** First child element with that name. */
export function child(element: XmlElement | undefined, name: string): XmlElement | undefined {
  return element?.children.find((candidate) => candidate.name === name);
}

/** All child elements with that name. */
export function childrenOf(element: XmlElement | undefined, name: string): readonly XmlElement[] {
  return element?.children.filter((candidate) => candidate.name === name) ?? [];
}

/** First element with that name below `element`, at any depth, in document order. */
export function descendant(
  element: XmlElement | undefined,
  name: string,
  namespace?: string,
): XmlElement | undefined {
  for (const found of descendants(element, name, namespace)) return found;
  return undefined;
}

/** All elements with that name below `element`, in document order. With a namespace, names are local names. */
export function* descendants(
  element: XmlElement | undefined,
  name: string,
  namespace?: string,
): Generator<XmlElement> {
  for (const candidate of element?.children ?? []) {
    if (
      namespace === undefined
        ? candidate.name === name
        : candidate.local === name && candidate.namespace === namespace
    ) {
      yield candidate;
    }
    yield* descendants(candidate, name, namespace);
  }
}

/** Text of the first such descendant, trimmed; undefined when absent or blank. */
export function descendantText(element: XmlElement | undefined, name: string): string | undefined {
  const text = descendant(element, name)?.text?.trim();
  return text === undefined || text === "" ? undefined : text;
}

/** Text for an element's content: `&`, `<`, `>` escaped. */
export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Characters XML 1.0 cannot carry in any form, replaced by U+FFFD. */
export function toXmlCharacters(text: string): string {
  // deno-lint-ignore no-control-regex
  return text
    .toWellFormed()
    .replace(/[\u0000-\u0008\u000B\u000C\u000E-\u001F\uFFFE\uFFFF]/g, "\uFFFD");
}

type RawNode = Record<string, unknown> & { ":@"?: Record<string, string> };

function toElements(
  nodes: readonly RawNode[],
  inherited: ReadonlyMap<string, string>,
  depth: number,
  what: string,
): XmlElement[] {
  if (depth > MAX_DEPTH)
    throw new AgentError("bad-input", `${what} is nested deeper than ${MAX_DEPTH} elements`);
  const elements: XmlElement[] = [];
  for (const node of nodes) {
    const name = Object.keys(node).find((key) => key !== ":@");
    if (name === undefined || name.startsWith("#")) continue;
    const attributes = new Map(Object.entries(node[":@"] ?? {}));
    const namespaces = withDeclarations(inherited, attributes);
    const colon = name.indexOf(":");
    const content = node[name] as RawNode[];
    elements.push({
      name,
      local: colon === -1 ? name : name.slice(colon + 1),
      namespace: namespaces.get(colon === -1 ? "" : name.slice(0, colon)) ?? "",
      attributes,
      children: toElements(content, namespaces, depth + 1, what),
      text: textOf(content),
    });
  }
  return elements;
}

function withDeclarations(
  inherited: ReadonlyMap<string, string>,
  attributes: ReadonlyMap<string, string>,
): ReadonlyMap<string, string> {
  let namespaces: Map<string, string> | undefined;
  for (const [key, value] of attributes) {
    if (key !== "xmlns" && !key.startsWith("xmlns:")) continue;
    namespaces ??= new Map(inherited);
    namespaces.set(key === "xmlns" ? "" : key.slice(6), value);
  }
  return namespaces ?? inherited;
}

function textOf(content: readonly RawNode[]): string | undefined {
  let first: string | undefined;
  let cdata: string | undefined;
  for (const node of content) {
    if (typeof node["#text"] === "string") first ??= node["#text"];
    const sections = node["#cdata"];
    if (Array.isArray(sections)) {
      for (const section of sections as RawNode[]) {
        if (typeof section["#text"] === "string") cdata = (cdata ?? "") + section["#text"];
      }
    }
  }
  if (cdata !== undefined && (first === undefined || first.trim() === "")) return cdata;
  return first;
}
