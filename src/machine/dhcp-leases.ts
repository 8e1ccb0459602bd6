import { isPeerAddress } from "../base/address.ts";
import { describe } from "../base/error.ts";
import type { DistroRow } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { dotted, findOption, parseAnswer } from "./dhcp-packet.ts";

/**
 * The endpoint (option 245) in a lease that a DHCP client of the machine holds (`wire-protocol.md` §3.2; `system.md`
 * BET-12). The distribution's own place is looked at first, then where other clients keep theirs.
 */
type Leases = NonNullable<DistroRow["leases"]>;
type Format = Leases["format"] | "dhcpcd";

const OTHER_PLACES: readonly { readonly format: Format; readonly globs: readonly SystemPath[] }[] =
  [
    { format: "networkd", globs: ["/run/systemd/netif/leases/*"] },
    // NetworkManager up to 1.18 saved its own leases as networkd does.
    { format: "networkd", globs: ["/var/lib/NetworkManager/internal-*.lease"] },
    {
      format: "dhcpcd",
      globs: ["/var/lib/dhcpcd/*.lease", "/var/db/dhcpcd/*.lease", "/var/lib/dhcpcd5/*.lease"],
    },
  ];
const NMCLI_TIMEOUT_MS = 5000;
const MAX_LEASE_BYTES = 4 * 1024 * 1024;

/** As `endpointFromLeases`, and what NetworkManager says of the leases it keeps in memory only. */
export async function findLeasedEndpoint(
  system: Pick<System, "files" | "exec" | "clock" | "log">,
  leases: DistroRow["leases"],
): Promise<string | undefined> {
  const inFile = endpointFromLeases(system, leases);
  if (inFile !== undefined || system.exec.find("nmcli") === undefined) return inFile;
  try {
    const argv = ["nmcli", "-f", "DHCP4", "device", "show"];
    return parseNmcli((await system.exec.run({ argv, timeoutMs: NMCLI_TIMEOUT_MS })).stdout);
  } catch (error) {
    system.log.verbose(`NetworkManager does not tell its leases: ${describe(error)}`);
    return undefined;
  }
}

/** undefined when there is no valid lease with the option. A file that cannot be read is passed over. */
export function endpointFromLeases(
  system: Pick<System, "files" | "clock" | "log">,
  leases: DistroRow["leases"],
): string | undefined {
  for (const place of [...(leases === undefined ? [] : [leases]), ...OTHER_PLACES]) {
    const found = place.globs.flatMap((glob) => {
      try {
        return system.files.glob(glob);
      } catch {
        return []; // a folder that is not there
      }
    });
    let endpoint: string | undefined;
    for (const file of found) {
      try {
        endpoint = readLease(system, file, place.format) ?? endpoint;
      } catch (error) {
        system.log.verbose(`The lease ${file} is passed over: ${describe(error)}`);
      }
    }
    if (endpoint !== undefined) {
      system.log.info(`A DHCP lease names the endpoint ${endpoint}`);
      return endpoint;
    }
  }
  return undefined;
}

function readLease(
  system: Pick<System, "files" | "clock">,
  file: SystemPath,
  format: Format,
): string | undefined {
  const now = system.clock.now();
  if (format === "dhcpcd") {
    const modifiedMs = system.files.stat(file)?.modifiedMs ?? 0;
    return parseRawLease(system.files.read(file, { maxBytes: 64 * 1024 }), { modifiedMs, now });
  }
  const text = system.files.readText(file, { maxBytes: MAX_LEASE_BYTES });
  if (format === "networkd") return parseNetworkdLease(text);
  return parseDhclientLeases(text, now);
}

/**
 * `lease { ... }` blocks of ISC dhclient and its descendants; of several valid ones the last wins (DHCP-35). A block is
 * valid until `expire`, and one without it has expired.
 */
