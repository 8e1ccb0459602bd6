import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { AgentError, describe as describeError, errnoOf } from "../../../src/base/error.ts";
import { redact, withoutQuery } from "../../../src/base/redact.ts";
import { Secret } from "../../../src/base/secret.ts";
import {
  formatTimestamp0,
  formatTimestamp6,
  ticksToTimestamp6,
  TIMESTAMP_MINIMUM,
} from "../../../src/base/time.ts";
import {
  compareVersions,
  formatVersion,
  parseVersion,
  versionMatches,
} from "../../../src/base/version.ts";

describe("errors", () => {
  test("a chain is printed once, outermost first, without repeating what is already said", () => {
    const inner = Object.assign(new Error("no space left"), { code: "ENOSPC" });
    const middle = new AgentError("io", "Could not write /x", { cause: inner });
    const outer = new AgentError("protocol", "Could not save the goal state", { cause: middle });
    expect(describeError(outer)).toBe(
      "Could not save the goal state: Could not write /x: no space left",
    );
    expect(describeError(new AgentError("io", "a: b", { cause: new Error("b") }))).toBe("a: b");
    expect([outer.errno, errnoOf(inner)]).toEqual(["ENOSPC", "ENOSPC"]);
  });
});

describe("secrets", () => {
  test("a secret leaves only through reveal()", () => {
    const secret = new Secret("hunter2");
    const everything = [
      `${secret}`,
      JSON.stringify({ secret }),
      inspect(secret, { showHidden: true }),
      Bun.inspect({ secret }),
      String(secret),
    ];
    for (const text of everything) expect(text).not.toContain("hunter2");
    expect(secret.reveal()).toBe("hunter2");
  });
});

describe("redaction", () => {
  test("wire-protocol.md HTTP-22: a SAS query that starts with a SAS parameter is replaced as a whole", () => {
    expect(redact("PUT https://acct.blob/x.status?sv=2018&sr=b&sig=abc%3D failed")).toBe(
      "PUT https://acct.blob/x.status?<redacted> failed",
    );
  });

  test("wire-protocol.md DB-22 and system.md LOG-04: sig is removed anywhere, also from http and escaped URLs", () => {
    expect(redact("http://h/p?comp=page&sig=SECRET&x=1")).toBe(
      "http://h/p?comp=page&sig=<redacted>&x=1",
    );
    expect(redact("https://h/p?a=1&amp;sig=SECRET")).toBe("https://h/p?a=1&amp;sig=<redacted>");
    expect(redact("proxy http://user:secret@proxy:3128 refused")).toBe(
      "proxy http://<redacted>@proxy:3128 refused",
    );
    expect(redact("nothing here")).toBe("nothing here");
    expect(withoutQuery("https://h/p?sig=1")).toBe("https://h/p");
  });
});

describe("timestamps", () => {
  test("wire-protocol.md ECFG-06: ticks become TS6 with the digits of double arithmetic", () => {
    expect(ticksToTimestamp6("637726657706205217")).toBe("2021-11-16T13:22:50.620522Z");
    for (const none of [undefined, "", "0", "abc", "-1"])
      expect(ticksToTimestamp6(none)).toBe(TIMESTAMP_MINIMUM);
  });

  test("system.md LOG-01: TS6 always has six fraction digits", () => {
    expect(formatTimestamp6(Date.UTC(2024, 4, 1, 10, 20, 30) + 0.123)).toBe(
      "2024-05-01T10:20:30.000123Z",
    );
    expect(formatTimestamp6(0)).toBe("1970-01-01T00:00:00.000000Z");
    expect(formatTimestamp0(Date.UTC(2030, 0, 1) + 999)).toBe("2030-01-01T00:00:00Z");
  });
});

describe("versions", () => {
  test("extensions.md EXT-130: numeric comparison, padding with zeros, pre-releases lower", () => {
    const ascending = ["1.0.alpha", "1.0-beta2", "1.0rc1", "1.0", "1.9", "1.10", "2"];
    expect(ascending.toReversed().sort(compareVersions)).toEqual(ascending);
    expect(compareVersions("1.0", "1.0.0.0")).toBe(0);
    expect(compareVersions("1.99999999999999999999", "1.99999999999999999998")).toBe(1);
    for (const bad of ["", "1.", "a", "1.0 ", "1..2", "-1"])
      expect(() => parseVersion(bad)).toThrow("is not dotted numbers");
  });

  test("extensions.md EXT-131: matches is a component prefix without padding", () => {
    expect(versionMatches("1.0", "1.0.5")).toBe(true);
    expect(versionMatches("1.0.0.0", "1.0")).toBe(false);
    expect(versionMatches("2.1", "2.10.0")).toBe(false);
  });

  test("extensions.md EXT-132: the text form drops leading zeros and keeps the component count", () => {
    expect(formatVersion(parseVersion("2024.01"))).toBe("2024.1");
    expect(formatVersion(parseVersion("1.0.0"))).toBe("1.0.0");
  });
});
