import { AgentError, describe, isAgentError } from "../base/error.ts";
import {
  HOST_PLUGIN_PORT,
  requestWithRetry,
  type HttpErrorCounts,
  type RetryPolicy,
} from "./retry.ts";
import { parseGoalState, parseVersions, type GoalStateDocument } from "./goal-state-document.ts";
import type { HttpRequest } from "../system/http.ts";
import type { System } from "../system/system.ts";

/**
 * The WireServer (`wire-protocol.md` §4, §5.2). One client for the whole process: it knows the endpoint and the ids of
 * the latest goal state, which the host plugin's headers are made of.
 *
 *     const wire = createWireClient(system, "168.63.129.16", { errors });
 *     await wire.negotiate();
 *     const { document } = await wire.goalState();
 */
export interface WireClient {
  readonly endpoint: string;
  readonly errors: HttpErrorCounts | undefined;
  /** Ids of the latest goal state GET, changed or not (GS-11); undefined before the first. */
  ids(): HostIds | undefined;
  /** Errors: AgentError "protocol-not-found" when the version is not spoken, "protocol" otherwise (WIRE-02). */
  negotiate(signal?: AbortSignal): Promise<void>;
  /** The goal state; the very same value as before when the text did not change. */
  goalState(signal?: AbortSignal): Promise<FetchedGoalState>;
  /** Body of a document of the goal state. Errors: AgentError "gone" or "protocol" (WIRE-06). */
  get(url: string, options: GetOptions): Promise<string>;
  /** Errors: AgentError "gone" or "protocol". */
  post(path: string, body: string | Uint8Array, options: PostOptions): Promise<void>;
}

export interface HostIds {
  readonly containerId: string;
  /** `x-ms-host-config-name` (GS-04). */
  readonly configName: string;
  /** The text before the first dot of the config name. */
  readonly deploymentId: string;
}

export interface FetchedGoalState {
  readonly document: GoalStateDocument;
  readonly text: string;
}

export interface GetOptions {
  /** For the error text, e.g. "ExtensionsConfig". */
  readonly what: string;
  /** Besides the standard headers (WIRE-05). */
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

export interface PostOptions extends RetryPolicy {
  readonly what: string;
  readonly signal?: AbortSignal | undefined;
}

export const PROTOCOL_VERSION = "2012-11-30";
export const AGENT_NAME = "WALinuxAgent";
/** The fixed address of the platform, reachable from every VM. */
export const DEFAULT_ENDPOINT = "168.63.129.16";

const HEADERS = { "x-ms-agent-name": AGENT_NAME, "x-ms-version": PROTOCOL_VERSION };
const INCOMPLETE_REQUESTS = 6;
const INCOMPLETE_DELAY_MS = 500;
/** One goal state may carry the settings of many extensions. */
const MAX_DOCUMENT_BYTES = 16 * 1024 * 1024;

export interface WireClientOptions {
  readonly errors?: HttpErrorCounts | undefined;
}

export function createWireClient(
  system: Pick<System, "http" | "clock">,
  endpoint: string,
  options: WireClientOptions = {},
): WireClient {
  let last: FetchedGoalState | undefined;
  const shared = { endpoint, errors: options.errors };
  const base = `http://${endpoint}`;

  const fetchText = async (request: HttpRequest, what: string): Promise<string> => {
    try {
      return (await requestWithRetry(system, request, shared)).text();
    } catch (error) {
      throw toProtocolError(error, `Could not read ${what} from the WireServer`);
    }
  };
  const get = (url: string, { what, headers, signal }: GetOptions): Promise<string> =>
    fetchText(
      {
        method: "GET",
        url,
        headers: { ...HEADERS, ...headers },
        proxy: "never",
        maxBodyBytes: MAX_DOCUMENT_BYTES,
        signal,
      },
      what,
    );

  const goalState = async (signal?: AbortSignal): Promise<FetchedGoalState> => {
    let incomplete = "";
    for (let attempt = 1; attempt <= INCOMPLETE_REQUESTS; attempt += 1) {
      if (attempt > 1) await system.clock.sleep(INCOMPLETE_DELAY_MS, signal);
      const text = await get(`${base}/machine/?comp=goalstate`, { what: "the goal state", signal });
      if (text === last?.text) return last;
      const document = guard(() => parseGoalState(text));
      if ("incomplete" in document) {
        incomplete = document.incomplete;
        continue;
      }
      last = { document, text };
      return last;
    }
    throw new AgentError(
      "protocol",
      `The goal state ${incomplete} has no RoleInstance, also after ${INCOMPLETE_REQUESTS} requests`,
    );
  };

  return {
    endpoint,
    errors: options.errors,
    ids: () => {
      if (last === undefined) return undefined;
      const { containerId, configName } = last.document;
      return { containerId, configName, deploymentId: configName.split(".")[0] ?? "" };
    },
    goalState,
    get,
    negotiate: async (signal) => {
      const url = `${base}/?comp=versions`;
      const what = "the protocol versions";
      const text = await fetchText({ method: "GET", url, proxy: "never", signal }, what);
      const versions = guard(() => parseVersions(text));
      if (versions.includes(PROTOCOL_VERSION)) return;
      throw new AgentError(
        "protocol-not-found",
        `The WireServer at ${endpoint} does not speak version ${PROTOCOL_VERSION}, it offers ${versions.join(", ") || "none"}`,
      );
    },
    post: async (path, body, { what, signal, ...policy }) => {
      const headers = { ...HEADERS, "Content-Type": "text/xml;charset=utf-8" };
      const url = `${base}${path}`;
      try {
        await requestWithRetry(
          system,
          { method: "POST", url, headers, body, proxy: "never", signal },
          { ...policy, ...shared },
        );
      } catch (error) {
        throw toProtocolError(error, `Could not send ${what} to the WireServer`);
      }
    },
  };
}

/** Base URL of the host plugin at the same address (HGAP-01). */
export function hostPluginUrl(endpoint: string): string {
  return `http://${endpoint}:${HOST_PLUGIN_PORT}`;
}

/** WIRE-06; a cancellation stays one. */
function toProtocolError(error: unknown, doing: string): AgentError {
  if (isAgentError(error, "cancelled")) return error;
  const status = isAgentError(error) ? error.status : undefined;
  const code = isAgentError(error, "gone") ? "gone" : "protocol";
  return new AgentError(code, `${doing}: ${describe(error)}`, { status });
}

function guard<Result>(parse: () => Result): Result {
  try {
    return parse();
  } catch (error) {
    throw new AgentError("protocol", "The WireServer's answer cannot be used", { cause: error });
  }
}
