import { AgentError, describe } from "../base/error.ts";
import { descendant, parseXml } from "../base/xml.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import { nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { installRdmaDriver } from "./rdma-driver.ts";

/** Address of the RDMA device as SharedConfig tells it. */
export interface RdmaDevice {
  readonly ipv4: string;
  /** Upper case, with colons. */
  readonly mac: string;
}

type Needs = Pick<System, "exec" | "files" | "clock" | "log">;
type Keys = Pick<Config, "OS.EnableRDMA" | "OS.UpdateRdmaDriver" | "OS.CheckRdmaDriver">;

export interface RdmaOptions {
  /** SharedConfig of now: RDMA changes need not make a new goal state (`system.md` RDMA-04). */
  readonly sharedConfig: () => Promise<string>;
  readonly kernelRelease: string;
}

/** Host to guest (`system.md` PEER-01). */
const POOL = "/var/lib/hyperv/.kvp_pool_0";
const KEY_BYTES = 512;
const RECORD_BYTES = 2560;
const DAT_FILES: readonly SystemPath[] = [
  "/etc/dat.conf",
  "/etc/rdma/dat.conf",
  "/usr/local/etc/dat.conf",
];
const DEVICE = "/dev/hvnd_rdma";
const MODULE = "hv_network_direct";
const PREFIX_LENGTH = 16;
const DEVICE_WAIT_S = 120;
const INTERFACE_WAIT_S = 60;
const PAIR_TRIES = 60;
const SECOND_MS = 1000;
const TIMEOUT_MS = 60_000;
const ALREADY_SET = 2;

/** Any of the three keys turns it on (`system.md` RDMA-01). */
export function isRdmaWanted(config: Keys): boolean {
  return config["OS.EnableRDMA"] || config["OS.UpdateRdmaDriver"] || config["OS.CheckRdmaDriver"];
}

/**
 * Brings up RDMA (`system.md` RDMA-02..06): the driver for the host's firmware, then the device, then its address.
 * Never throws but "cancelled": errors are logged, the machine works without (RDMA-10).
 */
export async function setUpRdma(
  system: Needs,
  config: Keys,
  distro: Pick<Distro, "release">,
  options: RdmaOptions,
): Promise<void> {
  if (!isRdmaWanted(config)) {
    system.log.info("RDMA capabilities are not enabled, skipping");
    return;
  }
  try {
    const firmware = readKvp(system, "NdDriverVersion");
    if (firmware === undefined)
      system.log.error(
        `The host tells no RDMA firmware version (NdDriverVersion in ${POOL}); the device is taken as SR-IOV`,
      );
    else if (config["OS.CheckRdmaDriver"])
      await installRdmaDriver(system, distro, {
        firmware,
        kernelRelease: options.kernelRelease,
        update: config["OS.UpdateRdmaDriver"],
      });
    const device = rdmaDevice(await options.sharedConfig());
    if (firmware === undefined) await setUpSriov(system, device);
    else await setUpNetworkDirect(system, config, device);
  } catch (error) {
    if (error instanceof AgentError && error.code === "cancelled") throw error;
    system.log.error(`Could not set up RDMA: ${describe(error)}`);
  }
}

/** First `Instance` of SharedConfig. Errors: AgentError "bad-input" naming the attribute that is missing. */
export function rdmaDevice(sharedConfig: string): RdmaDevice {
  const instance = descendant(parseXml(sharedConfig, "SharedConfig"), "Instance");
  const attribute = (name: string): string => {
    const value = instance?.attributes.get(name);
    if (value === undefined || value === "")
      throw new AgentError("bad-input", `SharedConfig: the first Instance has no ${name}`);
    return value;
  };
  const ipv4 = attribute("rdmaIPv4Address");
  const digits = attribute("rdmaMacAddress");
  if (!/^[0-9A-Fa-f]{12}$/.test(digits) || !isIpv4(ipv4))
    throw new AgentError(
      "bad-input",
      `SharedConfig: ${JSON.stringify(digits)} with ${JSON.stringify(ipv4)} is no RDMA device`,
    );
  return { ipv4, mac: (digits.toUpperCase().match(/../g) ?? []).join(":") };
}

/** Value of a key that the host has put into its pool (`system.md` RDMA-02); the last one wins. */
export function readKvp(system: Pick<System, "files">, key: string): string | undefined {
  if (!system.files.exists(POOL)) return undefined;
  const pool = system.files.read(POOL);
  let found: string | undefined;
  for (let at = 0; at + RECORD_BYTES <= pool.length; at += RECORD_BYTES) {
    const text = (from: number, to: number): string =>
      new TextDecoder().decode(pool.subarray(at + from, at + to)).split("\0")[0] ?? "";
    if (text(0, KEY_BYTES) === key) found = text(KEY_BYTES, RECORD_BYTES);
  }
  return found;
}

// ---- Network Direct (`system.md` RDMA-05)

async function setUpNetworkDirect(system: Needs, config: Keys, device: RdmaDevice): Promise<void> {
  writeDatConf(system, device);
  if (config["OS.CheckRdmaDriver"]) await activateDevice(system, device);
  const name = await waitFor(system, INTERFACE_WAIT_S, `an interface with MAC ${device.mac}`, () =>
    interfaceOf(system, device.mac.replaceAll(":", "")),
  );
  await bringUp(system, name, device.ipv4);
}

