import { describe } from "../base/error.ts";
import { formatJson, JsonNumber, toJson, type Json } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type {
  AggregateStatus,
  ExtensionReport,
  ExtensionStatus,
  HandlerReport,
} from "../azure/vm-status.ts";

/** Everything the VM status document says (`wire-protocol.md` §14.2). */
export interface VmStatusInput {
  /** ms since the epoch. */
  readonly now: number;
  readonly agentVersion: string;
  readonly computerName: string;
  readonly osName: string;
  readonly osVersion: string;
  /** Only while the platform chooses the agent's version (STAT-12). */
  readonly update: UpdateReport | undefined;
  readonly handlers: readonly HandlerReport[];
  readonly aggregate: AggregateStatus | undefined;
  readonly features: SupportedFeatures;
}

export interface UpdateReport {
  /** "" when the last attempt had no error. */
  readonly error: string;
}

/** What is announced besides several extensions per handler, which always is (STAT-20). */
export interface SupportedFeatures {
  /** Auto-update and GA versioning are both on. */
  readonly versioningGovernance: boolean;
  /** Fast Track is enabled and vmSettings are supported at the moment. */
  readonly fastTrack: boolean;
}

/** An extension's status whose JSON text is longer than this is cut (STAT-34). Characters. */
export const MAX_STATUS_CHARACTERS = 131_072;
const MAX_MESSAGE = 1024;
const MAX_SUBSTATUS_FIELD = 10_240;
const TRUNCATED = " ... [TRUNCATED]";

/**
 * The status document as ASCII text, so that its length in bytes is its length in characters (STAT-21).
 * One item that cannot be written becomes an error of that item; nothing here throws.
 */
export function vmStatus(input: VmStatusInput): string {
  const timestamp = formatTimestamp0(input.now);
  const update =
    input.update === undefined
      ? undefined
      : {
          // The running version, not the requested one: what the platform has always been told (DB-30).
          expectedVersion: input.agentVersion,
          status: input.update.error === "" ? "Success" : "Error",
          code: input.update.error === "" ? 0 : 1,
          formattedMessage: formattedMessage(input.update.error),
        };
  return formatJson(
    toJson({
      version: "1.1",
      timestampUTC: timestamp,
      aggregateStatus: {
        guestAgentStatus: {
          version: input.agentVersion,
          status: "Ready",
          formattedMessage: formattedMessage("Guest Agent is running"),
          updateStatus: update,
        },
        handlerAggregateStatus: input.handlers.flatMap((handler) =>
          handlerEntries(handler, timestamp),
        ),
        vmArtifactsAggregateStatus:
          input.aggregate === undefined
            ? undefined
            : { goalStateAggregateStatus: goalStateStatus(input.aggregate) },
      },
      guestOSInfo: {
        computerName: input.computerName,
        osName: input.osName,
        osVersion: input.osVersion,
        version: input.agentVersion,
      },
      supportedFeatures: featureNames(input.features).map((name) => ({ Key: name, Value: "1.0" })),
    }),
  );
}

/** Names of STAT-20 in the order they are reported. */
export function featureNames(features: SupportedFeatures): readonly string[] {
  return [
    "MultipleExtensionsPerHandler",
    ...(features.versioningGovernance ? ["VersioningGovernance"] : []),
    ...(features.fastTrack ? ["FastTrack"] : []),
  ];
}

/**
 * Cuts the texts of an oversized status (STAT-34); a null message or name stays null and costs nothing (DB-08).
 * Applying it twice changes nothing more.
 */
export function cutExtensionStatus(status: ExtensionStatus): ExtensionStatus {
  const message = cut(status.message, MAX_MESSAGE);
  let total = message?.length ?? 0;
  const substatuses: ExtensionStatus["substatuses"][number][] = [];
  for (const substatus of status.substatuses) {
    const shorter = {
      ...substatus,
      name: cut(substatus.name, MAX_SUBSTATUS_FIELD),
      message: cut(substatus.message, MAX_SUBSTATUS_FIELD),
    };
    total += (shorter.name?.length ?? 0) + (shorter.message?.length ?? 0);
    if (total > MAX_STATUS_CHARACTERS) break;
    substatuses.push(shorter);
  }
  return { ...status, message, substatuses };
}

