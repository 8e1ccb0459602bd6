import { describe, expect, test } from "bun:test";
import { JsonNumber } from "../../../src/base/json.ts";
import type { ExtensionStatus, HandlerReport } from "../../../src/azure/vm-status.ts";
import {
  cutExtensionStatus,
  featureNames,
  MAX_STATUS_CHARACTERS,
  vmStatus,
  type VmStatusInput,
} from "../../../src/report/vm-status.ts";

const NOW = Date.UTC(2030, 0, 2, 3, 4, 5, 678);

const ready: ExtensionStatus = {
  name: "Pub.Ext",
  operation: "Enable",
  status: "success",
  code: new JsonNumber("0"),
  configurationAppliedTime: null,
  message: "done",
  substatuses: [],
};

const handler: HandlerReport = {
  name: "Pub.Ext",
  version: "1.0.0",
  status: "Ready",
  code: 0,
  message: "Plugin enabled",
  extensions: [],
};

function input(change: Partial<VmStatusInput> = {}): VmStatusInput {
  return {
    now: NOW,
    agentVersion: "2.15.0.1",
    computerName: "host",
    osName: "ubuntu",
    osVersion: "22.04",
    update: undefined,
    handlers: [],
    aggregate: undefined,
    features: { versioningGovernance: true, fastTrack: true },
    ...change,
  };
}

// oxlint-disable-next-line typescript/no-explicit-any
const parsed = (change: Partial<VmStatusInput> = {}): any => JSON.parse(vmStatus(input(change)));
const entry = (change: Partial<HandlerReport>) =>
  parsed({ handlers: [{ ...handler, ...change }] }).aggregateStatus.handlerAggregateStatus[0];
const withStatus = (change: Partial<ExtensionStatus>, sequence = 3) =>
  entry({ extensions: [{ extensionName: undefined, sequence, status: { ...ready, ...change } }] })
    .runtimeSettingsStatus;

describe("the whole document", () => {
  test("wire-protocol.md STAT-10 STAT-11 STAT-12 STAT-14 extensions.md EXT-113: the sample, byte for byte", () => {
    const text = vmStatus(
      input({
        update: { error: "" },
        handlers: [
          {
            ...handler,
            extensions: [
              {
                extensionName: "onlyForMultiConfig",
                sequence: 3,
                status: {
                  ...ready,
                  substatuses: [
                    { name: "s", status: "success", code: new JsonNumber("0"), message: null },
                  ],
                },
              },
            ],
          },
        ],
        aggregate: {
          status: "Success",
          code: 0,
          message: "GoalState executed successfully",
          processedAt: NOW - 60_000,
          sequence: "7",
        },
      }),
    );
    expect(text).toBe(
      '{"version": "1.1", "timestampUTC": "2030-01-02T03:04:05Z", "aggregateStatus": {"guestAgentStatus": {"version": "2.15.0.1", "status": "Ready", ' +
        '"formattedMessage": {"lang": "en-US", "message": "Guest Agent is running"}, "updateStatus": {"expectedVersion": "2.15.0.1", "status": "Success", ' +
        '"code": 0, "formattedMessage": {"lang": "en-US", "message": ""}}}, "handlerAggregateStatus": [{"handlerVersion": "1.0.0", "handlerName": "Pub.Ext", ' +
        '"status": "Ready", "code": 0, "useExactVersion": true, "formattedMessage": {"lang": "en-US", "message": "Plugin enabled"}, ' +
        '"runtimeSettingsStatus": {"settingsStatus": {"status": {"name": "Pub.Ext", "configurationAppliedTime": null, "operation": "Enable", ' +
        '"status": "success", "code": 0, "formattedMessage": {"lang": "en-US", "message": "done"}, "substatus": [{"name": "s", "status": "success", ' +
        '"code": 0, "formattedMessage": {"lang": "en-US", "message": null}}]}, "version": 1.0, "timestampUTC": "2030-01-02T03:04:05Z"}, ' +
        '"sequenceNumber": 3, "extensionName": "onlyForMultiConfig"}}], "vmArtifactsAggregateStatus": {"goalStateAggregateStatus": ' +
        '{"formattedMessage": {"lang": "en-US", "message": "GoalState executed successfully"}, "timestampUTC": "2030-01-02T03:03:05Z", ' +
        '"inSvdSeqNo": "7", "status": "Success", "code": 0}}}, "guestOSInfo": {"computerName": "host", "osName": "ubuntu", "osVersion": "22.04", ' +
        '"version": "2.15.0.1"}, "supportedFeatures": [{"Key": "MultipleExtensionsPerHandler", "Value": "1.0"}, ' +
        '{"Key": "VersioningGovernance", "Value": "1.0"}, {"Key": "FastTrack", "Value": "1.0"}]}',
    );
  });

  test("wire-protocol.md STAT-21 TRAP-05: text outside ASCII is escaped, so bytes equal characters", () => {
    const text = vmStatus(
      input({ handlers: [{ ...handler, message: "fertig: größer 😀 \u007f" }] }),
    );
    expect(Buffer.byteLength(text)).toBe(text.length);
    expect(text).toContain("gr\\u00f6\\u00dfer \\ud83d\\ude00");
    expect(
      JSON.parse(text).aggregateStatus.handlerAggregateStatus[0].formattedMessage.message,
    ).toBe("fertig: größer 😀 \u007f");
  });

  test("wire-protocol.md STAT-12 DB-30: updateStatus is Error 1 with the text; expectedVersion is the running version", () => {
    expect(parsed().aggregateStatus.guestAgentStatus).not.toHaveProperty("updateStatus");
    expect(
      parsed({ update: { error: "no package" } }).aggregateStatus.guestAgentStatus.updateStatus,
    ).toEqual({
      expectedVersion: "2.15.0.1",
      status: "Error",
      code: 1,
      formattedMessage: { lang: "en-US", message: "no package" },
    });
  });

  test("wire-protocol.md STAT-13 STAT-14: the aggregate appears after the first goal state; a Fast Track number stays a number", () => {
    expect(parsed().aggregateStatus).not.toHaveProperty("vmArtifactsAggregateStatus");
    const aggregate = {
      status: "Failed",
      code: 2001,
      message: "unsupported",
      processedAt: NOW,
      sequence: 42,
    } as const;
    expect(parsed({ aggregate }).aggregateStatus.vmArtifactsAggregateStatus).toEqual({
      goalStateAggregateStatus: {
        formattedMessage: { lang: "en-US", message: "unsupported" },
        timestampUTC: "2030-01-02T03:04:05Z",
        inSvdSeqNo: 42,
        status: "Failed",
        code: 2001,
      },
    });
  });

  test("wire-protocol.md STAT-20: features follow what is on", () => {
    expect(featureNames({ versioningGovernance: false, fastTrack: false })).toEqual([
      "MultipleExtensionsPerHandler",
    ]);
    expect(
      parsed({ features: { versioningGovernance: false, fastTrack: true } }).supportedFeatures,
    ).toEqual([
      { Key: "MultipleExtensionsPerHandler", Value: "1.0" },
      { Key: "FastTrack", Value: "1.0" },
    ]);
  });
});

