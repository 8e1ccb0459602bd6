import { JsonNumber, type Json } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import { formatTimestamp6 } from "../base/time.ts";
import type { TelemetryEvent } from "../system/event.ts";
import {
  EVENTS_PROVIDER,
  LOGS_PROVIDER,
  type EventDocument,
  type EventParameter,
} from "./event-document.ts";

/** Name under which the agent itself appears in events. */
export const AGENT_NAME = "WALinuxAgent";

/** What every event says about agent and machine (`wire-protocol.md` TEL-04, TEL-06). */
export interface EventFacts {
  readonly agentVersion: string;
  readonly processId: number;
  /** `Linux:<distro>-<version>-<codename>:<kernel>`. */
  readonly osVersion: string;
  readonly ramMiB: number;
  readonly processors: number;
  /** As uname says, e.g. "x86_64". */
  readonly architecture: string;
}

/** What is only known after the first goal state (TEL-07); until then the placeholders of TEL-06 stand there. */
export interface EventIdentity {
  readonly containerId?: string | undefined;
  readonly tenantName?: string | undefined;
  readonly roleName?: string | undefined;
  readonly roleInstanceName?: string | undefined;
  readonly location?: string | undefined;
  readonly subscriptionId?: string | undefined;
  readonly resourceGroupName?: string | undefined;
  readonly vmId?: string | undefined;
  /** 1 custom, 2 endorsed, 3 platform; 0 unknown (IMDS-10). */
  readonly imageOrigin?: number | undefined;
}

/** One performance counter (TEL-02, TEL-40..48). */
export interface Metric {
  readonly category: string;
  readonly counter: string;
  readonly instance: string;
  readonly value: number;
}

/** One line for the log table (TEL-03). */
export interface LogRecord {
  readonly name: string;
  readonly level: string;
  readonly message: string;
  readonly context2: string;
  readonly context3: string;
}

/** When and by whom an event was made. */
export interface EventOrigin {
  /** ms since the epoch. */
  readonly at: number;
  /** Name of the task (TEL-04). */
  readonly task: string;
}

const UNKNOWN_CONTAINER = "00000000-0000-0000-0000-000000000000";

export function operationParameters(
  event: TelemetryEvent,
  agentVersion: string,
): readonly EventParameter[] {
  return [
    { name: "Name", value: event.name ?? AGENT_NAME },
    { name: "Version", value: event.version ?? agentVersion },
    { name: "Operation", value: event.operation },
    { name: "OperationSuccess", value: event.success },
    { name: "Message", value: redact(event.message) },
    { name: "Duration", value: integer(event.durationMs ?? 0) },
  ];
}

export function metricParameters(metric: Metric): readonly EventParameter[] {
  return [
    { name: "Category", value: metric.category },
    { name: "Counter", value: metric.counter },
    { name: "Instance", value: metric.instance },
    { name: "Value", value: float(metric.value) },
  ];
}

export function logParameters(record: LogRecord): readonly EventParameter[] {
  return [
    { name: "EventName", value: record.name },
    { name: "CapabilityUsed", value: record.level },
    { name: "Context1", value: redact(record.message) },
    { name: "Context2", value: record.context2 },
    { name: "Context3", value: record.context3 },
  ];
}

