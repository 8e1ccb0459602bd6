import { expect, test } from "bun:test";
import { imageOrigin } from "../../src/azure/image-origin.ts";
import { parseCompute, validateInstance } from "../../src/azure/imds.ts";
import { formatJson, JsonReader } from "../../src/base/json.ts";
import { areFixturesThere, listFixtures, readFixture, skipWithoutFixtures } from "./fixtures.ts";

if (!areFixturesThere) {
  skipWithoutFixtures();
} else {
  const compute = (name: string) =>
    parseCompute(
      formatJson(
        JsonReader.parse(readFixture(`imds/${name}`), name)
          .get("compute")
          .object(),
      ),
    );

  test("wire-protocol.md IMDS-04 IMDS-05 IMDS-10 FIX-22: both samples are healthy, and beyond ASCII they are read as UTF-8", () => {
    expect(listFixtures("imds")).toEqual(["unicode.json", "valid.json"]);
    for (const name of ["unicode.json", "valid.json"])
      expect(validateInstance(readFixture(`imds/${name}`))).toBeUndefined();
    expect(compute("valid.json")).toMatchObject({
      location: "westus",
      publisher: "Canonical",
      offer: "UbuntuServer",
      sku: "16.04-LTS",
      zone: "",
    });
    expect(imageOrigin(compute("valid.json"))).toBe(2);
    const odd = compute("unicode.json");
    const text = Object.values(odd).join("");
    expect([...text].some((character) => (character.codePointAt(0) ?? 0) > 127)).toBe(true);
    expect(text).not.toContain("\uFFFD");
  });
}
