/**
 * When a shared access signature ends, in ms since the epoch: its parameter `se`, a date or an instant in UTC.
 * undefined for an address without one, and for a text that is no instant.
 */
export function sasExpiry(url: string): number | undefined {
  if (!URL.canParse(url)) return undefined;
  const text = new URL(url).searchParams.get("se");
  if (text === null || !/^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z)?$/.test(text))
    return undefined;
  const instant = Date.parse(text);
  return Number.isNaN(instant) ? undefined : instant;
}
