import { routeTo } from "../../machine/routes.ts";
import type { Answer, Facts } from "./facts.ts";
import { type Finding, type Found, isFound } from "./finding.ts";

/** Checks of the way to the platform and to storage. Pure. */

export function checkRoute({ network }: Facts): Found {
  const { routes, endpoint } = network;
  if (routes === undefined) return "unseen";
  if (routeTo(routes, endpoint) !== undefined) return [];
  const interfaces = [...new Set(routes.map((route) => route.interface))].filter(
    (name) => name !== "lo" && name !== "*",
  );
  return [
    {
      id: "no-route",
      object: endpoint,
      problem: "no route leads to the WireServer",
      reason:
        interfaces.length === 0
          ? "the route table is empty"
          : `the route table has only networks of ${interfaces.join(", ")}, and no default route`,
      next: "see whether the interface is up and has its DHCP lease (ip address; ip route), and renew the lease",
    },
  ];
}

export function checkFirewall({ network, config }: Facts): Found {
  const { blockedBy, endpoint } = network;
  if (blockedBy === undefined) return network.wireServer.kind === "unasked" ? "unseen" : [];
  return [
    {
      id: "firewall-self-block",
      object: endpoint,
      problem: "the machine's own firewall keeps root, and so the agent, from the WireServer",
      reason: `${blockedBy}; no rule before it lets user 0 through`,
      next: config["OS.EnableFirewall"]
        ? "delete that rule; the agent puts its own rules in order by itself within OS.EnableFirewallPeriod"
        : "delete that rule, or let user 0 through before it",
    },
  ];
}

/** Silence that has no other explanation. */
export function checkPlatform(facts: Facts): Found {
  const { wireServer, hostPlugin, imds, endpoint, blockedBy } = facts.network;
  // Told already, as what it is.
  if (blockedBy !== undefined || isFound(checkRoute(facts))) return "unseen";
  const peers = [
    ["the WireServer", endpoint, wireServer],
    ["the host plugin", `${endpoint}:32526`, hostPlugin],
    ["the metadata service", "169.254.169.254", imds],
  ] as const;
  const isKnown = peers.every(([, , answer]) => answer.kind === "answered");
  const found = peers.flatMap(([name, object, answer]): Finding[] =>
    answer.kind === "silent"
      ? [
          {
            id: "platform-silent",
            object,
            problem: `${name} does not answer`,
            reason: answer.reason,
            next: "look for firewalls, routes and network security rules that send this address elsewhere; if it stays silent, redeploy the VM",
          },
        ]
      : [],
  );
  return found.length === 0 && !isKnown ? "unseen" : found;
}

export function checkNames({ network }: Facts): Found {
  const { nameServers } = network;
  if (network.names.length === 0) return "unseen";
  const servers =
    nameServers.length === 0
      ? "/etc/resolv.conf names no name server"
      : `asked: ${nameServers.join(", ")}`;
  return network.names.flatMap(({ host, failure }): Finding[] =>
    failure === undefined
      ? []
      : [
          {
            id: "dns",
            object: host,
            problem: "the name cannot be resolved",
            reason: `${failure}; ${servers}`,
            next: "set a name server that knows it (DNS servers of the virtual network, /etc/resolv.conf), or a private zone for the account",
          },
        ],
  );
}

const PROXY_REFUSAL = /\b407\b|Proxy Authentication Required/i;

