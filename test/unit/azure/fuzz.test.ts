import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { AgentError } from "../../../src/base/error.ts";
import { parseJson } from "../../../src/base/json.ts";
import { parseXml } from "../../../src/base/xml.ts";
import { matchCertificates, parseCertificatesDocument } from "../../../src/azure/certificates.ts";
import { parseExtensionsConfig, parseOnHold } from "../../../src/azure/extensions-config.ts";
import { parseGoalState, parseVersions } from "../../../src/azure/goal-state-document.ts";
import { parseHostingEnvironment } from "../../../src/azure/hosting-environment.ts";
import { parseCompute, validateInstance } from "../../../src/azure/imds.ts";
import { parseManifest } from "../../../src/azure/manifest.ts";
import {
  redactExtensionsConfig,
  redactHostingEnvironment,
  redactVmSettings,
} from "../../../src/azure/redaction.ts";
import { parseRemoteAccess } from "../../../src/azure/remote-access.ts";
import { parseVmSettings } from "../../../src/azure/vm-settings.ts";

/**
 * Every reader of what the platform sends, fed with damaged documents: it must answer or refuse, and end: one
 * that runs away meets the limit of its test.
 * The corpus is kept in test/fixtures/platform, with every input that once found a mistake; the damage is the same in
 * every run. WAAGENT_FUZZ_ROUNDS makes it longer.
 */
const READERS: Readonly<Record<string, (text: string) => unknown>> = {
  xml: (text) => parseXml(text, "fuzz"),
  json: (text) => parseJson(text, "fuzz"),
  goalState: parseGoalState,
  versions: parseVersions,
  extensionsConfig: (text) => parseExtensionsConfig(text, "1"),
  onHold: parseOnHold,
  vmSettings: (text) => parseVmSettings(text, "1"),
  certificatesDocument: parseCertificatesDocument,
  certificates: matchCertificates,
  environment: parseHostingEnvironment,
  remoteAccess: parseRemoteAccess,
  manifest: (text) => parseManifest(text, "fuzz"),
  compute: parseCompute,
  instance: validateInstance,
};
const REDACTORS = [redactVmSettings, redactExtensionsConfig, redactHostingEnvironment];

const corpus = path.resolve(import.meta.dir, "../../fixtures/platform");
const seeds = readdirSync(corpus)
  .toSorted()
  .map((name) => readFileSync(path.join(corpus, name), "latin1"));
const ROUNDS = Number(process.env["WAAGENT_FUZZ_ROUNDS"] ?? "1500");

/** Numbers that are the same in every run (mulberry32). */
function generator(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return ((value ^ (value >>> 14)) >>> 0) % limit;
  };
}

const TOKENS = [
  "<",
  ">",
  "</",
  "/>",
  "&",
  ";",
  "&amp;",
  "&#0;",
  "&#x110000;",
  "&x;",
  "<![CDATA[",
  "]]>",
  "<!--",
  "-->",
  "<?xml",
  "?>",
  "<!DOCTYPE a>",
  "<!ENTITY",
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "'",
  "\\",
  "\\u",
  "\\ud800",
  "null",
  "true",
  "1e999",
  "-",
  "0",
  "99999999999999999999",
  "__proto__",
  "constructor",
  "\0",
  "\uFEFF",
  "\uD800",
  "\u2028",
  " ",
  "\n",
  "=",
  "?sig=",
  "xmlns:",
  "-----BEGIN CERTIFICATE-----",
  "-----END CERTIFICATE-----",
  "-----BEGIN PRIVATE KEY-----",
];

/** A few cuts, repetitions, exchanges and insertions. */
function damage(text: string, random: (limit: number) => number, other: string): string {
  let result = text;
  for (let step = random(4) + 1; step > 0; step -= 1) {
    const at = random(result.length + 1);
    const length = random(40);
    const kind = random(7);
    if (kind === 0) result = result.slice(0, at);
    else if (kind === 1) result = result.slice(0, at) + result.slice(at + length);
    else if (kind === 2)
      result = result.slice(0, at) + (TOKENS[random(TOKENS.length)] ?? "") + result.slice(at);
    else if (kind === 3)
      result = result.slice(0, at) + String.fromCharCode(random(0x180)) + result.slice(at + 1);
    else if (kind === 4)
      result =
        result.slice(0, at) + result.slice(at, at + length).repeat(random(30)) + result.slice(at);
    else if (kind === 5) result = result.slice(0, at) + other.slice(random(other.length + 1));
    else
      result =
        result.slice(0, at) +
        (TOKENS[random(TOKENS.length)] ?? "").repeat(random(200)) +
        result.slice(at);
  }
  return result.slice(0, 200_000);
}

function check(name: string, text: string): void {
  const read = READERS[name] ?? expect.unreachable();
  try {
    read(text);
  } catch (error) {
    // a refusal is an error of ours with a text that can be shown
    if (!(error instanceof AgentError))
      throw new Error(`${name} failed on ${JSON.stringify(text.slice(0, 2000))}`, { cause: error });
    expect(error.message.length).toBeLessThan(4000);
  }
}

for (const [index, name] of Object.keys(READERS).entries())
  test(`${name}: damaged documents are read or refused, never anything else`, () => {
    const random = generator(0x5eed + index);
    for (const seed of seeds) check(name, seed);
    for (let round = 0; round < ROUNDS; round += 1) {
      const seed = seeds[random(seeds.length)] ?? "";
      check(name, damage(seed, random, seeds[random(seeds.length)] ?? ""));
    }
  });

test("redaction of damaged documents ends, and never shows a protected value that is still whole", () => {
  const random = generator(0xbeef);
  for (let round = 0; round < ROUNDS; round += 1) {
    const text = damage(
      seeds[random(seeds.length)] ?? "",
      random,
      seeds[random(seeds.length)] ?? "",
    );
    for (const redact of REDACTORS) expect(typeof redact(text)).toBe("string");
  }
  const whole = '{"protectedSettings":"TOPSECRET-VALUE"}';
  for (let at = 0; at < whole.indexOf('"protected'); at += 1)
    expect(redactVmSettings(whole.slice(at))).not.toContain("TOPSECRET-VALUE");
});

test("nesting, repetition and length beyond all reason are refused, not followed", () => {
  const deep = 100_000;
  for (const [name, text] of [
    ["json", "[".repeat(deep)],
    ["json", '{"a":'.repeat(deep)],
    ["xml", "<a>".repeat(deep)],
    ["xml", `<a>${"<b>".repeat(deep)}${"</b>".repeat(deep)}</a>`],
    ["xml", `<a ${Array.from({ length: 20_000 }, (_, index) => `b${index}="x"`).join(" ")}/>`],
    ["vmSettings", `{"extensionGoalStates":[${"{},".repeat(50_000)}{}]}`],
    ["extensionsConfig", `<E><Plugins>${"<Plugin/>".repeat(20_000)}</Plugins></E>`],
    ["extensionsConfig", `<E><X>${"&amp;".repeat(200_000)}</X></E>`],
    ["certificates", "-----BEGIN CERTIFICATE-----".repeat(20_000)],
  ] as const)
    check(name, text);
  for (const text of [
    "<StatusUploadBlob".repeat(40_000),
    "<StatusUploadBlob><![CDATA[".repeat(40_000),
    '"protectedSettings":"'.repeat(40_000),
    `"protectedSettings"${" ".repeat(400_000)}`,
    `<Setting name='password' ${"value= ".repeat(40_000)}`,
    '"'.repeat(400_000),
    "?sig=".repeat(400_000),
  ])
    for (const redact of REDACTORS) expect(typeof redact(text)).toBe("string");
});
