import { randomUUID } from "node:crypto";
import { AgentError, describe, errnoOf, isAgentError } from "../base/error.ts";
import { formatJson, JsonReader, toJson } from "../base/json.ts";
import { formatTimestamp6, TIMESTAMP_MINIMUM } from "../base/time.ts";
import type { HttpResponse } from "../system/http.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { ExtensionsGoalState } from "./goal-state.ts";
import type { OpenHistory } from "./history-entry.ts";
import type { HostPlugin } from "./host-plugin.ts";
import { normalizeTimestamp } from "./timestamps.ts";
import { isSupportedHostPlugin, parseVmSettings, type VmSettings } from "./vm-settings.ts";
import { createVmSettingsStatistics } from "./vm-settings-statistics.ts";
import type { WireClient } from "./wire-client.ts";

/** What the host plugin says about Fast Track (`wire-protocol.md` §10). */
export type VmSettingsOutcome =
  /** Fast Track has nothing to say: not supported, or the content is the WireServer's. */
  | { readonly kind: "none" }
  | {
      readonly kind: "fast-track";
      readonly goal: ExtensionsGoalState;
      readonly etag: string;
      /** As received and unredacted; undefined when it is the answer of an earlier call. */
      readonly newText: string | undefined;
    }
  /** It was supported and is not any more (VMS-17). */
  | { readonly kind: "stopped"; readonly lastTimestamp: string };

/**
 * Reads vmSettings and remembers whether the host plugin supports them. An unchanged answer costs one request with
 * the ETag of the last one (304): nothing is parsed or written.
 */
export interface VmSettingsClient {
  /** Errors: AgentError "protocol" or "bad-input"; `cached()` stays as it was. */
  read(options: {
    readonly force: boolean;
    readonly signal?: AbortSignal | undefined;
  }): Promise<VmSettingsOutcome>;
  /** The last outcome, as not new. */
  cached(): VmSettingsOutcome;
  /** Whether the host plugin has them, as far as is known (STAT-20). */
  isSupported(): boolean;
  /** Fast Track is off: creation time of the last goal it brought, if there was one (VMS-18). */
  disabledSince(): string | undefined;
  /** Deletes the note of the last Fast Track time (VMS-17). */
  forgetLastFastTrack(): void;
}

export interface VmSettingsClientOptions {
  readonly libDir: SystemPath;
  /** `Debug.EnableFastTrack`. */
  readonly enabled: boolean;
  /** Where a document that cannot be used is kept, once for each ETag (VMS-47). */
  readonly history?: OpenHistory | undefined;
}

const RETRY_UNSUPPORTED_MS = 6 * 3600_000;
const DEADLINE_MS = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;
const NONE: VmSettingsOutcome = { kind: "none" };

