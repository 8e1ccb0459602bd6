import { expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { createStorage } from "../../../src/azure/download.ts";
import { createHostPlugin } from "../../../src/azure/host-plugin.ts";
import { parseManifest } from "../../../src/azure/manifest.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { createMachine, createPlatform, ENDPOINT, LIB, takeUrls, URLS } from "./platform.ts";

const A = "https://a.example/m.xml?sig=SECRETA";
const B = "https://b.example/m.xml?sig=SECRETB";
const ZIP = `${LIB}/Pub.Ext__1.0.zip` as const;
const KEEP = (uris: readonly string[]): readonly string[] => uris;

function start(system: FakeSystem) {
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  const storage = createStorage(system, wire, createHostPlugin(system, wire));
  return { platform, storage };
}
const failure = (promise: Promise<unknown>): Promise<AgentError> =>
  promise.then(
    () => expect.unreachable(),
    (error: AgentError) => error,
  );
const what = "the manifest of Pub.Ext";

test("wire-protocol.md DL-02 DL-03 HTTP-15: direct comes first, through a proxy where there is one", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "manifest" });
  expect(await storage.fetchManifest([A], { what, verify: true })).toEqual({
    text: "manifest",
    uri: A,
  });
  expect(system.requests).toHaveLength(1);
  expect(system.requests[0]).toMatchObject({ method: "GET", url: A, proxy: "allowed" });
  expect(storage.defaultChannel()).toBe("direct");
});

test("wire-protocol.md DL-03 DL-04 DL-05 DL-06 DL-08 extensions.md EXT-42: when only the host works it becomes the default, and stays", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(URLS.artifact, { body: "manifest" });
  await storage.fetchManifest([A], { what, verify: true });
  expect(storage.defaultChannel()).toBe("host");
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "HttpGet", success: false }),
  );
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "DefaultChannelChange", success: true }),
  );
  expect(system.lines).toContain(
    "INFO ExtHandler ExtHandler Default channel changed to HostGAPlugin channel.",
  );
  const request = system.requests.at(-1);
  expect(request).toMatchObject({
    proxy: "never",
    headers: { "x-ms-artifact-location": A, "x-ms-verify-from-artifacts-blob": "true" },
  });
  takeUrls(system);
  await storage.fetchProfile(B);
  expect(system.requests.at(-1)?.headers).not.toHaveProperty("x-ms-verify-from-artifacts-blob");
  expect(takeUrls(system)).toEqual([`GET ${URLS.artifact}`]);
  platform.answers.set(URLS.artifact, { status: 404 });
  platform.answers.set(A, { body: "again" });
  await storage.fetchManifest([A], { what, verify: false });
  expect(storage.defaultChannel()).toBe("direct");
});

test("wire-protocol.md DL-02 HTTP-06 extensions.md EXT-43: 400 is tried again for manifests through the host, and not for packages", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { status: 404 });
  platform.answers.set(URLS.artifact, { status: 400 });
  await failure(storage.fetchManifest([A], { what, verify: false }));
  const tries = (): number =>
    takeUrls(system).filter((url) => url === `GET ${URLS.artifact}`).length;
  expect(tries()).toBe(6);
  await failure(
    storage.downloadPackage([A], ZIP, { what, verify: false, accept: async () => undefined }),
  );
  expect(tries()).toBe(1);
});

test("wire-protocol.md DL-02 DL-03: an answer that is no manifest counts as a failed channel", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "<html>sign in</html>" });
  platform.answers.set(URLS.artifact, { body: "manifest" });
  const check = (text: string): void => {
    if (text !== "manifest") throw new AgentError("bad-input", "this is no manifest");
  };
  const { text } = await storage.fetchManifest([A], { what, verify: false, check });
  expect(text).toBe("manifest");
  expect(storage.defaultChannel()).toBe("host");
});

test("wire-protocol.md DL-03 MAN-03: both failed means an error with both reasons, no secret in it, and the default unchanged", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { status: 404, body: "gone away" });
  platform.answers.set(URLS.artifact, { status: 502, body: "upstream" });
  const error = await failure(storage.fetchManifest([A], { what, verify: false }));
  expect(error.code).toBe("protocol");
  expect(error.message).toContain("Failed to retrieve the manifest of Pub.Ext");
  expect(error.message).toContain("404");
  expect(error.message).toContain("502");
  expect(error.message).not.toContain("SECRETA");
  expect(storage.defaultChannel()).toBe("direct");
});

test("wire-protocol.md HGAP-06: stale ids are renewed once by reading the goal state", async () => {
  for (const stale of [{ status: 410 }, { status: 400, body: "InvalidContainerConfiguration" }]) {
    using system = createMachine();
    const { platform, storage } = start(system);
    let calls = 0;
    platform.answers.set(URLS.artifact, () => ((calls += 1) === 1 ? stale : { body: "zip" }));
    await storage.downloadPackage([A], ZIP, {
      what,
      verify: false,
      shuffle: KEEP,
      accept: async () => undefined,
    });
    expect(takeUrls(system)).toEqual(
      [A, URLS.goalState, URLS.hostVersions, URLS.artifact, URLS.goalState, URLS.artifact].map(
        (url) => `GET ${url}`,
      ),
    );
    expect(system.events).toContainEqual(
      expect.objectContaining({ operation: "HostPlugin", success: true, periodMs: 6 * 3600_000 }),
    );
  }
});

