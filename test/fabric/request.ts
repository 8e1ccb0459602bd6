/** One request as it came in. */
export interface RecordedRequest {
  /** Running number from 1. */
  readonly number: number;
  /** Milliseconds since the host started. */
  readonly at: number;
  readonly kind: RequestKind;
  readonly method: string;
  /** Absolute URL the client asked for. */
  readonly url: string;
  /** As sent: names keep their case and order. */
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string;
  readonly bodyBytes: number;
  /** What was answered; 0 when nothing was. */
  status: number;
  /** Kind of the fault that hit it, if any. */
  fault?: string;
}

export type RequestKind =
  | "versions"
  | "goal-state"
  | "hosting-environment"
  | "shared-config"
  | "extensions-config"
  | "certificates"
  | "remote-access"
  | "health"
  | "role-properties"
  | "telemetry"
  | "health-service"
  | "plugin-versions"
  | "plugin-health"
  | "vm-settings"
  | "plugin-artifact"
  | "plugin-status"
  | "plugin-log"
  | "manifest"
  | "package"
  | "artifacts-profile"
  | "status-blob"
  | "imds-compute"
  | "imds-instance"
  | "redirect-trap"
  | "unknown";

/** Which server of the host took the request. */
export type ServiceName = "wire-server" | "host-plugin" | "imds" | "storage";

/** Names the kind of a request (`wire-protocol.md` MAP-01..19). Pure. */
export function classify(service: ServiceName, method: string, target: string): RequestKind {
  const [pathname = "", query = ""] = splitOnce(target, "?");
  const parameters = new URLSearchParams(query);
  if (pathname === "/fabric-redirect-trap") return "redirect-trap";
  switch (service) {
    case "wire-server":
      return wireServerKind(method, pathname, parameters);
    case "host-plugin":
      return PLUGIN_KINDS[`${method} ${pathname}`] ?? "unknown";
    case "imds":
      if (method !== "GET") return "unknown";
      if (pathname === "/metadata/instance/compute") return "imds-compute";
      return pathname === "/metadata/instance" || pathname === "/metadata/instance/"
        ? "imds-instance"
        : "unknown";
    case "storage":
      if (pathname.startsWith("/status/") && method === "PUT") return "status-blob";
      if (method !== "GET") return "unknown";
      if (pathname.startsWith("/manifests/")) return "manifest";
      if (pathname.startsWith("/packages/")) return "package";
      return pathname.startsWith("/profile/") ? "artifacts-profile" : "unknown";
  }
}

const PLUGIN_KINDS: Readonly<Record<string, RequestKind>> = {
  "GET /versions": "plugin-versions",
  "GET /health": "plugin-health",
  "GET /vmSettings": "vm-settings",
  "GET /extensionArtifact": "plugin-artifact",
  "PUT /status": "plugin-status",
  "PUT /vmAgentLog": "plugin-log",
};

const CONFIG_KINDS: Readonly<Record<string, RequestKind>> = {
  hostingEnvironmentConfig: "hosting-environment",
  sharedConfig: "shared-config",
  extensionsConfig: "extensions-config",
};

function wireServerKind(
  method: string,
  pathname: string,
  parameters: URLSearchParams,
): RequestKind {
  const comp = parameters.get("comp");
  if (method === "GET") {
    if (pathname === "/" && comp === "versions") return "versions";
    if (pathname === "/machine/" && comp === "goalstate") return "goal-state";
    if (!pathname.startsWith("/machine/")) return "unknown";
    if (comp === "config") return CONFIG_KINDS[parameters.get("type") ?? ""] ?? "unknown";
    if (comp === "certificates") return "certificates";
    return comp === "remoteaccessinfo" ? "remote-access" : "unknown";
  }
  if (method !== "POST") return "unknown";
  if (pathname === "/HealthService") return "health-service";
  if (pathname !== "/machine") return "unknown";
  if (comp === "health") return "health";
  if (comp === "roleProperties") return "role-properties";
  return comp === "telemetrydata" ? "telemetry" : "unknown";
}

export function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** Value of a header, its name in any case; undefined when it was not sent. */
export function header(
  request: Pick<RecordedRequest, "headers">,
  name: string,
): string | undefined {
  return request.headers.find(([key]) => key.toLowerCase() === name.toLowerCase())?.[1];
}
