import { describe, isAgentError } from "../base/error.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { createCertificateStore } from "./certificates.ts";
import { createStorage, type Storage } from "./download.ts";
import { createGoalStateClient, type GoalStateClient } from "./goal-state-client.ts";
import type { GoalStateDocument } from "./goal-state-document.ts";
import type { OpenHistory } from "./history-entry.ts";
import { createHostPlugin, type HostObservation, type HostPlugin } from "./host-plugin.ts";
import type { HttpErrorCounts } from "./retry.ts";
import { ensureTransport, type Transport } from "./transport.ts";
import { createVmSettingsClient } from "./vm-settings-client.ts";
import { createWireClient, type WireClient } from "./wire-client.ts";

/**
 * Everything that talks to the platform, once for the whole process (DB-02).
 *
 *     const session = await detectEndpoint(system, libDir, {
 *       discovery: config["Protocol.EndpointDiscovery"],
 *       connect: (endpoint, signal) => openSession(system, endpoint, { libDir, openssl, fresh: true, signal, ... }),
 *     });
 *     await reportHealth(system, session.wire, { incarnation: goal.incarnation, ...goal.vm }, { health });
 *     const { goalState, extensionsChanged } = await session.goals.update();
 *     await uploadStatus(system, session, { document, blob: goalState.extensions.statusBlob });
 */
export interface Session {
  readonly endpoint: string;
  readonly wire: WireClient;
  readonly hostPlugin: HostPlugin;
  readonly storage: Storage;
  readonly goals: GoalStateClient;
  /** Fast Track is on and the host plugin offers it at the moment: then it is announced (STAT-20). */
  isFastTrackSupported(): boolean;
}

export interface SessionOptions {
  readonly libDir: SystemPath;
  /** `OS.OpensslPath`. */
  readonly openssl: string;
  /** The machine is held to FIPS 140. */
  readonly fips: boolean;
  /** The daemon makes a new transport pair once per boot; another process uses the one on disk (CERT-03, DB-26). */
  readonly fresh: boolean;
  /** `Debug.EnableFastTrack`. */
  readonly fastTrack: boolean;
  /** `Extensions.GoalStatePeriod`, ms. */
  readonly periodMs: number;
  readonly errors?: HttpErrorCounts | undefined;
  readonly onObservation?: ((observation: HostObservation) => void) | undefined;
  readonly history?: OpenHistory | undefined;
  /** Called with each goal state the WireServer gives, before anything in it is fetched. */
  readonly onDocument?: ((wire: WireClient, document: GoalStateDocument) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Version negotiation, transport keys and the first goal state: one try of detection (DHCP-04).
 * Errors: AgentError "protocol", "protocol-not-found", "gone", "cancelled" and those of files.
 */
export async function openSession(
  system: System,
  endpoint: string,
  options: SessionOptions,
): Promise<Session> {
  const { libDir, openssl, signal } = options;
  const wire = createWireClient(system, endpoint, { errors: options.errors });
  // A key takes as long as many requests: it is made while the platform answers, and waited for when it is needed.
  const making = makeTransport(system, options);
  let first: Promise<Transport | undefined> | undefined = making;
  // Looked at again with every later use: a process that runs for two years outlives its first pair (DB-26).
  const transport = (stop?: AbortSignal): Promise<Transport | undefined> => {
    const pending = first ?? makeTransport(system, { ...options, fresh: false, signal: stop });
    first = undefined;
    return pending;
  };
  const hostPlugin = createHostPlugin(system, wire, { onObservation: options.onObservation });
  const storage = createStorage(system, wire, hostPlugin);
  const certificates = createCertificateStore(system, libDir, { openssl });
  const vmSettings = createVmSettingsClient(
    system,
    { wire, hostPlugin },
    { libDir, enabled: options.fastTrack, history: options.history },
  );
  const goals = createGoalStateClient(system, wire, {
    libDir,
    storage,
    certificates,
    transport,
    vmSettings,
    history: options.history,
    onDocument: (document) => options.onDocument?.(wire, document),
    periodMs: options.periodMs,
  });
  try {
    await wire.negotiate(signal);
    await goals.update({ signal });
  } finally {
    await making; // the next try must not find openssl at work on the same files
  }
  const isFastTrackSupported = (): boolean => options.fastTrack && vmSettings.isSupported();
  return { endpoint, wire, hostPlugin, storage, goals, isFastTrackSupported };
}

/** CERT-03: without a pair the agent still runs, it only cannot receive secrets. */
async function makeTransport(
  system: System,
  options: Pick<SessionOptions, "libDir" | "openssl" | "fips" | "fresh" | "signal">,
): Promise<Transport | undefined> {
  try {
    return await ensureTransport(system, options.libDir, options);
  } catch (error) {
    if (isAgentError(error, "cancelled")) return undefined; // the requests beside it report the cancellation
    system.log.error(`Could not make the transport certificate: ${describe(error)}`);
    return undefined;
  }
}
