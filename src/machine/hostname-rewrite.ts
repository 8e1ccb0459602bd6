/**
 * One setting of a line-oriented configuration file: every line that begins with the key goes, the new one is
 * put in the place of the last of them, else at the end. Blank lines stay (`provisioning.md` HOST-14, DB-13).
 */
export function rewriteSetting(text: string, key: string, line: string): string {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const last = lines.findLastIndex((candidate) => candidate.startsWith(key));
  const next = lines.flatMap((candidate, index) =>
    index === last ? [line] : candidate.startsWith(key) ? [] : [candidate],
  );
  if (last < 0) next.push(line);
  return `${next.join("\n")}\n`;
}
