import { expect, test } from "bun:test";
import type { AgentError } from "../../../src/base/error.ts";
import { createHostPlugin } from "../../../src/azure/host-plugin.ts";
import { blobRequests, toHostBody, uploadStatus } from "../../../src/azure/status-upload.ts";
import { createWireClient } from "../../../src/azure/wire-client.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  CONFIG_NAME,
  CONTAINER,
  createMachine,
  createPlatform,
  ENDPOINT,
  HOST,
  takeUrls,
  URLS,
} from "./platform.ts";

const BLOB = {
  url: "https://storage.example/vm.status?sv=1&sig=SECRET",
  type: "BlockBlob",
} as const;
const PAGE = { ...BLOB, type: "PageBlob" } as const;
const DOCUMENT = '{"version": "1.1"}';

function start(system: FakeSystem) {
  const platform = createPlatform(system);
  const wire = createWireClient(system, ENDPOINT);
  const peers = { wire, hostPlugin: createHostPlugin(system, wire) };
  const upload = (blob: typeof BLOB | typeof PAGE = BLOB, document = DOCUMENT) =>
    uploadStatus(system, peers, { document, blob });
  return { platform, upload };
}
/** What the host plugin was asked to do. */
function hostBodies(system: FakeSystem): Record<string, unknown>[] {
  return system.requests
    .filter(({ url }) => url === URLS.status)
    .map(({ body }) => JSON.parse(body as string) as Record<string, unknown>);
}
const headersOf = (body: Record<string, unknown> | undefined): Record<string, string> =>
  Object.fromEntries(
    (body?.["headers"] as { headerName: string; headerValue: string }[]).map(
      ({ headerName, headerValue }) => [headerName, headerValue],
    ),
  );

test("wire-protocol.md STAT-03 STAT-45 STAT-46 MAP-16: the host plugin comes first, with a description of the blob request", async () => {
  using system = createMachine({ now: Date.UTC(2030, 0, 1) });
  const { upload } = start(system);
  expect(await upload()).toBe("host");
  const request = system.requests.at(-1);
  expect(request).toMatchObject({ method: "PUT", url: `${HOST}/status`, proxy: "never" });
  expect(request?.headers).toEqual({
    "x-ms-version": "2015-09-01",
    "x-ms-containerid": CONTAINER,
    "x-ms-host-config-name": CONFIG_NAME,
    "Content-type": "application/json",
  });
  const text = request?.body as string;
  expect(Object.keys(JSON.parse(text) as object)).toEqual(["content", "headers", "requestUri"]);
  expect(JSON.parse(text)).toEqual({
    content: Buffer.from(DOCUMENT).toString("base64"),
    headers: [
      { headerName: "Content-Length", headerValue: "18" },
      { headerName: "x-ms-blob-type", headerValue: "BlockBlob" },
      { headerName: "x-ms-date", headerValue: "2030-01-01T00:00:00Z" },
      { headerName: "x-ms-version", headerValue: "2014-02-14" },
    ],
    requestUri: BLOB.url,
  });
});

test("wire-protocol.md STAT-40: the length of a block blob is in bytes", () => {
  const [request] = blobRequests(BLOB, Buffer.from("\u00e9"), { date: "D", padding: " " });
  expect(request?.headers).toEqual({
    "Content-Length": "2",
    "x-ms-blob-type": "BlockBlob",
    "x-ms-date": "D",
    "x-ms-version": "2014-02-14",
  });
});

