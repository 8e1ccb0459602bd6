import { gzipSync } from "node:zlib";

/** What goes wrong with one answer. `docs`: one row for each class of bad input that a network can produce. */
export type Fault =
  | {
      readonly kind: "status";
      readonly status: number;
      readonly retryAfter?: number;
      readonly body?: string;
    }
  /** The connection is reset instead of an answer. */
  | { readonly kind: "reset" }
  /** The request is read, and nothing is ever answered. */
  | { readonly kind: "hang-headers" }
  /** Headers and half of the body, then silence. */
  | { readonly kind: "hang-body" }
  /** The full length is announced, half of it sent, the connection closed. */
  | { readonly kind: "truncated" }
  /** As many bytes as told, whatever the answer was. Default 64 MiB. */
  | { readonly kind: "oversized"; readonly bytes?: number }
  | { readonly kind: "trickled"; readonly bytesPerSecond: number }
  | { readonly kind: "garbled" }
  | { readonly kind: "html" }
  /** The right text in UTF-16, announced as UTF-8. */
  | { readonly kind: "wrong-charset" }
  | { readonly kind: "bom" }
  /** Content-Encoding gzip that nobody asked for; unpacks to 256 MiB. */
  | { readonly kind: "gzip-bomb" }
  /** 302 to a place that counts a visit as a violation. */
  | { readonly kind: "redirect" }
  /** The right document without the named XML element or JSON member. */
  | { readonly kind: "missing"; readonly name: string }
  | { readonly kind: "doctype" }
  | { readonly kind: "body"; readonly body: string; readonly contentType?: string };

export interface FaultRule {
  readonly request: FaultMatch;
  readonly fault: Fault;
  /** How many matching requests are hit. Default 1; 0 means all. */
  readonly times?: number;
  /** How many matching requests pass first. Default 0. */
  readonly skip?: number;
}

export interface FaultMatch {
  /** Request kind (`request.ts`); absent matches every one. */
  readonly kind?: string;
  readonly urlIncludes?: string;
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** How an answer leaves the socket. */
export type Delivery =
  | { readonly how: "whole"; readonly answer: Answer }
  | { readonly how: "reset" }
  | { readonly how: "silence" }
  /** `announced` bytes in Content-Length; after `sent` of them the connection closes or hangs. */
  | {
      readonly how: "partial";
      readonly answer: Answer;
      readonly sent: number;
      readonly then: "close" | "hang";
    }
  | { readonly how: "slow"; readonly answer: Answer; readonly bytesPerSecond: number };

export const REDIRECT_TRAP = "/fabric-redirect-trap";

/** Applies a fault to the answer that would have been right. Pure. */
export function deliver(answer: Answer, fault: Fault | undefined): Delivery {
  if (fault === undefined) return { how: "whole", answer };
  const whole = (body: Uint8Array | string, changes: Partial<Answer> = {}): Delivery => ({
    how: "whole",
    answer: {
      ...answer,
      ...changes,
      headers: { ...answer.headers, ...changes.headers },
      body: typeof body === "string" ? new TextEncoder().encode(body) : body,
    },
  });
  const text = () => new TextDecoder().decode(answer.body);
  const half = Math.floor(answer.body.length / 2);
  switch (fault.kind) {
    case "status":
      return whole(fault.body ?? `status ${fault.status} on purpose`, {
        status: fault.status,
        headers: {
          "Content-Type": "text/plain",
          ...(fault.retryAfter === undefined ? {} : { "Retry-After": String(fault.retryAfter) }),
        },
      });
    case "reset":
      return { how: "reset" };
    case "hang-headers":
      return { how: "silence" };
    case "hang-body":
      return { how: "partial", answer, sent: half, then: "hang" };
    case "truncated":
      return { how: "partial", answer, sent: half, then: "close" };
    case "oversized":
      return whole(new Uint8Array(fault.bytes ?? 64 * 1024 * 1024).fill(0x20));
    case "trickled":
      return { how: "slow", answer, bytesPerSecond: fault.bytesPerSecond };
    case "garbled":
      return whole(answer.body.map((byte, index) => byte ^ ((index * 73 + 41) & 0xff)));
    case "html":
      return whole(
        "<!DOCTYPE html><html><body><h1>Sign in to this network</h1><br></body></html>",
        {
          status: 200,
          headers: { "Content-Type": "text/html" },
        },
      );
    case "wrong-charset":
      return whole(Buffer.from(`\ufeff${text()}`, "utf16le"));
    case "bom":
      return whole(Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), answer.body]));
    case "gzip-bomb":
      return whole(gzipSync(new Uint8Array(256 * 1024 * 1024)), {
        headers: { "Content-Encoding": "gzip" },
      });
    case "redirect":
      return whole("", { status: 302, headers: { Location: REDIRECT_TRAP } });
    case "missing":
      return whole(withoutElement(text(), fault.name));
    case "doctype":
      return whole(
        text().replace(
          /^(<\?xml[^>]*\?>)?\s*/,
          (start) => `${start}<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>`,
        ),
      );
    case "body":
      return whole(fault.body, { headers: { "Content-Type": fault.contentType ?? "text/plain" } });
  }
}

/** A document without one XML element (content included) or one JSON member. Text that has neither stays as it is. */
export function withoutElement(document: string, name: string): string {
  if (/^\s*[[{]/.test(document)) {
    return JSON.stringify(JSON.parse(document), (key, value: unknown) =>
      key === name ? undefined : value,
    );
  }
  return document.replace(new RegExp(`<${name}(\\s[^>]*)?(/>|>[\\s\\S]*?</${name}>)`, "g"), "");
}

/** Faults in force: counts hits. The only state is in this object. */
export class FaultPlan {
  readonly #rules: { rule: FaultRule; seen: number; hit: number }[] = [];

  constructor(rules: readonly FaultRule[] = []) {
    for (const rule of rules) this.add(rule);
  }

  add(rule: FaultRule): void {
    this.#rules.push({ rule, seen: 0, hit: 0 });
  }

  clear(): void {
    this.#rules.length = 0;
  }

  /** The fault for this request, if any; the first rule that matches wins. */
  take(request: { readonly kind: string; readonly url: string }): Fault | undefined {
    for (const entry of this.#rules) {
      const { kind, urlIncludes } = entry.rule.request;
      if (kind !== undefined && kind !== request.kind) continue;
      if (urlIncludes !== undefined && !request.url.includes(urlIncludes)) continue;
      const times = entry.rule.times ?? 1;
      if (times !== 0 && entry.hit >= times) continue;
      entry.seen += 1;
      if (entry.seen <= (entry.rule.skip ?? 0)) continue;
      entry.hit += 1;
      return entry.rule.fault;
    }
    return undefined;
  }
}
