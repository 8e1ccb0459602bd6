import { healthRules, type HealthReport } from "./health-rules.ts";
import { header, type RecordedRequest, type RequestKind } from "./request.ts";
import { statusRules } from "./status-rules.ts";
import { telemetryRules } from "./telemetry-rules.ts";
import { statusBlobUrl, type World } from "./documents.ts";

/** A broken rule of the protocol. `rule` is an id of `wire-protocol.md`. */
export interface Violation {
  readonly rule: string;
  readonly message: string;
}

/** What the rules need to know about the run so far. */
export interface Context {
  readonly world: World;
  /** Kinds of the requests before this one, in order. */
  readonly seen: readonly RequestKind[];
  readonly healthReports: readonly HealthReport[];
  /** ETags that vmSettings answers carried so far. */
  readonly etags: ReadonlySet<string>;
  /** Correlation ids used so far. */
  readonly correlationIds: ReadonlySet<string>;
  /** True when the client has read a goal state since the identity changed. */
  readonly knowsIdentity: boolean;
  /** Times of the telemetry requests so far, milliseconds since start. */
  readonly telemetryTimes: readonly number[];
}

type Report = (rule: string, message: string) => void;
type Check = (request: RecordedRequest, context: Context, report: Report) => void;

const GUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const UUID4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;

/** Every rule that one request breaks. Pure. */
export function check(request: RecordedRequest, context: Context): Violation[] {
  const violations: Violation[] = [];
  const report: Report = (rule, message) =>
    violations.push({ rule, message: `${request.kind} #${request.number}: ${message}` });
  commonRules(request, report);
  CHECKS[request.kind]?.(request, context, report);
  return violations;
}

function commonRules(request: RecordedRequest, report: Report): void {
  if (request.kind === "unknown")
    report("MAP-01", `${request.method} ${request.url} is no request of the protocol`);
  if (request.kind === "redirect-trap") report("HTTP-03", "a redirect was followed");
  const connection = header(request, "Connection");
  if (connection?.toLowerCase() !== "close")
    report("HTTP-01", `Connection is ${shown(connection)}, not "close"`);
  const agent = header(request, "User-Agent");
  if (agent === undefined || !/^WALinuxAgent\/\d+(\.\d+){3}(\+health)?$/.test(agent))
    report("HTTP-02", `User-Agent is ${shown(agent)}`);
  const encoding = header(request, "Accept-Encoding");
  if (encoding !== "identity")
    report("HTTP-03", `Accept-Encoding is ${shown(encoding)}, not "identity"`);
  const names = request.headers.map(([name]) => name.toLowerCase());
  const repeated = names.find((name, index) => names.indexOf(name) !== index);
  if (repeated !== undefined) report("HTTP-01", `the header ${repeated} was sent twice`);
  for (const name of names) {
    if (/^(proxy-|via$|x-forwarded-)/.test(name))
      report("HTTP-15", `the header ${name} does not belong here`);
  }
}

/** WIRE-03: what every WireServer request but version negotiation carries. */
const wireHeaders: Check = (request, _context, report) => {
  expectHeader(request, "x-ms-agent-name", "WALinuxAgent", "WIRE-03", report);
  expectHeader(request, "x-ms-version", "2012-11-30", "WIRE-03", report);
};

const xmlPost: Check = (request, context, report) => {
  wireHeaders(request, context, report);
  expectHeader(request, "Content-Type", "text/xml;charset=utf-8", "WIRE-04", report);
};

const encryptedPayload: Check = (request, context, report) => {
  wireHeaders(request, context, report);
  const certificate = header(request, "x-ms-guest-agent-public-x509-cert");
  if (certificate === undefined || !/^[A-Za-z0-9+/]{200,}={0,2}$/.test(certificate))
    report(
      "WIRE-05",
      `x-ms-guest-agent-public-x509-cert is not bare base64: ${shown(certificate)}`,
    );
  const cipher = header(request, "x-ms-cipher-name");
  const allowed =
    request.kind === "remote-access" ? ["AES128_CBC"] : ["AES128_CBC", "DES_EDE3_CBC"];
  if (cipher === undefined || !allowed.includes(cipher))
    report(
      request.kind === "remote-access" ? "JIT-01" : "WIRE-05",
      `x-ms-cipher-name is ${shown(cipher)}`,
    );
};

