import { describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import { formatRecord, KVP_POOL } from "../../../src/provision/kvp.ts";
import { provision } from "../../../src/provision/provision.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  blobOf,
  configOf,
  createMachine,
  createPlatform,
  optionsOf,
  ovf,
  snapshot,
  VM_ID,
} from "./machine.ts";

const config = configOf({
  "Provisioning.Agent": "cloud-init",
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.DeleteRootPassword": true,
});
const COPY = "/var/lib/waagent/ovf-env.xml";
const HOST_KEY = "/etc/ssh/ssh_host_rsa_key.pub";

/** cloud-init's work, at seconds of the clock. */
function machine(plan: Readonly<Record<number, (system: FakeSystem) => void>> = {}): FakeSystem {
  const system = createMachine();
  system.files.makeDirectory("/run/cloud-init");
  system.files.write("/run/cloud-init/enabled", "");
  const sleep = system.clock.sleep.bind(system.clock);
  system.clock.sleep = async (ms, signal) => {
    await sleep(ms, signal);
    plan[system.clock.monotonic() / 1000]?.(system);
  };
  return system;
}

const writeCopy = (system: FakeSystem) =>
  system.files.write(COPY, ovf({ password: "s3cret" }), { mode: 0o644 });
const writeKey = (system: FakeSystem) =>
  system.files.write(HOST_KEY, `ssh-rsa ${blobOf("ssh-rsa", "k")}\n`);

const run = async (system: FakeSystem, platform = createPlatform()) => ({
  outcome: await provision(system, config, optionsOf(platform)),
  told: platform.told.filter((line) => !line.startsWith("fingerprint")),
});

describe("with cloud-init", () => {
  test("provisioning.md PROV-31 PROV-32 PROV-33 PROV-34 PROV-37: waits for document and host key, then says Ready", async () => {
    using system = machine({ 3: writeCopy, 5: writeKey });
    const before = snapshot(system);
    const { outcome, told } = await run(system);
    expect(outcome.status).toBe("provisioned");
    expect(system.clock.monotonic()).toBe(5000);
    expect(told).toEqual(["detect", "NotReady Provisioning Starting", "Ready"]);
    expect(
      system.events.map(({ operation, success, message }) => [operation, success, message]),
    ).toEqual([
      ["ProvisionGuestAgent", true, "true"],
      ["Provision", true, "Provisioning with cloud-init succeeded (123.45s)"],
    ]);
    const after = snapshot(system);
    const changed = Object.keys(after).filter((file) => after[file] !== before[file]);
    expect(changed.toSorted()).toEqual([HOST_KEY, COPY, "/var/lib/waagent/provisioned"]);
    expect(system.files.readText("/var/lib/waagent/provisioned")).toBe(VM_ID);
    // No program ran: nothing of users, keys, names or passwords was touched.
    expect(system.commands).toEqual([]);
  });

  test("provisioning.md DB-03: what cloud-init left unredacted does not stay so", async () => {
    using system = machine();
    writeCopy(system);
    writeKey(system);
    await run(system);
    expect(system.files.readText(COPY)).toContain("<UserPassword>*</UserPassword>");
    expect(system.files.stat(COPY)?.mode).toBe(0o600);
  });

  test("provisioning.md DB-27: a document that is still being written is read when it is whole", async () => {
    const text = ovf();
    using system = machine({
      1: (box) => box.files.write(COPY, text.slice(0, 100)),
      2: (box) => box.files.write(COPY, text.slice(0, 400)),
      3: (box) => box.files.write(COPY, text),
      4: (box) => box.files.write(HOST_KEY, "ssh-rsa AAA"),
      6: writeKey,
    });
    expect((await run(system)).outcome.status).toBe("provisioned");
    expect(system.clock.monotonic()).toBe(6000);
  });

  test("provisioning.md PROV-30: a provisioned machine is left alone", async () => {
    using system = machine();
    writeCopy(system);
    writeKey(system);
    await run(system);
    const { outcome, told } = await run(system);
    expect(outcome.status).toBe("already-provisioned");
    expect(told).toEqual([]);
  });

  test("provisioning.md PROV-18 PROV-31: a VM without agent is known before Ready", async () => {
    using system = machine();
    system.files.write(COPY, ovf({ guestAgent: "false" }));
    writeKey(system);
    await run(system);
    expect(system.files.stat("/var/lib/waagent/disable_agent")?.size).toBe(0);
  });

  test("provisioning.md PROV-31 PROV-35 PROV-36 ERR-09: after half an hour without a document that is told", async () => {
    using system = machine();
    const { outcome, told } = await run(system);
    const text = `[ProvisionError] Giving up on ${COPY}: cloud-init did not write it in 1800 s`;
    expect(outcome.failure).toBe(text);
    expect(told).toEqual([`NotReady ProvisioningFailed ${text}`]);
    expect(system.clock.monotonic()).toBe(1_800_000);
    expect(system.events).toMatchObject([
      {
        operation: "Provision",
        success: false,
        message: `Provisioning with cloud-init failed: ${text} (123.45s)`,
      },
    ]);
    const progress = system.lines.filter((line) => line.includes("Waiting for cloud-init"));
    expect(progress).toHaveLength(11);
    expect(system.files.exists("/var/lib/waagent/provisioned")).toBe(false);
  });

  test("provisioning.md PROV-33 ERR-09: a host key that never comes is told", async () => {
    using system = machine();
    writeCopy(system);
    const { outcome, told } = await run(system);
    expect(outcome.failure).toBe(
      `[ProvisionError] Giving up on the SSH host key ${HOST_KEY} after 1800 s`,
    );
    expect(told.slice(0, 2)).toEqual(["detect", "NotReady Provisioning Starting"]);
  });

  test("provisioning.md DB-25: when cloud-init has ended there is no waiting for what it did not leave", async () => {
    using system = machine({
      20: (box) =>
        box.files.write(
          "/run/cloud-init/result.json",
          '{"v1": {"datasource": null, "errors": ["no datasource"]}}',
        ),
    });
    expect((await run(system)).outcome.status).toBe("failed");
    expect(system.clock.monotonic()).toBe(30_000);
  });

  test("provisioning.md DB-25: after cloud-init's own Ready there is no NotReady", async () => {
    using system = machine();
    writeCopy(system);
    writeKey(system);
    system.files.makeDirectory("/var/lib/hyperv");
    const report = `result=success|agent=Cloud-Init/24.1|timestamp=x|vm_id=${VM_ID.toLowerCase()}`;
    system.files.append(KVP_POOL, formatRecord("PROVISIONING_REPORT", report));
    expect((await run(system)).told).toEqual(["detect", "Ready"]);
  });

  test("provisioning.md PROV-36: it is told when cloud-init looks disabled", async () => {
    using system = machine({ 2: writeCopy, 3: writeKey });
    system.files.write("/run/cloud-init/disabled", "");
    await run(system);
    expect(system.lines.filter((line) => line.startsWith("WARNING"))[0]).toContain(
      "cloud-init does not appear to be enabled: /run/cloud-init/disabled exists",
    );
  });

  test("provisioning.md PROV-35 DB-01: a platform that cannot be found fails the run instead of repeating it for ever", async () => {
    using system = machine();
    writeCopy(system);
    writeKey(system);
    const platform = createPlatform({
      detect: () => Promise.reject(new AgentError("protocol-not-found", "none")),
    });
    const { outcome } = await run(system, platform);
    expect(outcome).toMatchObject({ status: "failed", failure: "[ProtocolNotFoundError] none" });
    expect(await outcome.unreported!()).toBe(false);
  });
});
