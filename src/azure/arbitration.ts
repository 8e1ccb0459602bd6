import type { ExtensionsGoalState } from "./goal-state.ts";
import { compareTimestamps } from "./timestamps.ts";

/** What there is to choose from after one look at both sources. */
export interface Candidate {
  readonly current: ExtensionsGoalState | undefined;
  /** ExtensionsConfig, when it was fetched just now. */
  readonly fabric: ExtensionsGoalState | undefined;
  /** vmSettings whose source is FastTrack, also when they are not new. */
  readonly fastTrack: ExtensionsGoalState | undefined;
  /** Fast Track stopped, or is off: creation time of the last goal it brought. */
  readonly lastFastTrack: string | undefined;
}

/**
 * Which extensions goal is in force (`wire-protocol.md` §11, steps 7 and 8 of GS-30). Pure.
 * With both at hand the one created later wins, Fabric on a tie; nothing older than what is in force is adopted.
 */
export function arbitrate({
  current,
  fabric,
  fastTrack,
  lastFastTrack,
}: Candidate): ExtensionsGoalState {
  if (fabric !== undefined && fastTrack === undefined && lastFastTrack !== undefined) {
    // ARB-06: the content is older than what Fast Track already brought, so it is reported on but not processed.
    return { ...fabric, outdated: compareTimestamps(fabric.createdAt, lastFastTrack) < 0 };
  }
  const candidate = chooseCandidate(fabric, fastTrack);
  if (candidate === undefined) {
    if (current !== undefined) return current;
    throw new Error("There is neither a goal state nor a candidate for one");
  }
  if (current === undefined) return candidate;
  return compareTimestamps(candidate.createdAt, current.createdAt) >= 0 ? candidate : current;
}

function chooseCandidate(
  fabric: ExtensionsGoalState | undefined,
  fastTrack: ExtensionsGoalState | undefined,
): ExtensionsGoalState | undefined {
  if (fabric === undefined || fastTrack === undefined) return fabric ?? fastTrack;
  return compareTimestamps(fastTrack.createdAt, fabric.createdAt) > 0 ? fastTrack : fabric;
}
