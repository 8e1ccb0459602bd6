import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import type { AgentError } from "../../../src/base/error.ts";
import { thumbprintOf } from "../../../src/azure/certificates.ts";
import { unknownThumbprints } from "../../../src/azure/goal-state-client.ts";
import { createHistory } from "../../../src/azure/history.ts";
import { openSession, type Session } from "../../../src/azure/session.ts";
import { readTransport } from "../../../src/azure/transport.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  certificatesXml,
  createMachine,
  createPlatform,
  ENDPOINT,
  extensionsXml,
  goalStateXml,
  LIB,
  makeCertificate,
  takeUrls,
  URLS,
  type Platform,
  type TestCertificate,
} from "./platform.ts";

interface World {
  readonly system: FakeSystem;
  readonly platform: Platform;
  open(options?: { fastTrack?: boolean }): Promise<Session>;
  /** vmSettings from now on. */
  fastTrack(options: { etag: string; ticks?: string; members?: object }): void;
  [Symbol.dispose](): void;
}

/** openssl is only a fake here: it cannot make keys, so there are no certificates unless a test brings the real one. */
function world(options: { openssl?: boolean } = {}): World {
  const system = createMachine(options);
  const platform = createPlatform(system);
  const history = createHistory(system, LIB);
  return {
    system,
    platform,
    open: ({ fastTrack = true } = {}) =>
      openSession(system, ENDPOINT, {
        libDir: LIB,
        openssl: "openssl",
        fresh: true,
        fips: false,
        fastTrack,
        periodMs: 6000,
        history: (tag) => history.begin(tag),
      }),
    fastTrack: ({ etag, ticks = "638100000000000000", members = {} }) =>
      void platform.answers.set(URLS.vmSettings, (request) =>
        request.headers?.["if-none-match"] === etag
          ? { status: 304 }
          : {
              headers: { ETag: etag },
              body: `{"hostGAPluginVersion":"1.0.8.159","extensionGoalStatesSource":"FastTrack","extensionsLastModifiedTickCount":${ticks},${JSON.stringify({ inSvdSeqNo: 4, ...members }).slice(1)}`,
            },
      ),
    [Symbol.dispose]: () => system[Symbol.dispose](),
  };
}

const failure = (promise: Promise<unknown>): Promise<AgentError> =>
  promise.then(
    () => expect.unreachable(),
    (error: AgentError) => error,
  );
const GET = (...urls: string[]): string[] => urls.map((url) => `GET ${url}`);

test("wire-protocol.md GS-30 VMS-04: an unchanged poll is one goal state GET and one vmSettings GET, without a program or a write", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  takeUrls(w.system);
  const commands = w.system.commands.length;
  const tree = (): string =>
    JSON.stringify(
      w.system.files.list(LIB).map((name) => [name, w.system.files.stat(`${LIB}/${name}`)]),
    );
  const before = tree();
  const update = await goals.update();
  expect(update).toMatchObject({
    extensionsChanged: false,
    incarnationChanged: false,
    degraded: undefined,
  });
  expect(update.goalState).toBe(goals.current() ?? expect.unreachable());
  expect(takeUrls(w.system)).toEqual(GET(URLS.goalState, URLS.vmSettings));
  expect(w.system.commands.length).toBe(commands);
  expect(tree()).toBe(before);
});

test("wire-protocol.md GS-13 GS-16 GS-50 GS-51 FILE-11 FILE-12: a new incarnation fetches extensions, environment and shared config in order", async () => {
  using w = world();
  const { goals } = await w.open({ fastTrack: false });
  takeUrls(w.system);
  w.platform.incarnation = "2";
  w.platform.answers.set(URLS.shared, {
    body: "<SharedConfig>\n  two &amp; \u00e9</SharedConfig>",
  });
  const update = await goals.update();
  expect(takeUrls(w.system)).toEqual(
    GET(URLS.goalState, URLS.extensions, URLS.environment, URLS.shared),
  );
  expect(update).toMatchObject({ extensionsChanged: true, incarnationChanged: true });
  expect(update.goalState).toMatchObject({
    incarnation: "2",
    vm: { vmName: "vm-1", roleName: "role-1", tenantName: "tenant-1" },
    certificates: [],
    remoteAccess: undefined,
    extensions: { id: "incarnation_2", source: "Fabric" },
  });
  expect(w.system.files.readText(`${LIB}/SharedConfig.xml`)).toBe(
    "<SharedConfig>\n  two &amp; \u00e9</SharedConfig>",
  );
  expect(w.system.files.readText(`${LIB}/GoalState.1.xml`)).toBe(
    "<xml>empty placeholder file</xml>",
  );
});

