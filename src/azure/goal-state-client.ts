import { describe, isAgentError, type AgentError } from "../base/error.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { arbitrate, type Candidate } from "./arbitration.ts";
import {
  encryptedPayloadHeaders,
  type CertificateFetch,
  type CertificateStore,
} from "./certificates.ts";
import type { Storage } from "./download.ts";
import { emptyExtensions, parseExtensionsConfig, parseOnHold } from "./extensions-config.ts";
import type { GoalStateDocument } from "./goal-state-document.ts";
import type { ExtensionsGoalState, GoalState, RemoteAccess } from "./goal-state.ts";
import type { HistoryEntry, OpenHistory } from "./history-entry.ts";
import { parseHostingEnvironment, type HostingEnvironment } from "./hosting-environment.ts";
import { parseRemoteAccess } from "./remote-access.ts";
import { writePlaceholder, writeSharedConfig } from "./state-files.ts";
import type { Transport } from "./transport.ts";
import type { VmSettingsClient, VmSettingsOutcome } from "./vm-settings-client.ts";
import type { WireClient } from "./wire-client.ts";

/**
 * Keeps the goal state up to date (`wire-protocol.md` §5.3, §11). An unchanged poll is one small request (two with
 * Fast Track, the second answered 304): nothing is parsed, run or written.
 *
 *     const goals = createGoalStateClient(system, wire, { storage, certificates, transport, vmSettings, ... });
 *     const { goalState, extensionsChanged, incarnationChanged } = await goals.update();
 */
export interface GoalStateClient {
  /** The last goal state that was adopted. */
  current(): GoalState | undefined;
  /**
   * Everything or nothing: when it fails, the next call tries all of it again (GS-14).
   * Errors: AgentError "protocol", "gone", "bad-input" or "cancelled".
   */
  update(options?: UpdateOptions): Promise<GoalStateUpdate>;
  /** A status report of an outdated goal state was built: the lost Fast Track time is forgotten (VMS-17). */
  statusReported(): void;
}

