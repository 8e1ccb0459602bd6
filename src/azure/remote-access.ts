import { Secret } from "../base/secret.ts";
import { childrenOf, descendant, descendantText, parseXml } from "../base/xml.ts";
import type { RemoteAccess, RemoteUser } from "./goal-state.ts";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const EXPIRATION =
  /^([A-Z][a-z]{2}), (\d{1,2}) ([A-Z][a-z]{2}) (\d{4}) (\d{1,2}):(\d{2}):(\d{2}) (?:UTC|GMT)$/;

/**
 * Just-in-time users (`wire-protocol.md` §8). An empty body means no users (JIT-01); a user without a name is
 * left out, the others stay. Errors: AgentError "bad-input".
 */
export function parseRemoteAccess(text: string): RemoteAccess {
  if (text.trim() === "") return { incarnation: "", users: [] };
  const root = parseXml(text, "The RemoteAccess document");
  const users: RemoteUser[] = [];
  for (const user of childrenOf(descendant(root, "Users"), "User")) {
    const name = descendantText(user, "Name");
    if (name === undefined) continue;
    const expirationText = descendantText(user, "Expiration") ?? "";
    users.push({
      name,
      encryptedPassword: new Secret(descendantText(user, "Password") ?? ""),
      expiresAt: parseExpiration(expirationText),
      expirationText,
    });
  }
  return { incarnation: descendantText(root, "Incarnation") ?? "", users };
}

/** `Tue, 01 Jan 2030 00:00:00 UTC`, always UTC, as ms since the epoch; undefined for any other form (JIT-04). */
export function parseExpiration(text: string): number | undefined {
  const match = EXPIRATION.exec(text);
  if (match === null) return undefined;
  const [, weekday = "", day, month = "", year, hour, minute, second] = match;
  const monthIndex = MONTHS.indexOf(month);
  if (monthIndex === -1 || !DAYS.includes(weekday)) return undefined;
  const numbers = [hour, minute, second].map(Number) as [number, number, number];
  if (numbers[0] > 23 || numbers[1] > 59 || numbers[2] > 59) return undefined;
  const at = Date.UTC(Number(year), monthIndex, Number(day), ...numbers);
  return new Date(at).getUTCDate() === Number(day) ? at : undefined;
}