test("wire-protocol.md HGAP-06: ids that stay stale fail after one more request", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(URLS.artifact, { status: 410 });
  await failure(storage.fetchProfile(A));
  expect(takeUrls(system).filter((url) => url === `GET ${URLS.artifact}`)).toHaveLength(2);
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "HostPlugin", success: false, periodMs: 6 * 3600_000 }),
  );
});

test("wire-protocol.md DL-01 DL-07 extensions.md EXT-44: a package that is not accepted counts as a failed URI, and the file is always removed", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "bad" });
  platform.answers.set(B, { body: "good" });
  const seen: string[] = [];
  await storage.downloadPackage([A, B], ZIP, {
    what,
    verify: false,
    shuffle: KEEP,
    accept: async (file) => {
      const text = system.files.readText(file);
      seen.push(text);
      if (text === "bad") throw new AgentError("bad-input", "it is no zip");
    },
  });
  expect(seen).toEqual(["bad", "good"]);
  expect(system.files.exists(ZIP)).toBe(false);
});

test("wire-protocol.md DL-01: a package that must not be used ends the search", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "unsigned" });
  platform.answers.set(B, { body: "good" });
  const refuse = async (): Promise<void> => {
    throw new AgentError("refused", "the signature does not hold");
  };
  const error = await failure(
    storage.downloadPackage([A, B], ZIP, { what, verify: false, shuffle: KEEP, accept: refuse }),
  );
  expect(error.code).toBe("refused");
  expect(takeUrls(system)).toEqual([`GET ${A}`]);
  expect(system.files.exists(ZIP)).toBe(false);
});

test("wire-protocol.md DL-01 extensions.md EXT-42 EXT-43: after five minutes no further URI is tried", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "slow" });
  const slow = async (): Promise<void> => {
    await system.clock.sleep(301_000);
    throw new AgentError("bad-input", "no");
  };
  const error = await failure(
    storage.downloadPackage([A, B], ZIP, { what, verify: false, shuffle: KEEP, accept: slow }),
  );
  expect(error.message).toContain("five minutes");
  expect(takeUrls(system)).toEqual([`GET ${A}`]);
});

test("wire-protocol.md DL-01: the order of the URIs is random", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(A, { body: "a" });
  platform.answers.set(B, { body: "b" });
  const first = new Set<string>();
  for (let round = 0; round < 40 && first.size < 2; round += 1)
    first.add((await storage.fetchManifest([A, B], { what, verify: false })).text);
  expect(first.size).toBe(2);
});

test("wire-protocol.md HGAP-05: a package tells the host which manifest named it", async () => {
  using system = createMachine();
  const { platform, storage } = start(system);
  platform.answers.set(URLS.artifact, { body: "zip" });
  await storage.downloadPackage([A], ZIP, {
    what,
    verify: true,
    manifestUri: B,
    accept: async () => undefined,
  });
  expect(system.requests.at(-1)?.headers).toMatchObject({
    "x-ms-artifact-manifest-location": B,
    "x-ms-artifact-location": A,
  });
});

test("wire-protocol.md DL-01: no URI at all is an error that says so", async () => {
  using system = createMachine();
  const { storage } = start(system);
  expect((await failure(storage.fetchManifest([], { what, verify: false }))).message).toContain(
    "there is no URI",
  );
});

test("wire-protocol.md MAN-01 extensions.md EXT-34 EXT-35: packages are Plugins, then InternalPlugins", () => {
  const plugin = (version: string, rest: string): string =>
    `<Plugin><Version>${version}</Version>${rest}</Plugin>`;
  const text = `<PluginVersionManifest><Plugins>${plugin("1.2.0", "<Uris><Uri>\nhttps://x\n</Uri><Uri>https://y</Uri></Uris><DisallowMajorVersionUpgrade>True</DisallowMajorVersionUpgrade>")}${plugin("1.1", "<Uris/>")}<Plugin/></Plugins><InternalPlugins>${plugin("9.9", "")}</InternalPlugins></PluginVersionManifest>`;
  expect(parseManifest(text, what)).toEqual([
    {
      version: "1.2.0",
      uris: ["https://x", "https://y"],
      isInternal: false,
      disallowMajorUpgrade: true,
    },
    { version: "1.1", uris: [], isInternal: false, disallowMajorUpgrade: false },
    { version: "9.9", uris: [], isInternal: true, disallowMajorUpgrade: false },
  ]);
  expect(() => parseManifest("<html>", what)).toThrow(what);
});