describe("handlers and extensions", () => {
  test("wire-protocol.md STAT-15 extensions.md EXT-113: the handler's message is left out when there is none, the list never", () => {
    expect(parsed().aggregateStatus.handlerAggregateStatus).toEqual([]);
    expect(entry({ message: undefined })).toEqual({
      handlerVersion: "1.0.0",
      handlerName: "Pub.Ext",
      status: "Ready",
      code: 0,
      useExactVersion: true,
    });
  });

  test("wire-protocol.md STAT-16 STAT-29 extensions.md EXT-112: one entry for each settings entry, each with the handler's part", () => {
    const entries = parsed({
      handlers: [
        {
          ...handler,
          extensions: [
            { extensionName: "one", sequence: 1, status: ready },
            { extensionName: "two", sequence: 2, status: ready },
          ],
        },
      ],
    }).aggregateStatus.handlerAggregateStatus;
    expect(entries).toHaveLength(2);
    expect(entries.map((one: { handlerName: string }) => one.handlerName)).toEqual([
      "Pub.Ext",
      "Pub.Ext",
    ]);
    expect(
      entries.map(
        (one: { runtimeSettingsStatus: { extensionName: string } }) =>
          one.runtimeSettingsStatus.extensionName,
      ),
    ).toEqual(["one", "two"]);
    const single = withStatus({});
    expect(single).not.toHaveProperty("extensionName");
    expect(single.settingsStatus.status).not.toHaveProperty("substatus");
  });

  test("wire-protocol.md STAT-17 extensions.md EXT-102: operation, time and code pass through as they are", () => {
    const { status } = withStatus({
      operation: new Map([["nested", new JsonNumber("9223372036854775808")]]),
      configurationAppliedTime: "yesterday",
      code: "17",
    }).settingsStatus;
    expect(status.configurationAppliedTime).toBe("yesterday");
    expect(status.code).toBe("17");
    expect(
      vmStatus(
        input({
          handlers: [
            {
              ...handler,
              extensions: [
                {
                  extensionName: undefined,
                  sequence: 0,
                  status: { ...ready, code: new JsonNumber("9223372036854775808") },
                },
              ],
            },
          ],
        }),
      ),
    ).toContain('"code": 9223372036854775808');
  });

  test("extensions.md EXT-101: a null status is reported as null", () => {
    const { status } = withStatus({
      status: null,
      code: null,
      operation: null,
      message: null,
    }).settingsStatus;
    expect(status).toEqual({
      name: "Pub.Ext",
      configurationAppliedTime: null,
      operation: null,
      status: null,
      code: null,
      formattedMessage: { lang: "en-US", message: null },
    });
  });

  test("extensions.md EXT-114: a heartbeat's text is passed on verbatim", () => {
    expect(entry({ status: "ready" }).status).toBe("ready");
  });

  test("wire-protocol.md STAT-18 HTTP-22 DB-22: signatures are redacted in every message", () => {
    const secret = "see https://a.blob.core.windows.net/c/f?comp=page&sig=SECRET%3d now";
    const text = vmStatus(
      input({
        update: { error: secret },
        handlers: [
          {
            ...handler,
            message: secret,
            extensions: [
              {
                extensionName: undefined,
                sequence: 0,
                status: {
                  ...ready,
                  message: secret,
                  substatuses: [{ name: "s", status: "success", code: null, message: secret }],
                },
              },
            ],
          },
        ],
        aggregate: { status: "Failed", code: -1, message: secret, processedAt: NOW, sequence: "1" },
      }),
    );
    expect(text).not.toContain("SECRET");
    expect(text.match(/<redacted>/g)).toHaveLength(5);
  });

  test("extensions.md DB-05 wire-protocol.md STAT-35: an item that cannot be written is an error of that item alone", () => {
    const broken = {
      ...handler,
      name: "Pub.Broken",
      extensions: [
        { extensionName: undefined, sequence: 0, status: null as unknown as ExtensionStatus },
      ],
    };
    const entries = parsed({ handlers: [broken, handler] }).aggregateStatus.handlerAggregateStatus;
    expect(entries[0]).toMatchObject({ handlerName: "Pub.Broken", status: "NotReady", code: -1 });
    expect(entries[1]).toMatchObject({ handlerName: "Pub.Ext", status: "Ready", code: 0 });
  });
});

