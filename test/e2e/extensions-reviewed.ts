/**
 * What Debian's waagent 2.7.3 and ours do differently with extensions, reviewed one by one. A line that no entry names
 * fails the test, and so does an entry that nothing matches any more.
 */
export interface Difference {
  /** Where: "order Diff.Single", "command Diff.Single/000-1.0.0-install/environment", "disk 1 ...", "status 1 ...". */
  readonly place: string;
  /** Who has the line and the other has not. */
  readonly side: "reference" | "ours";
  readonly line: string;
}

export interface Reviewed {
  readonly why: string;
  readonly place: RegExp;
  readonly reference?: RegExp;
  readonly ours?: RegExp;
}

/** Lines that only one side has, after what changes from run to run was made equal. */
export function differences(
  reference: ReadonlyMap<string, string>,
  ours: ReadonlyMap<string, string>,
): Difference[] {
  const places = [...new Set([...reference.keys(), ...ours.keys()])].sort();
  return places.flatMap((place) => {
    const left = linesOf(reference.get(place));
    const right = linesOf(ours.get(place));
    return [
      ...left
        .filter((line) => !right.includes(line))
        .map((line): Difference => ({ place, side: "reference", line })),
      ...right
        .filter((line) => !left.includes(line))
        .map((line): Difference => ({ place, side: "ours", line })),
    ];
  });
}

export function isReviewed(difference: Difference, entry: Reviewed): boolean {
  return (
    entry.place.test(difference.place) && (entry[difference.side]?.test(difference.line) ?? false)
  );
}

function linesOf(text: string | undefined): string[] {
  return (text ?? "(nothing)")
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "TIME")
    .replace(/"MII[A-Za-z0-9+/=]+"/g, '"PROTECTED"')
    .replace(/"[0-9A-F]{40}"/g, '"THUMBPRINT"')
    .replace(/WAAGENT_RUN_ID=.*/g, "WAAGENT_RUN_ID=ID")
    .split("\n");
}

export const REVIEWED: readonly Reviewed[] = [];