const incarnationInUrl: Check = (request, _context, report) => {
  const incarnation = new URL(request.url).searchParams.get("incarnation");
  // Another incarnation is no breach: the goal state may have changed between both requests.
  if (incarnation === null)
    report("GS-05", "the URI of the goal state was changed: no incarnation");
};

/** HGAP-03. A stale id is answered 410; it breaks a rule only when the client has read the new one already. */
const pluginHeaders: Check = (request, context, report) => {
  expectHeader(request, "x-ms-version", "2015-09-01", "HGAP-03", report);
  containerId(request, context, report);
  const configName = header(request, "x-ms-host-config-name");
  if (
    configName === undefined ||
    (context.knowsIdentity && configName !== context.world.vm.configName)
  )
    report("HGAP-03", `x-ms-host-config-name is ${shown(configName)}`);
};

const containerId: Check = (request, context, report) => {
  const id = header(request, "x-ms-containerid");
  if (id === undefined || !GUID.test(id)) report("HGAP-03", `x-ms-containerid is ${shown(id)}`);
  else if (context.knowsIdentity && id !== context.world.vm.containerId)
    report(
      "GS-11",
      `x-ms-containerid ${id} is stale although the goal state with the new one was read`,
    );
};

const handshake: Check = (_request, context, report) => {
  if (!context.seen.includes("plugin-versions"))
    report("HGAP-02", "GET /versions has to come before");
};

const CHECKS: Partial<Record<RequestKind, Check>> = {
  versions: (request, _context, report) => {
    for (const name of ["x-ms-version", "x-ms-agent-name"]) {
      if (header(request, name) !== undefined)
        report("WIRE-02", `version negotiation carries ${name}`);
    }
  },
  "goal-state": wireHeaders,
  "hosting-environment": all(wireHeaders, incarnationInUrl),
  "shared-config": all(wireHeaders, incarnationInUrl),
  "extensions-config": all(wireHeaders, incarnationInUrl),
  certificates: all(encryptedPayload, incarnationInUrl),
  "remote-access": all(encryptedPayload, incarnationInUrl),
  health: all(xmlPost, (request, context, report) =>
    healthRules(request.body, context.world, context.healthReports, report),
  ),
  "role-properties": xmlPost,
  telemetry: all(xmlPost, (request, context, report) => {
    telemetryRules(request.body, request.bodyBytes, report);
    const recent = context.telemetryTimes.filter((at) => request.at - at < 15_000).length;
    if (recent >= 15) report("TEL-32", `${recent + 1} telemetry requests within 15 s`);
  }),
  "health-service": (request, _context, report) => {
    expectHeader(request, "Content-Type", "application/json", "HSVC-01", report);
    for (const [name] of request.headers) {
      if (name.toLowerCase().startsWith("x-ms-"))
        report("HSVC-01", `carries the WireServer header ${name}`);
    }
    observationRules(request.body, report);
  },
  "plugin-versions": (request, context, report) => {
    containerId(request, context, report);
    for (const name of ["x-ms-version", "x-ms-host-config-name"]) {
      if (header(request, name) !== undefined) report("HGAP-02", `the handshake carries ${name}`);
    }
  },
  "plugin-health": (request, _context, report) => {
    for (const [name] of request.headers) {
      if (name.toLowerCase().startsWith("x-ms-")) report("HGAP-04", `/health carries ${name}`);
    }
  },
  "vm-settings": all(pluginHeaders, (request, context, report) => {
    const correlationId = header(request, "x-ms-client-correlationid");
    if (correlationId === undefined || !UUID4.test(correlationId))
      report("VMS-01", `x-ms-client-correlationid is ${shown(correlationId)}`);
    else if (context.correlationIds.has(correlationId))
      report("VMS-01", "the correlation id is not new");
    const etag = header(request, "If-None-Match");
    if (etag !== undefined && !context.etags.has(etag))
      report("VMS-01", `If-None-Match is ${etag}, which was never an ETag here`);
  }),
  "plugin-artifact": all(pluginHeaders, handshake, artifactRules),
  "plugin-status": all(pluginHeaders, handshake, (request, context, report) => {
    expectHeader(request, "Content-Type", "application/json", "STAT-45", report);
    pluginStatusRules(request.body, context, report);
  }),
  "plugin-log": all(containerId, handshake, (request, context, report) => {
    expectHeader(request, "x-ms-version", "2015-09-01", "HGAP-07", report);
    expectHeader(request, "x-ms-client-name", "WALinuxAgent", "HGAP-07", report);
    expectHeader(
      request,
      "x-ms-vmagentlog-deploymentid",
      context.world.vm.configName.split(".")[0]!,
      "HGAP-07",
      report,
    );
    if (!/^\d+(\.\d+){3}$/.test(header(request, "x-ms-client-version") ?? ""))
      report("HGAP-07", "x-ms-client-version is missing");
    if (!UUID4.test(header(request, "x-ms-client-correlationid") ?? ""))
      report("HGAP-07", "x-ms-client-correlationid is missing");
    for (const name of ["Content-Type", "x-ms-host-config-name"]) {
      if (header(request, name) !== undefined) report("HGAP-07", `carries ${name}`);
    }
  }),
  "status-blob": (request, context, report) => {
    const list: [string, string][] = request.headers.filter(([name]) =>
      /^(x-ms-|content-length)/i.test(name),
    ) as [string, string][];
    blobHeaderRules(list, request.url, request.bodyBytes, report);
    if (header(request, "x-ms-blob-type") === "BlockBlob")
      statusRules(request.body, context.world, report);
  },
  "imds-compute": imdsRules,
  "imds-instance": imdsRules,
};

