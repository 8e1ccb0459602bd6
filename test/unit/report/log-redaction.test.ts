import { expect, test } from "bun:test";
import { redactChunks, redactLogText } from "../../../src/report/log-redaction.ts";

const through = (chunks: Uint8Array[]): Buffer => Buffer.concat([...redactChunks(chunks)]);
const split = (text: string, size: number): Uint8Array[] => {
  const data = Buffer.from(text);
  return Array.from({ length: Math.ceil(data.length / size) }, (_, index) =>
    data.subarray(index * size, (index + 1) * size),
  );
};

test("system.md BET-19 BET-22 LOG-04: signatures, keys and passwords are taken out", () => {
  expect(
    redactLogText(
      "GET https://h/f?comp=page&sig=SECRET1 x\nAccountKey=SECRET2==;EndpointSuffix=x\nSharedAccessKey=SECRET3 y\nproxy http://user:SECRET4@proxy\n<ns1:UserPassword>SECRET5</ns1:UserPassword><CustomData>SECRET6</CustomData>",
    ),
  ).toBe(
    "GET https://h/f?comp=page&sig=<redacted> x\nAccountKey=<redacted>;EndpointSuffix=x\nSharedAccessKey=<redacted> y\nproxy http://<redacted>@proxy\n<ns1:UserPassword><redacted></ns1:UserPassword><CustomData><redacted></CustomData>",
  );
});

test("system.md BET-19: private keys are taken out, also across chunks", () => {
  const text = `before\n-----BEGIN RSA PRIVATE KEY-----\n${"SECRET\n".repeat(50)}-----END RSA PRIVATE KEY-----\nafter\n{"key": "-----BEGIN PRIVATE KEY-----\\nSECRET\\n-----END PRIVATE KEY-----"}\nlast`;
  for (const size of [7, 64, 10_000]) {
    const result = through(split(text, size)).toString();
    expect(result).not.toContain("SECRET");
    expect(result).toStartWith("before\n-----BEGIN RSA PRIVATE KEY-----\n<redacted>\n");
    expect(result).toContain("-----END RSA PRIVATE KEY-----\nafter\n");
    expect(result).toEndWith("\nlast");
  }
});

test("system.md BET-19: everything else stays byte for byte, whatever the encoding", () => {
  const bytes = Buffer.concat([
    Buffer.from(Array.from({ length: 256 }, (_, index) => index)),
    Buffer.from("grün 中文\n"),
    Buffer.from([0xff, 0xfe, 0x00]),
  ]);
  expect(through([bytes.subarray(0, 100), bytes.subarray(100, 259), bytes.subarray(259)])).toEqual(
    bytes,
  );
});

test("system.md BET-21: a line that never ends is not kept in memory", () => {
  const chunk = Buffer.alloc(256 * 1024, "x");
  let largest = 0;
  let total = 0;
  for (const part of redactChunks(Array<Uint8Array>(20).fill(chunk))) {
    largest = Math.max(largest, part.length);
    total += part.length;
  }
  expect(total).toBe(20 * chunk.length);
  expect(largest).toBeLessThanOrEqual(1024 * 1024 + chunk.length);
});
