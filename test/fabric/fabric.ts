import { CertificateAuthority } from "./certificates.ts";
import { startDhcp, type DhcpServer } from "./dhcp.ts";
import { FaultPlan, deliver, type Delivery, type FaultRule } from "./fault.ts";
import type { HealthReport } from "./health-rules.ts";
import { listen, type Listener, type RawRequest } from "./listener.ts";
import { HostModel, type UploadedStatus } from "./model.ts";
import { classify, type RecordedRequest, type ServiceName } from "./request.ts";
import type { Violation } from "./rules.ts";
import type { EventMatch, GoalStateDescription, Scenario, Step } from "./scenario.ts";
import type { TelemetryRecord } from "./telemetry-rules.ts";

/**
 * Where the host listens. "platform": the real addresses, which only exist in a network namespace made for it.
 * "loopback": free ports of 127.0.0.1; `connectTo` says which stands for which address.
 */
export type ListenMode = "platform" | "loopback";

/** What happened, in order. */
export type FabricEvent =
  | { readonly type: "request"; readonly at: number; readonly request: RecordedRequest }
  | { readonly type: "violation"; readonly at: number; readonly violation: Violation }
  | { readonly type: "health"; readonly at: number; readonly health: HealthReport }
  | { readonly type: "status"; readonly at: number; readonly status: UploadedStatus }
  | {
      readonly type: "telemetry";
      readonly at: number;
      readonly records: readonly TelemetryRecord[];
    }
  | { readonly type: "goal-state"; readonly at: number; readonly index: number }
  | { readonly type: "dhcp"; readonly at: number; readonly text: string };

/** A running emulated host: the same face in this process and in another one (`remote.ts`). */
export interface Fabric extends AsyncDisposable {
  readonly events: readonly FabricEvent[];
  /** Time of `at` zero, milliseconds since 1970. */
  readonly startedAt: number;
  readonly requests: readonly RecordedRequest[];
  readonly violations: readonly Violation[];
  readonly healthReports: readonly HealthReport[];
  readonly statusDocuments: readonly UploadedStatus[];
  readonly telemetryEvents: readonly TelemetryRecord[];
  /** PEM of the root that signed the storage's TLS certificate. */
  readonly authority: string;
  /** "168.63.129.16:80" -> "127.0.0.1:PORT"; empty in platform mode. */
  readonly connectTo: Readonly<Record<string, string>>;
  /** Resolves with the first event, past or coming, that the predicate accepts; fails after `timeoutMs`. */
  waitFor(
    predicate: (event: FabricEvent) => boolean,
    timeoutMs: number,
    what?: string,
  ): Promise<FabricEvent>;
  /** Index of a goal state of the scenario, or a new one that follows the current one. */
  setGoalState(goal: number | GoalStateDescription): Promise<void>;
  addFault(rule: FaultRule): Promise<void>;
  clearFaults(): Promise<void>;
  stop(): Promise<void>;
}

const WIRE_SERVER = "168.63.129.16";
const IMDS = "169.254.169.254";
export const STORAGE_HOSTS = ["stor1.blob.fabric.test", "stor2.blob.fabric.test"] as const;
const STORAGE_ADDRESSES = ["10.90.0.10", "10.90.0.11"] as const;
/** Bodies are kept up to this size; the rules see all of it. */
const MAX_KEPT_BODY = 512 * 1024;

