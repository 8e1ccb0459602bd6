/** IPv4 addresses as text. */

/** The four numbers; undefined for anything but a plain dotted quad. */
export function parseIpv4(text: string): readonly [number, number, number, number] | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return undefined;
  const parts = match.slice(1).map(Number) as [number, number, number, number];
  return parts.every((part) => part <= 255) ? parts : undefined;
}

/** Whether another machine could have it: no unspecified, loopback, multicast or broadcast address. */
export function isPeerAddress(text: string): boolean {
  const first = parseIpv4(text)?.[0];
  return first !== undefined && first !== 0 && first !== 127 && first < 224;
}