export function createVmSettingsClient(
  system: Pick<System, "http" | "clock" | "files" | "log" | "emit">,
  peers: { readonly wire: WireClient; readonly hostPlugin: HostPlugin },
  options: VmSettingsClientOptions,
): VmSettingsClient {
  const { wire, hostPlugin } = peers;
  const noteFile = join(options.libDir, "fast_track.json");
  const statistics = createVmSettingsStatistics(system);
  let supported = system.files.exists(noteFile);
  let unsupportedUntil: number | undefined;
  let last: { readonly etag: string; readonly outcome: VmSettingsOutcome } | undefined;
  let lastTimestamp: string | undefined;
  let hostPluginVersion = "";
  let rejectedEtag: string | undefined;

  /** Every request, the repeated one too, has an id of its own (VMS-01). */
  const ask = async (
    newCorrelationId: () => string,
    force: boolean,
    signal: AbortSignal | undefined,
  ): Promise<HttpResponse> => {
    const send = async (): Promise<HttpResponse> =>
      system.http.request({
        method: "GET",
        url: `${hostPlugin.url}/vmSettings`,
        headers: {
          ...(await hostPlugin.headers(signal)),
          "x-ms-client-correlationid": newCorrelationId(),
          ...(last === undefined || force ? {} : { "if-none-match": last.etag }),
        },
        proxy: "never",
        deadlineMs: DEADLINE_MS,
        maxBodyBytes: MAX_BYTES,
        signal,
      });
    const response = await send();
    if (response.status !== 410) return response;
    await hostPlugin.refreshIds(signal);
    return send();
  };

  const notSupported = (): VmSettingsOutcome => {
    const wasSupported = supported;
    const before = lastTimestamp ?? readNote();
    supported = false;
    last = undefined;
    unsupportedUntil = system.clock.monotonic() + RETRY_UNSUPPORTED_MS;
    const operation = "VmSettings";
    if (!wasSupported) {
      const message = `[VmSettingsNotSupported] HostGAPlugin: ${hostPluginVersion || "unknown"}`;
      system.emit({ operation, success: true, message });
      return NONE;
    }
    const message = `[VmSettingsSupportStopped] HostGAPlugin: ${hostPluginVersion || "unknown"}`;
    system.log.info("The host plugin does not have vmSettings any more");
    system.emit({ operation, success: false, message, log: false });
    return { kind: "stopped", lastTimestamp: before };
  };

  /** The note's time; one that cannot be read means now, none means the minimum (VMS-19). */
  const readNote = (): string => {
    try {
      const text = system.files.readTextIfExists(noteFile);
      if (text === undefined) return TIMESTAMP_MINIMUM;
      const timestamp = JsonReader.parse(text, noteFile).get("timestamp").string();
      const normal = normalizeTimestamp(timestamp);
      if (normal !== undefined) return normal;
    } catch (error) {
      system.log.warning(`The time of the last Fast Track goal is lost: ${describe(error)}`);
    }
    return formatTimestamp6(system.clock.now());
  };

  const remember = (settings: VmSettings): void => {
    if (settings.source !== "FastTrack") {
      if (system.files.exists(noteFile)) system.files.remove(noteFile);
      return;
    }
    lastTimestamp = settings.goal.createdAt;
    const text = formatJson(toJson({ timestamp: settings.goal.createdAt }));
    if (system.files.readTextIfExists(noteFile) !== text)
      system.files.write(noteFile, text, { mode: 0o600 });
  };

  const parse = (response: HttpResponse, etag: string): VmSettings => {
    // HTTP-21: no BOM is dropped here, so it is not decoded by response.text().
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(response.body);
    try {
      return parseVmSettings(text, etag);
    } catch (error) {
      if (rejectedEtag !== etag) {
        rejectedEtag = etag;
        options.history?.(etag, { aside: true }).save("VmSettings.json", text);
      }
      throw error;
    }
  };

  const accept = (response: HttpResponse): VmSettingsOutcome => {
    const etag = response.headers.get("etag");
    if (etag === undefined) throw new AgentError("protocol", "vmSettings came without an ETag");
    const settings = parse(response, etag);
    if (settings.hostPluginVersion !== hostPluginVersion) {
      hostPluginVersion = settings.hostPluginVersion;
      const message = `HostGAPlugin version: ${hostPluginVersion}`;
      system.log.info(message);
      system.emit({ operation: "HostPlugin", success: true, message });
    }
    if (!isSupportedHostPlugin(hostPluginVersion)) return notSupported();
    supported = true;
    unsupportedUntil = undefined;
    remember(settings);
    const text = new TextDecoder().decode(response.body);
    if (settings.source === "FastTrack") {
      for (const { success, message } of settings.dependencyNotes)
        system.emit({ operation: "ProvisionAfterExtensions", success, message });
      const outcome = { kind: "fast-track", goal: settings.goal, etag } as const;
      last = { etag, outcome: { ...outcome, newText: undefined } };
      return { ...outcome, newText: text };
    }
    last = { etag, outcome: NONE };
    if (settings.source === "UNKNOWN") {
      // DB-24: content nobody vouches for; the WireServer's is taken instead.
      const message = "The source of vmSettings is not known, they are not used";
      system.log.warning(message);
      system.emit({ operation: "VmSettings", success: false, message, log: false });
    } else system.log.verbose(`vmSettings ${etag} hold what the WireServer holds, not used`);
    return NONE;
  };

  const read = async ({
    force,
    signal,
  }: Parameters<VmSettingsClient["read"]>[0]): Promise<VmSettingsOutcome> => {
    if (!options.enabled) return NONE;
    statistics.summarizeWhenDue();
    if (unsupportedUntil !== undefined && system.clock.monotonic() < unsupportedUntil) return NONE;
    let correlationId = "";
    const newCorrelationId = (): string => (correlationId = randomUUID());
    const fail = (
      category: Parameters<typeof statistics.error>[0],
      detail: string,
      cause?: unknown,
    ): AgentError => {
      statistics.error(category, { correlationId, etag: last?.etag, detail });
      return new AgentError(
        "protocol",
        `Could not read vmSettings [correlation ID: ${correlationId} eTag: ${last?.etag ?? "None"}]: ${detail}`,
        { cause },
      );
    };

    statistics.request();
    let response: HttpResponse;
    try {
      response = await ask(newCorrelationId, force, signal);
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      if (isAgentError(error, "http") && wire.errors !== undefined) wire.errors.hostplugin += 1;
      const category = errnoOf(error) === "ETIMEDOUT" ? "Timeout" : "RequestFailed";
      throw fail(category, describe(error), error);
    }
    const { status } = response;
    if (status === 304 && last !== undefined) return last.outcome;
    if (status === 404) return notSupported();
    if (status === 200) return accept(response);
    const body = new TextDecoder().decode(response.body.subarray(0, 1000));
    const prefix = status === 502 ? "[Internal error in HostGAPlugin] " : "";
    const category = status >= 500 ? "ServerError" : status >= 400 ? "ClientError" : "HttpError";
    throw fail(category, `${prefix}[HTTP Failed] [${status}: ${response.reason}] ${body}`);
  };

  return {
    read,
    cached: () => last?.outcome ?? NONE,
    isSupported: () => options.enabled && supported,
    disabledSince: () =>
      options.enabled || !system.files.exists(noteFile) ? undefined : readNote(),
    forgetLastFastTrack: () => system.files.remove(noteFile),
  };
}
