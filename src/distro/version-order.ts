/** Order of distribution versions (`provisioning.md` DIST-05, DB-17): total, also for `rolling` or `trixie/sid`. */

const TOKENS = /\p{Nd}+|\p{L}+|[^\p{Nd}\p{L}.]+/gu;

type Token = { readonly number: bigint } | { readonly word: string };

/** Digit runs, letter runs and other text; dots only separate. */
export function versionTokens(version: string): readonly Token[] {
  return (version.match(TOKENS) ?? []).map((text) =>
    /^[0-9]+$/.test(text) ? { number: BigInt(text) } : { word: text },
  );
}

/**
 * Negative, zero or positive. Lists compare item by item, a prefix is smaller (`8` < `8.6` < `8.10`). Where a
 * number meets a word, the number is greater (`10.0_RC2` < `10.0.2`), except in front: a version that begins with
 * a word is a code name and greater than any number, because code names stand for something unreleased.
 */
export function compareDistroVersions(left: string, right: string): number {
  const a = versionTokens(left);
  const b = versionTokens(right);
  for (let index = 0; index < Math.max(a.length, b.length); index += 1) {
    const first = a[index];
    const second = b[index];
    if (first === undefined || second === undefined) return first === undefined ? -1 : 1;
    const difference = compareTokens(first, second, index === 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function compareTokens(left: Token, right: Token, leading: boolean): number {
  if ("number" in left && "number" in right) {
    return left.number === right.number ? 0 : left.number < right.number ? -1 : 1;
  }
  if ("word" in left && "word" in right) {
    return left.word === right.word ? 0 : left.word < right.word ? -1 : 1;
  }
  return "number" in left === leading ? -1 : 1;
}
