import type { World } from "./documents.ts";

type Report = (rule: string, message: string) => void;
type Json = Record<string, unknown>;

/** What a member of the status document may be. */
type Shape = (value: unknown, where: string, report: Report) => void;

const text: Shape = (value, where, report) => {
  if (typeof value !== "string")
    report("STAT-14.2", `${where} is ${JSON.stringify(value)}, not a text`);
};
const nullableText: Shape = (value, where, report) => {
  if (value !== null) text(value, where, report);
};
const integer: Shape = (value, where, report) => {
  if (!Number.isInteger(value))
    report("STAT-14.2", `${where} is ${JSON.stringify(value)}, not an integer`);
};
const boolean: Shape = (value, where, report) => {
  if (typeof value !== "boolean")
    report("STAT-14.2", `${where} is ${JSON.stringify(value)}, not a boolean`);
};
const anything: Shape = () => undefined;
const time: Shape = (value, where, report) => {
  if (typeof value !== "string" || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value))
    report(
      "STAT-14.2",
      `${where} is ${JSON.stringify(value)}, not a time like 2030-01-01T00:00:00Z`,
    );
};
const oneOf =
  (...allowed: readonly unknown[]): Shape =>
  (value, where, report) => {
    if (!allowed.includes(value))
      report(
        "STAT-14.2",
        `${where} is ${JSON.stringify(value)}, not one of ${JSON.stringify(allowed)}`,
      );
  };
const matches =
  (pattern: RegExp): Shape =>
  (value, where, report) => {
    if (typeof value !== "string" || !pattern.test(value))
      report("STAT-14.2", `${where} is ${JSON.stringify(value)}`);
  };
const list =
  (item: Shape): Shape =>
  (value, where, report) => {
    if (!Array.isArray(value)) return report("STAT-14.2", `${where} is no list`);
    value.forEach((one, index) => item(one, `${where}[${index}]`, report));
  };
/** A name that ends with "?" may be absent. No other member may be there. */
const object =
  (members: Readonly<Record<string, Shape>>): Shape =>
  (value, where, report) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return report("STAT-14.2", `${where} is no object`);
    const record = value as Json;
    const known = new Set<string>();
    for (const [key, shape] of Object.entries(members)) {
      const name = key.replace(/\?$/, "");
      known.add(name);
      if (name in record) shape(record[name], `${where}.${name}`, report);
      else if (!key.endsWith("?")) report("STAT-14.2", `${where}.${name} is missing`);
    }
    for (const name of Object.keys(record)) {
      if (!known.has(name)) report("STAT-19", `${where}.${name} is no member of the document`);
    }
  };

const message = object({ lang: oneOf("en-US"), message: nullableText });
const version = matches(/^\d+(\.\d+)*$/);

const extensionStatus = object({
  status: object({
    name: nullableText,
    configurationAppliedTime: nullableText,
    operation: nullableText,
    status: oneOf("transitioning", "warning", "error", "success", null),
    code: anything,
    formattedMessage: message,
    "substatus?": list(
      object({
        name: nullableText,
        status: oneOf("transitioning", "warning", "error", "success"),
        code: anything,
        formattedMessage: message,
      }),
    ),
  }),
  version: oneOf(1),
  timestampUTC: time,
});

const handler = object({
  handlerVersion: version,
  handlerName: text,
  // A heartbeat's own word is passed on as it is, and handlers write it in lower case (`extensions.md` EXT-114).
  status: oneOf(
    "Ready",
    "NotReady",
    "Installing",
    "Unresponsive",
    "ready",
    "notready",
    "installing",
  ),
  code: integer,
  useExactVersion: boolean,
  "formattedMessage?": message,
  "runtimeSettingsStatus?": object({
    settingsStatus: extensionStatus,
    sequenceNumber: integer,
    "extensionName?": text,
  }),
});

const statusDocument = object({
  version: oneOf("1.1"),
  timestampUTC: time,
  aggregateStatus: object({
    guestAgentStatus: object({
      version,
      status: oneOf("Ready"),
      formattedMessage: object({ lang: oneOf("en-US"), message: oneOf("Guest Agent is running") }),
      "updateStatus?": object({
        expectedVersion: version,
        status: oneOf("Success", "Error", "Transitioning", "Unknown"),
        code: integer,
        formattedMessage: message,
      }),
    }),
    handlerAggregateStatus: list(handler),
    "vmArtifactsAggregateStatus?": object({
      goalStateAggregateStatus: object({
        formattedMessage: message,
        timestampUTC: time,
        inSvdSeqNo: anything,
        status: oneOf("Success", "Failed", "Initialize", "Transitioning"),
        code: integer,
      }),
    }),
  }),
  guestOSInfo: object({ computerName: text, osName: text, osVersion: text, version }),
  "supportedFeatures?": list(
    object({
      Key: oneOf("MultipleExtensionsPerHandler", "VersioningGovernance", "FastTrack"),
      Value: oneOf("1.0"),
    }),
  ),
});

/** `wire-protocol.md` §14.2: shape, names and value ranges of the uploaded document. */
export function statusRules(body: string, world: World, report: Report): void {
  let document: unknown;
  try {
    document = JSON.parse(body);
  } catch {
    return report("STAT-46", `the status is not JSON: ${body.slice(0, 200)}`);
  }
  // STAT-21: escapes keep byte and character length equal.
  if (/[^\x00-\x7f]/.test(body))
    report("STAT-21", "the status holds characters that are not escaped");
  statusDocument(document, "status", report);
  const goal = inSvdSeqNo(document);
  if (goal === undefined) return;
  const wanted = world.goal.source === "FastTrack" ? "number" : "string";
  const known = typeof goal === "string" || typeof goal === "number";
  if (!known) report("STAT-14", `inSvdSeqNo is ${JSON.stringify(goal)}, not a ${wanted}`);
}

function inSvdSeqNo(document: unknown): unknown {
  const aggregate = (document as Json | null)?.["aggregateStatus"] as Json | undefined;
  const artifacts = aggregate?.["vmArtifactsAggregateStatus"] as Json | undefined;
  return (artifacts?.["goalStateAggregateStatus"] as Json | undefined)?.["inSvdSeqNo"];
}