/** The entry for ib0; lines of others stay. */
function writeDatConf(system: Needs, device: RdmaDevice): void {
  const file = DAT_FILES.find((candidate) => system.files.exists(candidate));
  if (file === undefined)
    throw new AgentError("not-supported", `There is no dat.conf (${DAT_FILES.join(", ")})`);
  const entry = `ofa-v2-ib0 u2.0 nonthreadsafe default libdaplofa.so.2 dapl.2.0 "${device.ipv4} 0"`;
  const text = system.files.readText(file);
  const kept = text.split("\n").filter((line) => !/^ofa-v2-ib0\s/.test(line));
  while (kept.at(-1) === "") kept.pop();
  const next = `${[...kept, entry].join("\n")}\n`;
  if (next === text) return;
  system.files.write(file, next, { mode: system.files.stat(file)?.mode ?? 0o644 });
}

/** Loads the driver; those before 4.1 are told their address through a device file. */
async function activateDevice(system: Needs, device: RdmaDevice): Promise<void> {
  const run = (argv: readonly string[]) => system.exec.run({ argv, timeoutMs: TIMEOUT_MS });
  const alias = (await run(["modprobe", "-R", MODULE])).stdout.trim() || MODULE;
  await run(["modprobe", alias]);
  const version = (await run(["modinfo", "-F", "version", alias])).stdout.trim();
  if (configuresItself(version)) return;
  await waitFor(system, DEVICE_WAIT_S, DEVICE, () =>
    system.files.exists(DEVICE) ? DEVICE : undefined,
  );
  system.files.writeInto(DEVICE, `rdmaMacAddress="${device.mac}" rdmaIPv4Address="${device.ipv4}"`);
}

function configuresItself(version: string): boolean {
  const [major, minor, patch, more] = version.split(".").map(Number);
  if (major === undefined || minor === undefined || patch === undefined || more !== undefined)
    return false;
  return major > 4 || (major === 4 && minor >= 1);
}

// ---- SR-IOV (`system.md` RDMA-06)

async function setUpSriov(system: Needs, device: RdmaDevice): Promise<void> {
  const data = readKvp(system, "IPoIB_Data");
  if (data !== undefined) return setAllAddresses(system, parsePairs(data));
  await waitFor(system, DEVICE_WAIT_S, "an entry in /sys/class/infiniband", () =>
    system.files.list("/sys/class/infiniband").at(0),
  );
  const name = await waitFor(system, INTERFACE_WAIT_S, "an ib interface", () =>
    system.files.list("/sys/class/net").find((candidate) => candidate.startsWith("ib")),
  );
  await bringUp(system, name, device.ipv4);
}

/** `NUMPAIRS:<n>|<mac>:<ip>|...`; keys are upper-case hex without separators. */
export function parsePairs(data: string): ReadonlyMap<string, string> {
  const [head = "", ...rest] = data.split("|").filter((part) => part !== "");
  const count = Number(/^NUMPAIRS:(\d+)$/.exec(head)?.[1]);
  const pairs = new Map(
    rest.map((part) => {
      const colon = part.lastIndexOf(":");
      const mac = part.slice(0, colon).replaceAll(/[:-]/g, "").toUpperCase();
      return [mac, part.slice(colon + 1)] as const;
    }),
  );
  const wrong = [...pairs].some(([mac, ip]) => !/^[0-9A-F]{12}$/.test(mac) || !isIpv4(ip));
  if (rest.length !== count || wrong)
    throw new AgentError("bad-input", `IPoIB_Data from the host is not understood: ${data}`);
  return pairs;
}

async function setAllAddresses(system: Needs, pairs: ReadonlyMap<string, string>): Promise<void> {
  const missing = new Map(pairs);
  for (let round = 0; round < PAIR_TRIES && missing.size > 0; round += 1) {
    if (round > 0) await system.clock.sleep(SECOND_MS);
    for (const [mac, ip] of missing) {
      const name = interfaceOf(system, mac);
      if (name === undefined) continue;
      await bringUp(system, name, ip);
      missing.delete(mac);
    }
  }
  if (missing.size > 0)
    throw new AgentError(
      "not-supported",
      `No interface has the MAC ${[...missing.keys()].join(", ")} after ${PAIR_TRIES} s`,
    );
}

// ---- both

/** By MAC, upper-case hex. An `ib` address has 20 bytes, of which six stand for the MAC: 13 to 15 and 18 to 20. */
function interfaceOf(system: Pick<System, "files">, mac: string): string | undefined {
  return system.files.list("/sys/class/net").find((name) => {
    const bytes = (system.files.readTextIfExists(`/sys/class/net/${name}/address`) ?? "")
      .trim()
      .toUpperCase()
      .split(":");
    const six = bytes.length === 20 ? [...bytes.slice(12, 15), ...bytes.slice(17, 20)] : bytes;
    return six.join("") === mac;
  });
}

async function bringUp(system: Needs, name: string, ipv4: string): Promise<void> {
  await system.exec.run({ argv: ["ip", "link", "set", name, "up"], timeoutMs: TIMEOUT_MS });
  await system.exec.run({
    argv: ["ip", "addr", "add", `${ipv4}/${PREFIX_LENGTH}`, "dev", name],
    okCodes: [0, ALREADY_SET],
    timeoutMs: TIMEOUT_MS,
  });
  system.log.info(`RDMA: ${nameOf(name)} is up with ${ipv4}/${PREFIX_LENGTH}`);
}

async function waitFor<Found>(
  system: Pick<System, "clock">,
  seconds: number,
  what: string,
  look: () => Found | undefined,
): Promise<Found> {
  for (let waited = 0; ; waited += 1) {
    const found = look();
    if (found !== undefined) return found;
    if (waited >= seconds)
      throw new AgentError("not-supported", `${what} did not appear within ${seconds} s`);
    await system.clock.sleep(SECOND_MS);
  }
}

function isIpv4(text: string): boolean {
  return (
    /^(?:\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split(".").every((part) => Number(part) < 256)
  );
}
