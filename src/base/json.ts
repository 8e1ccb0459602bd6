import { AgentError } from "./error.ts";

/**
 * Lossless JSON. Numbers keep their text and objects their key order, because settings must reach an
 * extension as the platform wrote them (`extensions.md` EXT-10; `wire-protocol.md` TRAP-03).
 */
export type Json = null | boolean | string | JsonNumber | readonly Json[] | JsonObject;
export type JsonObject = ReadonlyMap<string, Json>;

/** A JSON number as written, e.g. `9223372036854775808` or `1.0`. */
export class JsonNumber {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  toNumber(): number {
    return Number(this.text);
  }
}

const MAX_DEPTH = 200;

/** Errors: AgentError "bad-input" naming `what`, line and column. */
export function parseJson(text: string, what: string): Json {
  return new Parser(text, what).document();
}

/** Text forms: "spaced" is `{"a": 1, "b": [2]}` in ASCII, the layout shell extensions cut (EXT-54); "compact" has no blanks. */
export function formatJson(value: Json, style: "spaced" | "compact" = "spaced"): string {
  const comma = style === "spaced" ? ", " : ",";
  const colon = style === "spaced" ? ": " : ":";
  const write = (node: Json): string => {
    if (node === null || typeof node === "boolean") return String(node);
    if (typeof node === "string") return quoteAscii(node);
    if (node instanceof JsonNumber) return node.text;
    if (node instanceof Map) {
      return `{${[...node].map(([key, item]) => `${quoteAscii(key)}${colon}${write(item)}`).join(comma)}}`;
    }
    return `[${(node as readonly Json[]).map(write).join(comma)}]`;
  };
  return write(value);
}

