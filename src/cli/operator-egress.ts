import { redact } from "../base/redact.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/table.ts";
import { detectDistro } from "../distro/detect.ts";
import { writeStdout } from "../system/process.ts";
import { earlySystem } from "./early.ts";
import { EXIT } from "./exit-codes.ts";
import type { OperatorData } from "./operator-commands.ts";

/** One peer of the agent. Extensions are programs of others and have peers of their own. */
export interface Peer {
  readonly host: string;
  readonly port: number;
  readonly protocol: "http" | "https" | "udp";
  readonly reason: string;
  /** Under this configuration. */
  readonly used: boolean;
  /** The setting that ends it; undefined where the agent cannot do its job without. */
  readonly stop: string | undefined;
  /** Whether the proxy of the configuration or environment is asked. */
  readonly proxy: boolean;
}

const WIRE_SERVER = "168.63.129.16";
const STORAGE = "the storage accounts that a goal state names";

/** Every peer, used or not (`wire-protocol.md` §1.1). Pure. */
export function peersOf(config: Config): readonly Peer[] {
  const wire = { host: WIRE_SERVER, port: 80, protocol: "http", proxy: false } as const;
  const plugin = { ...wire, port: 32526 } as const;
  const storage = { host: STORAGE, port: 443, protocol: "https", proxy: true } as const;
  const extensions = config["Extensions.Enabled"];
  return [
    { ...wire, reason: "goal state, certificates, health", used: true, stop: undefined },
    {
      ...wire,
      reason: "telemetry",
      used: config["Telemetry.Enabled"],
      stop: "Telemetry.Enabled=n",
    },
    {
      ...plugin,
      reason: "goal state of the fast path",
      used: config["Debug.EnableFastTrack"],
      stop: "Debug.EnableFastTrack=n",
    },
    {
      ...plugin,
      reason: "packages and status where storage is not reached",
      used: true,
      stop: undefined,
    },
    { ...plugin, reason: "collected logs", used: config["Logs.Collect"], stop: "Logs.Collect=n" },
    {
      ...wire,
      host: "169.254.169.254",
      reason: "what this machine is, for telemetry and health",
      used: true,
      stop: undefined,
    },
    {
      host: "255.255.255.255",
      port: 67,
      protocol: "udp",
      reason: "the WireServer's address, asked by DHCP",
      used: config["Protocol.EndpointDiscovery"] === "dhcp" && config["Network.Manage"],
      stop: "Protocol.EndpointDiscovery=static",
      proxy: false,
    },
    {
      ...storage,
      reason: "packages of extensions",
      used: extensions,
      stop: "Extensions.Enabled=n",
    },
    { ...storage, reason: "status of the machine", used: true, stop: undefined },
  ];
}

/** `waagent egress`: whom the agent talks to, why, and what stops it. */
export async function showEgress(
  data: OperatorData,
  options: { readonly json?: boolean | undefined },
): Promise<number> {
  const system = earlySystem(data.root);
  const { configPath } = await detectDistro(system);
  const { config } = loadConfig(system, { preferred: configPath });
  const peers = peersOf(config);
  writeStdout(
    options.json === true
      ? `${JSON.stringify({ peers, proxy: proxyOf(config) ?? null }, null, 2)}\n`
      : egressText(peers, proxyOf(config)),
  );
  return EXIT.ok;
}

function proxyOf(config: Config): string | undefined {
  const host = config["HttpProxy.Host"];
  if (host === undefined || host === "") return undefined;
  const port = config["HttpProxy.Port"];
  return redact(port === undefined ? host : `${host}:${port}`);
}

/** For people. */
export function egressText(peers: readonly Peer[], proxy: string | undefined): string {
  const lines = peers.map(({ host, port, protocol, reason, used, stop }) => {
    const place = `${host}:${port} (${protocol})`;
    const how =
      stop === undefined ? "needed" : used ? `until ${stop}` : `not used with this configuration`;
    return `${place}\n    ${reason}; ${how}\n`;
  });
  const through =
    proxy === undefined
      ? "Storage is reached through the proxy of the environment, where there is one.\n"
      : `Storage is reached through the proxy ${proxy}.\n`;
  return `${lines.join("")}${through}The agent has no other peers; extensions are programs of others and have their own.\n`;
}