test("wire-protocol.md GS-15 FIX-02: a goal state without ExtensionsConfig wants nothing", async () => {
  using w = world();
  w.platform.answers.set(URLS.goalState, {
    body: goalStateXml({ extensions: false, certificates: false }),
  });
  const { goals } = await w.open({ fastTrack: false });
  expect(goals.current()?.extensions).toMatchObject({
    source: "Empty",
    handlers: [],
    statusBlob: undefined,
  });
  expect(takeUrls(w.system)).toEqual(
    GET(URLS.versions, URLS.goalState, URLS.environment, URLS.shared),
  );
});

test("wire-protocol.md GS-14: an update that fails half way keeps the old goal, and the next poll does all of it again", async () => {
  using w = world();
  const { goals } = await w.open({ fastTrack: false });
  const before = goals.current();
  w.platform.incarnation = "2";
  w.platform.answers.set(URLS.shared, { status: 404 });
  expect((await failure(goals.update())).code).toBe("protocol");
  expect(goals.current()).toBe(before ?? expect.unreachable());
  takeUrls(w.system);
  w.platform.answers.set(URLS.shared, { body: "<SharedConfig/>" });
  const update = await goals.update();
  expect(update).toMatchObject({ extensionsChanged: true, incarnationChanged: true });
  expect(takeUrls(w.system)).toEqual(
    GET(URLS.goalState, URLS.extensions, URLS.environment, URLS.shared),
  );
});

test("wire-protocol.md GS-14: Fast Track content seen in a failed update is not lost", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  w.platform.incarnation = "2";
  w.fastTrack({ etag: "2", ticks: "638200000000000000" });
  w.platform.answers.set(URLS.extensions, { status: 404 });
  await failure(goals.update());
  expect(goals.current()?.extensions.id).toBe("etag_1");
  w.platform.answers.set(URLS.extensions, { body: extensionsXml() });
  expect((await goals.update()).goalState.extensions.id).toBe("etag_2");
});

test("wire-protocol.md GS-31 ARB-02 ARB-04: ids tell the source, newer Fast Track content is adopted alone and with a new incarnation", async () => {
  using w = world();
  w.platform.answers.set(URLS.vmSettings, { status: 304 });
  w.fastTrack({ etag: "1", ticks: "637000000000000000" });
  const { goals } = await w.open();
  expect(goals.current()?.extensions.id).toBe("incarnation_1");
  w.fastTrack({ etag: "2", ticks: "638100000000000000" });
  takeUrls(w.system);
  const fast = await goals.update();
  expect(takeUrls(w.system)).toEqual(GET(URLS.goalState, URLS.vmSettings));
  expect(fast).toMatchObject({ extensionsChanged: true, incarnationChanged: false });
  expect(fast.goalState.extensions).toMatchObject({
    id: "etag_2",
    source: "FastTrack",
    sequence: 4,
  });
  w.platform.incarnation = "2";
  const both = await goals.update();
  expect(both).toMatchObject({ extensionsChanged: false, incarnationChanged: true });
  expect(both.goalState).toMatchObject({ incarnation: "2", extensions: { id: "etag_2" } });
});

test("wire-protocol.md DB-05: while Fast Track cannot be asked, what the WireServer wants is processed, and the update says so", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  w.platform.answers.set(URLS.vmSettings, { status: 500 });
  const quiet = await goals.update();
  expect(quiet.degraded?.message).toContain("vmSettings");
  expect(quiet.extensionsChanged).toBe(false);
  w.platform.incarnation = "2";
  w.platform.answers.set(URLS.extensions, { body: extensionsXml({ ticks: "638300000000000000" }) });
  const update = await goals.update();
  expect(update.degraded).toBeDefined();
  expect(update).toMatchObject({
    extensionsChanged: true,
    goalState: { extensions: { id: "incarnation_2" } },
  });
});

