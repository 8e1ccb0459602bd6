import { describe, expect, test } from "bun:test";
import {
  checkHostName,
  checkUserName,
  decodeOvf,
  isAgentUnwanted,
  parseOvf,
  redactOvf,
} from "../../../src/provision/ovf.ts";
import { ovf, sshKeys } from "./machine.ts";

describe("the provisioning document", () => {
  test("provisioning.md OVF-10 OVF-11 OVF-12 OVF-13 OVF-14 OVF-15 OVF-16 OVF-18 OVF-19 OVF-20 OVF-21 OVF-22 OVF-23: all elements are read", () => {
    const document = parseOvf(
      ovf({
        hostName: " vm-7.example.com ",
        userName: "Alice_1",
        password: " pa&amp;ss ",
        more: `${sshKeys("ssh-rsa AAAA a", "ssh-rsa BBBB b")}
          <SSH><KeyPairs><KeyPair><Fingerprint>AB</Fingerprint><Path>/home/x/.ssh/id</Path></KeyPair></KeyPairs></SSH>
          <CustomData>aGVsbG8=</CustomData>`,
      }),
    );
    expect(document.hostName).toBe("vm-7.example.com");
    expect(document.userName).toBe("Alice_1");
    expect(document.password?.reveal()).toBe(" pa&ss ");
    expect(document.publicKeys).toEqual([
      { path: "$HOME/alice/.ssh/authorized_keys", fingerprint: undefined, value: "ssh-rsa AAAA a" },
      { path: "$HOME/alice/.ssh/authorized_keys", fingerprint: undefined, value: "ssh-rsa BBBB b" },
    ]);
    expect(document.keyPairs).toEqual([{ path: "/home/x/.ssh/id", fingerprint: "AB" }]);
    expect(document.customData).toBe("aGVsbG8=");
    expect(document.provisionGuestAgent).toBe("true");
    expect(document.warnings).toEqual([]);
  });

  test("provisioning.md OVF-01: namespaces decide, prefixes do not; a byte order mark is no trouble", () => {
    const text = ovf()
      .replaceAll("wa:", "x1:")
      .replace("xmlns:wa=", "xmlns:x1=")
      .replaceAll(/<(\/?)Environment/g, "<$1o:Environment")
      .replace('xmlns="http://schemas.dmtf', 'xmlns:o="http://schemas.dmtf');
    expect(parseOvf(text).userName).toBe("alice");
    const marked = new Uint8Array([0xef, 0xbb, 0xbf, ...new TextEncoder().encode(text)]);
    expect(parseOvf(decodeOvf(marked)).hostName).toBe("vm01");
    const foreign = text.replaceAll("http://schemas.microsoft.com/windowsazure", "urn:other");
    expect(() => parseOvf(foreign)).toThrow("ProvisioningSection not found");
    expect(() => decodeOvf(new Uint8Array([0x3c, 0xff, 0xfe]))).toThrow("is not UTF-8");
  });

  test("provisioning.md OVF-02 DB-02: the first descendant at any depth counts; a comment ends its text; CDATA is text", () => {
    const nested =
      "<SSH><Extra><CustomData>first</CustomData></Extra></SSH><CustomData>second</CustomData>";
    expect(parseOvf(ovf({ more: nested })).customData).toBe("first");
    expect(parseOvf(ovf({ password: "abc<!-- x -->def" })).password?.reveal()).toBe("abc");
    expect(parseOvf(ovf({ password: "<![CDATA[a<b&c]]>" })).password?.reveal()).toBe("a<b&c");
    expect(parseOvf(ovf({ hostName: "<![CDATA[vm9]]>" })).hostName).toBe("vm9");
  });

  test("provisioning.md OVF-03: a newer version is a warning only", () => {
    const text = ovf().replace("<wa:Version>1.0<", "<wa:Version>1.1<");
    expect(parseOvf(text).warnings).toEqual([
      'ovf-env.xml has version "1.1", newer than 1.0: parts of it may not be understood',
    ]);
  });

  test.each([
    ["Environment", ovf().replaceAll("Environment", "Other")],
    ["ProvisioningSection", ovf().replaceAll("ProvisioningSection", "Other")],
    ["Version", ovf().replaceAll("wa:Version", "wa:Other")],
    [
      "LinuxProvisioningConfigurationSet",
      ovf().replaceAll("LinuxProvisioningConfigurationSet", "Other"),
    ],
    ["HostName", ovf({ hostName: "" })],
    ["UserName", ovf().replaceAll("UserName", "Other")],
    ["PlatformSettingsSection", ovf().replaceAll("PlatformSettingsSection", "Other")],
    ["PlatformSettings", ovf().replaceAll(/PlatformSettings>/g, "Other>")],
    ["ProvisionGuestAgent", ovf({ guestAgent: "" })],
  ])("provisioning.md OVF-04: without %s the document is refused by that name", (name, text) => {
    expect(() => parseOvf(text)).toThrow(`${name} not found in ovf-env.xml`);
  });

  test.each([
    ["true", true],
    ["TRUE", true],
    [" true ", false],
    ["false", false],
    ["1", false],
  ])("provisioning.md OVF-17: DisableSshPasswordAuthentication %j means %p", (text, expected) => {
    const more = `<DisableSshPasswordAuthentication>${text}</DisableSshPasswordAuthentication>`;
    expect(parseOvf(ovf({ more })).disablePasswordAuthentication).toBe(expected);
    expect(parseOvf(ovf()).disablePasswordAuthentication).toBe(false);
  });

  test.each([
    ["false", true],
    ["False", true],
    ["true", false],
    ["bad data", false],
    [" ", false],
  ])(
    "provisioning.md OVF-23: ProvisionGuestAgent %j turns the agent off: %p",
    (guestAgent, expected) => {
      expect(isAgentUnwanted(parseOvf(ovf({ guestAgent })))).toBe(expected);
    },
  );

  test("provisioning.md OVF-16: an absent or empty password is none; a placeholder is told from one", () => {
    expect(parseOvf(ovf()).password).toBeUndefined();
    expect(parseOvf(ovf({ password: "" })).password).toBeUndefined();
    for (const placeholder of ["*", "REDACTED"]) {
      const document = parseOvf(ovf({ password: placeholder }));
      expect(document.password).toBeUndefined();
      expect(document.isRedacted).toBe(true);
    }
  });

  test("provisioning.md DB-02: document types are refused, and nothing of them is expanded", () => {
    const text = ovf().replace(
      "<Environment",
      '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Environment',
    );
    expect(() => parseOvf(text)).toThrow("ovf-env.xml has a DOCTYPE");
    expect(() => parseOvf("<Environment><a></Environment>")).toThrow(
      "ovf-env.xml is not well-formed",
    );
    expect(() => parseOvf("<html><body>502</body></html>")).toThrow("ovf-env.xml is an HTML page");
  });

  test("provisioning.md DB-02: user names that a program could misread are refused", () => {
    for (const name of ["alice", "_x", "Alice.B-c_d", "a".repeat(32)]) checkUserName(name, "d");
    for (const name of [
      "-x",
      "1a",
      "a b",
      "a:b",
      "a/b",
      "../a",
      "",
      "a\n",
      "é",
      "a".repeat(33),
      "$(id)",
    ])
      expect(() => checkUserName(name, "d")).toThrow("UserName");
  });

  test("provisioning.md DB-02: host names follow RFC 1123", () => {
    for (const name of ["a", "VM-1", "1a", "a.b.example.com", "a".repeat(63)])
      checkHostName(name, "d");
    for (const name of [
      "",
      "-a",
      "a-",
      "a..b",
      ".a",
      "a_b",
      "a b",
      "a;reboot",
      "a".repeat(64),
      `${"a.".repeat(127)}bc`,
    ])
      expect(() => checkHostName(name, "d")).toThrow("HostName");
  });
});