function all(...checks: readonly Check[]): Check {
  return (request, context, report) => checks.forEach((one) => one(request, context, report));
}

function expectHeader(
  request: RecordedRequest,
  name: string,
  wanted: string,
  rule: string,
  report: Report,
): void {
  const value = header(request, name);
  if (value !== wanted) report(rule, `${name} is ${shown(value)}, not "${wanted}"`);
}

function artifactRules(request: RecordedRequest, context: Context, report: Report): void {
  const location = header(request, "x-ms-artifact-location");
  if (location === undefined || !/^https?:\/\//.test(location))
    report("HGAP-05", `x-ms-artifact-location is ${shown(location)}`);
  const verify = header(request, "x-ms-verify-from-artifacts-blob");
  const isFastTrack = context.world.goal.source === "FastTrack";
  if (verify !== undefined && verify !== "true")
    report("HGAP-05", `x-ms-verify-from-artifacts-blob is ${verify}`);
  if (verify !== undefined && location?.includes("/profile/") === true)
    report("HGAP-05", "x-ms-verify-from-artifacts-blob never goes with the artifacts profile");
  if (verify === undefined && isFastTrack && location?.includes("/packages/") === true)
    report("HGAP-05", "x-ms-verify-from-artifacts-blob is missing for a FastTrack goal state");
  const manifest = header(request, "x-ms-artifact-manifest-location");
  if (manifest !== undefined && location?.includes("/packages/") !== true)
    report("HGAP-05", "x-ms-artifact-manifest-location only goes with packages");
}

function imdsRules(request: RecordedRequest, _context: Context, report: Report): void {
  expectHeader(request, "Metadata", "True", "IMDS-02", report);
  if (new URL(request.url).searchParams.get("api-version") !== "2018-02-01")
    report("IMDS-02", "the api-version is not 2018-02-01");
  for (const [name] of request.headers) {
    if (name.toLowerCase().startsWith("x-ms-")) report("IMDS-02", `carries ${name}`);
  }
}

function observationRules(body: string, report: Report): void {
  const document = parseJson(body);
  if (!isRecord(document)) return report("HSVC-01", "the body is no JSON object");
  const fixed = { Api: "reporttargethealth", Version: "1.0", Source: "WALinuxAgent" };
  for (const [name, value] of Object.entries(fixed)) {
    if (document[name] !== value) report("HSVC-01", `${name} is ${shown(document[name])}`);
  }
  const observations = document["Observations"];
  if (!Array.isArray(observations) || observations.length === 0 || observations.length > 10)
    return report("HSVC-02", "Observations is no list of 1 to 10");
  const limits = { ObservationName: 64, Description: 128, Value: 128 };
  for (const observation of observations as Record<string, unknown>[]) {
    for (const [name, limit] of Object.entries(limits)) {
      const value = observation[name];
      if (typeof value !== "string" || value.length > limit)
        report("HSVC-02", `${name} is ${shown(value)}, not a text of at most ${limit} characters`);
    }
    if (typeof observation["IsHealthy"] !== "boolean") report("HSVC-01", "IsHealthy is no boolean");
  }
}

/** STAT-46 and what is inside. */
function pluginStatusRules(body: string, context: Context, report: Report): void {
  const document = parseJson(body);
  if (!isRecord(document)) return report("STAT-46", "the body is no JSON object");
  const keys = Object.keys(document);
  if (keys.join() !== [...keys].sort().join())
    report("STAT-46", `the keys are not sorted: ${keys.join()}`);
  const list = document["headers"];
  const url = document["requestUri"];
  if (!Array.isArray(list) || typeof url !== "string")
    return report("STAT-46", "headers or requestUri is missing");
  const pairs: [string, string][] = [];
  for (const entry of list as Record<string, unknown>[]) {
    const { headerName, headerValue } = entry;
    if (typeof headerName !== "string" || typeof headerValue !== "string")
      report("STAT-46", `a header is not two texts: ${JSON.stringify(entry)}`);
    else pairs.push([headerName, headerValue]);
  }
  const wanted = statusBlobUrl(context.world);
  if (url !== wanted && url !== `${wanted}&comp=page`) report("STAT-46", `requestUri is ${url}`);
  const content =
    typeof document["content"] === "string"
      ? Buffer.from(document["content"], "base64")
      : undefined;
  blobHeaderRules(pairs, url, content?.length ?? 0, report);
  if (content !== undefined && !url.endsWith("comp=page"))
    statusRules(content.toString("utf8"), context.world, report);
  if (content !== undefined && url.endsWith("comp=page") && content.at(-1) === 0)
    report("STAT-43", "pages through the host are padded with spaces, not zero bytes");
}

/** STAT-40..42. `bytes`: length of the content. */
function blobHeaderRules(
  pairs: readonly (readonly [string, string])[],
  url: string,
  bytes: number,
  report: Report,
): void {
  const values = new Map(pairs.map(([name, value]) => [name.toLowerCase(), value]));
  const isPages = /[?&]comp=page$/.test(url);
  const type = values.get("x-ms-blob-type");
  if (values.get("x-ms-version") !== "2014-02-14")
    report("STAT-40", `x-ms-version is ${shown(values.get("x-ms-version"))}, not "2014-02-14"`);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(values.get("x-ms-date") ?? ""))
    report("STAT-40", `x-ms-date is ${shown(values.get("x-ms-date"))}`);
  if (values.get("content-length") !== String(bytes))
    report(
      "STAT-40",
      `Content-Length is ${shown(values.get("content-length"))} for ${bytes} bytes`,
    );
  if (isPages) {
    if (values.get("x-ms-page-write") !== "update")
      report("STAT-42", "x-ms-page-write is not update");
    const range = /^bytes=(\d+)-(\d+)$/.exec(values.get("x-ms-range") ?? "");
    const length = range === null ? Number.NaN : Number(range[2]) + 1 - Number(range[1]);
    if (
      range === null ||
      Number(range[1]) % 512 !== 0 ||
      length % 512 !== 0 ||
      length > 4 * 1024 * 1024 ||
      length !== bytes
    )
      report("STAT-42", `x-ms-range is ${shown(values.get("x-ms-range"))} for ${bytes} bytes`);
  } else if (type === "PageBlob") {
    const size = Number(values.get("x-ms-blob-content-length"));
    if (!Number.isInteger(size) || size <= 0 || size % 512 !== 0)
      report(
        "STAT-41",
        `x-ms-blob-content-length is ${shown(values.get("x-ms-blob-content-length"))}`,
      );
    if (bytes !== 0) report("STAT-41", "the creation of a page blob has no content");
  } else if (type !== "BlockBlob") report("STAT-40", `x-ms-blob-type is ${shown(type)}`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // the caller reports that it is no object
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  return value === undefined ? "missing" : JSON.stringify(value);
}