test("wire-protocol.md VMS-17 ARB-06: when support stops, everything is fetched and an older Fabric goal is not processed until it is newer", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const session = await w.open();
  const { goals } = session;
  expect(session.isFastTrackSupported()).toBe(true);
  w.platform.answers.set(URLS.vmSettings, { status: 404 });
  takeUrls(w.system);
  const update = await goals.update();
  expect(takeUrls(w.system)).toEqual(
    GET(URLS.goalState, URLS.vmSettings, URLS.extensions, URLS.environment, URLS.shared),
  );
  expect(update.extensionsChanged).toBe(false);
  expect(update.goalState.extensions).toMatchObject({ id: "incarnation_1", outdated: true });
  expect(update.goalState.extensions.statusBlob).toBeDefined();
  expect(session.isFastTrackSupported()).toBe(false);
  expect(w.system.files.exists(`${LIB}/fast_track.json`)).toBe(true);
  goals.statusReported();
  expect(w.system.files.exists(`${LIB}/fast_track.json`)).toBe(false);
  w.platform.incarnation = "2";
  expect(await goals.update()).toMatchObject({
    extensionsChanged: true,
    goalState: { extensions: { id: "incarnation_2", outdated: false } },
  });
});

test("wire-protocol.md VMS-17: support that stops during a failed update is not forgotten", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  w.platform.answers.set(URLS.vmSettings, { status: 404 });
  w.platform.answers.set(URLS.extensions, { status: 404 });
  await failure(goals.update());
  w.platform.answers.set(URLS.extensions, { body: extensionsXml() });
  expect((await goals.update()).goalState.extensions).toMatchObject({
    id: "incarnation_1",
    outdated: true,
  });
});

test("wire-protocol.md VMS-18: with Fast Track off, a Fabric goal older than the last Fast Track one is outdated", async () => {
  using w = world();
  w.system.files.write(`${LIB}/fast_track.json`, '{"timestamp": "2030-05-05T00:00:00.000000Z"}');
  const { goals } = await w.open({ fastTrack: false });
  expect(goals.current()?.extensions.outdated).toBe(true);
  expect(takeUrls(w.system)).not.toContain(`GET ${URLS.vmSettings}`);
});

test("wire-protocol.md ECFG-10 ECFG-11 FIX-16: the artifacts profile says whether extensions are held, and one that cannot be had does not hold them", async () => {
  const profile = "https://storage.example/profile?sig=x";
  const held = async (answer: {
    status?: number;
    body?: string;
  }): Promise<[boolean | undefined, boolean | undefined]> => {
    using w = world();
    w.platform.answers.set(URLS.extensions, { body: extensionsXml({ profile }) });
    w.platform.answers.set(profile, answer);
    const { goals } = await w.open({ fastTrack: false });
    const event = w.system.events.find(({ operation }) => operation === "ArtifactsProfileBlob");
    return [goals.current()?.extensions.onHold, event?.success];
  };
  expect(await held({ body: '{"onHold": "true"}' })).toEqual([true, true]);
  expect(await held({ body: " " })).toEqual([false, true]);
  expect(await held({ body: "{" })).toEqual([false, false]);
  expect(await held({ status: 404 })).toEqual([false, false]);
});

test("wire-protocol.md MAP-07 GS-06 JIT-01 WIRE-05: users are asked for with the transport certificate and AES only", async () => {
  using w = world({ openssl: true });
  w.platform.answers.set(URLS.goalState, {
    body: goalStateXml({ certificates: false, remoteAccess: true }),
  });
  w.platform.answers.set(URLS.remoteAccess, {
    body: "<RemoteAccess><Incarnation>1</Incarnation><Users><User><Name>jit</Name><Password>QQ==</Password><Expiration>Tue, 01 Jan 2030 00:00:00 UTC</Expiration></User></Users></RemoteAccess>",
  });
  const session = await w.open({ fastTrack: false });
  expect(session.goals.current()?.remoteAccess?.users.map(({ name }) => name)).toEqual(["jit"]);
  const request = w.system.requests.find(({ url }) => url === URLS.remoteAccess);
  expect(request?.headers).toMatchObject({
    "x-ms-agent-name": "WALinuxAgent",
    "x-ms-version": "2012-11-30",
    "x-ms-cipher-name": "AES128_CBC",
    "x-ms-guest-agent-public-x509-cert": readTransport(w.system, LIB)?.certificate ?? "none",
  });
});

