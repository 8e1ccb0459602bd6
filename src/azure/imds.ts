import { describe, isAgentError } from "../base/error.ts";
import { JsonReader } from "../base/json.ts";
import type { System } from "../system/system.ts";
import { requestWithRetry, type HttpErrorCounts } from "./retry.ts";

/**
 * The instance metadata service (`wire-protocol.md` §18): facts about the VM for telemetry, and a heartbeat that only
 * looks whether the service answers sensibly.
 *
 *     const compute = await readCompute(system);
 *     const problem = await checkImds(system, { agentVersion });
 */
export interface Compute {
  readonly location: string;
  readonly name: string;
  readonly offer: string;
  readonly osType: string;
  readonly placementGroupId: string;
  readonly platformFaultDomain: string;
  readonly platformUpdateDomain: string;
  /** null where the platform says so; image origin depends on the difference to "" (IMDS-10). */
  readonly publisher: string | null;
  readonly resourceGroupName: string;
  readonly sku: string;
  readonly subscriptionId: string;
  readonly tags: string;
  readonly version: string;
  readonly vmId: string;
  readonly vmSize: string;
  readonly vmScaleSetName: string;
  readonly zone: string;
}

export type ImdsOutcome =
  | { readonly kind: "success"; readonly body: string }
  /** Only "service-error" means that the service is unhealthy (IMDS-03). */
  | {
      readonly kind: "service-error" | "throttled" | "connection-error" | "client-error";
      /** The text of IMDS-06. */
      readonly message: string;
    };

export interface ImdsOptions {
  /** Marks the request as a heartbeat: `User-Agent: WALinuxAgent/<version>+health` (IMDS-02). */
  readonly heartbeatOf?: string | undefined;
  readonly errors?: HttpErrorCounts | undefined;
  readonly signal?: AbortSignal | undefined;
}

const BASE = "http://169.254.169.254/metadata";
const API_VERSION = "2018-02-01";
/** A VM without the service would otherwise wait for it longer than telemetry should (DB-15). */
const TOTAL_MS = 60_000;

type Needs = Pick<System, "http" | "clock">;

/** One document, e.g. "instance/compute". Errors: only AgentError "cancelled". */
export async function getImds(
  system: Needs,
  path: "instance" | "instance/compute",
  options: ImdsOptions = {},
): Promise<ImdsOutcome> {
  const failed = (kind: Exclude<ImdsOutcome["kind"], "success">, reason: string): ImdsOutcome => ({
    kind,
    message: `IMDS error in /metadata/${path}: ${reason}`,
  });
  const agent = options.heartbeatOf;
  try {
    const response = await requestWithRetry(
      system,
      {
        method: "GET",
        url: `${BASE}/${path}?api-version=${API_VERSION}`,
        headers: {
          Metadata: "True",
          ...(agent === undefined ? {} : { "User-Agent": `WALinuxAgent/${agent}+health` }),
        },
        proxy: "never",
        signal: options.signal,
      },
      { errors: options.errors, totalMs: TOTAL_MS },
    );
    return { kind: "success", body: response.text() };
  } catch (error) {
    if (isAgentError(error, "cancelled")) throw error;
    const status = isAgentError(error) ? error.status : undefined;
    if (status === 410) return failed("service-error", "HTTP Failed with Status Code 410: Gone");
    if (status === 429) return failed("throttled", "Throttled");
    if (status === undefined && isAgentError(error, "http"))
      return failed("connection-error", "Unable to connect to endpoint");
    const kind =
      status === undefined || status >= 500 || RETRIED.includes(status)
        ? "service-error"
        : "client-error";
    return failed(kind, describe(error));
  }
}

/** Below 500 and retried until no attempt was left. */
const RETRIED = [205, 206, 403];

/** undefined when it cannot be had; telemetry then keeps its placeholders (TEL-07). */
export async function readCompute(
  system: Needs & Pick<System, "log">,
  options: ImdsOptions = {},
): Promise<Compute | undefined> {
  const outcome = await getImds(system, "instance/compute", options);
  try {
    if (outcome.kind === "success") return parseCompute(outcome.body);
    system.log.warning(outcome.message);
  } catch (error) {
    system.log.warning(`IMDS error in /metadata/instance/compute: ${describe(error)}`);
  }
  return undefined;
}

/** Unknown fields are ignored, absent ones are empty (IMDS-04). Errors: AgentError "bad-input". */
export function parseCompute(body: string): Compute {
  const root = JsonReader.parse(body, "The compute metadata");
  root.object();
  const text = (name: string): string => root.get(name).optionalString() ?? "";
  return {
    location: text("location"),
    name: text("name"),
    offer: text("offer"),
    osType: text("osType"),
    placementGroupId: text("placementGroupId"),
    platformFaultDomain: text("platformFaultDomain"),
    platformUpdateDomain: text("platformUpdateDomain"),
    publisher: root.get("publisher").optionalString() ?? null,
    resourceGroupName: text("resourceGroupName"),
    sku: text("sku"),
    subscriptionId: text("subscriptionId"),
    tags: text("tags"),
    version: text("version"),
    vmId: text("vmId"),
    vmSize: text("vmSize"),
    vmScaleSetName: text("vmScaleSetName"),
    zone: text("zone"),
  };
}

/** The heartbeat: what is wrong with the service, or undefined when it is healthy (IMDS-05, MON-06). */
export async function checkImds(
  system: Needs,
  options: { readonly agentVersion: string } & Omit<ImdsOptions, "heartbeatOf">,
): Promise<string | undefined> {
  const { agentVersion, ...rest } = options;
  const outcome = await getImds(system, "instance", { ...rest, heartbeatOf: agentVersion });
  if (outcome.kind === "success") return validateInstance(outcome.body);
  return outcome.kind === "service-error" ? outcome.message : undefined;
}

/** A network interface with MAC and private address must be there, and nothing on the way to them empty (IMDS-05). */
export function validateInstance(body: string): string | undefined {
  let root: JsonReader;
  try {
    root = JsonReader.parse(body, "The instance metadata");
  } catch (error) {
    return `JSON parsing failed: ${describe(error)}`;
  }
  const problem = (reader: JsonReader, name: string): string | undefined => {
    if (reader.isMissing) return `Missing field: [${name}]`;
    const { value } = reader;
    const size = Array.isArray(value)
      ? value.length
      : value instanceof Map
        ? value.size
        : undefined;
    return value === null || value === "" || size === 0 ? `Empty field: [${name}]` : undefined;
  };
  const first = (reader: JsonReader): JsonReader =>
    Array.isArray(reader.value) ? (reader.items()[0] ?? reader.get("")) : reader.get("");
  const network = root.get("network");
  const nics = network.get("interface");
  const nic = first(nics);
  const addresses = nic.get("ipv4").get("ipAddress");
  return (
    problem(network, "network") ??
    problem(nics, "interface") ??
    problem(nic.get("macAddress"), "macAddress") ??
    problem(nic.get("ipv4"), "ipv4") ??
    problem(addresses, "ipAddress") ??
    problem(first(addresses).get("privateIpAddress"), "privateIpAddress")
  );
}