describe("redaction", () => {
  test.each([
    ["plain", "<UserPassword>s3cret</UserPassword>"],
    ["prefix", "<wa:UserPassword>s3cret</wa:UserPassword>"],
    ["attribute", '<UserPassword a="x>y" >s3cret</UserPassword >'],
    ["lines", "<UserPassword>\ns3\ncret s3cret\n</UserPassword>"],
    ["CDATA", "<UserPassword><![CDATA[s3cret</UserPassword>s3cret]]></UserPassword>"],
    ["mixed", "<UserPassword>a<![CDATA[s3cret]]>s3cret</UserPassword>"],
    ["comment", "<UserPassword>a<!-- </UserPassword> -->s3cret</UserPassword>"],
  ])("provisioning.md DVD-06 DB-03: the password goes, whatever its form (%s)", (_, element) => {
    const text = ovf({ more: element });
    const redacted = redactOvf(text);
    expect(redacted).not.toContain("s3cret");
    expect(redacted).toContain("<UserPassword>*</UserPassword>");
    expect(redacted).toBe(text.replace(element, "<UserPassword>*</UserPassword>"));
    expect(parseOvf(redacted)).toMatchObject({ password: undefined, isRedacted: true });
  });

  test("a document without password, or with an empty one, stays as it is", () => {
    for (const text of [
      ovf(),
      ovf({ password: "" }),
      ovf({ more: "<!-- <UserPassword>x</UserPassword> -->" }),
    ])
      expect(redactOvf(text)).toBe(text);
  });

  test("what cannot be parsed is not redacted but refused", () => {
    expect(() => redactOvf("<a><UserPassword>x</a>")).toThrow("not well-formed");
  });
});
