import { formatJson, JsonNumber, type Json } from "../base/json.ts";
import { escapeXml, toXmlCharacters } from "../base/xml.ts";
import type { EventDocument } from "./event-document.ts";

/** Encoded events of one request stay below this many bytes (`wire-protocol.md` TEL-32). */
export const MAX_REQUEST_BYTES = 65_536 - 1024;

/** `<Event id="1"><![CDATA[...]]></Event>` (TEL-29); no value can end the CDATA section, `>` is always escaped. */
export function encodeEvent(event: EventDocument): string {
  const parameters = event.parameters.map(
    ({ name, value }) =>
      `<Param Name=${attribute(name)} Value=${attribute(wireText(value))} T="${wireType(value)}" />`,
  );
  return `<Event id=${attribute(String(event.eventId))}><![CDATA[${parameters.join("")}]]></Event>`;
}

/** The body of one request: events of one provider (TEL-31). */
export function telemetryBody(providerId: string, events: readonly string[]): string {
  return `<?xml version="1.0"?><TelemetryData version="1.0"><Provider id=${attribute(providerId)}>${events.join("")}</Provider></TelemetryData>`;
}

/** The column's type follows from the value (TEL-30). */
function wireType(value: Json): string {
  if (typeof value === "string") return "mt:wstr";
  if (typeof value === "boolean") return "mt:bool";
  if (value instanceof JsonNumber) return isFloat(value) ? "mt:float64" : "mt:uint64";
  return "";
}

/** `True`, `False` and `None` as the platform has always been sent them (TRAP-04). */
function wireText(value: Json): string {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value === null) return "None";
  if (value instanceof JsonNumber) return value.text;
  return formatJson(value);
}

function isFloat(value: JsonNumber): boolean {
  return /[.e]/i.test(value.text);
}

/** Quoted attribute text: double quotes, single ones when only the former occur in it (TEL-29). */
function attribute(text: string): string {
  const escaped = escapeXml(toXmlCharacters(text))
    .replaceAll("\n", "&#10;")
    .replaceAll("\r", "&#13;")
    .replaceAll("\t", "&#9;");
  if (!escaped.includes('"')) return `"${escaped}"`;
  if (!escaped.includes("'")) return `'${escaped}'`;
  return `"${escaped.replaceAll('"', "&quot;")}"`;
}