test("wire-protocol.md CERT-03: without a transport certificate the goal state is still there, without certificates", async () => {
  using w = world();
  w.platform.answers.set(URLS.goalState, { body: goalStateXml({}) });
  const session = await w.open({ fastTrack: false });
  expect(session.goals.current()?.certificates).toEqual([]);
  expect(w.system.lines.some((line) => line.includes("transport certificate"))).toBe(true);
  expect(w.system.events).toContainEqual(
    expect.objectContaining({ operation: "GoalStateCertificates", success: false }),
  );
});

test("without a transport certificate the list of users is unknown, which is not the same as empty", async () => {
  using w = world();
  w.platform.answers.set(URLS.goalState, {
    body: goalStateXml({ certificates: false, remoteAccess: true }),
  });
  const { goals } = await w.open({ fastTrack: false });
  expect(goals.current()?.remoteAccess?.isUnknown).toBe(true);
  expect(takeUrls(w.system)).not.toContain(`GET ${URLS.remoteAccess}`);
});

test("wire-protocol.md GS-40 GS-41; system.md HIB-02: settings for a certificate that is not there yet cause two more full fetches, a period apart, then a warning", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  const extension = {
    name: "P.E",
    version: "1",
    state: "enabled",
    settingsSeqNo: 0,
    settings: [{ protectedSettings: "MII", protectedSettingsCertThumbprint: "ABCD" }],
  };
  w.fastTrack({ etag: "2", members: { extensionGoalStates: [extension] } });
  takeUrls(w.system);
  const start = w.system.clock.monotonic();
  const update = await goals.update();
  expect(update).toMatchObject({
    extensionsChanged: true,
    goalState: { extensions: { id: "etag_2" } },
  });
  const urls = takeUrls(w.system);
  expect(urls.filter((url) => url === `GET ${URLS.goalState}`).length).toBe(3);
  expect(urls.filter((url) => url === `GET ${URLS.extensions}`).length).toBe(2);
  expect(w.system.clock.monotonic() - start).toBe(6000);
  expect(w.system.events).toContainEqual(
    expect.objectContaining({ operation: "FetchGoalState", success: false }),
  );
  expect(w.system.lines.filter((line) => line.startsWith("WARNING")).join()).toContain("ABCD");
  await goals.update();
  expect(takeUrls(w.system)).toEqual(GET(URLS.goalState, URLS.vmSettings));
});

test("wire-protocol.md GS-42 FIX-05; system.md HIB-01: a rotated certificate comes with a new incarnation while Fast Track stays, and after a resume without one", async () => {
  using w = world({ openssl: true });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  const [old, rotated, resumed] = ["old", "rotated", "resumed"].map((name) =>
    makeCertificate(`/CN=${name}`, ec),
  ) as [TestCertificate, TestCertificate, TestCertificate];
  let tenant = old;
  w.platform.answers.set(URLS.goalState, () => ({
    body: goalStateXml({ incarnation: w.platform.incarnation }),
  }));
  w.platform.answers.set(URLS.certificates, (request) => ({
    body: certificatesXml(tenant, {
      recipient: request.headers?.["x-ms-guest-agent-public-x509-cert"] ?? "",
    }),
  }));
  const wanted = (owner: TestCertificate) => ({
    extensionGoalStates: [
      {
        name: "P.E",
        version: "1",
        state: "enabled",
        settingsSeqNo: 0,
        settings: [
          {
            protectedSettings: "MII",
            protectedSettingsCertThumbprint: thumbprintOf(new X509Certificate(owner.certificate)),
          },
        ],
      },
    ],
  });
  w.fastTrack({ etag: "1", members: wanted(old) });
  const { goals } = await w.open();
  expect(unknownThumbprints(goals.current() ?? expect.unreachable())).toEqual([]);

  // Rotation: neither ExtensionsConfig nor vmSettings are new, only the incarnation and the certificate.
  tenant = rotated;
  w.platform.incarnation = "2";
  const rotation = await goals.update();
  expect(rotation).toMatchObject({ extensionsChanged: false, incarnationChanged: true });
  expect(rotation.goalState.extensions.id).toBe("etag_1");
  expect(rotation.goalState.certificates.map(({ thumbprint }) => thumbprint)).toEqual([
    thumbprintOf(new X509Certificate(rotated.certificate)),
  ]);

  // Resume on another host: the certificate is new, the incarnation is not.
  tenant = resumed;
  w.fastTrack({ etag: "2", ticks: "638200000000000000", members: wanted(resumed) });
  takeUrls(w.system);
  const resume = await goals.update();
  expect(unknownThumbprints(resume.goalState)).toEqual([]);
  expect(resume).toMatchObject({ extensionsChanged: true, incarnationChanged: false });
  const urls = takeUrls(w.system);
  expect(urls.filter((url) => url === `GET ${URLS.certificates}`)).toHaveLength(1);
  expect(urls.filter((url) => url === `GET ${URLS.goalState}`)).toHaveLength(2);
});

