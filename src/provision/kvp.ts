import { AgentError, describe } from "../base/error.ts";
import { formatTimestamp0 } from "../base/time.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { readReportedVmId } from "./vm-id.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

/** Guest to host (`system.md` PEER-01). The Hyper-V daemon makes its directory. */
export const KVP_POOL = "/var/lib/hyperv/.kvp_pool_1";
const DIRECTORY = "/var/lib/hyperv";
const KEY_SIZE = 512;
const RECORD_SIZE = 2560;
const MAX_RECORDS = 1024;
/** Bytes of UTF-8 that reach the host uncut (PEER-02). */
const MAX_VALUE = 1022;
const REPORT_KEY = "PROVISIONING_REPORT";
const DOCUMENTATION = "https://aka.ms/linuxprovisioningerror";
const LOCK_WAIT_S = "10";

export type ProvisioningReport =
  | { readonly result: "success"; readonly fields: Readonly<Record<string, string>> }
  | { readonly result: "error"; readonly reason: string };

/** `|`-separated fields, quoted as CSV where needed, cut to what the host can take (PEER-05). */
export function formatReport(
  report: ProvisioningReport,
  facts: { readonly agent: string; readonly vmId: string; readonly epochMs: number },
): string {
  const timestamp = formatTimestamp0(facts.epochMs);
  const fields: [string, string][] =
    report.result === "success"
      ? [
          ["result", "success"],
          ["agent", facts.agent],
          ["pps_type", "None"],
          ["vm_id", facts.vmId],
          ["timestamp", timestamp],
          ...Object.entries(report.fields),
        ]
      : [
          ["result", "error"],
          ["reason", report.reason],
          ["agent", facts.agent],
          ["pps_type", "None"],
          ["vm_id", facts.vmId],
          ["timestamp", timestamp],
          ["documentation_url", DOCUMENTATION],
        ];
  const text = (reason: number): string =>
    fields
      .map(([key, value]) => quoted(`${key}=${key === "reason" ? cut(value, reason) : value}`))
      .join("|");
  // The reason gives way, so that what identifies the report survives.
  for (let room = MAX_VALUE; room > 0; room -= 16) {
    const whole = text(room);
    if (Buffer.byteLength(whole) <= MAX_VALUE) return whole;
  }
  return cut(text(0), MAX_VALUE);
}

function quoted(field: string): string {
  return /[|'"\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;
}

/** At most `size` bytes of UTF-8, never half a character. */
function cut(text: string, size: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= size) return text;
  return new TextDecoder().decode(bytes.subarray(0, size)).replace(/\uFFFD+$/, "");
}

/** One record: key and value padded with zeros to 512 and 2048 bytes (PEER-02). */
export function formatRecord(key: string, value: string): Uint8Array {
  const record = new Uint8Array(RECORD_SIZE);
  record.set(new TextEncoder().encode(cut(key, 254)), 0);
  record.set(new TextEncoder().encode(cut(value, MAX_VALUE)), KEY_SIZE);
  return record;
}

/** Keys and values of a pool file; a torn record at the end is left out. */
export function parsePool(bytes: Uint8Array): { readonly key: string; readonly value: string }[] {
  const text = (from: number, to: number): string =>
    Buffer.from(bytes.subarray(from, to))
      .toString("utf8")
      .replace(/\0[\s\S]*$/, "");
  return Array.from({ length: Math.floor(bytes.length / RECORD_SIZE) }, (_, index) => {
    const at = index * RECORD_SIZE;
    return {
      key: text(at, at + KEY_SIZE),
      value: text(at + KEY_SIZE, at + RECORD_SIZE),
    };
  });
}

/**
 * Leaves the outcome for the host, which reads it when the health report comes in (PEER-03), so call it before
 * that. Does nothing on machines without the Hyper-V exchange; a failure is a WARNING.
 */
export async function writeProvisioningReport(
  system: Machine,
  report: ProvisioningReport,
  facts: { readonly agent: string },
): Promise<void> {
  if (!system.files.exists(DIRECTORY)) return;
  try {
    const value = formatReport(report, {
      agent: facts.agent,
      vmId: readReportedVmId(system),
      epochMs: system.clock.now(),
    });
    await putRecord(system, REPORT_KEY, value);
  } catch (error) {
    system.log.warning(`The provisioning report was not left for the host: ${describe(error)}`);
  }
}

/** The last provisioning report in the pool, whoever wrote it. */
export function readProvisioningReport(system: Pick<System, "files">): string | undefined {
  if (!system.files.exists(KVP_POOL)) return undefined;
  return parsePool(system.files.read(KVP_POOL)).findLast((record) => record.key === REPORT_KEY)
    ?.value;
}

async function putRecord(system: Machine, key: string, value: string): Promise<void> {
  if (isFromEarlierBoot(system))
    await underLock(system, ["truncate", "-s", "0", system.files.realPath(KVP_POOL)]);
  const records = system.files.exists(KVP_POOL) ? parsePool(system.files.read(KVP_POOL)) : [];
  const at = records.findLastIndex((record) => record.key === key);
  if (at < 0 && records.length >= MAX_RECORDS)
    throw new AgentError("refused", `${KVP_POOL} is full`);
  const record = formatRecord(key, value);
  if (!system.files.exists(KVP_POOL)) {
    system.files.append(KVP_POOL, record, { mode: 0o600 });
    return;
  }
  if (system.exec.find("flock") === undefined) {
    // Without the lock only one single write at the end is safe; readers take the last record of a key.
    system.files.append(KVP_POOL, record);
    return;
  }
  const place = at < 0 ? ["oflag=append"] : [`seek=${at}`];
  await underLock(
    system,
    [
      "dd",
      `of=${system.files.realPath(KVP_POOL)}`,
      `bs=${RECORD_SIZE}`,
      "conv=notrunc",
      "status=none",
      ...place,
    ],
    record,
  );
}

/** `flock` holds the lock that cloud-init and azure-init take, for as long as the program runs (PEER-03). */
async function underLock(
  system: Machine,
  argv: readonly string[],
  stdin?: Uint8Array,
): Promise<void> {
  const lock =
    system.exec.find("flock") === undefined
      ? []
      : ["flock", "-w", LOCK_WAIT_S, system.files.realPath(KVP_POOL)];
  await system.exec.run({ argv: [...lock, ...argv], stdin });
}

/** PEER-04: records of the time before this boot mean nothing to the host any more. */
function isFromEarlierBoot(system: Pick<System, "files">): boolean {
  const pool = system.files.stat(KVP_POOL as SystemPath);
  const seconds = /^btime (\d+)$/m.exec(system.files.readTextIfExists("/proc/stat") ?? "")?.[1];
  return pool !== undefined && seconds !== undefined && pool.modifiedMs <= Number(seconds) * 1000;
}
