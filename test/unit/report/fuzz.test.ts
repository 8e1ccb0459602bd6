import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { parseJson } from "../../../src/base/json.ts";
import { parseXml } from "../../../src/base/xml.ts";
import type { ExtensionStatus } from "../../../src/azure/vm-status.ts";
import {
  formatAgentState,
  initialAgentState,
  mergeAgentState,
  parseAgentState,
} from "../../../src/report/agent-state.ts";
import { parseEventDocument } from "../../../src/report/event-document.ts";
import { readExtensionEvent } from "../../../src/report/extension-events.ts";
import { parseManifest } from "../../../src/report/log-manifest.ts";
import { redactChunks } from "../../../src/report/log-redaction.ts";
import { encodeEvent, telemetryBody } from "../../../src/report/telemetry-encoding.ts";
import { vmStatus } from "../../../src/report/vm-status.ts";

const ROUNDS = 400;

/** A small generator with a fixed seed (mulberry32): a failure can be run again. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const PIECES = [
  '"',
  "'",
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  "\\",
  "\\u",
  "null",
  "-1e999",
  "\0",
  "\ud800",
  "😀",
  "<",
  ">",
  "&",
  "]]>",
  "<!DOCTYPE",
  "<![CDATA[",
  "\n",
  " ".repeat(300),
  "9".repeat(400),
];

function* mutations(sample: string, seed: number): Generator<string> {
  const pick = generator(seed);
  for (let round = 0; round < ROUNDS; round += 1) {
    let text = sample;
    for (let change = 0; change <= pick(4); change += 1) {
      const at = pick(text.length + 1);
      const kind = pick(3);
      if (kind === 0)
        text = text.slice(0, at) + (PIECES[pick(PIECES.length)] ?? "") + text.slice(at);
      else if (kind === 1) text = text.slice(0, at) + text.slice(at + 1 + pick(20));
      else text = text.slice(0, at) + text.slice(pick(text.length + 1));
    }
    yield text;
  }
}

/** Every input gives a result or an AgentError, and how many gave a result. */
function survivors(sample: string, seed: number, parse: (text: string) => void): number {
  let count = 0;
  for (const text of mutations(sample, seed)) {
    try {
      parse(text);
      count += 1;
    } catch (error) {
      if (!(error instanceof AgentError))
        throw new Error(`${JSON.stringify(text)}: ${String(error)}`);
    }
  }
  return count;
}

const EVENT =
  '{"eventId": 1, "providerId": "P", "parameters": [{"name": "Name", "value": "Pub.Ext"}, {"name": "V", "value": 1.5}, {"name": "B", "value": true}, {"name": "M", "value": "a <b> & \\"c\\""}], "file_type": ""}';
const XML_EVENT =
  '<Data><Provider id="P"/><Event id="1"/><Param Name="Name" Value="a &amp; b" T="mt:wstr"/><Param Name="D" Value="7" T="mt:uint64"/></Data>';

test("wire-protocol.md TEL-20 TEL-24 TEL-29: whatever can be read as an event makes a well-formed request", () => {
  for (const [sample, seed] of [
    [EVENT, 1],
    [XML_EVENT, 2],
  ] as const) {
    const count = survivors(sample, seed, (text) => {
      const event = parseEventDocument(text, "the sample");
      const body = telemetryBody(event.providerId, [encodeEvent(event)]);
      const inner = parseXml(body, "the body").children[0]?.children[0]?.text ?? "";
      parseXml(`<E>${inner}</E>`, "the event");
    });
    expect(count).toBeGreaterThan(10);
  }
});

test("wire-protocol.md ETP-05 ETP-06: any JSON value is an event or a reason", () => {
  const sample =
    '{"Version": "1", "Timestamp": "t", "TaskName": "T", "EventLevel": "Info", "Message": "m", "EventPid": "1", "EventTid": 2, "OperationId": "o"}';
  expect(
    survivors(sample, 3, (text) => void readExtensionEvent(parseJson(text, "e"))),
  ).toBeGreaterThan(10);
});

test("wire-protocol.md STAT-21 STAT-35 extensions.md EXT-107: any extension status makes a valid ASCII document", () => {
  const sample =
    '{"operation": {"a": [1.0, null]}, "code": "7", "time": "t", "message": "m", "name": "n", "status": "success"}';
  const count = survivors(sample, 4, (text) => {
    const value = parseJson(text, "s");
    const part = (key: string) => (value instanceof Map ? (value.get(key) ?? null) : value);
    const string = (key: string) => {
      const found = part(key);
      return typeof found === "string" ? found : null;
    };
    const status: ExtensionStatus = {
      name: string("name"),
      operation: part("operation"),
      status: string("status"),
      code: part("code"),
      configurationAppliedTime: part("time"),
      message: string("message"),
      substatuses: [
        { name: string("name"), status: "success", code: part("code"), message: string("message") },
      ],
    };
    const document = vmStatus({
      now: 0,
      agentVersion: "2.15.0.1",
      computerName: "h",
      osName: "o",
      osVersion: "1",
      update: undefined,
      aggregate: undefined,
      handlers: [
        {
          name: "Pub.Ext",
          version: "1",
          status: "Ready",
          code: 0,
          message: string("message") ?? undefined,
          extensions: [{ extensionName: undefined, sequence: 0, status }],
        },
      ],
      features: { versioningGovernance: false, fastTrack: false },
    });
    expect(/^[\x00-\x7f]*$/.test(document)).toBeTrue();
    expect(JSON.parse(document).aggregateStatus.handlerAggregateStatus).toHaveLength(1);
  });
  expect(count).toBeGreaterThan(10);
});

test("system.md BET-31 LOGC-15: state files, manifests and logs of any content are read or refused", () => {
  const state = mergeAgentState(initialAgentState({ version: "1", pid: 1, startedAt: "t" }), {
    component: { name: "firewall", state: "ok", detail: "d", since: "t" },
    storage: [{ purpose: "status", origin: "https://h", expiresAt: "t" }],
    handlers: [
      {
        name: "a",
        version: "1",
        state: "s",
        running: undefined,
        lastOperation: undefined,
        nextRetryAt: undefined,
        waitsFor: "b",
        detail: "c",
      },
    ],
  });
  survivors(formatAgentState(state), 5, (text) => void parseAgentState(text, "s"));
  const paths = { libDirectory: "/l", logDirectory: "/e", agentLog: "/a" } as const;
  const manifest = "echo,### x ###\nll,$LIB_DIR\ncopy,/var/log/*\n# c\n";
  expect(survivors(manifest, 6, (text) => void parseManifest(text, paths))).toBe(ROUNDS);
  const log =
    "https://h/f?sv=1&sig=x <UserPassword>p</UserPassword>\n-----BEGIN PRIVATE KEY-----\nk\n-----END PRIVATE KEY-----\n";
  expect(survivors(log, 7, (text) => void [...redactChunks([Buffer.from(text)])])).toBe(ROUNDS);
});
