import { expect, test } from "bun:test";
import { parseGoalState, parseVersions } from "../../../src/azure/goal-state-document.ts";
import { parseHostingEnvironment } from "../../../src/azure/hosting-environment.ts";
import { parseExpiration, parseRemoteAccess } from "../../../src/azure/remote-access.ts";
import { CONFIG_NAME, CONTAINER, ENVIRONMENT_XML, goalStateXml, URLS } from "./platform.ts";

test("wire-protocol.md GS-01 GS-02 GS-03 GS-04 GS-05 GS-06 WIRE-07 FIX-03: ids and URIs, the first ConfigName, the RemoteAccess URI without its line end", () => {
  expect(parseGoalState(goalStateXml({ incarnation: "abc", remoteAccess: true }))).toEqual({
    incarnation: "abc",
    containerId: CONTAINER,
    instanceId: "dep.role_IN_0",
    configName: CONFIG_NAME,
    hostingEnvironmentUri: URLS.environment,
    sharedConfigUri: URLS.shared,
    extensionsConfigUri: URLS.extensions,
    certificatesUri: URLS.certificates,
    remoteAccessUri: URLS.remoteAccess,
  });
});

test("wire-protocol.md GS-06: RemoteAccessInfo counts only inside Container", () => {
  const text = goalStateXml({}).replace(
    "<Machine>",
    "<RemoteAccessInfo>http://elsewhere/</RemoteAccessInfo><Machine>",
  );
  expect(parseGoalState(text)).toMatchObject({ remoteAccessUri: undefined });
});

test("wire-protocol.md GS-07: other elements do not matter", () => {
  const text = goalStateXml({})
    .replace(/<Version>.*?<\/Version>/, "<Version>1</Version>")
    .replace(/<Machine>.*?<\/Machine>/, "")
    .replace(/<FullConfig>.*?<\/FullConfig>/, "")
    .replace(/<State>.*?<\/State>/, "");
  expect(parseGoalState(text)).toEqual(parseGoalState(goalStateXml({})));
});

test("wire-protocol.md WIRE-08: CDATA is text too", () => {
  const text = goalStateXml({}).replace(
    /<SharedConfig>.*<\/SharedConfig>/,
    "<SharedConfig><![CDATA[http://x/?a=1&b=2]]></SharedConfig>",
  );
  expect(parseGoalState(text)).toMatchObject({ sharedConfigUri: "http://x/?a=1&b=2" });
});

test("a goal state without incarnation or ids is refused by name", () => {
  expect(() => parseGoalState("<GoalState/>")).toThrow("no Incarnation");
  expect(() =>
    parseGoalState(goalStateXml({}).replace(/<ContainerId>.*?<\/ContainerId>/, "")),
  ).toThrow("no ContainerId");
});

test("wire-protocol.md WIRE-02: versions come from both lists", () => {
  expect(
    parseVersions(
      "<Versions><Preferred><Version>a</Version></Preferred><Supported><Version>b</Version><Version> c </Version></Supported></Versions>",
    ),
  ).toEqual(["a", "b", "c"]);
  expect(parseVersions("<Versions/>")).toEqual([]);
});

test("wire-protocol.md GS-50: VM, role and tenant come from HostingEnvironmentConfig", () => {
  expect(parseHostingEnvironment(ENVIRONMENT_XML)).toEqual({
    vmName: "vm-1",
    roleName: "role-1",
    tenantName: "tenant-1",
  });
  expect(parseHostingEnvironment("<HostingEnvironmentConfig/>")).toEqual({
    vmName: undefined,
    roleName: undefined,
    tenantName: undefined,
  });
});

test("wire-protocol.md JIT-04: the expiration has one English form, always UTC", () => {
  const at = Date.UTC(2030, 0, 1, 12, 30, 5);
  expect(parseExpiration("Tue, 01 Jan 2030 12:30:05 UTC")).toBe(at);
  expect(parseExpiration("Tue, 1 Jan 2030 12:30:05 GMT")).toBe(at);
  for (const text of [
    "2030-01-01",
    "2030-01-01T00:00:00Z",
    "Tue, 01 Jan 2030 12:30:05 CET",
    "Tue, 31 Feb 2030 00:00:00 UTC",
    "Xxx, 01 Jan 2030 00:00:00 UTC",
    "Tue, 01 Foo 2030 00:00:00 UTC",
    "Tue, 01 Jan 2030 25:00:00 UTC",
    "",
  ])
    expect(parseExpiration(text)).toBeUndefined();
});

test("wire-protocol.md JIT-01 FIX-17: an empty body means no users, a user without a name or with another date does not hurt the others", () => {
  expect(parseRemoteAccess("  \n")).toEqual({ incarnation: "", users: [] });
  const user = (name: string, expiration: string): string =>
    `<User>${name}<Password>QUJD</Password><Expiration>${expiration}</Expiration><Groups><GroupName>g</GroupName></Groups></User>`;
  const { incarnation, users } = parseRemoteAccess(
    `<RemoteAccess><Version>1</Version><Incarnation>4</Incarnation><Users>${user("<Name>a</Name>", "Tue, 01 Jan 2030 00:00:00 UTC")}${user("", "x")}${user("<Name>b</Name>", "2030-01-01")}</Users></RemoteAccess>`,
  );
  expect(incarnation).toBe("4");
  expect(users.map(({ name, expiresAt }) => [name, expiresAt])).toEqual([
    ["a", Date.UTC(2030, 0, 1)],
    ["b", undefined],
  ]);
  expect(users[0]?.encryptedPassword.reveal()).toBe("QUJD");
  expect(JSON.stringify(users)).not.toContain("QUJD");
});
