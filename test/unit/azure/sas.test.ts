import { expect, test } from "bun:test";
import { sasExpiry } from "../../../src/azure/sas.ts";

test("the end of a signature is read from its address, whatever stands around it", () => {
  const at = (text: string): number | undefined => sasExpiry(`https://h.test/b?sv=1&${text}&sig=x`);
  expect(at("se=2030-01-02T03%3A04%3A05Z")).toBe(Date.UTC(2030, 0, 2, 3, 4, 5));
  expect(at("se=2030-01-02T03:04Z")).toBe(Date.UTC(2030, 0, 2, 3, 4));
  expect(at("se=2030-01-02")).toBe(Date.UTC(2030, 0, 2));
  for (const odd of ["se=", "se=soon", "se=2030-13-45T00:00:00Z", "se=2030-01-02T03:04:05", "sp=r"])
    expect(at(odd)).toBeUndefined();
  expect(sasExpiry("no address")).toBeUndefined();
  expect(sasExpiry("https://h.test/b")).toBeUndefined();
});
