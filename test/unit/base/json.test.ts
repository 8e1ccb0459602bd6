import { describe, expect, test } from "bun:test";
import {
  formatJson,
  JsonNumber,
  JsonReader,
  parseJson,
  toJson,
  toPlain,
} from "../../../src/base/json.ts";

describe("lossless JSON", () => {
  test("extensions.md EXT-10: numbers keep their text and objects their key order", () => {
    const text = '{"b": 9223372036854775808, "10": 1.0, "2": 1e3, "a": [-0, 0.10]}';
    expect(formatJson(parseJson(text, "settings"))).toBe(text);
  });

  test("extensions.md EXT-54: the layout has blanks after comma and colon and ASCII escapes", () => {
    expect(formatJson(parseJson('{"k":"ü😀\\u0000","l":[1,2],"n":null}', "x"))).toBe(
      '{"k": "\\u00fc\\ud83d\\ude00\\u0000", "l": [1, 2], "n": null}',
    );
    expect(formatJson(toJson({ a: 1, b: undefined, c: [true] }), "compact")).toBe(
      '{"a":1,"c":[true]}',
    );
  });

  test("the same documents as JSON.parse are accepted and refused", () => {
    const samples = [
      "{}",
      "[]",
      ' {"a" : [ ] } ',
      '"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041"',
      "-1.5e-7",
      "true",
      "null",
      "",
      "{",
      "[1,]",
      '{"a":1,}',
      "{a:1}",
      "01",
      "1.",
      ".5",
      "+1",
      "'a'",
      '"\n"',
      '"\\x"',
      '"\\u12"',
      "nul",
      "[1] 2",
      "NaN",
      "[1 2]",
      '{"a" 1}',
      '{"a":}',
      "\u00a01",
    ];
    for (const sample of samples) {
      let expected: unknown = "refused";
      try {
        expected = JSON.parse(sample);
      } catch {
        // JSON.parse refuses it: so must we
      }
      let actual: unknown = "refused";
      try {
        actual = JSON.parse(JSON.stringify(toPlain(parseJson(sample, "x"))));
      } catch {
        // compared below
      }
      expect([sample, actual]).toEqual([sample, expected as never]);
    }
  });

  test("errors name document, line and column", () => {
    expect(() => parseJson('{"a": 1,\n "b": }', "HandlerManifest.json")).toThrow(
      'HandlerManifest.json is not valid JSON: unexpected "}" at line 2, column 7',
    );
    expect(() => parseJson("[".repeat(300), "deep")).toThrow(
      "deep is nested deeper than 200 levels",
    );
    expect(() => parseJson("", "empty")).toThrow(
      "empty is not valid JSON: unexpected the end at line 1, column 1",
    );
  });

  test("__proto__ is an ordinary key", () => {
    const plain = toPlain(parseJson('{"__proto__": {"polluted": true}}', "x")) as Record<
      string,
      unknown
    >;
    expect(Object.keys(plain)).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  test("a reader names the path of what it did not find", () => {
    const reader = JsonReader.parse('{"status": [{"code": "x"}]}', "status file 3.status");
    expect(() => reader.get("status").items()[0]?.get("code").number()).toThrow(
      'status file 3.status: /status/0/code must be a number, it is "x"',
    );
    expect(() => reader.get("a").get("b").string()).toThrow(
      "status file 3.status: /a/b must be a string, it is missing",
    );
    expect(
      JsonReader.parse('{"FailoverLocation":"u"}', "x").getIgnoreCase("failoverLocation").string(),
    ).toBe("u");
    expect(reader.value instanceof JsonNumber).toBe(false);
  });
});
