import { describe, expect, test } from "bun:test";
import { AgentError } from "../../../src/base/error.ts";
import type { Config } from "../../../src/config/table.ts";
import { readProvisioningReport } from "../../../src/provision/kvp.ts";
import type { ProvisionOptions } from "../../../src/provision/outcome.ts";
import { provision } from "../../../src/provision/provision.ts";
import { STEPS } from "../../../src/provision/steps.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  CERTIFICATE,
  configOf,
  createMachine,
  createPlatform,
  distroOf,
  ED25519_KEY,
  insertDvd,
  optionsOf,
  ovf,
  snapshot,
  sshKeys,
  VM_ID,
  type FakePlatform,
} from "./machine.ts";

const config = configOf({
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.DeleteRootPassword": true,
});
const DOCUMENT = ovf({
  password: "s3cret",
  more: `${sshKeys(ED25519_KEY)}<CustomData>aGVsbG8=</CustomData>`,
});
const KEY_TOLD = /^fingerprint SHA256/;

async function run(
  system: FakeSystem,
  changes: Partial<ProvisionOptions> & { config?: Config; platform?: FakePlatform } = {},
) {
  const platform = changes.platform ?? createPlatform();
  const outcome = await provision(system, changes.config ?? config, optionsOf(platform, changes));
  return { outcome, told: platform.told };
}

