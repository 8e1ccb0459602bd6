import type { HandlerGoal } from "../azure/goal-state.ts";
import { compareVersions, isVersion, parseVersion, versionMatches } from "../base/version.ts";
import type { PackageOffer } from "./package-source.ts";

export interface ChosenPackage {
  readonly version: string;
  /** Empty when the installed version stands in. */
  readonly uris: readonly string[];
}

/**
 * The highest version that the requested one matches component by component (`extensions.md` EXT-35, EXT-36);
 * undefined when none does. Versions that cannot be read are passed over.
 */
export function chooseVersion(requested: string, offer: PackageOffer): ChosenPackage | undefined {
  return offer.packages
    .filter(
      (candidate) => isVersion(candidate.version) && versionMatches(requested, candidate.version),
    )
    .sort((a, b) => compareVersions(a.version, b.version))
    .at(-1);
}

/**
 * The manifest has nothing to add (DB-21): the request names all four components of what is installed. A shorter
 * request may float to a higher version, so it has to be looked at.
 */
export function isExactlyInstalled(handler: HandlerGoal, installed: string | undefined): boolean {
  return (
    installed !== undefined &&
    isVersion(handler.version) &&
    parseVersion(handler.version).parts.length >= 4 &&
    compareVersions(handler.version, installed) === 0
  );
}
