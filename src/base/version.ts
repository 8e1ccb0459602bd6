import { AgentError } from "./error.ts";

const FLEXIBLE = /^(\d+(?:\.\d+)*)(?:(?:[.-])?(alpha|beta|rc)(\d*))?$/;
const PRERELEASE_ORDER: Readonly<Record<string, number>> = { alpha: 0, beta: 1, rc: 2 };

/** A dotted version as the platform uses it (`extensions.md` EXT-130..132). */
export interface Version {
  readonly parts: readonly bigint[];
  readonly prerelease:
    { readonly kind: "alpha" | "beta" | "rc"; readonly number: bigint } | undefined;
}

/** Errors: AgentError "bad-input" naming the text. */
export function parseVersion(text: string): Version {
  const match = FLEXIBLE.exec(text);
  if (match === null) throw new AgentError("bad-input", `Version "${text}" is not dotted numbers`);
  const kind = match[2] as "alpha" | "beta" | "rc" | undefined;
  return {
    parts: (match[1] ?? "").split(".").map((part) => BigInt(part)),
    prerelease:
      kind === undefined
        ? undefined
        : { kind, number: BigInt(match[3] === "" || match[3] === undefined ? "0" : match[3]) },
  };
}

export function isVersion(text: string): boolean {
  return FLEXIBLE.test(text);
}

/** Text form: component count kept, leading zeros dropped (EXT-132). */
export function formatVersion(version: Version): string {
  const numbers = version.parts.join(".");
  if (version.prerelease === undefined) return numbers;
  return `${numbers}.${version.prerelease.kind}${version.prerelease.number === 0n ? "" : version.prerelease.number}`;
}

/** Negative, zero, positive; missing parts count as 0, a pre-release is lower than its release (EXT-130). */
export function compareVersions(left: string, right: string): number {
  const a = parseVersion(left);
  const b = parseVersion(right);
  for (let index = 0; index < Math.max(a.parts.length, b.parts.length); index += 1) {
    const difference = (a.parts[index] ?? 0n) - (b.parts[index] ?? 0n);
    if (difference !== 0n) return difference < 0n ? -1 : 1;
  }
  if (a.prerelease === undefined || b.prerelease === undefined) {
    return (a.prerelease === undefined ? 1 : 0) - (b.prerelease === undefined ? 1 : 0);
  }
  const kind =
    (PRERELEASE_ORDER[a.prerelease.kind] ?? 0) - (PRERELEASE_ORDER[b.prerelease.kind] ?? 0);
  if (kind !== 0) return kind;
  return a.prerelease.number < b.prerelease.number
    ? -1
    : a.prerelease.number > b.prerelease.number
      ? 1
      : 0;
}

/** Component prefix test without padding: `1.0` matches `1.0.7`, `1.0.0.0` does not match `1.0` (EXT-131). */
export function versionMatches(requested: string, candidate: string): boolean {
  const wanted = parseVersion(requested).parts;
  const offered = parseVersion(candidate).parts;
  return wanted.every((part, index) => offered[index] === part);
}