/** A plain JavaScript value as lossless JSON; undefined members are left out. `float` numbers via JsonNumber. */
export function toJson(value: unknown): Json {
  if (value === null || value === undefined) return null;
  if (typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number" || typeof value === "bigint") return new JsonNumber(String(value));
  if (value instanceof JsonNumber) return value;
  if (Array.isArray(value)) return value.map(toJson);
  const entries =
    value instanceof Map ? [...(value as Map<string, unknown>)] : Object.entries(value);
  return new Map(
    entries.filter(([, item]) => item !== undefined).map(([key, item]) => [key, toJson(item)]),
  );
}

/** The JavaScript value; big numbers lose digits, so only for values that are looked at, not passed on. */
export function toPlain(value: Json): unknown {
  if (value instanceof JsonNumber) return value.toNumber();
  if (value instanceof Map) {
    const result: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    for (const [key, item] of value) result[key] = toPlain(item);
    return result;
  }
  if (Array.isArray(value)) return (value as readonly Json[]).map(toPlain);
  return value;
}

/** A string literal with everything outside ASCII escaped as \uXXXX (`wire-protocol.md` STAT-21). */
export function quoteAscii(text: string): string {
  const quoted = JSON.stringify(text);
  // Most text is ASCII, and counting its bytes is much faster than looking at each character.
  if (Buffer.byteLength(quoted) === quoted.length) return quoted;
  return quoted.replace(
    /[\u0080-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Reads a value step by step; every error names document and path: `status file x: /0/status/code must be ...`.
 * `get` on anything but an object gives a missing reader, so paths can be followed without checks in between.
 */
export class JsonReader {
  readonly value: Json | undefined;
  readonly what: string;
  readonly path: string;

  constructor(value: Json | undefined, what: string, path = "") {
    this.value = value;
    this.what = what;
    this.path = path;
  }

  static parse(text: string, what: string): JsonReader {
    return new JsonReader(parseJson(text, what), what);
  }

  get isMissing(): boolean {
    return this.value === undefined;
  }

  /** Missing or null. */
  get isAbsent(): boolean {
    return this.value === undefined || this.value === null;
  }

  get(key: string): JsonReader {
    const member = this.value instanceof Map ? (this.value as JsonObject).get(key) : undefined;
    return new JsonReader(member, this.what, `${this.path}/${key}`);
  }

  /** Like `get`, keys compared without case; an exact match wins (`wire-protocol.md` §10.3). */
  getIgnoreCase(key: string): JsonReader {
    const exact = this.get(key);
    if (!exact.isMissing || !(this.value instanceof Map)) return exact;
    const lower = key.toLowerCase();
    for (const [name, member] of this.value as JsonObject) {
      if (name.toLowerCase() === lower)
        return new JsonReader(member, this.what, `${this.path}/${name}`);
    }
    return exact;
  }

  /** Elements of an array. */
  items(): readonly JsonReader[] {
    if (!Array.isArray(this.value)) throw this.expected("an array");
    return (this.value as readonly Json[]).map(
      (item, index) => new JsonReader(item, this.what, `${this.path}/${index}`),
    );
  }

  object(): JsonObject {
    if (!(this.value instanceof Map)) throw this.expected("an object");
    return this.value as JsonObject;
  }

  string(): string {
    if (typeof this.value !== "string") throw this.expected("a string");
    return this.value;
  }

  /** undefined when missing or null. */
  optionalString(): string | undefined {
    return this.isAbsent ? undefined : this.string();
  }

  boolean(): boolean {
    if (typeof this.value !== "boolean") throw this.expected("true or false");
    return this.value;
  }

  optionalBoolean(): boolean | undefined {
    return this.isAbsent ? undefined : this.boolean();
  }

  number(): number {
    if (!(this.value instanceof JsonNumber)) throw this.expected("a number");
    return this.value.toNumber();
  }

  integer(): number {
    const value = this.number();
    if (!Number.isSafeInteger(value)) throw this.expected("a whole number");
    return value;
  }

  optionalNumber(): number | undefined {
    return this.isAbsent ? undefined : this.number();
  }

  expected(kind: string): AgentError {
    const found =
      this.value === undefined ? "it is missing" : `it is ${shorten(formatJson(this.value))}`;
    return new AgentError(
      "bad-input",
      `${this.what}: ${this.path === "" ? "the document" : this.path} must be ${kind}, ${found}`,
    );
  }
}

function shorten(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class Parser {
  readonly #text: string;
  readonly #what: string;
  #at = 0;
  #depth = 0;

  constructor(text: string, what: string) {
    this.#text = text.startsWith("\uFEFF") ? text.slice(1) : text;
    this.#what = what;
  }

  document(): Json {
    const value = this.#value();
    this.#blank();
    if (this.#at < this.#text.length) throw this.#unexpected();
    return value;
  }

  #value(): Json {
    this.#blank();
    const first = this.#text[this.#at];
    if (first === "{") return this.#object();
    if (first === "[") return this.#array();
    if (first === '"') return this.#string();
    for (const [word, value] of [
      ["true", true],
      ["false", false],
      ["null", null],
    ] as const) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    const number = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
    number.lastIndex = this.#at;
    const match = number.exec(this.#text);
    if (match === null) throw this.#unexpected();
    this.#at = number.lastIndex;
    return new JsonNumber(match[0]);
  }

  #object(): JsonObject {
    const members = new Map<string, Json>();
    this.#sequence("}", () => {
      if (this.#text[this.#at] !== '"') throw this.#unexpected();
      const key = this.#string();
      this.#blank();
      this.#take(":");
      members.set(key, this.#value());
    });
    return members;
  }

  #array(): readonly Json[] {
    const items: Json[] = [];
    this.#sequence("]", () => items.push(this.#value()));
    return items;
  }

  #sequence(close: string, item: () => void): void {
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH)
      throw new AgentError("bad-input", `${this.#what} is nested deeper than ${MAX_DEPTH} levels`);
    this.#at += 1;
    this.#blank();
    if (this.#text[this.#at] === close) this.#at += 1;
    else {
      for (;;) {
        this.#blank();
        item();
        this.#blank();
        if (this.#text[this.#at] === close) {
          this.#at += 1;
          break;
        }
        this.#take(",");
      }
    }
    this.#depth -= 1;
  }

  #string(): string {
    const text = this.#text;
    let result = "";
    let from = this.#at + 1;
    for (let at = from; ; at += 1) {
      const code = text.charCodeAt(at);
      if (code === 0x22) {
        this.#at = at + 1;
        return result + text.slice(from, at);
      }
      if (Number.isNaN(code) || code < 0x20) {
        this.#at = at;
        throw this.#unexpected();
      }
      if (code !== 0x5c) continue;
      result += text.slice(from, at);
      const escape = text[at + 1] ?? "";
      if (escape === "u") {
        const hex = text.slice(at + 2, at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) {
          this.#at = at;
          throw this.#unexpected();
        }
        result += String.fromCharCode(Number.parseInt(hex, 16));
        at += 5;
      } else {
        const character = ESCAPES[escape];
        if (character === undefined) {
          this.#at = at;
          throw this.#unexpected();
        }
        result += character;
        at += 1;
      }
      from = at + 1;
    }
  }

  #blank(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at += 1;
    }
  }

  #take(character: string): void {
    if (this.#text[this.#at] !== character) throw this.#unexpected();
    this.#at += 1;
  }

  #unexpected(): AgentError {
    const before = this.#text.slice(0, this.#at).split("\n");
    const found = this.#at >= this.#text.length ? "the end" : JSON.stringify(this.#text[this.#at]);
    const position = `line ${before.length}, column ${(before.at(-1) ?? "").length + 1}`;
    return new AgentError(
      "bad-input",
      `${this.#what} is not valid JSON: unexpected ${found} at ${position}`,
    );
  }
}
