import { certificateFromHeader, type CertificateAuthority } from "./certificates.ts";
import {
  certificatesDocument,
  extensionsConfigDocument,
  goalStateDocument,
  hostingEnvironmentDocument,
  imdsDocument,
  manifestDocument,
  manifestUrls,
  packageUrls,
  profileBlobUrl,
  remoteAccessDocument,
  sharedConfigDocument,
  sas,
  statusBlobUrl,
  ticksOf,
  versionsDocument,
  vmSettingsDocument,
  type ManifestEntry,
  type World,
} from "./documents.ts";
import type { Answer } from "./fault.ts";
import { readHealthReport, type HealthReport } from "./health-rules.ts";
import { buildPackage } from "./package.ts";
import { header, splitOnce, type RecordedRequest, type RequestKind } from "./request.ts";
import { check, type Violation } from "./rules.ts";
import { DEFAULT_VM, type GoalStateDescription, type Scenario } from "./scenario.ts";
import { readTelemetry, type TelemetryRecord } from "./telemetry-rules.ts";

/** A status document as the platform got it. */
export interface UploadedStatus {
  readonly at: number;
  readonly channel: "host" | "direct";
  readonly document: StatusDocument;
}

/** The part of the document that tests read; `status-rules.ts` checks all of it. */
export interface StatusDocument {
  readonly timestampUTC: string;
  readonly aggregateStatus: {
    readonly guestAgentStatus: { readonly status: string; readonly version: string };
    readonly handlerAggregateStatus: readonly {
      readonly handlerName: string;
      readonly handlerVersion: string;
      readonly status: string;
      readonly code: number;
      readonly formattedMessage?: { readonly message: string };
      readonly runtimeSettingsStatus?: {
        readonly sequenceNumber: number;
        readonly extensionName?: string;
        readonly settingsStatus: {
          readonly status: {
            readonly status: string;
            readonly formattedMessage: { readonly message: string | null };
          };
        };
      };
    }[];
    readonly vmArtifactsAggregateStatus?: {
      readonly goalStateAggregateStatus: {
        readonly inSvdSeqNo: unknown;
        readonly status: string;
        readonly code: number;
      };
    };
  };
}

/** What one request led to besides its answer. */
export interface Outcome {
  readonly answer: Answer;
  readonly violations: readonly Violation[];
  readonly health?: HealthReport;
  readonly status?: UploadedStatus;
  readonly telemetry?: readonly TelemetryRecord[];
}

export interface ModelOptions {
  readonly authority: CertificateAuthority;
  readonly wireServer: string;
  readonly storage: readonly [string, string];
}

const ETAG_BASE = 9_300_000_000_000_000_000n;
const EPOCH = Date.parse("2026-01-01T00:00:00Z");
const NO_BODY = new Uint8Array();

/** The platform's state: goal states, blobs, and what it learned from the agent. No effects but openssl's. */
export class HostModel {
  readonly #scenario: Scenario;
  readonly #options: ModelOptions;
  readonly #packages = new Map<string, Uint8Array>();
  readonly #manifests = new Map<string, string>();
  readonly #encrypted = new Map<string, string>();
  readonly #pages: { url: string; bytes: Uint8Array }[] = [];
  readonly #seen: RequestKind[] = [];
  readonly #health: HealthReport[] = [];
  readonly #etags = new Set<string>();
  readonly #correlationIds = new Set<string>();
  readonly #telemetryTimes: number[] = [];
  #goals: GoalStateDescription[];
  #current = 0;
  #knowsIdentity = false;

  constructor(scenario: Scenario, options: ModelOptions) {
    if (scenario.goalStates.length === 0)
      throw new Error("A scenario needs at least one goal state");
    this.#scenario = scenario;
    this.#options = options;
    this.#goals = [...scenario.goalStates];
    this.#buildStore();
  }

  get goalIndex(): number {
    return this.#current;
  }

