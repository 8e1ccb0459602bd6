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

export const REVIEWED: readonly Reviewed[] = [
  {
    why: "State and settings are 0600: the mode of the folder above is not relied on (DB-44); 2.7.3 also makes what was there executable",
    place: /^command .*\/tree$/,
    reference: /^config\/.*(settings|HandlerState|HandlerStatus) (644|744) f$/,
    ours: /^config\/.*(settings|HandlerState|HandlerStatus) 600 f$/,
  },
  {
    why: "The same files, looked at after the pass",
    place: /^disk \d .*\/config\//,
    reference: /^mode (644|744)$/,
    ours: /^mode 600$/,
  },
  {
    why: "Every run has an identity, by which its processes are found when it has to be ended (DB-13)",
    place: /\/environment$/,
    ours: /^WAAGENT_RUN_ID=ID$/,
  },
  {
    why: "A downgrade also says what it really comes from (DB-35)",
    place: /-update\/environment$/,
    ours: /^WAAGENT_UPDATING_FROM_INSTALLED_VERSION=/,
  },
  {
    why: "The version of the daemon is ours",
    place: /\/environment$/,
    reference: /^_AZURE_GUEST_AGENT_DAEMON_VERSION_=2\.7\.3\.0$/,
    ours: /^_AZURE_GUEST_AGENT_DAEMON_VERSION_=2\.15\.0\.1$/,
  },
  {
    why: "Python's own variables have no place in commands of ours (DB-32)",
    place: /\/environment$/,
    reference: /^PYTHON/,
  },
  {
    why: "A disable that did not run is NOT_RUN, not the word None (EXT-77)",
    place: /-update\/environment$/,
    reference: /MULTIPLE_EXTENSIONS=.*"None"/,
    ours: /MULTIPLE_EXTENSIONS=.*"NOT_RUN"/,
  },
  {
    why: "An update aborted by the old version has the code 1008 (EXT-59), as 2.15 has it; 2.7.3 had -1",
    place: /Diff\.Stubborn/,
    reference: /"?code"?: -1|^ "code": -1,$/,
    ours: /"?code"?: 1008|^ "code": 1008,$/,
  },
  {
    why: "2.7.3 keeps manifests and packages in the state folder, 2.15 and ours do not (EXT-44, MAN-03)",
    place: /^list \d$/,
    reference: /^Diff\.\w+(\.\d+\.manifest\.xml|__[\d.]+\.zip)$/,
    ours: /^$/,
  },
  {
    why: "An update keeps settings, state and status of the extensions it disabled (MC-06); 2.7.3 removed them",
    place: /Diff\.Multi/,
    reference: /^\(nothing\)$/,
    ours: /^(mode \d+|(config|status)\/[ac]\..*|[ac]\.\d\.settings|\{"runtimeSettings".*|\[\{"version": 1\.0, "timestampUTC": "TIME".*)$/,
  },
];