test("wire-protocol.md GS-30 CERT-18: certificates removed behind our back come again with the next Fast Track goal", async () => {
  using w = world({ openssl: true });
  const tenant = makeCertificate("/CN=tenant");
  w.platform.answers.set(URLS.goalState, { body: goalStateXml({}) });
  w.platform.answers.set(URLS.certificates, (request) => ({
    body: certificatesXml(tenant, {
      recipient: request.headers?.["x-ms-guest-agent-public-x509-cert"] ?? "",
    }),
  }));
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  const thumbprint = goals.current()?.certificates[0]?.thumbprint ?? expect.unreachable();
  w.system.files.remove(`${LIB}/${thumbprint}.crt`);
  w.fastTrack({ etag: "2", ticks: "638200000000000000" });
  takeUrls(w.system);
  await goals.update();
  expect(takeUrls(w.system)).toEqual(GET(URLS.goalState, URLS.vmSettings, URLS.certificates));
  expect(w.system.files.exists(`${LIB}/${thumbprint}.crt`)).toBe(true);
});

test("wire-protocol.md CERT-16: certificates that could not be had are asked for again by later polls, and nothing else is", async () => {
  using w = world({ openssl: true });
  const tenant = makeCertificate("/CN=tenant");
  w.platform.answers.set(URLS.goalState, { body: goalStateXml({}) });
  w.platform.answers.set(URLS.certificates, { status: 404 });
  const { goals } = await w.open({ fastTrack: false });
  const { extensions } = goals.current() ?? expect.unreachable();
  const failures = (): number =>
    w.system.events.filter(
      ({ operation, success }) => operation === "GoalStateCertificates" && !success,
    ).length;
  const told = failures();
  takeUrls(w.system);
  // Both ciphers at 1, 3, 7 and 15 s; the polls between cost nothing.
  const asked: number[] = [];
  for (let second = 1; second <= 16; second += 1) {
    await w.system.clock.advance(1000);
    const { certificatesRecovered } = await goals.update();
    expect(certificatesRecovered).toBe(false);
    const urls = takeUrls(w.system);
    if (urls.length === 1) continue;
    expect(urls).toEqual(GET(URLS.goalState, URLS.certificates, URLS.certificates));
    asked.push(second);
  }
  expect(asked).toEqual([1, 3, 7, 15]);
  expect(failures()).toBe(told);
  w.platform.answers.set(URLS.certificates, (request) => ({
    body: certificatesXml(tenant, {
      recipient: request.headers?.["x-ms-guest-agent-public-x509-cert"] ?? "",
    }),
  }));
  await w.system.clock.advance(16_000);
  const update = await goals.update();
  expect(update).toMatchObject({
    certificatesRecovered: true,
    extensionsChanged: false,
    incarnationChanged: false,
  });
  expect(update.goalState.extensions).toBe(extensions);
  expect(goals.current()?.certificates.map(({ hasPrivateKey }) => hasPrivateKey)).toEqual([true]);
  takeUrls(w.system);
  await w.system.clock.advance(3_600_000);
  expect((await goals.update()).certificatesRecovered).toBe(false);
  expect(takeUrls(w.system)).toEqual(GET(URLS.goalState));
});

test("the wait for certificates grows to ten minutes, and a new incarnation begins anew", async () => {
  using w = world({ openssl: true });
  let incarnation = "1";
  w.platform.answers.set(URLS.goalState, () => ({ body: goalStateXml({ incarnation }) }));
  w.platform.answers.set(URLS.certificates, { status: 404 });
  const { goals } = await w.open({ fastTrack: false });
  const asksAfter = async (ms: number): Promise<boolean> => {
    await w.system.clock.advance(ms);
    takeUrls(w.system);
    await goals.update();
    return takeUrls(w.system).includes(`GET ${URLS.certificates}`);
  };
  for (let wait = 1000; wait < 600_000; wait *= 2) expect(await asksAfter(wait)).toBe(true);
  expect(await asksAfter(600_000)).toBe(true);
  expect(await asksAfter(599_000)).toBe(false);
  expect(await asksAfter(1000)).toBe(true);
  incarnation = "2";
  expect(await asksAfter(0)).toBe(true);
  expect(await asksAfter(1000)).toBe(true);
});

