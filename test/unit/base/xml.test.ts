import { describe, expect, test } from "bun:test";
import {
  child,
  childrenOf,
  descendant,
  descendants,
  descendantText,
  escapeXml,
  parseXml,
} from "../../../src/base/xml.ts";

describe("XML reader", () => {
  test("wire-protocol.md WIRE-07: names are matched as written, anywhere below, first in document order", () => {
    const root = parseXml("<a><b><c>1</c></b><c>2</c><x:c xmlns:x='u'>3</x:c></a>", "doc");
    expect(descendant(root, "c")?.text).toBe("1");
    expect([...descendants(root, "c")].map((element) => element.text)).toEqual(["1", "2"]);
    expect(descendant(root, "c", "u")?.text).toBe("3");
    expect(childrenOf(root, "c")).toHaveLength(1);
    expect(child(root, "nothing")).toBeUndefined();
  });

  test("wire-protocol.md WIRE-08: text is the first text node, untrimmed; CDATA counts when the rest is blank", () => {
    const text = (xml: string): string | undefined => parseXml(xml, "doc").text;
    expect(text("<a> x </a>")).toBe(" x ");
    expect(text("<a>one<!-- comment -->two</a>")).toBe("one");
    expect(text("<a>\n<![CDATA[<secret>&amp;]]>\n</a>")).toBe("<secret>&amp;");
    expect(text("<a/>")).toBeUndefined();
    expect(text("<a>&lt;&amp;&#65;&#x42;&quot;</a>")).toBe('<&AB"');
    expect(descendantText(parseXml("<r><u>\n http://x/ \n</u><e> </e></r>", "doc"), "u")).toBe(
      "http://x/",
    );
    expect(descendantText(parseXml("<r><e> </e></r>", "doc"), "e")).toBeUndefined();
  });

  test("provisioning.md OVF-01: namespaces are resolved, prefixes are free", () => {
    const root = parseXml(
      '<o:E xmlns:o="O" xmlns="W"><V>1</V><p:V xmlns:p="W">2</p:V><o:V>3</o:V></o:E>',
      "ovf-env.xml",
    );
    expect([root.namespace, root.local]).toEqual(["O", "E"]);
    expect([...descendants(root, "V", "W")].map((element) => element.text)).toEqual(["1", "2"]);
  });

  test("attributes are decoded and duplicates of elements keep their order", () => {
    const root = parseXml('<a u="x?a=1&amp;b=2" empty=""><p n="1"/><q/><p n="2"/></a>', "doc");
    expect(root.attributes.get("u")).toBe("x?a=1&b=2");
    expect(root.attributes.get("empty")).toBe("");
    expect(childrenOf(root, "p").map((element) => element.attributes.get("n"))).toEqual(["1", "2"]);
  });

  const refused: readonly [string, string, string][] = [
    [
      "a DOCTYPE",
      '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
      "doc has a DOCTYPE",
    ],
    ["an HTML error page", "Service Unavailable", "doc is not XML: it starts with"],
    ["nothing", "  ", "doc is not XML: it is empty"],
    ["a tag that is not closed", "<a><b></a>", "doc is not well-formed XML"],
    ["a truncated document", "<a><b>text</b>", "doc is not well-formed XML"],
    ["text behind the root", "<a/>garbage", "doc has text behind its root element"],
    ["a second root", "<a/><b/>", "doc"],
    ["deep nesting", `${"<a>".repeat(150)}${"</a>".repeat(150)}`, "doc"],
  ];
  test.each(refused)("%s is refused by name", (_name, xml, message) => {
    expect(() => parseXml(xml, "doc")).toThrow(message);
  });

  test("text is escaped for element content", () => {
    expect(escapeXml("a<b>&c")).toBe("a&lt;b&gt;&amp;c");
  });
});

test("a well-formed HTML page is refused by name, whatever document it stands for", () => {
  for (const page of ["<html><body/></html>", '<HTML xmlns="http://www.w3.org/1999/xhtml"/>'])
    expect(() => parseXml(page, "The manifest")).toThrow("The manifest is an HTML page");
});