/** The common parameters, in order; `fileType` undefined leaves out the two that only eventId 1 has (TEL-05). */
export function commonParameters(
  facts: EventFacts,
  identity: EventIdentity,
  origin: EventOrigin,
  fileType: string | undefined,
): readonly EventParameter[] {
  return [
    { name: "GAVersion", value: `${AGENT_NAME}-${facts.agentVersion}` },
    { name: "ContainerId", value: identity.containerId ?? UNKNOWN_CONTAINER },
    { name: "OpcodeName", value: formatTimestamp6(origin.at) },
    // A single-threaded process: its only thread has the process's id.
    { name: "EventTid", value: integer(facts.processId) },
    { name: "EventPid", value: integer(facts.processId) },
    { name: "TaskName", value: origin.task },
    ...(fileType === undefined
      ? []
      : [
          { name: "ExtensionType", value: fileType },
          { name: "IsInternal", value: false },
        ]),
    { name: "OSVersion", value: facts.osVersion },
    { name: "ExecutionMode", value: "IAAS" },
    { name: "RAM", value: integer(facts.ramMiB) },
    { name: "Processors", value: integer(facts.processors) },
    { name: "KeywordName", value: `{"CpuArchitecture": ${JSON.stringify(facts.architecture)}}` },
    { name: "TenantName", value: identity.tenantName ?? "TenantName_UNINITIALIZED" },
    { name: "RoleName", value: identity.roleName ?? "RoleName_UNINITIALIZED" },
    {
      name: "RoleInstanceName",
      value: identity.roleInstanceName ?? "RoleInstanceName_UNINITIALIZED",
    },
    { name: "Location", value: identity.location ?? "Location_UNINITIALIZED" },
    { name: "SubscriptionId", value: identity.subscriptionId ?? "SubscriptionId_UNINITIALIZED" },
    {
      name: "ResourceGroupName",
      value: identity.resourceGroupName ?? "ResourceGroupName_UNINITIALIZED",
    },
    { name: "VMId", value: identity.vmId ?? "VMId_UNINITIALIZED" },
    { name: "ImageOrigin", value: integer(identity.imageOrigin ?? 0) },
  ];
}

export function operationEvent(
  own: readonly EventParameter[],
  common: readonly EventParameter[],
): EventDocument {
  return { eventId: 1, providerId: EVENTS_PROVIDER, parameters: [...own, ...common], fileType: "" };
}

export function metricEvent(
  own: readonly EventParameter[],
  common: readonly EventParameter[],
): EventDocument {
  return { eventId: 4, providerId: EVENTS_PROVIDER, parameters: [...own, ...common], fileType: "" };
}

export function logEvent(
  own: readonly EventParameter[],
  common: readonly EventParameter[],
): EventDocument {
  return { eventId: 7, providerId: LOGS_PROVIDER, parameters: [...own, ...common], fileType: "" };
}

/** `Linux:<distro>-<version>-<codename>:<kernel>` (TEL-06, `system.md` MON-16). */
export function osVersionText(
  release: { readonly name: string; readonly version: string; readonly codeName: string },
  kernel: string,
): string {
  return `Linux:${release.name}-${release.version}-${release.codeName}:${kernel}`;
}

/**
 * A legacy event, written straight into the folder by an extension or an older agent, made whole:
 * an extension's keeps its six own parameters and gets ours (TEL-21), an agent's gets what it lacks (TEL-22).
 */
export function completeLegacyEvent(
  event: EventDocument,
  facts: EventFacts,
  identity: EventIdentity,
  origin: EventOrigin,
): EventDocument {
  // Only a numeric 1 has the two parameters of TEL-05: the platform's view of old extensions stays as it is (TEL-23).
  const common = commonParameters(
    facts,
    identity,
    origin,
    event.eventId === 1 ? event.fileType : undefined,
  );
  const name = event.parameters.find((parameter) => parameter.name === "Name")?.value;
  if (typeof name === "string" && name !== AGENT_NAME) {
    const own = event.parameters.filter((parameter) => OPERATION_NAMES.has(parameter.name));
    return { ...event, parameters: redacted([...own, ...common]) };
  }
  const known = new Set(event.parameters.map((parameter) => parameter.name));
  const missing = common.filter((parameter) => !known.has(parameter.name));
  return { ...event, parameters: redacted([...event.parameters, ...missing]) };
}

const OPERATION_NAMES: ReadonlySet<string> = new Set([
  "Name",
  "Version",
  "Operation",
  "OperationSuccess",
  "Message",
  "Duration",
]);

/** Messages are redacted when they are written and once more when they are collected (TEL-18). */
export function redacted(parameters: readonly EventParameter[]): readonly EventParameter[] {
  return parameters.map((parameter) =>
    parameter.name === "Message" && typeof parameter.value === "string"
      ? { ...parameter, value: redact(parameter.value) }
      : parameter,
  );
}

function integer(value: number): Json {
  return new JsonNumber(Number.isFinite(value) ? String(BigInt(Math.trunc(value))) : "0");
}

/** Always with a fraction, or the platform's column would get an integer (TEL-16). */
export function float(value: number): JsonNumber {
  if (!Number.isFinite(value)) return new JsonNumber("0.0");
  const text = String(value);
  return new JsonNumber(/[.e]/.test(text) ? text : `${text}.0`);
}