export function parseDhclientLeases(text: string, now: number): string | undefined {
  let endpoint: string | undefined;
  for (const [, block = ""] of text.matchAll(/^[ \t]*lease[ \t]*\{([^{}]*)\}/gm)) {
    const option = /^[ \t]*option[ \t]+(?:unknown|option)-245[ \t]+([^;\n]+);/m.exec(block)?.[1];
    const expire = /^[ \t]*expire[ \t]+([^;\n]+);/m.exec(block)?.[1]?.trim();
    if (option === undefined || expire === undefined || !isValid(expire, now)) continue;
    endpoint = parseOptionValue(option) ?? endpoint;
  }
  return endpoint;
}

/** `4 2030/01/31 23:59:59` (UTC), `epoch 1900000000`, or `never`. */
function isValid(expire: string, now: number): boolean {
  if (/(?:^|\s)never$/.test(expire)) return true;
  const epoch = /^epoch\s+(\d+)/.exec(expire);
  if (epoch !== null) return Number(epoch[1]) * 1000 > now;
  const date = /(\d{4})\/(\d{1,2})\/(\d{1,2})\s+(\d{1,2}):(\d{2}):(\d{2})/.exec(expire);
  if (date === null) return false;
  const [year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0] = date
    .slice(1)
    .map(Number);
  return Date.UTC(year, month - 1, day, hour, minute, second) > now;
}

/** systemd-networkd keeps leases while they are valid; eight hex digits (DHCP-31). */
export function parseNetworkdLease(text: string): string | undefined {
  const hex = /^OPTION_245=([0-9a-fA-F]{8})\s*$/m.exec(text)?.[1];
  return hex === undefined ? undefined : toAddress(Buffer.from(hex, "hex"));
}

/** `nmcli -f DHCP4 device show`; the option is called unknown or private, by version and client. */
export function parseNmcli(text: string): string | undefined {
  const value =
    /^[ \t]*(?:DHCP4\.OPTION\[\d+\]:[ \t]*)?(?:unknown|private)[-_]245[ \t]*=[ \t]*(\S+)/m.exec(
      text,
    )?.[1];
  return value === undefined ? undefined : parseOptionValue(value);
}

/** dhcpcd keeps the last answer as it came; option 51 says how long it holds from when it was written. */
export function parseRawLease(
  packet: Uint8Array,
  times: { readonly modifiedMs: number; readonly now: number },
): string | undefined {
  const endpoint = parseAnswer(packet).endpoint;
  if (endpoint === undefined) return undefined;
  const seconds = leaseSeconds(packet);
  if (seconds === undefined) return undefined;
  const valid = seconds === 0xffffffff || times.modifiedMs + seconds * 1000 > times.now;
  return valid ? endpoint : undefined;
}

function leaseSeconds(packet: Uint8Array): number | undefined {
  const value = findOption(packet, 51);
  return value?.length === 4 ? Buffer.from(value).readUInt32BE(0) : undefined;
}

/** `a8:3f:81:10`, `a83f8110`, a dotted quad, or four characters in quotes, which dhclient prefers when it can. */
function parseOptionValue(text: string): string | undefined {
  const value = text.trim().replace(/^(?:"(.*)"|'(.*)')$/s, (_, double: string, single: string) => {
    return double ?? single;
  });
  if (isPeerAddress(value)) return value;
  const hex = /^[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){3}$/.test(value)
    ? value
        .split(":")
        .map((byte) => byte.padStart(2, "0"))
        .join("")
    : value;
  if (/^[0-9a-fA-F]{8}$/.test(hex)) return toAddress(Buffer.from(hex, "hex"));
  if (/^"/.test(text.trim())) return toAddress(Buffer.from(unescapeOctal(value), "latin1"));
  return undefined;
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8) & 0xff),
  );
}

function toAddress(bytes: Uint8Array): string | undefined {
  if (bytes.length !== 4) return undefined;
  const address = dotted(bytes);
  return isPeerAddress(address) ? address : undefined;
}
