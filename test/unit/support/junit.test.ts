import { describe, expect, test } from "bun:test";
import { parseRequest, TARGETS } from "../../../build.ts";
import { readJunit } from "../../support/junit.mjs";
import { missing } from "../../support/skip.ts";

describe("the report of a test run", () => {
  test("tests are counted once, whatever suites they are nested in", () => {
    const text = `<testsuites tests="4" failures="1" skipped="1">
      <testsuite name="a.test.ts" tests="4"><testsuite name="inner" tests="3">
        <testcase name="one" classname="inner" time="0.1" file="a.test.ts" assertions="1" />
        <testcase name="two &gt; &quot;x&quot;" file="a.test.ts"><failure type="AssertionError"/></testcase>
        <testcase name="three &amp; more" file="a.test.ts"><skipped /></testcase>
      </testsuite><testcase name="four" file="a.test.ts"></testcase></testsuite></testsuites>`;
    expect(readJunit(text)).toEqual({
      passed: 2,
      failed: 1,
      skipped: ["a.test.ts: three & more"],
    });
  });

  test("a missing program or file is the reason for a skip", () => {
    expect(missing({ programs: ["sh"], files: ["/proc"] })).toBeUndefined();
    expect(missing({ programs: ["no-such-program"] })).toBe(
      "the program no-such-program is missing",
    );
    expect(missing({ files: ["/no/such/device"] })).toBe("/no/such/device is missing");
  });
});

describe("the words of build.ts", () => {
  test("targets by name, all of them, and refusals that name the word", () => {
    expect(parseRequest(["--all"]).targets).toEqual([...TARGETS]);
    expect(
      parseRequest(["--target=linux-arm64", "--target", "freebsd-x64", "--out", "/o"]),
    ).toMatchObject({ targets: ["linux-arm64", "freebsd-x64"], out: "/o" });
    expect(() => parseRequest(["--target", "windows-x64"])).toThrow(
      /no target "windows-x64"; there are linux-x64, /,
    );
    expect(() => parseRequest(["-all"])).toThrow(/does not know "-all"/);
  });
});
