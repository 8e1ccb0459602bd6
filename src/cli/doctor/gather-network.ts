import { describe, isAgentError } from "../../base/error.ts";
import { redact } from "../../base/redact.ts";
import { readRoutes, routeTo } from "../../machine/routes.ts";
import type { StorageState } from "../../report/agent-state.ts";
import { type ProxySettings, selectProxy } from "../../system/proxy.ts";
import type { System } from "../../system/system.ts";
import { blockingRule } from "./blocking-rule.ts";
import type { Answer, NameFact, NetworkFacts, StorageFact } from "./facts.ts";

/** Each wait on the network; the whole examination waits for two of them at most, one after the other. */
const PROBE_MS = 3000;
const MAX_ORIGINS = 4;
const MAX_BYTES = 256 * 1024;

export interface NetworkOptions {
  readonly endpoint: string;
  /** Only root gets through the agent's own firewall, and only root may list its rules. */
  readonly isRoot: boolean;
  readonly isFirewalled: boolean;
  readonly proxy: ProxySettings;
  readonly storage: readonly StorageState[];
  /** Takes what cannot be looked at. */
  readonly unseen: (what: string) => void;
}

/** Asks every peer of the agent once, side by side, and changes nothing. Never throws. */
export async function gatherNetwork(
  system: Pick<System, "files" | "exec" | "http" | "root">,
  options: NetworkOptions,
): Promise<NetworkFacts> {
  const { endpoint, isRoot, unseen } = options;
  const routes = system.files.exists("/proc/net/route") ? readRoutes(system) : undefined;
  if (routes === undefined) unseen("the route table: /proc/net/route is not there");
  const isRouted = routes === undefined || routeTo(routes, endpoint) !== undefined;
  const origins = [...new Set(options.storage.map(({ origin }) => origin))].slice(0, MAX_ORIGINS);
  if (origins.length === 0)
    unseen("storage: the agent has not told yet which accounts the goal state names");

  const platform = async (url: string, headers: Readonly<Record<string, string>> = {}) => {
    if (!isRouted) return UNASKED;
    if (!isRoot && options.isFirewalled) return UNASKED;
    return ask(system, { method: "GET", url, headers, proxy: "never" }, unseen);
  };
  if (!isRoot && options.isFirewalled)
    unseen("the WireServer and the host plugin: the firewall lets only root talk to them");

  const [wireServer, hostPlugin, imds, storage, nameFacts] = await Promise.all([
    platform(`http://${endpoint}/?comp=versions`),
    // Its other pages want ids of the goal state (`wire-protocol.md` HGAP-04).
    platform(`http://${endpoint}:32526/health`),
    ask(
      system,
      { method: "GET", url: IMDS, headers: { Metadata: "True" }, proxy: "never" },
      unseen,
    ),
    Promise.all(origins.map((origin) => askStorage(system, origin, unseen))),
    resolveNames(system, namesOf(origins, options.proxy), unseen),
  ]);
  const isSilent = wireServer.kind === "silent";
  return {
    ...{ endpoint, routes, nameServers: nameServers(system), names: nameFacts },
    ...{ wireServer, hostPlugin, imds, storage },
    proxy: proxyOf(origins[0], options.proxy),
    blockedBy: isSilent && isRoot ? await blockingRule(system, endpoint) : undefined,
  };
}

const IMDS = "http://169.254.169.254/metadata/instance/compute?api-version=2018-02-01";
const UNASKED: Answer = { kind: "unasked" };

/** Any answer will do: it proves that the peer is reached, and its Date tells the platform's time. */
async function ask(
  system: Pick<System, "http" | "root">,
  request: Pick<Parameters<System["http"]["request"]>[0], "method" | "url" | "headers" | "proxy">,
  unseen: (what: string) => void,
): Promise<Answer> {
  try {
    const limits = { deadlineMs: PROBE_MS, maxBodyBytes: MAX_BYTES };
    const { status, headers } = await system.http.request({ ...request, ...limits });
    const date = Date.parse(headers.get("date") ?? "");
    return { kind: "answered", status, date: Number.isNaN(date) ? undefined : date };
  } catch (error) {
    if (isAgentError(error, "refused") && !system.root.isMachine) {
      unseen(`${new URL(request.url).host}: a scratch root has no way to it`);
      return UNASKED;
    }
    return { kind: "silent", reason: redact(describe(error)) };
  }
}

async function askStorage(
  system: Pick<System, "http" | "root">,
  origin: string,
  unseen: (what: string) => void,
): Promise<StorageFact> {
  const request = { method: "HEAD", url: `${origin}/`, proxy: "allowed" } as const;
  return { origin, answer: await ask(system, request, unseen) };
}

/** Behind a proxy it is the proxy that looks up the names of storage. */
function namesOf(origins: readonly string[], settings: ProxySettings): readonly string[] {
  const hosts = origins.map((origin) => {
    try {
      return new URL(selectProxy(new URL(origin), settings) ?? origin).hostname;
    } catch {
      return ""; // a proxy that is none is a finding of its own
    }
  });
  return [...new Set(hosts)].filter((host) => /[a-z]/i.test(host) && !host.startsWith("["));
}

async function resolveNames(
  system: Pick<System, "exec">,
  hosts: readonly string[],
  unseen: (what: string) => void,
): Promise<readonly NameFact[]> {
  if (hosts.length === 0) return [];
  if (system.exec.find("getent") === undefined) {
    unseen("name resolution: the program getent is not installed");
    return [];
  }
  return await Promise.all(
    hosts.map(async (host): Promise<NameFact> => {
      try {
        const lookUp = async (database: string): Promise<number> => {
          const argv = ["getent", database, host];
          return (await system.exec.run({ argv, timeoutMs: PROBE_MS, okCodes: "any" })).code;
        };
        // The platform's storage has IPv4. The getent of musl knows only the other database, and answers 1.
        const code = await lookUp("ahostsv4");
        const isKnown = code === 0 || (code === 1 && (await lookUp("hosts")) === 0);
        return { host, failure: isKnown ? undefined : "the name is not known" };
      } catch (error) {
        const isSlow = isAgentError(error, "exec-timeout");
        return {
          host,
          failure: isSlow ? `no name server answered in ${PROBE_MS / 1000} s` : describe(error),
        };
      }
    }),
  );
}

function nameServers(system: Pick<System, "files">): readonly string[] {
  try {
    const text = system.files.readTextIfExists("/etc/resolv.conf", { maxBytes: MAX_BYTES }) ?? "";
    return [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map(([, address = ""]) => address);
  } catch {
    return []; // it is only told along with names that are not known
  }
}

/** For people: where it is, never with a password. */
function proxyOf(origin: string | undefined, settings: ProxySettings): string | undefined {
  try {
    const proxy = selectProxy(new URL(origin ?? "https://storage.invalid"), settings);
    return proxy === undefined ? undefined : new URL(proxy).host;
  } catch {
    return undefined; // each request that should go through it says why it cannot
  }
}