export function checkProxy({ network, config }: Facts): Found {
  const { proxy, storage } = network;
  if (!storage.some(isAsked)) return "unseen";
  const refused = storage.find(({ answer }) =>
    answer.kind === "answered"
      ? answer.status === 407
      : answer.kind === "silent" && PROXY_REFUSAL.test(answer.reason),
  );
  const where =
    config["HttpProxy.Host"] === undefined ? "http_proxy, https_proxy" : "HttpProxy.Host";
  if (refused !== undefined)
    return [
      {
        id: "proxy-407",
        object: proxy ?? "the proxy",
        problem: "the proxy wants a name and a password for it",
        reason: `it answered 407 to a request for ${refused.origin}`,
        next: `put user:password@ before its host in ${where}, or have the proxy let this machine through`,
      },
    ];
  const silent = proxy === undefined ? undefined : storage.find(isSilent);
  if (silent === undefined) return [];
  return [
    {
      id: "proxy-unusable",
      object: proxy ?? "",
      problem: "storage cannot be reached through the proxy",
      reason: silent.answer.kind === "silent" ? silent.answer.reason : "",
      next: `see whether the proxy of ${where} runs and allows ${silent.origin}`,
    },
  ];
}

/** Storage that is silent though its name is known and no proxy stands before it. */
export function checkStorage({ network }: Facts): Found {
  if (!network.storage.some(isAsked) || network.proxy !== undefined) return "unseen";
  const unknown = network.names.filter(({ failure }) => failure !== undefined);
  return network.storage.flatMap(({ origin, answer }): Finding[] =>
    answer.kind === "silent" && !unknown.some(({ host }) => new URL(origin).hostname === host)
      ? [
          {
            id: "storage-silent",
            object: origin,
            problem: "the storage account does not answer",
            reason: answer.reason,
            next: "allow outbound connections to it (network security group, firewall appliance, private endpoint); until then packages and status go through the host plugin",
          },
        ]
      : [],
  );
}

function isAsked({ answer }: { readonly answer: Answer }): boolean {
  return answer.kind !== "unasked";
}

function isSilent({ answer }: { readonly answer: Answer }): boolean {
  return answer.kind === "silent";
}

/** Storage refuses what is signed for another time by 15 minutes and more; before that nothing is lost. */
const MAX_SKEW_MS = 5 * 60_000;

export function checkClock(facts: Facts): Found {
  const told = platformTime(facts);
  if (told === undefined) return "unseen";
  const skewMs = facts.now - told.date;
  if (Math.abs(skewMs) < MAX_SKEW_MS) return [];
  const minutes = Math.round(Math.abs(skewMs) / 60_000);
  return [
    {
      id: "clock-skew",
      object: "the system clock",
      problem: `it is ${minutes} min ${skewMs > 0 ? "ahead" : "behind"}`,
      reason: `${told.who} says ${new Date(told.date).toISOString().slice(0, 19)}Z, this machine ${new Date(facts.now).toISOString().slice(0, 19)}Z`,
      next: "start the time service (chronyc makestep, or timedatectl set-ntp true); storage and certificates refuse a clock that is wrong",
    },
  ];
}

/** What time it is where permissions are judged. */
function platformTime({ network }: Facts): { who: string; date: number } | undefined {
  const peers: readonly (readonly [string, Answer])[] = [
    ["the WireServer", network.wireServer],
    ["the host plugin", network.hostPlugin],
    ["the metadata service", network.imds],
    // A proxy may answer in its place, with its own clock.
    ...(network.proxy === undefined
      ? network.storage.map(({ origin, answer }) => [origin, answer] as const)
      : []),
  ];
  for (const [who, answer] of peers)
    if (answer.kind === "answered" && answer.date !== undefined) return { who, date: answer.date };
  return undefined;
}

export function checkSignatures(facts: Facts): Found {
  const now = platformTime(facts)?.date ?? facts.now;
  const storage = facts.agent.state?.storage ?? [];
  if (storage.length === 0) return "unseen";
  return storage.flatMap(({ origin, purpose, expiresAt }): Finding[] => {
    if (expiresAt === undefined || Date.parse(expiresAt) > now) return [];
    return [
      {
        id: "sas-expired",
        object: origin,
        problem: `the permission for ${purpose === "status" ? "the status blob" : "packages"} has ended`,
        reason: `the goal state's signature was good until ${expiresAt}`,
        next: "make the platform send a new goal state: any change of an extension, or az vm reapply",
      },
    ];
  });
}
