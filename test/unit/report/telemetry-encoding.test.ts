import { describe, expect, test } from "bun:test";
import { JsonNumber, type Json } from "../../../src/base/json.ts";
import { parseXml } from "../../../src/base/xml.ts";
import {
  formatEventDocument,
  parseEventDocument,
  type EventDocument,
} from "../../../src/report/event-document.ts";
import { encodeEvent, telemetryBody } from "../../../src/report/telemetry-encoding.ts";

const encoded = (value: Json, name = "N"): string =>
  encodeEvent({ eventId: 1, providerId: "P", parameters: [{ name, value }], fileType: "" });
const parameter = (text: string): string =>
  `<Event id="1"><![CDATA[<Param Name="N" ${text} />]]></Event>`;

describe("wire form", () => {
  test("wire-protocol.md TEL-29 TEL-31: the sample of the protocol, byte for byte", () => {
    const event: EventDocument = {
      eventId: 1,
      providerId: "69B669B9-4AF8-4C50-BDC4-6006FA76E975",
      fileType: "",
      parameters: [
        { name: "Name", value: "WALinuxAgent" },
        { name: "OperationSuccess", value: true },
        { name: "Duration", value: new JsonNumber("0") },
      ],
    };
    expect(telemetryBody(event.providerId, [encodeEvent(event)])).toBe(
      '<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975"><Event id="1"><![CDATA[<Param Name="Name" Value="WALinuxAgent" T="mt:wstr" /><Param Name="OperationSuccess" Value="True" T="mt:bool" /><Param Name="Duration" Value="0" T="mt:uint64" />]]></Event></Provider></TelemetryData>',
    );
  });

  test("wire-protocol.md TEL-30 TRAP-04: types follow the value", () => {
    expect(encoded(new JsonNumber("42"))).toBe(parameter('Value="42" T="mt:uint64"'));
    expect(encoded(new JsonNumber("18446744073709551615"))).toBe(
      parameter('Value="18446744073709551615" T="mt:uint64"'),
    );
    expect(encoded(new JsonNumber("1.0"))).toBe(parameter('Value="1.0" T="mt:float64"'));
    expect(encoded("x")).toBe(parameter('Value="x" T="mt:wstr"'));
    expect(encoded(false)).toBe(parameter('Value="False" T="mt:bool"'));
    expect(encoded(null)).toBe(parameter('Value="None" T=""'));
    expect(encoded(["a"])).toBe(parameter(`Value='["a"]' T=""`));
  });

  test("wire-protocol.md TEL-29: escapes and the choice of quotes", () => {
    expect(encoded("a&b<c>d\ne\rf\tg")).toBe(
      parameter('Value="a&amp;b&lt;c&gt;d&#10;e&#13;f&#9;g" T="mt:wstr"'),
    );
    expect(encoded('say "hi"')).toBe(parameter(`Value='say "hi"' T="mt:wstr"`));
    expect(encoded(`it's "so"`)).toBe(parameter(`Value="it's &quot;so&quot;" T="mt:wstr"`));
  });

  test("wire-protocol.md TEL-29: no text can end the CDATA section or make the document unreadable", () => {
    const nasty = "]]></Event>\u0000\u000b\ud800 😀 <![CDATA[";
    const body = telemetryBody("P", [encoded(nasty)]);
    const event = parseXml(body, "the body").children[0]?.children[0];
    const inner = parseXml(`<E>${event?.text ?? ""}</E>`, "the event");
    expect(inner.children[0]?.attributes.get("Value")).toBe("]]></Event>��� 😀 <![CDATA[");
  });
});

describe("documents on disk", () => {
  test("wire-protocol.md TEL-15 TEL-16: numbers survive reading and writing with their type", () => {
    const text =
      '{"eventId": 4, "providerId": "P", "parameters": [{"name": "Value", "value": 1.0}, {"name": "N", "value": 9007199254740993}], "file_type": ""}';
    expect(formatEventDocument(parseEventDocument(text, "f"))).toBe(text);
  });

  test("wire-protocol.md TEL-20 TEL-23: the XML form, booleans by their text", () => {
    const event = parseEventDocument(
      '<?xml version="1.0"?><Data><Provider id="P"/><Event id="1"/><Param Name="Name" Value="Pub.Ext" T="mt:wstr"/><Param Name="OperationSuccess" Value="False" T="mt:bool"/><Param Name="IsInternal" Value="true" T="mt:bool"/><Param Name="Duration" Value="7" T="mt:uint64"/><Param Name="V" Value="2" T="mt:float64"/></Data>',
      "f",
    );
    expect(event.eventId).toBe("1");
    expect(event.fileType).toBe("xml");
    expect(event.parameters).toEqual([
      { name: "Name", value: "Pub.Ext" },
      { name: "OperationSuccess", value: false },
      { name: "IsInternal", value: true },
      { name: "Duration", value: new JsonNumber("7") },
      { name: "V", value: new JsonNumber("2.0") },
    ]);
  });

  test.each([
    ["{", "/e/1.tld is not valid JSON"],
    ["[]", "/e/1.tld: the document must be an object"],
    ['{"eventId": true, "providerId": "P", "parameters": []}', "/e/1.tld: /eventId must be"],
    ['{"eventId": 1, "parameters": []}', "/e/1.tld: /providerId must be a string"],
    ['{"eventId": 1, "providerId": "P", "parameters": {}}', "/e/1.tld: /parameters must be"],
    [
      '{"eventId": 1, "providerId": "P", "parameters": [{"name": "A"}]}',
      "/e/1.tld: /parameters/0/value must be there",
    ],
    ["<Data><Provider id='P'/></Data>", "/e/1.tld has no Event with the attribute id"],
    ["<!DOCTYPE x><Data/>", "/e/1.tld has a DOCTYPE"],
    ["<Data>", "/e/1.tld is not well-formed XML"],
    [
      `{"eventId": 1, "providerId": "P", "parameters": [${Array(201).fill('{"name": "A", "value": 1}').join()}]}`,
      "/e/1.tld has 201 parameters",
    ],
  ])("wire-protocol.md TEL-24: %p is refused by name", (text, message) => {
    expect(() => parseEventDocument(text, "/e/1.tld")).toThrow(message);
  });
});
