import { expect, test } from "bun:test";
import {
  REDACTED,
  redactExtensionsConfig,
  redactHostingEnvironment,
  redactVmSettings,
} from "../../../src/azure/redaction.ts";

test("wire-protocol.md HIST-20: vmSettings lose protected settings and the queries of URLs, and stay JSON", () => {
  const text = JSON.stringify({
    statusUploadBlob: { value: "https://a/b.status?sv=1&sig=S1" },
    gaFamilies: [{ uris: ["https://plain/m.xml"] }],
    extensionGoalStates: [
      {
        settings: [
          { ProtectedSettings: 'MII\\"S2', publicSettings: '{"url":"https://c/d?sig=S3"}' },
        ],
      },
    ],
  });
  const redacted = redactVmSettings(text);
  for (const secret of ["S1", "S2", "S3"]) expect(redacted).not.toContain(secret);
  expect(JSON.parse(redacted)).toEqual({
    statusUploadBlob: { value: `https://a/b.status?${REDACTED}` },
    gaFamilies: [{ uris: ["https://plain/m.xml"] }],
    extensionGoalStates: [
      {
        settings: [
          { ProtectedSettings: REDACTED, publicSettings: `{"url":"https://c/d?sig=${REDACTED}"}` },
        ],
      },
    ],
  });
});

test("wire-protocol.md DB-20 HIST-22: broken JSON loses its secrets as well, wherever it is cut", () => {
  const text =
    '{"statusUploadBlob": {"value": "https://a/b?sv=1&sig=SECRET1"}, "x": [{"protectedSettings" : "SECRET2"}]}';
  for (let length = 0; length <= text.length; length += 1) {
    const redacted = redactVmSettings(text.slice(0, length));
    expect(redacted).not.toContain("SECRET");
  }
});

test("wire-protocol.md HIST-22 FIX-10: a URL without a query stays as it is", () => {
  expect(redactExtensionsConfig("<StatusUploadBlob>https://a/b</StatusUploadBlob>")).toBe(
    "<StatusUploadBlob>https://a/b</StatusUploadBlob>",
  );
  expect(redactVmSettings('{"value":"https://a/b"}')).toBe('{"value":"https://a/b"}');
});

test("wire-protocol.md HIST-20 TRAP-06: ExtensionsConfig loses both queries and protected settings, in every way they can be written", () => {
  const text = `<Extensions><StatusUploadBlob statusBlobType="BlockBlob">https://a/s?sv=1&amp;sig=S1</StatusUploadBlob>
<InVMArtifactsProfileBlob>https://a/p?sv=1&amp;sig=S2</InVMArtifactsProfileBlob>
<RuntimeSettings seqNo="1">{"runtimeSettings":[{"handlerSettings":{"protectedSettings":"S3","publicSettings":{"a":1}}}]}</RuntimeSettings>
<RuntimeSettings seqNo="1">{&quot;protectedSettings&quot; : &quot;S4&quot;,&quot;publicSettings&quot;:{}}</RuntimeSettings>
<StatusUploadBlob><![CDATA[https://a/s?sv=1&sig=S5]]></StatusUploadBlob></Extensions>`;
  const redacted = redactExtensionsConfig(text);
  for (const secret of ["S1", "S2", "S3", "S4", "S5"]) expect(redacted).not.toContain(secret);
  expect(redacted).toContain(
    `<StatusUploadBlob statusBlobType="BlockBlob">https://a/s?${REDACTED}</StatusUploadBlob>`,
  );
  expect(redacted).toContain('"publicSettings":{"a":1}');
  expect(redacted).toContain(`https://a/s?${REDACTED}]]></StatusUploadBlob>`);
});

test("wire-protocol.md DB-20: ExtensionsConfig that is cut short loses what is left of its secrets", () => {
  const text =
    '<E><StatusUploadBlob>https://a/s?sv=1&amp;sig=SECRET1</StatusUploadBlob><R>{"protectedSettings":"SECRET2"}</R></E>';
  for (let length = 0; length <= text.length; length += 1)
    expect(redactExtensionsConfig(text.slice(0, length))).not.toContain("SECRET");
});

test("wire-protocol.md DB-21: HostingEnvironmentConfig loses storage keys and settings that are secret by name", () => {
  const text = `<Settings><Setting name="Diagnostics.ConnectionString" value="DefaultEndpointsProtocol=http;AccountName=a;AccountKey=S1" /><Setting name='Admin.Password' value='S2'/><Setting name="Plain" value="visible"/></Settings>`;
  const redacted = redactHostingEnvironment(text);
  expect(redacted).not.toMatch(/S1|S2/);
  expect(redacted).toContain(`AccountName=a;AccountKey=${REDACTED}`);
  expect(redacted).toContain('<Setting name="Plain" value="visible"/>');
});