  /** Puts a goal state of the scenario, or a new one, in force. */
  setGoalState(goal: number | GoalStateDescription): void {
    const before = this.#world(this.#current).vm;
    if (typeof goal === "number") {
      if (this.#goals[goal] === undefined)
        throw new Error(`The scenario has no goal state ${goal}`);
      this.#current = goal;
    } else {
      this.#goals.splice(this.#current + 1, 0, goal);
      this.#current += 1;
    }
    const after = this.#world(this.#current).vm;
    if (after.containerId !== before.containerId || after.configName !== before.configName)
      this.#knowsIdentity = false;
  }

  /** `answered` false: a fault hides the answer, but the request itself is still checked. */
  handle(request: RecordedRequest): Outcome {
    const world = this.#world(this.#current);
    const violations = check(request, {
      world,
      seen: this.#seen,
      healthReports: this.#health,
      etags: this.#etags,
      correlationIds: this.#correlationIds,
      knowsIdentity: this.#knowsIdentity,
      telemetryTimes: this.#telemetryTimes,
    });
    this.#seen.push(request.kind);
    const outcome = this.#answer(request, world);
    return { ...outcome, violations };
  }

  #answer(request: RecordedRequest, world: World): Omit<Outcome, "violations"> {
    switch (request.kind) {
      case "versions":
        return xml(versionsDocument());
      case "goal-state":
        this.#knowsIdentity = true;
        return xml(goalStateDocument(this.#wireWorld(world)));
      case "hosting-environment":
        return xml(hostingEnvironmentDocument(this.#wireWorld(world)));
      case "shared-config":
        return xml(sharedConfigDocument(this.#wireWorld(world)));
      case "extensions-config":
        return xml(extensionsConfigDocument(this.#wireWorld(world)));
      case "certificates":
        return this.#certificates(request, world);
      case "remote-access":
        return this.#remoteAccess(request, world);
      case "health": {
        const health = readHealthReport(request.body, request.at);
        if (health === undefined) return text(400, "Bad health report");
        this.#health.push(health);
        return { ...text(200, ""), health };
      }
      case "telemetry": {
        this.#telemetryTimes.push(request.at);
        return { ...text(200, ""), telemetry: readTelemetry(request.body) };
      }
      case "role-properties":
        return text(202, "");
      case "health-service":
        return text(200, "");
      case "plugin-versions":
        return json(JSON.stringify(this.#scenario.hostPlugin?.apiVersions ?? ["2015-09-01"]));
      case "plugin-health":
        return text(200, "");
      case "plugin-log":
        return this.#fresh(request, world) ?? text(200, "");
      case "vm-settings":
        return this.#vmSettings(request, world);
      case "plugin-artifact":
        return (
          this.#fresh(request, world) ??
          this.#blob(header(request, "x-ms-artifact-location") ?? "", world)
        );
      case "plugin-status":
        return this.#fresh(request, world) ?? this.#pluginStatus(request);
      case "status-blob":
        return this.#store(
          request.url,
          request.headers,
          Buffer.from(request.body, "latin1"),
          request.at,
          "direct",
        );
      case "manifest":
      case "package":
      case "artifacts-profile":
        return this.#blob(request.url, world);
      case "imds-compute":
        return json(JSON.stringify(this.#imds(world).compute));
      case "imds-instance":
        return json(JSON.stringify(this.#imds(world)));
      case "redirect-trap":
        return text(200, "You should not have come here");
      case "unknown":
        return text(404, "No such thing");
    }
  }

  /** 410 for a caller whose idea of the VM is outdated (HTTP-16). */
  #fresh(request: RecordedRequest, world: World): Omit<Outcome, "violations"> | undefined {
    const config = header(request, "x-ms-host-config-name");
    const isStale =
      header(request, "x-ms-containerid") !== world.vm.containerId ||
      (config !== undefined && config !== world.vm.configName);
    return isStale
      ? text(410, "RequestRoleConfigFileNotFound: the role config is gone")
      : undefined;
  }

  #vmSettings(request: RecordedRequest, world: World): Omit<Outcome, "violations"> {
    const correlationId = header(request, "x-ms-client-correlationid");
    if (correlationId !== undefined) this.#correlationIds.add(correlationId);
    if (this.#scenario.hostPlugin?.vmSettings === false) return text(404, "Not found");
    const stale = this.#fresh(request, world);
    if (stale !== undefined) return stale;
    if (header(request, "If-None-Match") === world.etag)
      return { answer: { status: 304, headers: { ETag: world.etag }, body: NO_BODY } };
    this.#etags.add(world.etag);
    const { answer } = json(vmSettingsDocument(world));
    return { answer: { ...answer, headers: { ...answer.headers, ETag: world.etag } } };
  }

  #certificates(request: RecordedRequest, world: World): Omit<Outcome, "violations"> {
    const certificate = certificateFromHeader(
      header(request, "x-ms-guest-agent-public-x509-cert") ?? "",
    );
    const cipher = header(request, "x-ms-cipher-name");
    if (certificate === undefined || (cipher !== "AES128_CBC" && cipher !== "DES_EDE3_CBC"))
      return text(400, "Bad transport certificate or cipher");
    const names = this.#certificateNames(this.#current);
    const data = this.#options.authority.package(names, certificate, cipher);
    return xml(certificatesDocument(world.goal.incarnation, data));
  }

  #remoteAccess(request: RecordedRequest, world: World): Omit<Outcome, "violations"> {
    const goal = this.#wireWorld(world).goal;
    const certificate = certificateFromHeader(
      header(request, "x-ms-guest-agent-public-x509-cert") ?? "",
    );
    if (certificate === undefined) return text(400, "Bad transport certificate");
    const passwords = new Map(
      (goal.remoteUsers ?? []).map((user) => [
        user.name,
        this.#options.authority.encryptFor(
          certificate,
          Buffer.from(user.password, "utf16le"),
          "-aes128",
        ),
      ]),
    );
    return xml(remoteAccessDocument(goal, passwords));
  }

  #pluginStatus(request: RecordedRequest): Omit<Outcome, "violations"> {
    let body: { requestUri?: unknown; headers?: unknown; content?: unknown };
    try {
      body = JSON.parse(Buffer.from(request.body, "latin1").toString("utf8")) as typeof body;
    } catch {
      return text(400, "The status request is not JSON");
    }
    const { requestUri, headers, content } = body;
    if (typeof requestUri !== "string" || !Array.isArray(headers))
      return text(400, "The status request lacks members");
    const pairs = (headers as { headerName: string; headerValue: string }[]).map(
      (one): [string, string] => [String(one.headerName), String(one.headerValue)],
    );
    const bytes = typeof content === "string" ? Buffer.from(content, "base64") : NO_BODY;
    const stored = this.#store(requestUri, pairs, bytes, request.at, "host");
    return stored.answer.status === 201 ? { ...stored, ...text(200, "") } : stored;
  }

  /** A PUT to the status blob, from the agent itself or through the host plugin. */
  #store(
    url: string,
    headers: readonly (readonly [string, string])[],
    bytes: Uint8Array,
    at: number,
    channel: UploadedStatus["channel"],
  ): Omit<Outcome, "violations"> {
    if (!hasSignature(url)) return text(403, "AuthenticationFailed");
    const value = (name: string) => header({ headers }, name);
    const base = url.replace(/[?&]comp=page$/, "");
    if (base !== url) {
      const page = this.#pages.find((one) => one.url === base);
      if (page === undefined) return text(404, "BlobNotFound");
      const start = Number(/^bytes=(\d+)-/.exec(value("x-ms-range") ?? "")?.[1]);
      if (!(start + bytes.length <= page.bytes.length)) return text(416, "InvalidPageRange");
      page.bytes.set(bytes, start);
      return { ...text(201, ""), ...statusOf(page.bytes, at, channel) };
    }
    if (value("x-ms-blob-type") === "PageBlob") {
      const known = this.#pages.findIndex((one) => one.url === base);
      if (known >= 0) this.#pages.splice(known, 1);
      this.#pages.push({
        url: base,
        bytes: new Uint8Array(Number(value("x-ms-blob-content-length") ?? 0)),
      });
      return text(201, "");
    }
    return { ...text(201, ""), ...statusOf(bytes, at, channel) };
  }

  #blob(url: string, world: World): Omit<Outcome, "violations"> {
    if (url === profileBlobUrl(world))
      return json(
        JSON.stringify({
          onHold: this.#wireWorld(world).goal.onHold ?? false,
          profileId: "fabric",
        }),
      );
    const manifest = this.#manifests.get(url);
    if (manifest !== undefined) return xml(manifest);
    const bytes = this.#packages.get(url);
    if (bytes === undefined) return text(404, "BlobNotFound");
    return {
      answer: { status: 200, headers: { "Content-Type": "application/octet-stream" }, body: bytes },
    };
  }

  #buildStore(): void {
    const { storage } = this.#options;
    const manifests = new Map<string, ManifestEntry[]>();
    for (const description of this.#scenario.packages ?? []) {
      const bytes = buildPackage(description);
      const uris = packageUrls({ storage }, description.name, description.version);
      for (const uri of uris) this.#packages.set(uri, bytes);
      const entries = manifests.get(description.name) ?? [];
      entries.push({
        version: description.version,
        uris,
        isInternal: description.isInternal ?? false,
      });
      manifests.set(description.name, entries);
    }
    for (const family of this.#goals.flatMap((goal) => goal.families ?? [])) {
      const name = `agent.${family.name}`;
      manifests.set(
        name,
        (family.versions ?? []).map((version) => ({
          version,
          uris: packageUrls({ storage }, "WALinuxAgent", version),
          isInternal: false,
        })),
      );
    }
    for (const [name, entries] of manifests) {
      for (const url of manifestUrls({ storage }, name))
        this.#manifests.set(url, manifestDocument(entries));
    }
  }

  #imds(world: World): { compute: Record<string, unknown>; network: unknown } {
    const document = imdsDocument(world.vm);
    return { ...document, compute: { ...document.compute, ...this.#scenario.imds } };
  }

  #certificateNames(index: number): readonly string[] {
    for (let at = index; at >= 0; at -= 1) {
      const names = this.#goals[at]?.certificates;
      if (names !== undefined) return names;
    }
    return this.#scenario.certificates ?? ["tenant"];
  }

  #world(index: number): World {
    const goal = this.#goals[index]!;
    const earlier = this.#goals.slice(0, index + 1).reverse();
    const containerId = earlier.find((one) => one.containerId !== undefined)?.containerId;
    const configName = earlier.find((one) => one.configName !== undefined)?.configName;
    const vm = {
      ...DEFAULT_VM,
      ...this.#scenario.vm,
      ...(containerId === undefined ? {} : { containerId }),
      ...(configName === undefined ? {} : { configName }),
    };
    const [first = "tenant"] = this.#certificateNames(index);
    // Made only when something is encrypted for it: a key takes a quarter of a second.
    const tenant = () => this.#options.authority.tenant(first);
    return {
      vm,
      goal,
      createdOnTicks: ticksOf(new Date(goal.createdOn ?? EPOCH + index * 1000)),
      etag: String(ETAG_BASE + BigInt(index)),
      hostPluginVersion: this.#scenario.hostPlugin?.version ?? "1.0.8.159",
      wireServer: this.#options.wireServer,
      storage: this.#options.storage,
      get thumbprint() {
        return tenant().thumbprint;
      },
      encrypted: (settings) => {
        const key = `${first}${JSON.stringify(settings)}`;
        let value = this.#encrypted.get(key);
        if (value === undefined) {
          value = this.#options.authority.encryptFor(
            tenant().certificate,
            JSON.stringify(settings),
          );
          this.#encrypted.set(key, value);
        }
        return value;
      },
    };
  }

  /** What the WireServer shows: the newest Fabric goal; a FastTrack goal only reaches the host plugin. */
  #wireWorld(world: World): World {
    if (world.goal.source !== "FastTrack") return world;
    let index = this.#current;
    while (index > 0 && this.#goals[index]?.source === "FastTrack") index -= 1;
    const fabric = this.#world(index);
    const goal =
      fabric.goal.source === "FastTrack" ? { ...fabric.goal, extensions: [] } : fabric.goal;
    return {
      ...fabric,
      vm: world.vm,
      goal: { ...goal, source: "Fabric", incarnation: world.goal.incarnation },
    };
  }

  /** Where status goes at the moment. */
  get statusUrl(): string {
    return statusBlobUrl(this.#world(this.#current));
  }
}

function statusOf(
  bytes: Uint8Array,
  at: number,
  channel: UploadedStatus["channel"],
): { status?: UploadedStatus } {
  try {
    const content = new TextDecoder().decode(bytes).replace(/\0+$/, "").trim();
    return { status: { at, channel, document: JSON.parse(content) as StatusDocument } };
  } catch {
    return {}; // not complete yet, or broken: the rules report what is wrong with a whole one
  }
}

/** A signature of ours that has not ended. */
function hasSignature(url: string): boolean {
  const query = splitOnce(url, "?")[1];
  const expiry = new URLSearchParams(query).get("se") ?? "";
  return query.startsWith(sas(expiry)) && Date.parse(expiry) > Date.now();
}

function respond(status: number, contentType: string, body: string): { answer: Answer } {
  return {
    answer: {
      status,
      headers: { "Content-Type": contentType },
      body: new TextEncoder().encode(body),
    },
  };
}

function xml(body: string): { answer: Answer } {
  return respond(200, "text/xml; charset=utf-8", body);
}

function json(body: string): { answer: Answer } {
  return respond(200, "application/json; charset=utf-8", body);
}

function text(status: number, body: string): { answer: Answer } {
  return respond(status, "text/plain", body);
}
