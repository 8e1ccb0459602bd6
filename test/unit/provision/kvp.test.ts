import { describe, expect, test } from "bun:test";
import {
  formatRecord,
  formatReport,
  KVP_POOL,
  parsePool,
  readProvisioningReport,
  writeProvisioningReport,
} from "../../../src/provision/kvp.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { createMachine, VM_ID } from "./machine.ts";

const facts = { agent: "WALinuxAgent/2.15.0.1", vmId: VM_ID };
const at = { ...facts, epochMs: Date.UTC(2030, 0, 2, 3, 4, 5) };

function machine(): FakeSystem {
  const system = createMachine();
  system.files.makeDirectory("/var/lib/hyperv");
  return system;
}

describe("the provisioning report", () => {
  test("system.md PEER-05: success and failure in their order of fields", () => {
    expect(formatReport({ result: "success", fields: { ssh_rsa: "SHA256:x" } }, at)).toBe(
      `result=success|agent=WALinuxAgent/2.15.0.1|pps_type=None|vm_id=${VM_ID}|timestamp=2030-01-02T03:04:05Z|ssh_rsa=SHA256:x`,
    );
    expect(formatReport({ result: "error", reason: 'no "DVD" | none' }, at)).toBe(
      `result=error|"reason=no ""DVD"" | none"|agent=WALinuxAgent/2.15.0.1|pps_type=None|vm_id=${VM_ID}|timestamp=2030-01-02T03:04:05Z|documentation_url=https://aka.ms/linuxprovisioningerror`,
    );
  });

  test("system.md PEER-02 PEER-05: a long reason is cut, whole characters only; what identifies the report stays", () => {
    const text = formatReport({ result: "error", reason: 'é"'.repeat(2000) }, at);
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1022);
    expect(Buffer.byteLength(text)).toBeGreaterThan(950);
    expect(text).toContain(`|vm_id=${VM_ID}|`);
    expect(text).not.toContain("\uFFFD");
  });

  test("system.md PEER-02: a record is 512 bytes of key and 2048 of value, padded with zeros", () => {
    const record = formatRecord("KEY", "välue");
    expect(record).toHaveLength(2560);
    expect(Buffer.from(record.subarray(0, 4)).toString()).toBe("KEY\0");
    expect(Buffer.from(record.subarray(512, 519)).toString()).toBe("välue\0");
    expect(parsePool(record)).toEqual([{ key: "KEY", value: "välue" }]);
    expect(parsePool(formatRecord("k".repeat(300), "v".repeat(3000)))[0]).toEqual({
      key: "k".repeat(254),
      value: "v".repeat(1022),
    });
  });
});

describe("the pool", () => {
  /** flock and dd as they are, on the fake machine's files. */
  function withPrograms(system: FakeSystem): void {
    const real = (argv: readonly string[], stdin: string) => {
      const child = Bun.spawnSync([...argv], { stdin: Buffer.from(stdin) });
      return { code: child.exitCode, stderr: child.stderr.toString() };
    };
    system.programs.set("flock", real);
    system.programs.set("dd", real);
  }

  test("system.md PEER-01 PEER-03 PEER-05: made with mode 0600, other records stay, the last write wins", async () => {
    using system = machine();
    withPrograms(system);
    await writeProvisioningReport(system, { result: "error", reason: "first" }, facts);
    expect(KVP_POOL).toBe("/var/lib/hyperv/.kvp_pool_1");
    expect(system.files.stat(KVP_POOL)?.mode).toBe(0o600);
    system.files.append(KVP_POOL, formatRecord("OTHER", "kept"));
    await writeProvisioningReport(system, { result: "success", fields: {} }, facts);
    const pool = parsePool(system.files.read(KVP_POOL));
    expect(pool.map(({ key }) => key)).toEqual(["PROVISIONING_REPORT", "OTHER"]);
    expect(pool[0]?.value).toStartWith(
      `result=success|agent=WALinuxAgent/2.15.0.1|pps_type=None|vm_id=${VM_ID.toLowerCase()}|`,
    );
    expect(readProvisioningReport(system)).toBe(pool[0]!.value);
    expect(system.commands.at(-1)?.slice(0, 3)).toEqual(["flock", "-w", "10"]);
  });

  test("system.md PEER-04: records from before this boot are dropped once", async () => {
    using system = machine();
    withPrograms(system);
    system.files.write("/proc/stat", "cpu 1\nbtime 2000\n");
    system.files.append(KVP_POOL, formatRecord("OLD", "x"));
    system.files.setTimes(KVP_POOL, 1_999_000);
    await writeProvisioningReport(system, { result: "success", fields: {} }, facts);
    expect(parsePool(system.files.read(KVP_POOL)).map(({ key }) => key)).toEqual([
      "PROVISIONING_REPORT",
    ]);
    await writeProvisioningReport(system, { result: "error", reason: "x" }, facts);
    expect(parsePool(system.files.read(KVP_POOL))).toHaveLength(1);
  });

  test("without the lock's program one record is added by one write; the last one counts", async () => {
    using system = machine();
    await writeProvisioningReport(system, { result: "error", reason: "x" }, facts);
    await writeProvisioningReport(system, { result: "success", fields: {} }, facts);
    expect(parsePool(system.files.read(KVP_POOL))).toHaveLength(2);
    expect(readProvisioningReport(system)).toStartWith("result=success");
  });

  test("without Hyper-V nothing is written; a pool that cannot be is a warning", async () => {
    using system = createMachine();
    await writeProvisioningReport(system, { result: "success", fields: {} }, facts);
    expect(system.files.exists("/var/lib/hyperv")).toBe(false);
    system.files.makeDirectory("/var/lib/hyperv/.kvp_pool_1");
    await writeProvisioningReport(system, { result: "success", fields: {} }, facts);
    expect(system.lines[0]).toContain("The provisioning report was not left for the host");
  });
});
