import { AgentError } from "../base/error.ts";
import { formatJson, JsonNumber, JsonReader, toJson, type Json } from "../base/json.ts";
import { descendants, parseXml } from "../base/xml.ts";

/** One telemetry event as it lies on disk and goes over the wire (`wire-protocol.md` TEL-15). */
export interface EventDocument {
  /** 1 extension event, 4 metric, 7 log; events of extensions may have it as text (TEL-23). */
  readonly eventId: string | number;
  readonly providerId: string;
  readonly parameters: readonly EventParameter[];
  /** "json" or "xml" for an event that an extension wrote, else "". */
  readonly fileType: string;
}

export interface EventParameter {
  readonly name: string;
  /** The JSON type chooses the type on the wire (TEL-16); a number with a fraction keeps it. */
  readonly value: Json;
}

/** Table of operations: GuestAgentExtensionEvents and GuestAgentPerformanceCounterEvents (TEL-01, TEL-02). */
export const EVENTS_PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975";
/** Table of logs: GuestAgentGenericLogs (TEL-03). */
export const LOGS_PROVIDER = "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F";

const MAX_PARAMETERS = 200;

export function formatEventDocument(event: EventDocument): string {
  return formatJson(
    toJson({
      eventId: event.eventId,
      providerId: event.providerId,
      parameters: event.parameters.map(({ name, value }) => ({ name, value })),
      file_type: event.fileType,
    }),
  );
}

/** JSON, else XML (TEL-20). Errors: AgentError "bad-input" that names the file. */
export function parseEventDocument(text: string, file: string): EventDocument {
  return text.trimStart().startsWith("<") ? parseXmlEvent(text, file) : parseJsonEvent(text, file);
}

function parseJsonEvent(text: string, file: string): EventDocument {
  const reader = JsonReader.parse(text, file);
  reader.object();
  const id = reader.get("eventId");
  if (typeof id.value !== "string" && !(id.value instanceof JsonNumber))
    throw id.expected("a number or text");
  const parameters = reader.get("parameters").items();
  bounded(parameters.length, file);
  return {
    eventId: typeof id.value === "string" ? id.value : id.integer(),
    providerId: reader.get("providerId").string(),
    parameters: parameters.map((parameter) => {
      const value = parameter.get("value");
      if (value.value === undefined) throw value.expected("there");
      return { name: parameter.get("name").string(), value: value.value };
    }),
    fileType: reader.get("file_type").optionalString() ?? "json",
  };
}

/** `<Data><Provider id="P"/><Event id="1"/><Param Name="N" Value="V" T="mt:wstr" />...</Data>` (TEL-20). */
function parseXmlEvent(text: string, file: string): EventDocument {
  const root = parseXml(text, file);
  const attribute = (element: string, name: string): string => {
    const [first] = [...descendants({ ...root, children: [root] }, element)];
    const value = first?.attributes.get(name);
    if (value === undefined)
      throw new AgentError("bad-input", `${file} has no ${element} with the attribute ${name}`);
    return value;
  };
  const providerId = attribute("Provider", "id");
  const eventId = attribute("Event", "id");
  const found = [...descendants(root, "Param")];
  bounded(found.length, file);
  return {
    eventId,
    providerId,
    parameters: found.map(({ attributes }) => ({
      name: attributes.get("Name") ?? "",
      value: typedValue(attributes.get("Value") ?? "", attributes.get("T") ?? ""),
    })),
    fileType: "xml",
  };
}

/** A value of the XML form by its type; text that is not what it says stays text. */
function typedValue(text: string, type: string): Json {
  const trimmed = text.trim();
  if (/^mt:u?int\d+$/.test(type) && /^-?\d+$/.test(trimmed)) return new JsonNumber(trimmed);
  if (type === "mt:float64" && /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(trimmed))
    return new JsonNumber(/[.e]/i.test(trimmed) ? trimmed : `${trimmed}.0`);
  if (type === "mt:bool") return /^true$/i.test(trimmed);
  return text;
}

function bounded(count: number, file: string): void {
  if (count > MAX_PARAMETERS)
    throw new AgentError(
      "bad-input",
      `${file} has ${count} parameters, more than an event can have`,
    );
}

/** Text of a named parameter, undefined when it is absent or no text. */
export function textParameter(event: EventDocument, name: string): string | undefined {
  const found = event.parameters.find((parameter) => parameter.name === name)?.value;
  return typeof found === "string" ? found : undefined;
}