export interface UpdateOptions {
  /** Everything is fetched, whether it changed or not. */
  readonly force?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface GoalStateUpdate {
  readonly goalState: GoalState;
  /** The extensions goal has another id than after the previous update, and is not outdated (GS-31). */
  readonly extensionsChanged: boolean;
  /** Documents of the WireServer were fetched for another incarnation (GS-32). */
  readonly incarnationChanged: boolean;
  /** Nothing else changed, but certificates that could not be had before now can. */
  readonly certificatesRecovered: boolean;
  /** Fast Track could not be asked this time; what the WireServer wants was processed all the same (DB-05). */
  readonly degraded: AgentError | undefined;
}

export interface GoalStateClientOptions {
  readonly libDir: SystemPath;
  readonly storage: Storage;
  readonly certificates: CertificateStore;
  /** The key pair in force; undefined: what is encrypted for us cannot be asked for. Never throws. */
  readonly transport: (signal?: AbortSignal) => Promise<Transport | undefined>;
  /** Absent: Fast Track is off (`Debug.EnableFastTrack`). */
  readonly vmSettings?: VmSettingsClient | undefined;
  /** Where a changed goal state is kept; absent: nowhere. */
  readonly history?: OpenHistory | undefined;
  /** Told each goal state before anything in it is fetched. */
  readonly onDocument?: ((document: GoalStateDocument) => void) | undefined;
  /** Wait before the last look for missing certificates (GS-41), ms. */
  readonly periodMs: number;
}

type Needs = Pick<System, "files" | "clock" | "log" | "emit">;

/** What the WireServer said, for one incarnation. */
interface WireState {
  readonly document: GoalStateDocument;
  readonly environment: HostingEnvironment | undefined;
  readonly fabric: ExtensionsGoalState;
  readonly certificates: CertificateFetch;
  readonly remoteAccess: RemoteAccess | undefined;
}

const NO_HISTORY: HistoryEntry = { save: () => undefined };
const NO_CERTIFICATES: CertificateFetch = { summary: [], failure: undefined };
/** Waits between tries for certificates that could not be had: each twice the one before. */
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 600_000;

export function createGoalStateClient(
  system: Needs,
  wire: WireClient,
  options: GoalStateClientOptions,
): GoalStateClient {
  const { libDir, storage, certificates, vmSettings } = options;
  let wireState: WireState | undefined;
  let goal: GoalState | undefined;
  /** ETag of the vmSettings the last complete update saw; an update that failed leaves it, so they are seen again. */
  let seenEtag: string | undefined;
  /** Fast Track stopped, and no update has been complete since (VMS-17). */
  let stoppedAt: string | undefined;
  /** Monotonic time from which the certificates of `wireState` are tried again; undefined while they are there. */
  let certificateRetry: { readonly at: number; readonly delayMs: number } | undefined;

  const fetchExtensions = async (
    { extensionsConfigUri, incarnation }: GoalStateDocument,
    history: HistoryEntry,
    signal: AbortSignal | undefined,
  ): Promise<ExtensionsGoalState> => {
    if (extensionsConfigUri === undefined) return emptyExtensions(incarnation);
    const text = await wire.get(extensionsConfigUri, { what: "ExtensionsConfig", signal });
    history.save("ExtensionsConfig.xml", text);
    const { goal: extensions, artifactsProfileUri } = parseExtensionsConfig(text, incarnation);
    if (artifactsProfileUri === undefined) return extensions;
    return { ...extensions, onHold: await isOnHold(artifactsProfileUri, signal) };
  };

  /** ECFG-11: a profile that cannot be had or read means "not on hold". */
  const isOnHold = async (uri: string, signal: AbortSignal | undefined): Promise<boolean> => {
    const operation = "ArtifactsProfileBlob";
    try {
      const onHold = parseOnHold(await storage.fetchProfile(uri, signal));
      system.emit({ operation, success: true, message: `onHold: ${onHold}` });
      return onHold;
    } catch (error) {
      if (isAgentError(error, "cancelled")) throw error;
      const message = `The artifacts profile cannot be used, extensions are not held: ${describe(error)}`;
      system.emit({ operation, success: false, message });
      return false;
    }
  };

  /** `quiet`: a try again, whose first failure was told. */
  const fetchCertificates = async (
    uri: string | undefined,
    history: HistoryEntry,
    { signal, quiet = false }: { signal: AbortSignal | undefined; quiet?: boolean },
  ): Promise<CertificateFetch> => {
    if (uri === undefined) return NO_CERTIFICATES;
    const transport = await options.transport(signal);
    if (transport === undefined) {
      const failure = "The certificates cannot be fetched, there is no transport certificate";
      if (!quiet)
        system.emit({ operation: "GoalStateCertificates", success: false, message: failure });
      return { summary: [], failure };
    }
    const fetched = await certificates.read(wire, uri, transport, { signal, quiet });
    if (fetched.failure === undefined) {
      const text = JSON.stringify(fetched.summary);
      system.log.info(`Certificates: ${text}`);
      system.emit({ operation: "GoalStateCertificates", success: true, message: text });
      history.save("Certificates.json", text);
    }
    return fetched;
  };

  /** Once per goal state, and after each failed try: when the next one is due. */
  const planRetry = ({ failure }: CertificateFetch, lastDelayMs: number | undefined): void => {
    if (failure === undefined) {
      certificateRetry = undefined;
      return;
    }
    const delayMs =
      lastDelayMs === undefined ? FIRST_RETRY_MS : Math.min(2 * lastDelayMs, LONGEST_RETRY_MS);
    certificateRetry = { at: system.clock.monotonic() + delayMs, delayMs };
  };

  /**
   * The goal state stays as it is without certificates (CERT-16), but no new incarnation may come for months: an
   * unchanged poll asks for them again. True when they are there.
   */
  const retryCertificates = async (
    tag: string,
    signal: AbortSignal | undefined,
  ): Promise<boolean> => {
    if (certificateRetry === undefined || wireState === undefined || goal === undefined)
      return false;
    const { at, delayMs } = certificateRetry;
    if (system.clock.monotonic() < at) return false;
    const history = options.history?.(tag) ?? NO_HISTORY;
    const { certificatesUri } = wireState.document;
    const fetched = await fetchCertificates(certificatesUri, history, { signal, quiet: true });
    planRetry(fetched, delayMs);
    if (fetched.failure !== undefined) return false;
    system.log.info("The certificates of the goal state are there now");
    wireState = { ...wireState, certificates: fetched };
    goal = { ...goal, certificates: fetched.summary };
    return true;
  };

  /** JIT-01: AES only. Without a key pair the list cannot be had, which must not look as if there were none (JIT-11). */
  const fetchRemoteAccess = async (
    uri: string | undefined,
    history: HistoryEntry,
    signal: AbortSignal | undefined,
  ): Promise<RemoteAccess | undefined> => {
    if (uri === undefined) return undefined;
    const transport = await options.transport(signal);
    if (transport === undefined) return { incarnation: "", users: [], isUnknown: true };
    const headers = encryptedPayloadHeaders(transport, "AES128_CBC");
    const text = await wire.get(uri, { what: "the RemoteAccess document", headers, signal });
    history.save("RemoteAccess.xml", text);
    return parseRemoteAccess(text);
  };

  /** GS-13. */
  const fetchAll = async (
    document: GoalStateDocument,
    history: HistoryEntry,
    signal: AbortSignal | undefined,
  ): Promise<WireState> => {
    const fabric = await fetchExtensions(document, history, signal);
    let environment: HostingEnvironment | undefined;
    if (document.hostingEnvironmentUri !== undefined) {
      const what = "HostingEnvironmentConfig";
      const text = await wire.get(document.hostingEnvironmentUri, { what, signal });
      history.save("HostingEnvironmentConfig.xml", text);
      environment = parseHostingEnvironment(text);
    }
    if (document.sharedConfigUri !== undefined) {
      const text = await wire.get(document.sharedConfigUri, { what: "SharedConfig", signal });
      history.save("SharedConfig.xml", text);
      writeSharedConfig(system, libDir, text);
    }
    const fetched = await fetchCertificates(document.certificatesUri, history, { signal });
    const remoteAccess = await fetchRemoteAccess(document.remoteAccessUri, history, signal);
    return { document, environment, fabric, certificates: fetched, remoteAccess };
  };

  const askVmSettings = async (
    force: boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ outcome: VmSettingsOutcome; degraded: AgentError | undefined }> => {
    if (vmSettings === undefined) return { outcome: { kind: "none" }, degraded: undefined };
    try {
      return { outcome: await vmSettings.read({ force, signal }), degraded: undefined };
    } catch (error) {
      if (!isAgentError(error) || isAgentError(error, "cancelled")) throw error;
      return { outcome: vmSettings.cached(), degraded: error };
    }
  };

  const updateOnce = async (
    force: boolean,
    signal: AbortSignal | undefined,
  ): Promise<GoalStateUpdate> => {
    const { document, text } = await wire.goalState(signal);
    options.onDocument?.(document);
    const incarnationChanged = document.incarnation !== wireState?.document.incarnation;
    const { outcome, degraded } = await askVmSettings(force, signal);
    if (outcome.kind === "stopped") stoppedAt = outcome.lastTimestamp;
    const wireChanged = force || incarnationChanged || stoppedAt !== undefined;
    const settingsChanged = outcome.kind === "fast-track" && outcome.etag !== seenEtag;
    const tag =
      outcome.kind === "fast-track"
        ? `${document.incarnation}-${outcome.etag}`
        : document.incarnation;
    if (!wireChanged && !settingsChanged && goal !== undefined) {
      const certificatesRecovered = await retryCertificates(tag, signal);
      return {
        goalState: goal,
        ...{ extensionsChanged: false, incarnationChanged: false },
        ...{ certificatesRecovered, degraded },
      };
    }

    if (force) system.log.info("The whole goal state is fetched again");
    const history = options.history?.(tag) ?? NO_HISTORY;
    if (wireChanged || wireState === undefined) history.save("GoalState.xml", text);
    if (outcome.kind === "fast-track" && outcome.newText !== undefined)
      history.save("VmSettings.json", outcome.newText);
    let next =
      wireChanged || wireState === undefined
        ? await fetchAll(document, history, signal)
        : { ...wireState, document };

    const candidate: Candidate = {
      current: goal?.extensions,
      fabric: wireChanged ? next.fabric : undefined,
      fastTrack: outcome.kind === "fast-track" ? outcome.goal : undefined,
      lastFastTrack: stoppedAt ?? vmSettings?.disabledSince(),
    };
    const extensions = arbitrate(candidate);
    if (extensions.source === "FastTrack" && !wireChanged)
      next = await withMissingCertificates(next, history, signal);

    const previousId = goal?.extensions.id;
    if (next.certificates !== wireState?.certificates) planRetry(next.certificates, undefined);
    wireState = next;
    goal = toGoalState(next, extensions);
    seenEtag = outcome.kind === "fast-track" ? outcome.etag : undefined;
    stoppedAt = undefined;
    writePlaceholder(system, libDir);
    const extensionsChanged = extensions.id !== previousId && !extensions.outdated;
    const certificatesRecovered = false;
    return {
      goalState: goal,
      extensionsChanged,
      incarnationChanged,
      certificatesRecovered,
      degraded,
    };
  };

  /** Step 10 of GS-30: certificates that were removed behind our back are fetched again; failing is not fatal. */
  const withMissingCertificates = async (
    state: WireState,
    history: HistoryEntry,
    signal: AbortSignal | undefined,
  ): Promise<WireState> => {
    const missing = state.certificates.summary.filter(
      ({ thumbprint }) => !system.files.exists(join(libDir, `${thumbprint}.crt`)),
    );
    if (missing.length === 0) return state;
    for (const { thumbprint } of missing)
      system.log.info(
        `The certificate ${thumbprint} is missing, the certificates are fetched again`,
      );
    const uri = state.document.certificatesUri;
    return { ...state, certificates: await fetchCertificates(uri, history, { signal }) };
  };

  /** Two callers never mix: an update begins when the one before it has ended. */
  let running: Promise<unknown> = Promise.resolve();
  const inTurn = (request: UpdateOptions = {}): Promise<GoalStateUpdate> => {
    const turn = running.then(() => update(request));
    running = turn.catch(() => undefined); // its own caller gets the error
    return turn;
  };

  /** GS-40, GS-41: new Fast Track settings may be encrypted for a certificate that the WireServer brings a little later. */
  const update = async ({
    force = false,
    signal,
  }: UpdateOptions = {}): Promise<GoalStateUpdate> => {
    let result = await updateOnce(force, signal);
    if (!result.extensionsChanged || result.goalState.extensions.source !== "FastTrack")
      return result;
    for (let attempt = 1; unknownThumbprints(result.goalState).length > 0; attempt += 1) {
      const missing = unknownThumbprints(result.goalState).join(", ");
      if (attempt === 3) {
        const message = `Settings are encrypted for certificates the platform did not send: ${missing}`;
        system.log.warning(message);
        system.emit({ operation: "FetchGoalState", success: false, message, log: false });
        break;
      }
      if (attempt === 2) await system.clock.sleep(options.periodMs, signal);
      system.log.info(`Settings need the certificates ${missing}: the goal state is fetched again`);
      const again = await updateOnce(true, signal);
      result = {
        ...again,
        extensionsChanged: true,
        incarnationChanged: result.incarnationChanged || again.incarnationChanged,
      };
    }
    return result;
  };

  return {
    current: () => goal,
    update: inTurn,
    statusReported: () => {
      if (goal?.extensions.outdated === true) vmSettings?.forgetLastFastTrack();
    },
  };
}

/** Thumbprints that protected settings name and the certificate summary does not. */
export function unknownThumbprints(goal: GoalState): readonly string[] {
  const known = new Set(goal.certificates.map(({ thumbprint }) => thumbprint));
  const wanted = goal.extensions.handlers
    .flatMap((handler) => handler.settings)
    .filter((settings) => settings.protectedSettings !== null)
    .map((settings) => settings.thumbprint ?? "(none)");
  return [...new Set(wanted)].filter((thumbprint) => !known.has(thumbprint));
}

function toGoalState(state: WireState, extensions: ExtensionsGoalState): GoalState {
  const { document, environment, certificates, remoteAccess } = state;
  return {
    incarnation: document.incarnation,
    vm: {
      containerId: document.containerId,
      instanceId: document.instanceId,
      configName: document.configName,
      vmName: environment?.vmName,
      roleName: environment?.roleName,
      tenantName: environment?.tenantName,
    },
    extensions,
    certificates: certificates.summary,
    remoteAccess,
  };
}
