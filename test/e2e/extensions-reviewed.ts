/**
 * What Debian's waagent 2.7.3 and ours do differently with extensions, reviewed one by one. A difference that no entry
 * names fails the test, and so does an entry that nothing matches any more.
 */
export interface Difference {
  /** Where: "order Diff.Single", "command Diff.Single/000-1.0.0-install/environment", "disk 1 ...", "status 1 ...". */
  readonly place: string;
  /** One line, or "(missing)". */
  readonly reference: string;
  readonly ours: string;
}

export interface Reviewed {
  readonly why: string;
  readonly matches: (difference: Difference) => boolean;
}

export const MISSING = "(missing)";

/** Lines that differ, after what changes from run to run was made equal. */
export function differences(
  reference: ReadonlyMap<string, string>,
  ours: ReadonlyMap<string, string>,
): Difference[] {
  const places = [...new Set([...reference.keys(), ...ours.keys()])].sort();
  return places.flatMap((place) => {
    const left = reference.get(place);
    const right = ours.get(place);
    if (left === undefined || right === undefined)
      return [
        {
          place,
          reference: left === undefined ? MISSING : "(there)",
          ours: right === undefined ? MISSING : "(there)",
        },
      ];
    const leftLines = normal(left);
    const rightLines = normal(right);
    const onlyLeft = leftLines.filter((line) => !rightLines.includes(line));
    const onlyRight = rightLines.filter((line) => !leftLines.includes(line));
    return Array.from({ length: Math.max(onlyLeft.length, onlyRight.length) }, (_, index) => ({
      place,
      reference: onlyLeft[index] ?? MISSING,
      ours: onlyRight[index] ?? MISSING,
    }));
  });
}

function normal(text: string): string[] {
  return text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "TIME").split("\n");
}

export const REVIEWED: readonly Reviewed[] = [];