/** Errors: when an address cannot be listened on (not in the platform's namespace) or openssl is missing. */
export async function startFabric(
  scenario: Scenario,
  options: { readonly listen: ListenMode; readonly onEvent?: (event: FabricEvent) => void },
): Promise<Fabric> {
  const authority = new CertificateAuthority();
  const scheme = scenario.storage ?? "http";
  const model = new HostModel(scenario, {
    authority,
    wireServer: `http://${WIRE_SERVER}:80`,
    storage: [`${scheme}://${STORAGE_HOSTS[0]}`, `${scheme}://${STORAGE_HOSTS[1]}`],
  });
  authority.prepare([
    ...(scenario.certificates ?? ["tenant"]),
    ...scenario.goalStates.flatMap((goal) => goal.certificates ?? []),
  ]);
  const faults = new FaultPlan(scenario.faults);
  const began = performance.now();
  const startedAt = Date.now();
  const now = (): number => Math.round((performance.now() - began) * 10) / 10;
  const events: FabricEvent[] = [];
  const watchers = new Set<(event: FabricEvent) => void>();
  const listeners: Listener[] = [];
  const timers: ReturnType<typeof setTimeout>[] = [];
  let dhcp: DhcpServer | undefined;
  let counter = 0;

  const emit = (event: FabricEvent): void => {
    events.push(event);
    options.onEvent?.(event);
    for (const watcher of [...watchers]) watcher(event);
  };

  const handle = async (
    service: ServiceName,
    origin: string,
    raw: RawRequest,
  ): Promise<Delivery> => {
    const at = now();
    const isAbsolute = /^https?:\/\//.test(raw.target);
    const kind = isAbsolute ? "unknown" : classify(service, raw.method, raw.target);
    counter += 1;
    // One character per byte: the model turns it back into bytes where it matters.
    const request: RecordedRequest = {
      number: counter,
      at,
      kind,
      method: raw.method,
      url: isAbsolute ? raw.target : origin + raw.target,
      headers: raw.headers,
      body: raw.body.toString("latin1"),
      bodyBytes: raw.body.length,
      status: 0,
    };
    const outcome = model.handle({
      ...request,
      body: BINARY.has(kind) ? request.body : raw.body.toString("utf8"),
    });
    const fault = faults.take(request);
    const delivery = deliver(outcome.answer, fault);
    if (fault !== undefined) request.fault = fault.kind;
    if ("answer" in delivery) request.status = delivery.answer.status;
    const kept = kind === "plugin-log" ? "" : raw.body.subarray(0, MAX_KEPT_BODY).toString("utf8");
    emit({ type: "request", at, request: { ...request, body: kept } });
    for (const violation of outcome.violations) emit({ type: "violation", at, violation });
    // What a fault kept from the client did not happen for the platform either, unless the answer was good.
    if (fault === undefined || (request.status >= 200 && request.status < 300)) {
      if (outcome.health !== undefined) emit({ type: "health", at, health: outcome.health });
      if (outcome.status !== undefined) emit({ type: "status", at, status: outcome.status });
      if (outcome.telemetry !== undefined)
        emit({ type: "telemetry", at, records: outcome.telemetry });
    }
    return delivery;
  };

  const stop = async (): Promise<void> => {
    for (const timer of timers) clearTimeout(timer);
    await dhcp?.stop();
    await Promise.all(listeners.map((listener) => listener.close()));
    authority[Symbol.dispose]();
  };

  const setGoalState = (goal: number | GoalStateDescription): Promise<void> => {
    model.setGoalState(goal);
    emit({ type: "goal-state", at: now(), index: model.goalIndex });
    return Promise.resolve();
  };
  const waitFor: Fabric["waitFor"] = (predicate, timeoutMs, what) =>
    waitForEvent(events, watchers, predicate, timeoutMs, what);

  const connectTo: Record<string, string> = {};
  const isLoopback = options.listen === "loopback";
  const open = async (
    service: ServiceName,
    host: string,
    address: string,
    port: number,
    tls?: { key: string; cert: string },
  ): Promise<void> => {
    const origin = `${tls === undefined ? "http" : "https"}://${host}${port === 80 || port === 443 ? "" : `:${port}`}`;
    const listener = await listen({
      hostname: isLoopback ? "127.0.0.1" : address,
      port: isLoopback ? 0 : port,
      ...(tls === undefined ? {} : { tls }),
      handle: (raw) => handle(service, origin, raw),
      clockOffsetMs: scenario.clockOffsetMs ?? 0,
    });
    listeners.push(listener);
    if (isLoopback) connectTo[`${host}:${port}`] = `127.0.0.1:${listener.port}`;
  };
  try {
    await open("wire-server", WIRE_SERVER, WIRE_SERVER, 80);
    await open("host-plugin", WIRE_SERVER, WIRE_SERVER, 32526);
    await open("imds", IMDS, IMDS, 80);
    const tls =
      scheme === "https"
        ? authority.server([...STORAGE_HOSTS, ...STORAGE_ADDRESSES, "127.0.0.1", "localhost"])
        : undefined;
    for (const [index, host] of STORAGE_HOSTS.entries())
      await open("storage", host, STORAGE_ADDRESSES[index]!, scheme === "https" ? 443 : 80, tls);
    if (options.listen === "platform" && scenario.dhcp !== undefined)
      dhcp = await startDhcp(scenario.dhcp, (text) => emit({ type: "dhcp", at: now(), text }));
  } catch (error) {
    await stop();
    throw error;
  }

  const act = (step: Step): void => {
    if ("goalState" in step.do) void setGoalState(step.do.goalState);
    else if ("fault" in step.do) faults.add(step.do.fault);
    else faults.clear();
  };
  for (const step of scenario.steps ?? []) {
    const later = (): void => void timers.push(setTimeout(() => act(step), step.when.afterMs ?? 0));
    if (step.when.seen === undefined) later();
    else watchers.add(onNth(step.when.seen, later));
  }

  return {
    events,
    startedAt,
    get requests() {
      return events.flatMap((event) => (event.type === "request" ? [event.request] : []));
    },
    get violations() {
      return events.flatMap((event) => (event.type === "violation" ? [event.violation] : []));
    },
    get healthReports() {
      return events.flatMap((event) => (event.type === "health" ? [event.health] : []));
    },
    get statusDocuments() {
      return events.flatMap((event) => (event.type === "status" ? [event.status] : []));
    },
    get telemetryEvents() {
      return events.flatMap((event) => (event.type === "telemetry" ? event.records : []));
    },
    get authority() {
      return authority.root.certificate;
    },
    connectTo,
    waitFor,
    setGoalState,
    addFault: (rule) => Promise.resolve(faults.add(rule)),
    clearFaults: () => Promise.resolve(faults.clear()),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Kinds whose body is bytes, not text. */
const BINARY: ReadonlySet<string> = new Set(["plugin-log", "status-blob", "plugin-status"]);

export function waitForEvent(
  events: readonly FabricEvent[],
  watchers: Set<(event: FabricEvent) => void>,
  predicate: (event: FabricEvent) => boolean,
  timeoutMs: number,
  what = "the event",
): Promise<FabricEvent> {
  const known = events.find(predicate);
  if (known !== undefined) return Promise.resolve(known);
  return new Promise((resolve, reject) => {
    const watcher = (event: FabricEvent): void => {
      if (!predicate(event)) return;
      clearTimeout(timer);
      watchers.delete(watcher);
      resolve(event);
    };
    const timer = setTimeout(() => {
      watchers.delete(watcher);
      reject(new Error(`The emulated host did not see ${what} within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    watchers.add(watcher);
  });
}

/** Whether an event is the one a scenario names. */
export function isEvent(event: FabricEvent, name: string): boolean {
  switch (event.type) {
    case "request":
      return event.request.kind === name;
    case "health":
      return name === (event.health.state === "Ready" ? "ready" : "not-ready");
    case "status": {
      if (name === "status") return true;
      const [extension, wanted] = name.replace(/^status:/, "").split("=");
      return (
        name.startsWith("status:") &&
        event.status.document.aggregateStatus.handlerAggregateStatus.some(
          (handler) =>
            handler.handlerName === extension &&
            (handler.runtimeSettingsStatus?.settingsStatus.status.status ?? handler.status) ===
              wanted,
        )
      );
    }
    default:
      return event.type === name;
  }
}

function onNth(match: EventMatch, act: () => void): (event: FabricEvent) => void {
  let left = match.count ?? 1;
  return (event) => {
    if (!isEvent(event, match.event)) return;
    left -= 1;
    if (left === 0) act();
  };
}