describe("provisioning from the DVD", () => {
  test("provisioning.md PROV-08 PROV-09 PROV-10 PROV-11 PROV-12 PROV-13 PROV-14 PROV-15 PROV-16 PROV-19 HLTH-02 LOG-06: the whole machine, in order", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    const steps: string[] = [];
    const { outcome, told } = await run(system, {
      distro: distroOf("Default", { restartSsh: ["systemctl", "restart", "sshd"] }),
      publishHostName: async (name) => void steps.push(`published ${name}`),
      afterStep: (name) => void steps.push(name),
    });
    expect(outcome).toEqual({ status: "provisioned", failure: undefined, unreported: undefined });
    expect(told).toEqual([
      "detect",
      "NotReady Provisioning Starting",
      expect.stringMatching(KEY_TOLD),
      "Ready",
    ]);
    expect(steps).toEqual([
      "read-document",
      "identify",
      "report-starting",
      "host-name",
      "published vm01",
      "publish-host-name",
      "user",
      "password",
      "eject",
      "sudo",
      "sshd",
      "public-keys",
      "key-pairs",
      "save-custom-data",
      "run-custom-data",
      "root-password",
      "host-keys",
      "restart-ssh",
      "detect",
      "marker",
      "guest-agent",
      "report-ready",
    ]);
    const { files } = system;
    expect(files.readText("/etc/hostname")).toBe("vm01");
    expect(files.readText("/etc/passwd")).toContain("\nalice:x:");
    expect(files.readText("/etc/shadow")).toMatch(
      /^root:\*LOCK\*:14600::::::\n[\s\S]*\nalice:\$6\$/,
    );
    expect(files.readText("/etc/sudoers.d/waagent")).toBe("alice ALL=(ALL) ALL\n");
    expect(files.readText("/home/alice/.ssh/authorized_keys")).toBe(`${ED25519_KEY}\n`);
    expect(files.readText("/var/lib/waagent/CustomData")).toBe("aGVsbG8=");
    expect(files.readText("/var/lib/waagent/provisioned")).toBe(VM_ID);
    expect(files.readText("/var/lib/waagent/ovf-env.xml")).not.toContain("s3cret");
    expect(files.exists("/var/lib/waagent/provisioning.json")).toBe(false);
    expect(files.list("/etc/ssh").filter((name) => name.endsWith(".pub"))).toHaveLength(3);
    expect(system.commands).toContainEqual(["eject", "/dev/sr0"]);
    expect(system.lines.at(-1)).toBe("INFO ExtHandler ExtHandler Provisioning complete");
  });

  test("provisioning.md PROV-09 PROV-12 SSH-25: users do not wait for certificates, keys by thumbprint and Ready do", async () => {
    for (const [key, reached] of [
      [`<Value>${ED25519_KEY}</Value>`, "restart-ssh"],
      [`<Fingerprint>${"AB".repeat(20)}</Fingerprint>`, "sshd"],
    ] as const) {
      using system = createMachine();
      insertDvd(system, DOCUMENT.replace(/<Value>.*?<\/Value>/, key));
      const certificates = Promise.withResolvers<void>();
      const platform = createPlatform({
        identify: async () => {},
        detect: () => certificates.promise,
      });
      const steps: string[] = [];
      const arrived = Promise.withResolvers<void>();
      const running = provision(
        system,
        config,
        optionsOf(platform, {
          afterStep: (name) => {
            steps.push(name);
            if (name === reached) arrived.resolve();
          },
        }),
      );
      await arrived.promise;
      await Bun.sleep(20);
      expect(steps.at(-1)).toBe(reached);
      expect(platform.told).toEqual(["NotReady Provisioning Starting"]);
      if (reached === "sshd")
        system.files.write(`/var/lib/waagent/${"AB".repeat(20)}.crt`, CERTIFICATE);
      certificates.resolve();
      expect((await running).status).toBe("provisioned");
      expect(platform.told.at(-1)).toBe("Ready");
    }
  });

  test("provisioning.md PROV-17 PROV-18 LOG-14: two events on success, with the seconds since boot", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    await run(system);
    expect(system.events).toMatchObject([
      {
        name: "WALinuxAgent",
        operation: "Provision",
        success: true,
        message: "Provisioning succeeded (123.45s)",
      },
      {
        name: "WALinuxAgent",
        operation: "ProvisionGuestAgent",
        success: true,
        message: "true",
        durationMs: 0,
      },
    ]);
    expect(system.events[0]?.message).toMatch(/Provisioning succeeded \(\d+\.\d+s\)/);
    system.files.remove("/proc/uptime");
  });

  test("provisioning.md PROV-12 OVF-16 USER-20: without a password none is set, and sudo does not ask", async () => {
    using system = createMachine();
    insertDvd(system, ovf({ more: sshKeys(ED25519_KEY) }));
    await run(system);
    expect(system.files.readText("/etc/shadow")).toContain("\nalice:!:");
    expect(system.commands.map(([program]) => program)).not.toContain("chpasswd");
    expect(system.files.readText("/etc/sudoers.d/waagent")).toBe("alice ALL=(ALL) NOPASSWD: ALL\n");
  });

  test("provisioning.md PROV-18 LOG-04: a VM without agent gets the empty disable_agent, before Ready", async () => {
    using system = createMachine();
    insertDvd(system, ovf({ guestAgent: "False" }));
    const { told } = await run(system);
    expect(system.files.stat("/var/lib/waagent/disable_agent")?.size).toBe(0);
    expect(system.lines).toContain(
      "WARNING ExtHandler ExtHandler Disabling guest agent in accordance with ovf-env.xml",
    );
    expect(system.events[1]).toMatchObject({ operation: "ProvisionGuestAgent", message: "False" });
    expect(told.at(-1)).toBe("Ready");
  });

  test("provisioning.md PROV-06: the second start does nothing at all", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    await run(system);
    const before = snapshot(system);
    system.commands.length = 0;
    system.events.length = 0;
    const { outcome, told } = await run(system);
    expect(outcome.status).toBe("already-provisioned");
    expect(told).toEqual([]);
    expect(system.commands).toEqual([]);
    expect(system.events).toEqual([]);
    expect(snapshot(system)).toEqual(before);
    expect(system.lines.at(-1)).toBe(
      "INFO ExtHandler ExtHandler Provisioning already completed, skipping.",
    );
  });

  test("provisioning.md PROV-05 ID-03 HLTH-02: disabled, the marker is written and Ready told at every start", async () => {
    using system = createMachine();
    const off = configOf({ "Provisioning.Agent": "disabled" });
    for (let start = 0; start < 2; start += 1) {
      const { outcome, told } = await run(system, { config: off });
      expect(outcome.status).toBe("disabled");
      expect(told).toEqual(["detect", "Ready"]);
      expect(system.files.readText("/var/lib/waagent/provisioned")).toBe(VM_ID);
    }
    expect(system.commands).toEqual([]);
  });

  test("provisioning.md PROV-07 ERR-08: an order for the agent while cloud-init is enabled fails", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    system.files.makeDirectory("/run/cloud-init");
    system.files.write("/run/cloud-init/enabled", "");
    const { outcome, told } = await run(system, {
      config: configOf({ "Provisioning.Agent": "waagent" }),
    });
    expect(outcome.status).toBe("failed");
    expect(told).toEqual([
      "NotReady ProvisioningFailed [ProvisionError] cloud-init appears to be enabled (/run/cloud-init/enabled exists), this is not expected with Provisioning.Agent=waagent",
    ]);
    expect(system.files.exists("/etc/hostname")).toBe(false);
  });

  test("provisioning.md SSH-16: the SSH service is restarted after the host keys, by the adapter's command; its failure is a warning", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    system.programs.set("systemctl", () => ({ code: 1, stderr: "no systemd" }));
    const restartSsh = ["systemctl", "restart", "sshd"];
    const { outcome } = await run(system, { distro: distroOf("Default", { restartSsh }) });
    expect(outcome.status).toBe("provisioned");
    const last = (name: string) => system.commands.findLastIndex(([program]) => program === name);
    expect(system.commands[last("systemctl")]).toEqual(restartSsh);
    expect(last("systemctl")).toBeGreaterThan(last("ssh-keygen"));
    using quiet = createMachine();
    insertDvd(quiet, DOCUMENT);
    quiet.programs.set("systemctl", () => ({ code: 1 }));
    await run(quiet, { distro: distroOf("Default", { restartSsh: undefined }) });
    expect(quiet.commands).not.toContainEqual(restartSsh);
  });

  test("provisioning.md DB-37: a name that cannot be published is told and does not cost the VM", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    const { outcome } = await run(system, {
      publishHostName: () => Promise.reject(new AgentError("dhcp", "no interface")),
    });
    expect(outcome.status).toBe("provisioned");
    expect(system.events[0]).toMatchObject({ operation: "HostnamePublishing", success: false });
  });
});