describe("size limits", () => {
  const long = (length: number) => "x".repeat(length);

  test("wire-protocol.md STAT-34 extensions.md EXT-104: texts are cut with a suffix at the limit", () => {
    const status = cutExtensionStatus({
      ...ready,
      message: long(1024),
      substatuses: [{ name: long(10_239), status: "success", code: null, message: long(20_000) }],
    });
    expect(status.message).toHaveLength(1024);
    expect(status.message).toEndWith("x ... [TRUNCATED]");
    expect(status.substatuses[0]?.name).toBe(long(10_239));
    expect(status.substatuses[0]?.message).toHaveLength(10_240);
    expect(status.substatuses[0]?.message).toEndWith("x ... [TRUNCATED]");
    expect(cutExtensionStatus(status)).toEqual(status);
  });

  test("wire-protocol.md STAT-34: substatuses are kept in order while the sum stays within the limit", () => {
    const many = Array.from({ length: 40 }, (_, index) => ({
      name: `s${index}`,
      status: "success",
      code: null,
      message: long(10_000),
    }));
    const { substatuses } = cutExtensionStatus({ ...ready, message: null, substatuses: many });
    expect(substatuses.map((one) => one.name)).toEqual(many.slice(0, 13).map((one) => one.name));
    const sum = substatuses.reduce(
      (total, one) => total + (one.name?.length ?? 0) + (one.message?.length ?? 0),
      0,
    );
    expect(sum).toBeLessThanOrEqual(MAX_STATUS_CHARACTERS);
  });

  test("wire-protocol.md STAT-35 DB-08: null texts in an oversized status are no error", () => {
    const { status } = withStatus({
      message: null,
      substatuses: [
        { name: null, status: "success", code: null, message: null },
        { name: "big", status: "success", code: null, message: long(200_000) },
      ],
    }).settingsStatus;
    expect(status.formattedMessage.message).toBeNull();
    expect(status.substatus[0].name).toBeNull();
    expect(status.substatus[1].formattedMessage.message).toHaveLength(10_240);
  });

  test("wire-protocol.md STAT-19: many small extensions are never cut", () => {
    const handlers = Array.from({ length: 100 }, (_, index) => ({
      ...handler,
      name: `Pub.Ext${index}`,
      extensions: [
        { extensionName: undefined, sequence: 0, status: { ...ready, message: long(5000) } },
      ],
    }));
    const entries = parsed({ handlers }).aggregateStatus.handlerAggregateStatus;
    expect(entries).toHaveLength(100);
    expect(
      entries[99].runtimeSettingsStatus.settingsStatus.status.formattedMessage.message,
    ).toHaveLength(5000);
  });
});
