import { expect, test } from "bun:test";
import { openSession } from "../../../src/azure/session.ts";
import {
  certificatesXml,
  createMachine,
  createPlatform,
  ENDPOINT,
  goalStateXml,
  LIB,
  makeCertificate,
  takeUrls,
  URLS,
  CONTAINER,
} from "./platform.ts";

test("wire-protocol.md MAP-01 MAP-02 MAP-03 MAP-04 MAP-05 MAP-06 GS-13 CERT-13 FILE-08 FILE-10 FILE-11: a first session negotiates, fetches everything in order and leaves the certificates", async () => {
  using system = createMachine({ openssl: true });
  const platform = createPlatform(system);
  const tenant = makeCertificate("/CN=tenant");
  platform.answers.set(URLS.goalState, { body: goalStateXml({}) });
  platform.answers.set(URLS.certificates, (request) => ({
    body: certificatesXml(tenant, {
      recipient: request.headers?.["x-ms-guest-agent-public-x509-cert"] ?? "",
    }),
  }));
  const session = await openSession(system, ENDPOINT, {
    libDir: LIB,
    openssl: "openssl",
    fresh: true,
    fips: false,
    fastTrack: false,
    periodMs: 6000,
  });
  expect(takeUrls(system)).toEqual(
    [
      URLS.versions,
      URLS.goalState,
      URLS.extensions,
      URLS.environment,
      URLS.shared,
      URLS.certificates,
    ].map((url) => `GET ${url}`),
  );
  const goal = session.goals.current();
  expect(goal?.vm.containerId).toBe(CONTAINER);
  const [certificate] = goal?.certificates ?? [];
  expect(certificate?.hasPrivateKey).toBe(true);
  expect(system.files.stat(`${LIB}/${certificate?.thumbprint}.prv`)?.mode).toBe(0o400);
  expect(system.files.readText(`${LIB}/SharedConfig.xml`)).toContain("SharedConfig");
  expect(
    system.files.list(LIB).filter((name) => name.endsWith(".pfx") || name === "Certificates.pem"),
  ).toEqual([]);
  // 1 for the transport pair, 2 for the certificates
  expect(system.commands.map(([, verb]) => verb)).toEqual(["req", "cms", "pkcs12"]);
});