describe("the host's pool", () => {
  const machine = (): FakeSystem => {
    const system = createMachine();
    system.files.makeDirectory("/var/lib/hyperv");
    insertDvd(system, DOCUMENT);
    return system;
  };

  test("system.md PEER-03 PEER-05: the outcome is there before the platform is told, with the host keys' fingerprints", async () => {
    using system = machine();
    const atReport: (string | undefined)[] = [];
    const note = async (): Promise<boolean> => {
      atReport.push(readProvisioningReport(system));
      return true;
    };
    const platform = createPlatform({ reportNotReady: note, reportReady: note });
    await run(system, { platform });
    expect(atReport[0]).toBeUndefined();
    expect(atReport[1]).toMatch(
      /^result=success\|agent=WALinuxAgent\/2\.15\.0\.1\|.*\|ssh_rsa=SHA256:[A-Za-z0-9+/]{43}$/,
    );
    expect(atReport).toHaveLength(2);
  });

  test("system.md PEER-05: a failure has the same words there", async () => {
    using system = machine();
    system.programs.set("useradd", () => ({ code: 12, stderr: "disk full" }));
    const { outcome } = await run(system);
    const report = readProvisioningReport(system);
    expect(report).toStartWith("result=error|");
    expect(report).toContain(outcome.failure!.split("\n")[0]!);
    expect(report).toContain("documentation_url=https://aka.ms/linuxprovisioningerror");
  });
});

