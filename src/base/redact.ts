/** Removes shared-access-signature secrets from text (`wire-protocol.md` HTTP-22, DB-22; `system.md` LOG-04). */

const URL_WITH_QUERY = /https?:\/\/[^\s?"'<>]*\?[^\s"'<>]*/gi;
const FIRST_IS_SAS = /^\?(?:amp;)?(?:sv|st|se|sr|sp|sip|spr|sig)=/i;
const SIGNATURE = /([?&;](?:amp;)?sig=)[^&\s"'<>]*/gi;
const PROXY_CREDENTIALS = /(\bhttps?:\/\/)[^\s/@:]+:[^\s/@]+@/gi;

/**
 * A SAS query that starts with a SAS parameter becomes `<redacted>` as a whole, which is what tools expect;
 * a `sig=` anywhere else, and a password in a URL, is replaced on its own.
 */
export function redact(text: string): string {
  if (!text.includes("://") && !text.toLowerCase().includes("sig=")) return text;
  return text
    .replace(PROXY_CREDENTIALS, "$1<redacted>@")
    .replace(URL_WITH_QUERY, (url) => {
      const mark = url.indexOf("?");
      return FIRST_IS_SAS.test(url.slice(mark)) ? `${url.slice(0, mark + 1)}<redacted>` : url;
    })
    .replace(SIGNATURE, "$1<redacted>");
}

/** Origin and path of a URL, never query or credentials: the form that errors carry. */
export function withoutQuery(url: string): string {
  return (url.split("?")[0] ?? "").replace(PROXY_CREDENTIALS, "$1");
}
