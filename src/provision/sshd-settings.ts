/** The text of sshd_config (`provisioning.md` SSH-10..13, DB-09): pure, so that every layout of it is a test. */

/** Other names that sshd takes for the same setting; the first value in the file wins, whatever its name. */
export interface SshdSetting {
  /** The name that is written when the file has none of them. */
  readonly keyword: string;
  readonly aliases: readonly string[];
  readonly value: string;
}

/**
 * Sets each setting: every line of it outside of Match blocks is replaced; a missing one goes above the Match block
 * that is open at the end, else to the end. Lines inside Match blocks and comments stay as they are.
 */
export function editSshdConfig(text: string, settings: readonly SshdSetting[]): string {
  const lineEnd = /\r\n/.test(text) ? "\r\n" : "\n";
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  const result = settings.reduce(setOne, lines);
  return `${result.join(lineEnd)}${lineEnd}`;
}

function setOne(lines: string[], setting: SshdSetting): string[] {
  const names = [setting.keyword, ...setting.aliases].map((name) => name.toLowerCase());
  const result: string[] = [];
  let openMatch: number | undefined;
  let isSet = false;
  for (const line of lines) {
    const { keyword, rest } = splitLine(line);
    if (keyword === "match")
      openMatch = /^all\s*$/i.test(rest) ? undefined : (openMatch ?? result.length);
    if (openMatch === undefined && names.includes(keyword)) {
      isSet = true;
      result.push(`${writtenKeyword(line)} ${setting.value}`);
    } else result.push(line);
  }
  if (!isSet) result.splice(openMatch ?? result.length, 0, `${setting.keyword} ${setting.value}`);
  return result;
}

/** sshd takes leading blanks, any case, and `=` between keyword and value. */
function splitLine(line: string): { keyword: string; rest: string } {
  const match = /^\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)?(.*)$/.exec(line);
  return { keyword: (match?.[1] ?? "").toLowerCase(), rest: (match?.[2] ?? "").trim() };
}

function writtenKeyword(line: string): string {
  return /[A-Za-z0-9]+/.exec(line)?.[0] ?? "";
}

/**
 * Whether a drop-in directory decides: its Include stands before any line of these settings and outside of Match
 * blocks. Returns the pattern of the Include, relative patterns made absolute; undefined when the file itself decides.
 */
export function dropInPattern(
  text: string,
  settings: readonly SshdSetting[],
  sshDirectory: string,
): string | undefined {
  const names = settings.flatMap(({ keyword, aliases }) =>
    [keyword, ...aliases].map((name) => name.toLowerCase()),
  );
  for (const line of text.split(/\r?\n/)) {
    const { keyword, rest } = splitLine(line);
    if (keyword === "match" || names.includes(keyword)) return undefined;
    if (keyword !== "include") continue;
    for (const pattern of rest.split(/\s+/).map((word) => word.replaceAll('"', ""))) {
      const absolute = pattern.startsWith("/") ? pattern : `${sshDirectory}/${pattern}`;
      if (absolute.endsWith("/*.conf")) return absolute;
    }
  }
  return undefined;
}

/** `OpenSSH_9.2p1 Debian-2` is 9.2; undefined when the text does not say. */
export function opensshVersion(text: string): number | undefined {
  const match = /OpenSSH_(\d+)\.(\d+)/.exec(text);
  return match === null ? undefined : Number(match[1]) + Number(match[2]) / 100;
}

/** KbdInteractiveAuthentication took over from ChallengeResponseAuthentication in 8.7 (DB-09). */
const KEYBOARD_INTERACTIVE_SINCE = 8.07;

/** The three settings of SSH-10, in that order. */
export function sshdSettings(options: {
  readonly disablePasswordAuthentication: boolean;
  readonly clientAliveInterval: string;
  readonly version: number | undefined;
}): readonly SshdSetting[] {
  const answer = options.disablePasswordAuthentication ? "no" : "yes";
  const isNew = (options.version ?? 0) >= KEYBOARD_INTERACTIVE_SINCE;
  const [keyword, alias] = isNew
    ? ["KbdInteractiveAuthentication", "ChallengeResponseAuthentication"]
    : ["ChallengeResponseAuthentication", "KbdInteractiveAuthentication"];
  return [
    { keyword: "PasswordAuthentication", aliases: [], value: answer },
    { keyword, aliases: isNew || options.version === undefined ? [alias] : [], value: answer },
    { keyword: "ClientAliveInterval", aliases: [], value: options.clientAliveInterval },
  ];
}