describe("failures", () => {
  const failure = async (change: (system: FakeSystem) => void, document = DOCUMENT) => {
    const system = createMachine();
    insertDvd(system, document);
    change(system);
    const { outcome, told } = await run(system);
    return { system, outcome, told };
  };

  test.each<[string, (system: FakeSystem) => void, string | undefined, string]>([
    [
      "ERR-01: there is no DVD",
      (system) => system.files.remove("/dev/sr0"),
      undefined,
      "[ProtocolError] [CopyOvfEnv] Could not read the provisioning document from the DVD\nInner error: There is no DVD device",
    ],
    [
      "ERR-02: a required element is missing",
      () => {},
      ovf({ guestAgent: "" }),
      "[ProtocolError] [CopyOvfEnv] Could not read the provisioning document from the DVD\nInner error: ProvisionGuestAgent not found",
    ],
    [
      "ERR-03: useradd fails",
      (system) => void system.programs.set("useradd", () => ({ code: 12, stderr: "disk full" })),
      undefined,
      "[ProvisionError] Failed to provision: [OSUtilError] Failed to create the user account alice\nInner error: useradd -m alice failed with exit code 12: disk full",
    ],
    [
      "ERR-04: the user is a system user",
      () => {},
      ovf({ userName: "daemon", password: "s3cret" }),
      "[ProvisionError] Failed to provision: [OSUtilError] User daemon is a system user, its password will not be set",
    ],
    [
      "ERR-05: no key can be installed",
      () => {},
      ovf({ more: sshKeys("rsa AAAA") }),
      "[ProvisionError] Failed to provision: [OSUtilError] No SSH public key could be installed",
    ],
    [
      "ERR-07: there is no host key to tell of",
      (system) => void system.programs.set("ssh-keygen", () => ({})),
      undefined,
      "[ProvisionError] There is no SSH host key /etc/ssh/ssh_host_rsa_key.pub",
    ],
    [
      "DB-01: a document that is not XML",
      () => {},
      "half <wri",
      "[ProtocolError] [CopyOvfEnv] Could not read the provisioning document from the DVD\nInner error: ovf-env.xml is not XML",
    ],
    [
      "DB-02: an impossible host name",
      () => {},
      ovf({ hostName: "bad_name!" }),
      '[ProtocolError] [CopyOvfEnv] Could not read the provisioning document from the DVD\nInner error: ovf-env.xml: HostName "bad_name!" cannot be used',
    ],
    [
      "DB-01: sshd_config is a directory",
      (system) => {
        system.files.remove("/etc/ssh/sshd_config");
        system.files.makeDirectory("/etc/ssh/sshd_config");
      },
      undefined,
      "[ProvisionError] Failed to provision: [OSUtilError] Could not read /etc/ssh/sshd_config",
    ],
  ])(
    "provisioning.md PROV-20 HLTH-02 ERR-01 ERR-02 ERR-03 ERR-04 ERR-05 ERR-07 DB-01 DB-02: %s, and that is told",
    async (_, change, document, expected) => {
      const { system, outcome, told } = await failure(change, document ?? DOCUMENT);
      using __ = system;
      expect(outcome.status).toBe("failed");
      expect(outcome.failure).toStartWith(expected);
      expect(told.at(-1)).toBe(`NotReady ProvisioningFailed ${outcome.failure}`);
      expect(told.filter((line) => line === "Ready")).toEqual([]);
      expect(system.files.exists("/var/lib/waagent/provisioned")).toBe(false);
      const events = system.events.filter(({ operation }) => operation === "Provision");
      expect(events).toHaveLength(1);
      expect(events[0]).toMatchObject({
        success: false,
        message: `Provisioning failed: ${outcome.failure} (123.45s)`,
      });
      expect(system.lines.filter((line) => line.startsWith("ERROR"))).toHaveLength(1);
      expect(
        JSON.stringify([
          told,
          system.events,
          system.lines,
          system.commands,
          snapshot(system)["/var/lib/waagent/ovf-env.xml"],
        ]),
      ).not.toContain("s3cret");
    },
  );

  test("provisioning.md DB-01 CD-02: custom data that is not base64 is told, and nothing later is done", async () => {
    using system = createMachine();
    insertDvd(system, ovf({ more: "<CustomData>CustomData</CustomData>" }));
    const decode = configOf({ ...config, "Provisioning.DecodeCustomData": true });
    const { outcome } = await run(system, { config: decode });
    expect(outcome.failure).toBe(
      "[ProvisionError] Failed to provision: [OSUtilError] CustomData is not base64: its padding is wrong",
    );
    expect(system.files.readText("/etc/shadow")).toStartWith("root:$6$old");
    expect(system.files.list("/etc/ssh")).toEqual(["sshd_config"]);
  });

  test("provisioning.md DB-01: a secret that a program repeats is taken out of what is told", async () => {
    const { system, outcome } = await failure(
      (machine) =>
        void machine.programs.set("visudo", () => ({ code: 1, stderr: "unexpected s3cret here" })),
    );
    using _ = system;
    expect(outcome.failure).toContain("unexpected [secret] here");
  });

  test("provisioning.md ERR-10 PROV-20: a platform that cannot be found is told later", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    let isThere = false;
    const platform = createPlatform({
      detect: async () => {
        if (!isThere) throw new AgentError("protocol-not-found", "No WireServer answered");
      },
    });
    const { outcome, told } = await run(system, { platform });
    expect(outcome).toMatchObject({
      status: "failed",
      failure: "[ProtocolNotFoundError] No WireServer answered",
    });
    expect(told).toEqual([]);
    expect(await outcome.unreported!()).toBe(false);
    isThere = true;
    expect(await outcome.unreported!()).toBe(true);
    expect(told).toEqual([
      "NotReady ProvisioningFailed [ProtocolNotFoundError] No WireServer answered",
    ]);
  });

  test("an agent that is being ended tells no failure, and the next start goes on", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    const ending = createPlatform({
      detect: () => Promise.reject(new AgentError("cancelled", "The wait was cancelled")),
    });
    const ended = provision(system, config, optionsOf(ending));
    await expect(ended).rejects.toThrow("The wait was cancelled");
    expect(ending.told).toEqual([]);
    expect(system.events).toEqual([]);
    expect(system.files.list("/etc/ssh")).toEqual(["sshd_config"]);
    expect((await run(system)).outcome.status).toBe("provisioned");
  });

  test("provisioning.md LIFE-07 ERR-11: the next start goes on where it failed, and then the platform hears Ready", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    system.programs.set("visudo", () => ({ code: 1, stderr: "broken" }));
    const first = await run(system);
    expect(first.outcome.status).toBe("failed");
    // By now the DVD is gone, and the password with it.
    system.files.remove("/dev/sr0");
    const useradds = system.commands.filter(([program]) => program === "useradd").length;
    system.programs.set("visudo", () => ({}));
    const second = await run(system);
    expect(second.outcome.status).toBe("provisioned");
    expect(second.told.at(-1)).toBe("Ready");
    expect(system.files.readText("/etc/sudoers.d/waagent")).toBe("alice ALL=(ALL) ALL\n");
    expect(system.commands.filter(([program]) => program === "useradd")).toHaveLength(useradds);
    expect(system.files.exists("/var/lib/waagent/provisioning.json")).toBe(false);
  });

  test("provisioning.md HLTH-07 DB-23: when Ready cannot be told the marker stays, and the next start tells it", async () => {
    using system = createMachine();
    insertDvd(system, DOCUMENT);
    const deaf = createPlatform({
      reportReady: () => Promise.reject(new AgentError("http", "no answer")),
    });
    const { outcome } = await run(system, { platform: deaf });
    expect(outcome.status).toBe("provisioned");
    expect(outcome.unreported).toBeDefined();
    expect(system.files.readText("/var/lib/waagent/provisioned")).toBe(VM_ID);
    expect(system.events.at(-1)).toMatchObject({ operation: "Provision", success: false });
    const { told } = await run(system);
    expect(told).toEqual(["detect", expect.stringMatching(KEY_TOLD), "Ready"]);
    expect((await run(system)).told).toEqual([]);
  });

  test("provisioning.md DB-25: a document whose password was already taken out is refused, not half used", async () => {
    using system = createMachine();
    insertDvd(system, ovf({ password: "*" }));
    const { outcome } = await run(system);
    expect(outcome.failure).toContain("a placeholder in the place of the password");
  });
});

