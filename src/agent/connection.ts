import type { HealthTarget } from "../azure/health.ts";
import { createHistory, type History } from "../azure/history.ts";
import { createDhcpProbe, type DhcpProbe } from "../machine/dhcp.ts";
import { findLeasedEndpoint } from "../machine/dhcp-leases.ts";
import { openDhcpSocket } from "../system/dhcp-socket.ts";
import { detectEndpoint, forgetEndpoint, savedEndpoint } from "../azure/endpoint.ts";
import { createHttpErrorCounts, type HttpErrorCounts } from "../azure/retry.ts";
import type { HostObservation } from "../azure/host-plugin.ts";
import { openSession, type Session } from "../azure/session.ts";
import type { WireClient } from "../azure/wire-client.ts";
import type { System } from "../system/system.ts";
import { throughBlockade } from "./blockade.ts";
import type { AgentContext } from "./context.ts";
import { libDirectory, seconds } from "./settings.ts";

/**
 * The way to the platform, opened once for the whole process: by provisioning, or by whoever needs it first.
 */
export interface Connection {
  /** Errors: AgentError "protocol-not-found" when the platform did not answer for about an hour, "cancelled". */
  open(signal: AbortSignal): Promise<Session>;
  /**
   * Whom to report health to, known some requests before the session is open. Errors: those of `open`.
   */
  identify(signal: AbortSignal): Promise<Identity>;
  /** The open session. */
  session(): Session | undefined;
  readonly errors: HttpErrorCounts;
  /** Takes what the host plugin's calls tell about its health, once somebody listens. */
  onObservation: (observation: HostObservation) => void;
  readonly history: History;
  /** Our own DHCP exchange; undefined where the system has none (DHCP-02). */
  readonly dhcp: DhcpProbe | undefined;
}

export interface Identity {
  readonly wire: WireClient;
  /** As the newest goal state has it. */
  readonly target: HealthTarget;
}

export function createConnection(
  system: System,
  context: Pick<AgentContext, "config" | "arguments" | "distro">,
): Connection {
  const { config } = context;
  const isDaemon = context.arguments.verb === "daemon";
  const libDir = libDirectory(config);
  const { distro } = context;
  const errors = createHttpErrorCounts();
  const history = createHistory(system, libDir);
  const dhcp = distro.dhcpAvailable
    ? createDhcpProbe(system, config, {
        openSocket: openDhcpSocket,
        stopClient: distro.stopDhcp,
        startClient: distro.startDhcp,
      })
    : undefined;
  let opening: Promise<Session> | undefined;
  let session: Session | undefined;
  const first = Promise.withResolvers<Identity>();
  let identity = first.promise;

  const connect = async (endpoint: string, signal?: AbortSignal): Promise<Session> => {
    const opened = await openSession(system, endpoint, {
      libDir,
      openssl: config["OS.OpensslPath"],
      fips: isFipsMachine(system, config),
      fresh: isDaemon,
      periodMs: seconds(config["Extensions.GoalStatePeriod"]),
      fastTrack: config["Debug.EnableFastTrack"],
      errors,
      history: history.begin,
      onDocument: (wire, target) => {
        first.resolve({ wire, target });
        identity = Promise.resolve({ wire, target });
      },
      onObservation: (observation) => connection.onObservation(observation),
      signal,
    });
    system.log.info(`Wire server endpoint: ${endpoint}`);
    return opened;
  };

  const detect = async (signal: AbortSignal): Promise<Session> => {
    // Another daemon has found the endpoint for us; keys and files are its business (DHCP-01).
    const saved = isDaemon ? undefined : savedEndpoint(system, libDir);
    if (saved !== undefined) return connect(saved, signal);
    return detectEndpoint(system, libDir, {
      discovery: config["Protocol.EndpointDiscovery"],
      lease: () => findLeasedEndpoint(system, distro.leases),
      exchange: dhcp?.exchange,
      connect,
      signal,
    });
  };

  const connection: Connection = {
    errors,
    onObservation: () => undefined,
    history,
    dhcp,
    session: () => session,
    open: async (signal) => {
      if (session !== undefined) return session;
      opening ??= throughBlockade(system, config, detect(signal), signal);
      try {
        session = await opening;
        return session;
      } finally {
        opening = undefined;
      }
    },
    identify: async (signal) => {
      const open = connection.open(signal);
      open.catch(() => undefined); // when it fails later, whoever needs the whole session is told
      await Promise.race([open, first.promise]);
      return identity;
    },
  };
  return connection;
}

/** Because the kernel was told so at boot, or the configuration says it. */
function isFipsMachine(system: Pick<System, "files">, config: AgentContext["config"]): boolean {
  const kernel = system.files.readTextIfExists("/proc/sys/crypto/fips_enabled")?.trim();
  return config["OS.EnableFIPS"] || kernel === "1";
}

/** At each start of the daemon detection runs afresh: an image may have moved (`system.md` DAEMON-09 step 3). */
export function forgetConnection(
  system: Pick<System, "files">,
  config: AgentContext["config"],
): void {
  forgetEndpoint(system, libDirectory(config));
}
