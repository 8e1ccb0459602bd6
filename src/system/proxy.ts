import { AgentError } from "../base/error.ts";

/** Which proxy a request goes through (`wire-protocol.md` HTTP-12..15, DB-12). Pure. */
export interface ProxySettings {
  /** `HttpProxy.Host`: a host name, or a URL that may carry credentials. When set, the environment is ignored. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Proxy URL with credentials where given, or undefined for a direct connection. */
export function selectProxy(target: URL, settings: ProxySettings): string | undefined {
  const { environment } = settings;
  if (settings.host !== undefined && settings.host !== "") {
    return proxyUrl(settings.host, settings.port, "HttpProxy.Host");
  }
  const names =
    target.protocol === "https:" ? ["https_proxy", "HTTPS_PROXY"] : ["http_proxy", "HTTP_PROXY"];
  const name = names.find((candidate) => (environment[candidate] ?? "") !== "");
  if (name === undefined) return undefined;
  if (isExempt(target.hostname, environment["no_proxy"] ?? environment["NO_PROXY"] ?? ""))
    return undefined;
  return proxyUrl(environment[name] ?? "", undefined, name);
}

function proxyUrl(text: string, port: number | undefined, source: string): string {
  let url: URL;
  try {
    url = new URL(text.includes("://") ? text : `http://${text}`);
  } catch (error) {
    throw new AgentError("config", `The proxy in ${source} is not a host name or URL`, {
      cause: error,
    });
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new AgentError(
      "config",
      `The proxy in ${source} must be an http URL, it is ${url.protocol}`,
    );
  }
  if (port !== undefined) url.port = String(port);
  return url.href.replace(/\/$/, "");
}

/** no_proxy: exact host, `.suffix` or `suffix` at a dot, `*`, IPv4/IPv6 address or CIDR, optional port ignored. */
export function isExempt(hostname: string, noProxy: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "").toLowerCase();
  for (const raw of noProxy.split(",")) {
    const entry = raw.trim().toLowerCase();
    if (entry === "") continue;
    if (entry === "*") return true;
    if (entry.includes("/")) {
      if (inNetwork(host, entry)) return true;
      continue;
    }
    const suffix = entry
      .replace(/^\*?\./, "")
      .replace(/(?<=[^:]):\d+$/, "")
      .replace(/^\[|\]$/g, "");
    if (host === suffix) return true;
    if (addressBits(host) === undefined && host.endsWith(`.${suffix}`)) return true;
  }
  return false;
}

function inNetwork(host: string, cidr: string): boolean {
  const [network = "", length = ""] = cidr.split("/");
  const address = addressBits(host);
  const base = addressBits(network);
  const bits = Number(length);
  if (address === undefined || base === undefined || !Number.isInteger(bits)) return false;
  if (address.length !== base.length || bits < 0 || bits > address.length) return false;
  return address.slice(0, bits) === base.slice(0, bits);
}

/** An IP address as a string of 32 or 128 binary digits; undefined for a name. */
function addressBits(host: string): string | undefined {
  const parts = host.split(".");
  if (parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255)) {
    return parts.map((part) => Number(part).toString(2).padStart(8, "0")).join("");
  }
  if (!host.includes(":") || !/^[0-9a-f:]+$/.test(host)) return undefined;
  const [head = "", tail] = host.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const missing = 8 - left.length - right.length;
  if (missing < 0 || (tail === undefined && missing !== 0)) return undefined;
  const groups = [...left, ...Array<string>(missing).fill("0"), ...right];
  if (groups.some((group) => group === "" || group.length > 4)) return undefined;
  return groups.map((group) => Number.parseInt(group, 16).toString(2).padStart(16, "0")).join("");
}