function cut(text: string | null, limit: number): string | null {
  if (text === null || text.length < limit) return text;
  return `${text.slice(0, limit - TRUNCATED.length)}${TRUNCATED}`;
}

/** One entry for each settings entry, each repeating the handler's part (EXT-112); one alone without settings. */
function handlerEntries(handler: HandlerReport, timestamp: string): readonly Json[] {
  if (handler.extensions.length === 0) return [isolated(handler, undefined, timestamp)];
  return handler.extensions.map((extension) => isolated(handler, extension, timestamp));
}

function isolated(
  handler: HandlerReport,
  extension: ExtensionReport | undefined,
  timestamp: string,
): Json {
  try {
    return handlerEntry(handler, extension, timestamp);
  } catch (error) {
    // Data of one extension must never cost the status of the whole VM (EXT-107, extensions.md DB-05).
    return toJson({
      handlerVersion: String(handler.version),
      handlerName: String(handler.name),
      status: "NotReady",
      code: -1,
      useExactVersion: true,
      formattedMessage: formattedMessage(
        `The agent could not report this extension: ${describe(error)}`,
      ),
    });
  }
}

function handlerEntry(
  handler: HandlerReport,
  extension: ExtensionReport | undefined,
  timestamp: string,
): Json {
  return toJson({
    handlerVersion: handler.version,
    handlerName: handler.name,
    status: handler.status,
    code: handler.code,
    useExactVersion: true,
    formattedMessage: handler.message === undefined ? undefined : formattedMessage(handler.message),
    runtimeSettingsStatus:
      extension === undefined
        ? undefined
        : {
            settingsStatus: {
              status: limitedStatus(extension.status),
              version: new JsonNumber("1.0"),
              timestampUTC: timestamp,
            },
            sequenceNumber: extension.sequence,
            extensionName: extension.extensionName,
          },
  });
}

function limitedStatus(status: ExtensionStatus): Json {
  const whole = extensionStatus(status);
  if (isSurelyShort(status) || formatJson(whole).length <= MAX_STATUS_CHARACTERS) return whole;
  return extensionStatus(cutExtensionStatus(status));
}

/** Told without writing it: a character takes at most six, and what surrounds a substatus less than 200. */
function isSurelyShort(status: ExtensionStatus): boolean {
  const parts = [status, ...status.substatuses];
  const values = parts.flatMap(({ name, status: text, code, message }) => [
    name,
    text,
    code,
    message,
  ]);
  let characters = 200 * parts.length;
  for (const value of [...values, status.operation, status.configurationAppliedTime]) {
    if (typeof value === "string") characters += 6 * value.length;
    else if (typeof value === "object" && value !== null && !(value instanceof JsonNumber))
      return false;
  }
  return characters <= MAX_STATUS_CHARACTERS;
}

function extensionStatus(status: ExtensionStatus): Json {
  return toJson({
    name: status.name,
    configurationAppliedTime: status.configurationAppliedTime,
    operation: status.operation,
    status: status.status,
    code: status.code,
    formattedMessage: formattedMessage(status.message),
    substatus:
      status.substatuses.length === 0
        ? undefined
        : status.substatuses.map((substatus) => ({
            name: substatus.name,
            status: substatus.status,
            code: substatus.code,
            formattedMessage: formattedMessage(substatus.message),
          })),
  });
}

function goalStateStatus(aggregate: AggregateStatus) {
  return {
    formattedMessage: formattedMessage(aggregate.message),
    timestampUTC: formatTimestamp0(aggregate.processedAt),
    inSvdSeqNo: aggregate.sequence,
    status: aggregate.status,
    code: aggregate.code,
  };
}

function formattedMessage(message: string | null) {
  return { lang: "en-US", message: message === null ? null : redact(message) };
}
