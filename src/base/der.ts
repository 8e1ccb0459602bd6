import { AgentError } from "./error.ts";

/** One element of a DER document (X.690), with its encoding and what is inside. */
export interface DerElement {
  /** First octet: class, form and number; documents we read have no longer tags. */
  readonly tag: number;
  /** Header and content. */
  readonly encoding: Uint8Array;
  readonly content: Uint8Array;
}

export const DER = {
  integer: 0x02,
  octetString: 0x04,
  objectIdentifier: 0x06,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** The elements that follow each other in the bytes. Errors: AgentError "bad-input"; lengths must be definite. */
export function readDer(bytes: Uint8Array, what: string): readonly DerElement[] {
  const elements: DerElement[] = [];
  for (let start = 0; start < bytes.length;) {
    const tag = bytes[start] ?? 0;
    const first = bytes[start + 1];
    if ((tag & 0x1f) === 0x1f || first === undefined || first === 0x80 || first > 0x84)
      throw new AgentError("bad-input", `${what} is not DER`);
    const more = first > 0x80 ? first - 0x80 : 0;
    const digits = bytes.subarray(start + 2, start + 2 + more);
    const length = more === 0 ? first : digits.reduce((sum, digit) => sum * 256 + digit, 0);
    const end = start + 2 + more + length;
    if (digits.length < more || end > bytes.length)
      throw new AgentError("bad-input", `${what} is cut off`);
    elements.push({
      tag,
      encoding: bytes.subarray(start, end),
      content: bytes.subarray(start + 2 + more, end),
    });
    start = end;
  }
  return elements;
}

/** "1.2.840.113549.1.7.2" of an object identifier's content. */
export function objectIdentifier(content: Uint8Array): string {
  const numbers: number[] = [];
  let value = 0;
  for (const octet of content) {
    value = value * 128 + (octet & 0x7f);
    if (octet >= 0x80) continue;
    numbers.push(value);
    value = 0;
  }
  const [first = 0, ...rest] = numbers;
  const top = Math.min(2, Math.floor(first / 40));
  return [top, first - top * 40, ...rest].join(".");
}
