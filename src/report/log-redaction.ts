import { redact } from "../base/redact.ts";

const HIDDEN = "<redacted>";
/** A line longer than this is looked at in parts. */
const MAX_CARRY = 1024 * 1024;

const XML_SECRETS =
  /(<(?:\w+:)?(?:UserPassword|AdminPassword|CustomData)(?:\s[^>]*)?>)[^<]+(?=<\/)/gi;
const KEYS = /\b((?:AccountKey|SharedAccessKey|SharedAccessSignature)=)[^\s;"'<>]+/gi;
/** Only lines with one of these are looked at: finding words is much faster than matching patterns without a JIT. */
const LINE_MARKS = ["://", "sig=", "accountkey=", "sharedaccesskey=", "sharedaccesssignature="];
/** The value may be spread over lines. */
const XML_MARKS = ["userpassword", "adminpassword", "customdata"];
const PEM_BEGIN = /-----BEGIN [A-Z ]*PRIVATE KEY-----/;
const PEM_END = /-----END [A-Z ]*PRIVATE KEY-----/;

/**
 * Takes secrets out of a text file on its way into the archive (`system.md` BET-19, BET-22): signatures, storage keys,
 * passwords in the provisioning document, private keys. Bytes are treated as Latin-1, so whatever is no secret stays
 * as it is, UTF-8 or not.
 */
export function* redactChunks(chunks: Iterable<Uint8Array>): Generator<Uint8Array> {
  const scrub = createScrubber();
  let carry = "";
  for (const chunk of chunks) {
    const text =
      carry + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString("latin1");
    let end = text.lastIndexOf("\n") + 1;
    if (end === 0 && text.length > MAX_CARRY) end = text.length;
    carry = text.slice(end);
    if (end > 0) yield Buffer.from(scrub(text.slice(0, end)), "latin1");
  }
  if (carry !== "") yield Buffer.from(scrub(carry), "latin1");
}

/** The same for a whole text. */
export function redactLogText(text: string): string {
  return createScrubber()(text);
}

function createScrubber(): (text: string) => string {
  let inKey = false;
  const withoutKeys = (text: string): string => {
    if (!inKey && !PEM_BEGIN.test(text)) return text;
    return text
      .split("\n")
      .map((line) => {
        if (!inKey && PEM_BEGIN.test(line)) {
          // A key on a single line, as JSON escapes it, begins and ends here.
          inKey = !PEM_END.test(line);
          return inKey
            ? line
            : line.replace(/(-----BEGIN [A-Z ]*PRIVATE KEY-----).*(-----END)/, `$1${HIDDEN}$2`);
        }
        if (!inKey) return line;
        if (PEM_END.test(line)) {
          inKey = false;
          return line;
        }
        return line === "" ? line : HIDDEN;
      })
      .join("\n");
  };
  return (text) => {
    const kept = text.includes("PRIVATE KEY-----") || inKey ? withoutKeys(text) : text;
    const lower = kept.toLowerCase();
    const spread = XML_MARKS.some((mark) => lower.includes(mark))
      ? kept.replace(XML_SECRETS, `$1${HIDDEN}`)
      : kept;
    return redactLines(spread, spread === kept ? lower : spread.toLowerCase());
  };
}

/** Redacts the lines that have a mark and copies the others as they are. */
function redactLines(text: string, lower: string): string {
  // Changing case keeps the length of Latin-1 text; where it does not, places would not fit.
  if (lower.length !== text.length) return redactLine(text);
  const next = LINE_MARKS.map((mark) => lower.indexOf(mark));
  let result = "";
  let done = 0;
  for (;;) {
    const found = next.filter((place) => place >= 0);
    if (found.length === 0) return result + text.slice(done);
    const place = Math.min(...found);
    const start = text.lastIndexOf("\n", place) + 1;
    const newline = text.indexOf("\n", place);
    const end = newline === -1 ? text.length : newline;
    result += text.slice(done, start) + redactLine(text.slice(start, end));
    done = end;
    for (const [index, mark] of LINE_MARKS.entries())
      if ((next[index] ?? -1) >= 0 && (next[index] ?? -1) < end)
        next[index] = lower.indexOf(mark, end);
  }
}

function redactLine(line: string): string {
  return redact(line).replace(KEYS, `$1${HIDDEN}`);
}
