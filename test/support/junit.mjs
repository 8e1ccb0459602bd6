/** Counts and names from the report that `bun test --reporter=junit` writes. */

/**
 * Passed and failed as numbers, skipped (and todo) as names with their file. Counted test by test: the totals of nested
 * suites overlap.
 */
export function readJunit(text) {
  const result = { passed: 0, failed: 0, skipped: [] };
  for (const [, attributes, body = ""] of text.matchAll(
    /<testcase\b((?:\s+[\w:.-]+="[^"]*")*)\s*(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    if (/<(?:failure|error)\b/.test(body)) result.failed += 1;
    else if (/<skipped\b/.test(body)) {
      result.skipped.push(`${attribute(attributes, "file")}: ${attribute(attributes, "name")}`);
    } else result.passed += 1;
  }
  return result;
}

function attribute(attributes, name) {
  const value = new RegExp(`\\s${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return value
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replaceAll("&#39;", "'")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}
