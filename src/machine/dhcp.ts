import { randomBytes } from "node:crypto";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { Argv } from "../distro/distro.ts";
import type { OpenDhcpSocket } from "../system/dhcp-socket.ts";
import type { System } from "../system/system.ts";
import { buildDiscover, isAnswerTo, parseAnswer, type DhcpAnswer } from "./dhcp-packet.ts";
import { waitForInterface, type NetworkInterface } from "./network.ts";
import { applyRoutes, withBroadcastRoute } from "./routes.ts";

/**
 * Our own question to the DHCP server: where is the platform (`wire-protocol.md` §3.1). The machine's DHCP client
 * keeps its lease and its port; it is stopped only where the distribution says that two cannot share the port.
 *
 *     const probe = createDhcpProbe(system, config, { openSocket: openDhcpSocket, stop, start });
 *     const endpoint = await probe.exchange();
 */
export interface DhcpProbe {
  /**
   * Endpoint of the first answer; its routes are added to the machine's. With `Network.Manage=n` nothing of the
   * machine is changed. Errors: AgentError "dhcp" when nobody answers or no endpoint is offered, "cancelled".
   */
  exchange(signal?: AbortSignal): Promise<string>;
  /** What the last answer said; the DHCP client monitor restores its routes. */
  lastAnswer(): DhcpAnswer | undefined;
}

export interface DhcpProbeOptions {
  readonly openSocket: OpenDhcpSocket;
  /** Commands of the distribution around an exchange, where it needs them (DHCP-12). */
  readonly stopClient?: Argv | undefined;
  readonly startClient?: Argv | undefined;
}

type Needs = Pick<System, "files" | "exec" | "clock" | "log">;

/** Waits after a failed try (DHCP-11); none after the last. */
const DELAYS_MS = [0, 10_000, 30_000, 60_000];
const ANSWER_TIMEOUT_MS = 10_000;
const FIREWALL_RULE = ["INPUT", "-p", "udp", "--dport", "68", "-j", "ACCEPT"];

export function createDhcpProbe(
  system: Needs,
  config: Pick<Config, "Network.Manage">,
  options: DhcpProbeOptions,
): DhcpProbe {
  let answer: DhcpAnswer | undefined;
  let broadcast = false;
  const manage = config["Network.Manage"];

  const quietly = async (argv: Argv): Promise<void> => {
    try {
      await system.exec.run({ argv, timeoutMs: 30_000 });
    } catch (error) {
      system.log.verbose(`${argv.join(" ")}: ${describe(error)}`);
    }
  };

  /** The answer is let in while we wait for it, and the rule goes away again (DB-16, DB-27). */
  const withOpenFirewall = async <Result>(action: () => Promise<Result>): Promise<Result> => {
    if (!manage || system.exec.find("iptables") === undefined) return action();
    await quietly(["iptables", "-I", ...FIREWALL_RULE]);
    try {
      return await action();
    } finally {
      await quietly(["iptables", "-D", ...FIREWALL_RULE]);
    }
  };

  const withStoppedClient = async <Result>(action: () => Promise<Result>): Promise<Result> => {
    if (!manage || options.stopClient === undefined) return action();
    await quietly(options.stopClient);
    try {
      return await action();
    } finally {
      if (options.startClient !== undefined) await quietly(options.startClient);
    }
  };

  const ask = async (
    request: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> => {
    const socket = await options.openSocket();
    try {
      await socket.send(request);
      const end = system.clock.monotonic() + ANSWER_TIMEOUT_MS;
      for (;;) {
        const left = end - system.clock.monotonic();
        const packet = left <= 0 ? undefined : await socket.receive(left, signal);
        if (packet === undefined) return undefined;
        if (isAnswerTo(request, packet)) return packet;
        system.log.verbose(`A datagram of ${packet.length} bytes is not the answer we wait for`);
      }
    } finally {
      socket.close();
    }
  };

  const askRepeatedly = async (
    request: Uint8Array,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array> => {
    let failure = "nobody answered";
    for (let attempt = 0; ; attempt += 1) {
      try {
        const packet = await ask(request, signal);
        if (packet !== undefined) return packet;
      } catch (error) {
        if (!isAgentError(error, "dhcp")) throw error;
        failure = describe(error);
      }
      const delay = DELAYS_MS[attempt];
      if (delay === undefined) break;
      system.log.info(`No DHCP answer (try ${attempt + 1}), next in ${delay / 1000} s: ${failure}`);
      await system.clock.sleep(delay, signal);
    }
    throw new AgentError(
      "dhcp",
      `DHCP gave no endpoint in ${DELAYS_MS.length + 1} tries: ${failure}`,
    );
  };

  return {
    lastAnswer: () => answer,
    exchange: async (signal) => {
      const nic = await interfaceForProbe(system, signal);
      const transactionId = randomBytes(4);
      const request = buildDiscover({ transactionId, mac: Buffer.from(nic.mac, "hex"), broadcast });
      broadcast = true;
      system.log.info(`Asking DHCP on ${nic.name} for the endpoint`);
      const packet = await withStoppedClient(() =>
        withBroadcastRoute(system, config, nic.name, () =>
          withOpenFirewall(() => askRepeatedly(request, signal)),
        ),
      );
      const { endpoint, routes } = parseAnswer(packet);
      answer = { endpoint, routes: { ...routes, interface: nic.name } };
      await applyRoutes(system, config, answer.routes);
      if (endpoint === undefined)
        throw new AgentError("dhcp", "The DHCP answer names no endpoint (option 245)");
      return endpoint;
    },
  };
}

async function interfaceForProbe(
  system: Needs,
  signal: AbortSignal | undefined,
): Promise<NetworkInterface> {
  try {
    const nic = await waitForInterface(system, signal === undefined ? {} : { signal });
    if (/^[0-9A-F]{12}$/.test(nic.mac)) return nic;
    throw new AgentError("dhcp", `The interface ${nic.name} has no MAC address`);
  } catch (error) {
    if (isAgentError(error, "cancelled", "dhcp")) throw error;
    throw new AgentError("dhcp", "There is no interface to ask DHCP on", { cause: error });
  }
}