test("wire-protocol.md STAT-41 STAT-42 STAT-43 STAT-46 STAT-47: a page blob is created, then filled in chunks of 4 MiB, padded with blanks for the host", async () => {
  using system = createMachine();
  const { upload } = start(system);
  const size = 4 * 1024 * 1024 + 700;
  expect(await upload(PAGE, "x".repeat(size))).toBe("host");
  const [create, first, second] = hostBodies(system);
  expect(create).not.toHaveProperty("content");
  expect(create?.["requestUri"]).toBe(PAGE.url);
  expect(headersOf(create)).toMatchObject({
    "Content-Length": "0",
    "x-ms-blob-content-length": String(4 * 1024 * 1024 + 1024),
    "x-ms-blob-type": "PageBlob",
    "x-ms-version": "2014-02-14",
  });
  expect(first?.["requestUri"]).toBe(`${PAGE.url}&comp=page`);
  expect(headersOf(first)).toMatchObject({
    "Content-Length": String(4 * 1024 * 1024),
    "x-ms-range": "bytes=0-4194303",
    "x-ms-page-write": "update",
  });
  expect(headersOf(second)).toMatchObject({
    "Content-Length": "1024",
    "x-ms-range": "bytes=4194304-4195327",
  });
  const tail = Buffer.from(second?.["content"] as string, "base64");
  expect(tail.subarray(700).toString()).toBe(" ".repeat(324));
});

test("wire-protocol.md STAT-42: a URL without a query gets one", () => {
  const requests = blobRequests({ url: "https://a/b", type: "PageBlob" }, Buffer.from("x"), {
    date: "D",
    padding: " ",
  });
  expect(requests[1]?.url).toBe("https://a/b?comp=page");
});

test("wire-protocol.md STAT-03 STAT-43 STAT-44 MAP-18: when the host plugin fails, the blob is put directly, padded with zeros, and only 201 counts", async () => {
  using system = createMachine();
  const { platform, upload } = start(system);
  platform.answers.set(URLS.status, { status: 400, body: "InvalidContainerConfiguration" });
  platform.answers.set(PAGE.url, { status: 201 });
  platform.answers.set(`${PAGE.url}&comp=page`, { status: 201 });
  expect(await upload(PAGE)).toBe("direct");
  const page = system.requests.at(-1);
  expect(page).toMatchObject({
    method: "PUT",
    url: `${PAGE.url}&comp=page`,
    proxy: "allowed",
    headers: { "x-ms-range": "bytes=0-511" },
  });
  const body = page?.body as Uint8Array;
  expect([body.length, body[DOCUMENT.length], body[511]]).toEqual([512, 0, 0]);
  expect(system.events).toContainEqual(
    expect.objectContaining({ operation: "ReportStatus", success: true }),
  );
  expect(takeUrls(system).filter((url) => url === `GET ${URLS.goalState}`)).toHaveLength(1);
  platform.answers.set(BLOB.url, { status: 200 });
  const error: AgentError = await upload().then(
    () => expect.unreachable(),
    (reason: AgentError) => reason,
  );
  expect(error.code).toBe("protocol");
  expect(error.message).toContain("Host plugin:");
  expect(error.message).toContain("Directly:");
  expect(error.message).not.toContain("SECRET");
});

test("wire-protocol.md STAT-03: 410 from the host refreshes the ids and leaves the direct way out", async () => {
  using system = createMachine();
  const { platform, upload } = start(system);
  platform.answers.set(URLS.status, { status: 410 });
  expect(await upload()).toBe("stale-ids");
  expect(takeUrls(system)).toEqual([
    `GET ${URLS.goalState}`,
    `GET ${URLS.hostVersions}`,
    `PUT ${URLS.status}`,
    `GET ${URLS.goalState}`,
  ]);
});

test("wire-protocol.md DL-06 DB-04: without a host plugin the direct way is taken, and the host is not asked again for a while", async () => {
  using system = createMachine();
  const { platform, upload } = start(system);
  platform.answers.set(URLS.hostVersions, { status: 404 });
  platform.answers.set(BLOB.url, { status: 201 });
  expect(await upload()).toBe("direct");
  takeUrls(system);
  expect(await upload()).toBe("direct");
  expect(takeUrls(system)).toEqual([`PUT ${BLOB.url}`]);
});

test("the description of a request holds only text in ASCII", () => {
  const text = toHostBody({
    url: "https://a/\u00e9",
    headers: { b: "2", a: "1" },
    body: new Uint8Array(),
  });
  expect(text).toBe(
    '{"headers": [{"headerName": "a", "headerValue": "1"}, {"headerName": "b", "headerValue": "2"}], "requestUri": "https://a/\\u00e9"}',
  );
});
