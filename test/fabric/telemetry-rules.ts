type Report = (rule: string, message: string) => void;

/** One event of a telemetry request, its parameters decoded. */
export interface TelemetryRecord {
  readonly provider: string;
  readonly eventId: string;
  readonly parameters: Readonly<Record<string, string>>;
}

interface Parameter {
  readonly name: string;
  readonly type: string;
  readonly value: string;
}

const EXTENSION_PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975";
const LOG_PROVIDER = "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F";

/** TEL-01..06: names and types in their order. `*` marks the types an extension may choose. */
const OWN: Readonly<Record<string, readonly string[]>> = {
  [`${EXTENSION_PROVIDER}/1`]: [
    "Name:wstr",
    "Version:wstr",
    "Operation:wstr",
    "OperationSuccess:bool",
    "Message:wstr",
    "Duration:uint64",
  ],
  [`${EXTENSION_PROVIDER}/4`]: ["Category:wstr", "Counter:wstr", "Instance:wstr", "Value:float64"],
  [`${LOG_PROVIDER}/7`]: [
    "EventName:wstr",
    "CapabilityUsed:wstr",
    "Context1:wstr",
    "Context2:wstr",
    "Context3:wstr",
  ],
};
const COMMON = [
  "GAVersion:wstr",
  "ContainerId:wstr",
  "OpcodeName:wstr",
  "EventTid:*",
  "EventPid:*",
  "TaskName:wstr",
];
const ONLY_EXTENSION = ["ExtensionType:wstr", "IsInternal:bool"];
const MACHINE = [
  "OSVersion:wstr",
  "ExecutionMode:wstr",
  "RAM:uint64",
  "Processors:uint64",
  "KeywordName:wstr",
  "TenantName:wstr",
  "RoleName:wstr",
  "RoleInstanceName:wstr",
  "Location:wstr",
  "SubscriptionId:wstr",
  "ResourceGroupName:wstr",
  "VMId:wstr",
  "ImageOrigin:uint64",
];

const DOCUMENT =
  /^<\?xml version="1\.0"\?><TelemetryData version="1\.0"><Provider id="([0-9A-F-]{36})">([\s\S]*)<\/Provider><\/TelemetryData>$/;
const EVENT = /<Event id="(\d+)"><!\[CDATA\[([\s\S]*?)\]\]><\/Event>/g;
const PARAMETER = /<Param Name="([^"<>&]+)" Value=("[^"<>]*"|'[^'<>]*') T="(?:mt:(\w+))?" \/>/g;

/** The events of a telemetry body; what cannot be read is left out. */
export function readTelemetry(body: string): TelemetryRecord[] {
  const match = DOCUMENT.exec(body);
  if (match === null) return [];
  return [...match[2]!.matchAll(EVENT)].map(([, eventId, content]) => ({
    provider: match[1]!,
    eventId: eventId!,
    parameters: Object.fromEntries(parametersOf(content!).map(({ name, value }) => [name, value])),
  }));
}

/** `wire-protocol.md` TEL-01..06, TEL-29..32. */
export function telemetryRules(body: string, bytes: number, report: Report): void {
  const match = DOCUMENT.exec(body);
  if (match === null) return report("TEL-31", `the body has another shape: ${body.slice(0, 300)}`);
  const [, provider, content] = match;
  const events = [...content!.matchAll(EVENT)];
  if (events.length === 0) report("TEL-31", "the body holds no event");
  if (content!.replace(EVENT, "") !== "") report("TEL-29", "there is text between the events");
  if (bytes > 65536) report("TEL-32", `the body has ${bytes} bytes, the server takes 65536`);
  for (const [, eventId, parameters] of events)
    eventRules(provider!, eventId!, parameters!, report);
}

function eventRules(provider: string, eventId: string, content: string, report: Report): void {
  const own = OWN[`${provider}/${eventId}`];
  if (own === undefined)
    return report("TEL-01", `event ${eventId} of provider ${provider} is unknown`);
  if (content.replace(PARAMETER, "") !== "")
    report(
      "TEL-29",
      `a parameter has another shape: ${content.replace(PARAMETER, "").slice(0, 200)}`,
    );
  const parameters = parametersOf(content);
  const wanted = [...own, ...COMMON, ...(eventId === "1" ? ONLY_EXTENSION : []), ...MACHINE];
  const names = parameters.map(({ name }) => name);
  const wantedNames = wanted.map((one) => one.split(":")[0]!);
  const lacking = wantedNames.filter((name) => !names.includes(name));
  const extra = names.filter((name) => !wantedNames.includes(name));
  if (lacking.length > 0)
    report("TEL-04", `event ${eventId} lacks the parameters ${lacking.join()}`);
  if (extra.length > 0)
    report("TEL-04", `event ${eventId} has the unknown parameters ${extra.join()}`);
  if (lacking.length === 0 && extra.length === 0 && names.join() !== wantedNames.join())
    report("TEL-04", `event ${eventId} has its parameters in the order ${names.join()}`);
  wanted.forEach((one) => {
    const [name, type] = one.split(":");
    const parameter = parameters.find((candidate) => candidate.name === name);
    if (parameter === undefined) return;
    if (type !== "*" && parameter.type !== type)
      report("TEL-30", `${name} is mt:${parameter.type}, not mt:${type}`);
    if (parameter.type === "bool" && !/^(True|False)$/.test(parameter.value))
      report("TEL-30", `${name} is ${parameter.value}, not True or False`);
    if (parameter.type === "float64" && !parameter.value.includes("."))
      report("TEL-30", `${name} is ${parameter.value}, without a fraction`);
  });
  const value = (name: string) => parameters.find((one) => one.name === name)?.value ?? "";
  if (!/^WALinuxAgent-\d+(\.\d+){3}$/.test(value("GAVersion")))
    report("TEL-04", `GAVersion is ${value("GAVersion")}`);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/.test(value("OpcodeName")))
    report("TEL-04", `OpcodeName is ${value("OpcodeName")}`);
  if (value("ExecutionMode") !== "IAAS")
    report("TEL-06", `ExecutionMode is ${value("ExecutionMode")}`);
  if (
    /https?:\/\/[^\s]*\?(sv|st|se|sr|sp|sip|spr|sig)=/i.test(value("Message") + value("Context1"))
  )
    report(
      "HTTP-22",
      `a message holds a shared access signature: ${value("Message").slice(0, 300)}`,
    );
}

function parametersOf(content: string): Parameter[] {
  return [...content.matchAll(PARAMETER)].map(([, name, quoted, type]) => ({
    name: name!,
    type: type ?? "",
    value: unescapeXml(quoted!.slice(1, -1)),
  }));
}

function unescapeXml(text: string): string {
  const named: Readonly<Record<string, string>> = {
    lt: "<",
    gt: ">",
    quot: '"',
    apos: "'",
    amp: "&",
  };
  return text.replace(
    /&(?:#(\d+)|(\w+));/g,
    (whole, code: string | undefined, name: string | undefined) =>
      code !== undefined ? String.fromCodePoint(Number(code)) : (named[name ?? ""] ?? whole),
  );
}