test("wire-protocol.md HIST-01 HIST-10 HIST-12 HIST-13 HIST-14 HIST-11: what changed is kept under incarnation and ETag", async () => {
  using w = world();
  w.fastTrack({ etag: "55" });
  const { goals } = await w.open();
  const names = (folder: string | undefined): string[] =>
    w.system.files.list(`${LIB}/history/${folder}`);
  const [first] = w.system.files.list(`${LIB}/history`);
  expect(first).toMatch(/^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d__1-55$/);
  expect(names(first)).toEqual([
    "ExtensionsConfig.xml",
    "GoalState.xml",
    "HostingEnvironmentConfig.xml",
    "SharedConfig.xml",
    "VmSettings.json",
  ]);
  w.fastTrack({ etag: "56", ticks: "638200000000000000" });
  await goals.update();
  const second = w.system.files.list(`${LIB}/history`).find((name) => name.endsWith("__1-56"));
  expect(names(second)).toEqual(["VmSettings.json"]);
  expect(w.system.files.readText(`${LIB}/history/${first}/ExtensionsConfig.xml`)).not.toContain(
    "SECRETSIG",
  );
});

test("wire-protocol.md HIST-15 HIST-16 CERT-15: certificates are kept as their summary, users as they came", async () => {
  using w = world({ openssl: true });
  const tenant = makeCertificate("/CN=tenant");
  w.platform.answers.set(URLS.goalState, { body: goalStateXml({ remoteAccess: true }) });
  w.platform.answers.set(URLS.certificates, (request) => ({
    body: certificatesXml(tenant, {
      recipient: request.headers?.["x-ms-guest-agent-public-x509-cert"] ?? "",
    }),
  }));
  const users = "<RemoteAccess><Incarnation>1</Incarnation><Users/></RemoteAccess>";
  w.platform.answers.set(URLS.remoteAccess, { body: users });
  const { goals } = await w.open({ fastTrack: false });
  const [folder] = w.system.files.list(`${LIB}/history`);
  const read = (name: string): string =>
    w.system.files.readText(`${LIB}/history/${folder}/${name}`);
  const [certificate] = goals.current()?.certificates ?? [];
  expect(JSON.parse(read("Certificates.json"))).toEqual([
    { thumbprint: certificate?.thumbprint ?? "", hasPrivateKey: true },
  ]);
  expect(read("RemoteAccess.xml")).toBe(users);
  expect(w.system.events).toContainEqual(
    expect.objectContaining({
      operation: "GoalStateCertificates",
      success: true,
      message: read("Certificates.json"),
    }),
  );
});

test("a forced update fetches everything although nothing changed", async () => {
  using w = world();
  w.fastTrack({ etag: "1" });
  const { goals } = await w.open();
  takeUrls(w.system);
  const update = await goals.update({ force: true });
  expect(update).toMatchObject({ extensionsChanged: false, incarnationChanged: false });
  const settings = w.system.requests.find(({ url }) => url === URLS.vmSettings);
  expect(settings?.headers).not.toHaveProperty("if-none-match");
  expect(takeUrls(w.system)).toEqual(
    GET(URLS.goalState, URLS.vmSettings, URLS.extensions, URLS.environment, URLS.shared),
  );
});

test("updates that are asked for at the same time do not mix", async () => {
  using w = world();
  const { goals } = await w.open({ fastTrack: false });
  takeUrls(w.system);
  w.platform.incarnation = "2";
  const updates = await Promise.all([goals.update(), goals.update(), goals.update()]);
  expect(updates.map(({ incarnationChanged }) => incarnationChanged)).toEqual([true, false, false]);
  expect(takeUrls(w.system)).toEqual(
    GET(
      URLS.goalState,
      URLS.extensions,
      URLS.environment,
      URLS.shared,
      URLS.goalState,
      URLS.goalState,
    ),
  );
});