describe("interrupted runs", () => {
  const points = [
    "read-document",
    "detect",
    "report-starting",
    ...STEPS.map(({ name }) => name),
    "marker",
    "guest-agent",
    "report-ready",
  ];

  /** Fields that differ from run to run: salts. */
  const settled = (system: FakeSystem) =>
    Object.fromEntries(
      Object.entries(snapshot(system)).map(([file, text]) => [
        file,
        text.replace(/\$6\$[^:\n]+/g, "$6$"),
      ]),
    );

  let end: Record<string, string> | undefined;
  const uninterrupted = async () => {
    if (end !== undefined) return end;
    using whole = createMachine();
    insertDvd(whole, DOCUMENT);
    await run(whole);
    return (end = settled(whole));
  };

  test.each(points)(
    "provisioning.md DB-27 DB-23: after %s, the next start ends as if nothing had been",
    async (point) => {
      using system = createMachine();
      insertDvd(system, DOCUMENT);
      const platform = createPlatform();
      let atThatInstant: FakeSystem | undefined;
      await provision(
        system,
        config,
        optionsOf(platform, {
          afterStep: (name) => {
            if (name !== point || atThatInstant !== undefined) return;
            atThatInstant = copyOf(system);
            throw new AgentError("cancelled", "power cut");
          },
        }),
      ).catch(() => {});
      using machine = atThatInstant!;
      const { outcome, told } = await run(machine);
      expect(["provisioned", "already-provisioned"]).toContain(outcome.status);
      expect(settled(machine)).toEqual(await uninterrupted());
      const story = [
        ...platform.told.filter((line) => !line.includes("ProvisioningFailed")),
        ...told,
      ].filter((line) => line !== "detect" && !KEY_TOLD.test(line));
      const firstReady = story.indexOf("Ready");
      expect(firstReady).toBeGreaterThan(-1);
      expect(story.slice(firstReady).every((line) => line === "Ready")).toBe(true);
    },
  );

  /** The files as they are at this instant, on a machine of their own. */
  function copyOf(system: FakeSystem): FakeSystem {
    const copy = createMachine();
    Bun.spawnSync([
      "sh",
      "-c",
      `rm -rf "$2"/* && cp -a "$1"/. "$2"/`,
      "sh",
      system.root.directory,
      copy.root.directory,
    ]);
    return copy;
  }
});
