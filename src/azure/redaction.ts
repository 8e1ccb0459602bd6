/**
 * Removes secrets from goal state documents before they are kept on disk (`wire-protocol.md` HIST-20..22, DB-20, DB-21).
 * Scanners over the raw text, not over a parsed document: they work the same on input that is broken or cut short.
 */
export const REDACTED = "***REDACTED***";

/** `sig=` of a SAS URL, wherever it stands. */
const SIGNATURE = /([?&;]sig=)[^&\s"'<>\\]*/gi;

/** protectedSettings values, and the query of every URL in vmSettings. */
export function redactVmSettings(text: string): string {
  return redactJson(text).replace(SIGNATURE, `$1${REDACTED}`);
}

/** Queries of the status and artifacts profile URLs, and protectedSettings in the settings' JSON text. */
export function redactExtensionsConfig(text: string): string {
  return text
    .replace(
      /(<(?:\w+:)?(?:StatusUploadBlob|InVMArtifactsProfileBlob)\b[^<>]*>)([^<]*)/g,
      (_, tag: string, url: string) => tag + withoutUrlQuery(url),
    )
    .replace(
      /(<(?:\w+:)?(?:StatusUploadBlob|InVMArtifactsProfileBlob)\b[^<>]*><!\[CDATA\[)([^\]]*)/g,
      (_, tag: string, url: string) => tag + withoutUrlQuery(url),
    )
    .replace(
      /((?:"|&quot;|&#34;|&#x22;)protectedSettings(?:"|&quot;|&#34;|&#x22;)\s*:\s*)("|&quot;|&#34;|&#x22;)([\s\S]*?)(\2|$)/gi,
      (_, key: string, quote: string, __: string, end: string) => key + quote + REDACTED + end,
    )
    .replace(SIGNATURE, `$1${REDACTED}`);
}

/** Storage keys in connection strings, and settings whose name says that they are secret (DB-21). */
export function redactHostingEnvironment(text: string): string {
  return text
    .replace(/(AccountKey=)[^;"'<>&]*/gi, `$1${REDACTED}`)
    .replace(/<Setting\b[^>]*/g, (tag) =>
      /\bname\s*=\s*(["'])[^"']*(?:password|secret|accountkey|token)[^"']*\1/i.test(tag)
        ? tag.replace(/(\bvalue\s*=\s*)(?:"[^"]*(?:"|$)|'[^']*(?:'|$))/, `$1"${REDACTED}"`)
        : tag,
    )
    .replace(SIGNATURE, `$1${REDACTED}`);
}

function withoutUrlQuery(url: string): string {
  const mark = url.indexOf("?");
  return mark === -1 ? url : `${url.slice(0, mark + 1)}${REDACTED}`;
}

/** Walks over string literals only; one that is not closed reaches to the end. */
function redactJson(text: string): string {
  let result = "";
  let key = "";
  let at = 0;
  for (;;) {
    const start = text.indexOf('"', at);
    if (start === -1) return result + text.slice(at);
    const end = endOfString(text, start + 1);
    const literal = text.slice(start + 1, end);
    result += text.slice(at, start + 1);
    if (/^"\s*:/.test(text.slice(end, end + 16))) {
      key = literal.toLowerCase();
      result += literal;
    } else if (key === "protectedsettings") result += REDACTED;
    else if (/^\s*https?:/i.test(literal)) result += withoutUrlQuery(literal);
    else result += literal;
    at = end;
    if (text[end] === '"') {
      result += '"';
      at = end + 1;
    }
  }
}

function endOfString(text: string, from: number): number {
  for (let at = from; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === '"') return at;
  }
  return text.length;
}
