import { describe, expect, test } from "bun:test";
import type { Config } from "../../../src/config/table.ts";
import type { Distro } from "../../../src/distro/distro.ts";
import { describeAction } from "../../../src/provision/deprovision-actions.ts";
import { planDeprovision } from "../../../src/provision/deprovision-plan.ts";
import { runDeprovision, type Terminal } from "../../../src/provision/deprovision.ts";
import { provision } from "../../../src/provision/provision.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import {
  append,
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
} from "./machine.ts";

const config = configOf({
  "Provisioning.RegenerateSshHostKeyPair": true,
  "Provisioning.DeleteRootPassword": true,
});
const distro = distroOf("DebianModern");

const TRACES: readonly SystemPath[] = [
  "/var/lib/dhcp/dhclient.eth0.leases",
  "/var/lib/dhclient/dhclient-eth0.lease",
  "/var/lib/dhcpcd/eth0.lease",
  "/var/db/dhclient.leases.eth0",
  "/var/lib/NetworkManager/dhclient-1-eth0.lease",
  "/var/lib/NetworkManager/internal-1-eth0.lease",
  "/run/systemd/netif/leases/2",
  "/root/.bash_history",
  "/root/.zsh_history",
  "/var/log/waagent.log",
  "/var/log/waagent.log.1",
  "/var/log/waagent.log-2030-01-01-1.gz",
  "/var/log/azure/Ext/CommandExecution.log",
  "/etc/random.seed",
  "/etc/iked/local.pub",
  "/etc/resolv.conf",
  "/lib/systemd/system/walinuxagent-network-setup.service",
  "/lib/systemd/system/walinuxagent.service.d/12-CPUQuota.conf",
  "/lib/systemd/system/azure-walinuxagent-logcollector.slice",
  "/var/lib/waagent/AAAA.prv",
  "/var/lib/waagent/Ext-1.0/config/0.settings",
  "/etc/ssh/ssh_host_rsa_key-cert.pub",
  "/var/lib/systemd/random-seed",
  "/var/lib/hyperv/.kvp_pool_1",
  "/etc/shadow-",
  "/var/log/journal/0123/system.journal",
  "/var/spool/cron/crontabs/alice",
];
const KEPT: readonly SystemPath[] = [
  "/var/log/other.log",
  "/lib/systemd/system/walinuxagent.service",
  "/lib/systemd/system/walinuxagent.service.d/90-mine.conf",
  "/home/bob/file",
  "/etc/sudoers.d/other",
  "/var/lib/NetworkManager/secret_key",
];

async function provisioned(): Promise<FakeSystem> {
  const system = createMachine();
  insertDvd(system, ovf({ password: "s3cret", more: sshKeys(ED25519_KEY) }));
  await provision(system, config, optionsOf(createPlatform(), { distro }));
  for (const file of [...TRACES, ...KEPT]) {
    system.files.makeDirectory(file.slice(0, file.lastIndexOf("/")) as SystemPath, {
      keepMode: true,
    });
    system.files.write(file, "x", { durable: false });
  }
  system.files.write("/etc/machine-id", "0123456789abcdef\n", { mode: 0o444 });
  system.programs.set("systemctl", () => ({}));
  system.files.remove("/media");
  Bun.spawnSync(["mkfifo", system.root.real("/var/lib/dhcp/pipe")]);
  system.commands.length = 0;
  system.lines.length = 0;
  return system;
}

/** What was printed, and a person who answers. */
function terminalOf(answer: string | undefined | (() => Promise<string | undefined>)) {
  const lines: string[] = [];
  let interrupt = (): void => {};
  const terminal: Terminal = {
    print: (line) => void lines.push(line),
    ask: async (prompt) => {
      lines.push(`? ${prompt}`);
      return typeof answer === "function" ? answer() : answer;
    },
    onInterrupt: (handler) => void (interrupt = handler),
  };
  return { terminal, lines, interrupt: () => interrupt() };
}

async function deprovision(
  system: FakeSystem,
  options: {
    user?: boolean;
    force?: boolean;
    dryRun?: boolean;
    terminal?: Terminal;
    distro?: Distro;
    config?: Config;
  } = {},
) {
  const used = options.distro ?? distro;
  const settings = options.config ?? config;
  const plan = await planDeprovision(system, settings, {
    distro: used,
    user: options.user ?? false,
  });
  system.commands.length = 0;
  const person = terminalOf("y");
  const code = await runDeprovision(system, settings, {
    distro: used,
    plan,
    terminal: options.terminal ?? person.terminal,
    force: options.force ?? false,
    dryRun: options.dryRun ?? false,
  });
  return { code, plan, lines: person.lines };
}

const actions = async (system: FakeSystem, user: boolean, used = distro, settings = config) =>
  (await planDeprovision(system, settings, { distro: used, user })).actions.map(describeAction);

describe("the plan", () => {
  test("provisioning.md DEPROV-01 DEPROV-10 DEPROV-11 DEPROV-12 DEPROV-13 DEPROV-14 DEPROV-15 DEPROV-16 DEPROV-17 DEPROV-18 DEPROV-19 DEPROV-21 DEPROV-22 DEPROV-25: the list in its order", async () => {
    using system = await provisioned();
    expect(await actions(system, true)).toEqual([
      "run systemctl stop walinuxagent",
      "remove /etc/ssh/ssh_host_ecdsa_key",
      "remove /etc/ssh/ssh_host_ecdsa_key.pub",
      "remove /etc/ssh/ssh_host_ed25519_key",
      "remove /etc/ssh/ssh_host_ed25519_key.pub",
      "remove /etc/ssh/ssh_host_rsa_key",
      "remove /etc/ssh/ssh_host_rsa_key-cert.pub",
      "remove /etc/ssh/ssh_host_rsa_key.pub",
      "remove everything in /var/lib/dhclient",
      "remove everything in /var/lib/dhcpcd",
      "remove everything in /var/lib/dhcp",
      "remove /var/db/dhclient.leases.eth0",
      "remove /var/lib/NetworkManager/dhclient-1-eth0.lease",
      "remove /run/systemd/netif/leases/2",
      "set the host name to localhost.localdomain",
      "disable the password of root",
      "remove everything in /var/lib/waagent",
      "remove everything in /var/log/azure",
      "remove /root/.bash_history",
      "remove /var/log/waagent.log",
      "remove /etc/random.seed",
      "remove /etc/iked/local.pub",
      "remove /etc/resolv.conf",
      "delete the user alice and the home directory",
      "remove the sudo rule of alice",
      "remove /var/spool/cron/crontabs/alice",
      "remove /lib/systemd/system/walinuxagent-network-setup.service",
      "remove /lib/systemd/system/walinuxagent.service.d/12-CPUQuota.conf",
      "remove /lib/systemd/system/azure-walinuxagent-logcollector.slice",
      "empty /etc/machine-id",
      "remove everything in /var/log/journal",
      "remove /var/log/waagent.log-2030-01-01-1.gz",
      "remove /var/log/waagent.log.1",
      "remove /root/.zsh_history",
      "remove /var/lib/NetworkManager/internal-1-eth0.lease",
      "remove /var/lib/systemd/random-seed",
      "remove /var/lib/hyperv/.kvp_pool_1",
      "remove /etc/shadow-",
    ]);
  });

  test("provisioning.md DEPROV-06 DEPROV-11 DEPROV-14: warnings for what is lost, and only for that", async () => {
    using system = await provisioned();
    const full = await planDeprovision(system, config, { distro, user: true });
    expect(full.warnings).toHaveLength(8);
    expect(full.warnings.every((line) => line.startsWith("WARNING!"))).toBe(true);
    expect(full.warnings.some((line) => line.includes("alice"))).toBe(true);
    const plain = await planDeprovision(system, configOf(), { distro, user: false });
    expect(plain.warnings.join()).not.toMatch(/SSH|root password|alice/);
    const lines = plain.actions.map(describeAction).join("\n");
    expect(lines).not.toMatch(/ssh_host|password of root|alice|shadow-/);
  });

  test("provisioning.md DEPROV-20: without the document, or with one that cannot be read, no user is deleted, and two warnings say so", async () => {
    using system = await provisioned();
    for (const document of ["not XML", ovf({ userName: "" }), undefined]) {
      if (document === undefined) system.files.remove("/var/lib/waagent/ovf-env.xml");
      else system.files.write("/var/lib/waagent/ovf-env.xml", document);
      const plan = await planDeprovision(system, config, { distro, user: true });
      expect(plan.warnings.filter((line) => /ovf-env|No provisioned user/.test(line))).toHaveLength(
        2,
      );
      expect(plan.actions.some((action) => action.do === "delete-user")).toBe(false);
    }
  });

  test("provisioning.md USER-41 DB-22: just-in-time users, known by their comment, go with the user", async () => {
    using system = await provisioned();
    append(
      system,
      "/etc/passwd",
      "jit1:x:2001:2001:JIT_Account:/home/jit1:/bin/sh\nfriend:x:2002:2002:JIT_Account2:/home/f:/bin/sh\n",
    );
    const lines = await actions(system, true);
    expect(lines.filter((line) => line.startsWith("delete the user"))).toEqual([
      "delete the user alice and the home directory",
      "delete the user jit1 and the home directory",
    ]);
    expect((await actions(system, false)).join()).not.toContain("jit1");
  });

  test("provisioning.md DB-22 USER-30: a system user is never deleted", async () => {
    using system = await provisioned();
    system.files.write("/var/lib/waagent/ovf-env.xml", ovf({ userName: "daemon" }));
    const plan = await planDeprovision(system, config, { distro, user: true });
    expect(plan.warnings).toContain("WARNING! daemon is a system user and will not be deleted.");
    expect(plan.actions.some((action) => action.do === "delete-user")).toBe(false);
  });

  test("provisioning.md DEPROV-26 DEPROV-27: Ubuntu keeps systemd-resolved's file, and before 18.04 resolvconf's", async () => {
    using system = await provisioned();
    const kept = await planDeprovision(system, config, {
      distro: distroOf("Ubuntu18"),
      user: false,
    });
    expect(kept.warnings.some((line) => line.startsWith("NOTICE"))).toBe(true);
    expect(kept.actions.map(describeAction)).not.toContain("remove /etc/resolv.conf");
    expect(await actions(system, false, distroOf("Ubuntu16"))).toContain("remove /etc/resolv.conf");
    system.files.remove("/etc/resolv.conf");
    system.files.link("/run/resolvconf/resolv.conf", "/etc/resolv.conf");
    system.files.makeDirectory("/etc/resolvconf/resolv.conf.d");
    system.files.write("/etc/resolvconf/resolv.conf.d/tail", "x");
    system.files.write("/etc/resolvconf/resolv.conf.d/original", "x");
    const lines = await actions(system, false, distroOf("Ubuntu14"));
    expect(lines).toContain("remove /etc/resolvconf/resolv.conf.d/tail");
    expect(lines).toContain("remove /etc/resolvconf/resolv.conf.d/original");
    expect(lines).not.toContain("remove /etc/resolv.conf");
  });

  test.each(["Arch", "CoreOS"])(
    "provisioning.md DEPROV-23: %s loses its machine-id",
    async (adapter) => {
      using system = await provisioned();
      expect(await actions(system, false, distroOf(adapter))).toContain("remove /etc/machine-id");
    },
  );

  test("provisioning.md DEPROV-30 DB-22: Clear Linux has a plan like the others", async () => {
    using system = await provisioned();
    expect(await actions(system, false, distroOf("Clear"))).toContain("remove /etc/resolv.conf");
  });

  test("provisioning.md DEPROV-31: links that lead nowhere are passed over", async () => {
    using system = await provisioned();
    system.files.remove("/root/.bash_history");
    system.files.link("/nowhere", "/root/.bash_history");
    expect(await actions(system, false)).not.toContain("remove /root/.bash_history");
  });

  test("provisioning.md DB-22: cloud-init is cleaned where it is installed", async () => {
    using system = await provisioned();
    system.programs.set("cloud-init", () => ({}));
    expect(await actions(system, false)).toContain("run cloud-init clean --logs");
  });
});

describe("the run", () => {
  test("provisioning.md DEPROV-12 DEPROV-13 DEPROV-15 DEPROV-19 DEPROV-22 DEPROV-32 CLI-27: no trace is left, everything else is", async () => {
    using system = await provisioned();
    const before = snapshot(system);
    const { code } = await deprovision(system, { user: true, force: true });
    expect(code).toBe(0);
    const after = snapshot(system);
    for (const file of TRACES) expect(after).not.toHaveProperty([file]);
    for (const file of KEPT) expect(after[file]).toBe(before[file]!);
    expect(JSON.stringify(after)).not.toContain("alice");
    expect(system.files.list("/var/lib/waagent")).toEqual([]);
    expect(system.files.list("/var/log/azure")).toEqual([]);
    expect(system.files.list("/var/lib/dhcp")).toEqual(["pipe"]);
    expect(system.files.readText("/etc/hostname")).toBe("localhost.localdomain");
    expect(system.files.readText("/etc/shadow")).toStartWith("root:*LOCK*:14600::::::\n");
    expect(system.files.readText("/etc/machine-id")).toBe("");
    expect(system.commands).toContainEqual(["userdel", "-f", "-r", "alice"]);
  });

  test("provisioning.md DEPROV-15: the log does not come back", async () => {
    using system = await provisioned();
    await deprovision(system, { user: true, force: true });
    expect(system.lines).toEqual([]);
  });

  test("provisioning.md DEPROV-02: the prompt, letter by letter; what begins with y goes on", async () => {
    for (const answer of ["y", "Yes", "yep"]) {
      using system = await provisioned();
      const { terminal, lines } = terminalOf(answer);
      expect((await deprovision(system, { terminal })).code).toBe(0);
      expect(lines).toContain("? Do you want to proceed (y/n)");
      expect(system.files.list("/var/lib/waagent")).toEqual([]);
    }
  });

  test.each(["n", "", " y", "no", "1"])(
    "provisioning.md DEPROV-02 DEPROV-04: %j is no: exit 0, nothing changed",
    async (answer) => {
      using system = await provisioned();
      const before = snapshot(system);
      const { terminal } = terminalOf(answer);
      expect((await deprovision(system, { terminal })).code).toBe(0);
      expect(snapshot(system)).toEqual(before);
      expect(system.commands).toEqual([]);
    },
  );

  test("provisioning.md DB-22: the end of the input is no, and an error for scripts", async () => {
    using system = await provisioned();
    const before = snapshot(system);
    const { terminal } = terminalOf(undefined);
    expect((await deprovision(system, { terminal })).code).toBe(1);
    expect(snapshot(system)).toEqual(before);
  });

  test("provisioning.md DEPROV-03: an interrupt before is a notice and exit 0, during the actions a notice only", async () => {
    using system = await provisioned();
    const before = snapshot(system);
    const asked = terminalOf(() => new Promise<string>(() => {}));
    const running = deprovision(system, { terminal: asked.terminal });
    while (!asked.lines.some((line) => line.startsWith("?"))) await Bun.sleep(1);
    asked.interrupt();
    expect((await running).code).toBe(0);
    expect(asked.lines.at(-1)).toBe("Deprovision is interrupted.");
    expect(snapshot(system)).toEqual(before);

    const busy = terminalOf("y");
    system.programs.set("systemctl", () => busy.interrupt());
    expect((await deprovision(system, { terminal: busy.terminal })).code).toBe(0);
    expect(busy.lines).toContain("Deprovision may not be interrupted.");
    expect(system.files.list("/var/lib/waagent")).toEqual([]);
  });

  test("provisioning.md DEPROV-05 DB-22: a failing action is named, the others are done, the exit code tells", async () => {
    using system = await provisioned();
    system.programs.set("systemctl", () => ({ code: 5, stderr: "no such unit" }));
    system.programs.set("userdel", () => ({ code: 8, stderr: "user is logged in" }));
    const { code, lines } = await deprovision(system, { user: true, force: true });
    expect(code).toBe(1);
    expect(lines.filter((line) => line.startsWith("FAILED to"))).toEqual([
      "FAILED to run systemctl stop walinuxagent: systemctl stop walinuxagent failed with exit code 5: no such unit",
      "FAILED to delete the user alice and the home directory: Failed to delete the user alice: userdel -f -r alice failed with exit code 8: user is logged in",
    ]);
    expect(lines.at(-1)).toMatch(/^2 of \d+ actions failed; the others were done\.$/);
    expect(system.files.list("/var/lib/waagent")).toEqual([]);
  });

  test("provisioning.md DEPROV-01 DEPROV-02: a dry run prints what the run prints, and changes nothing", async () => {
    using system = await provisioned();
    const before = snapshot(system);
    const dry = await deprovision(system, { user: true, dryRun: true });
    expect(snapshot(system)).toEqual(before);
    expect(system.commands).toEqual([]);
    const real = await deprovision(system, { user: true, force: true });
    expect(dry.lines).toEqual(real.lines);
    expect(dry.code).toBe(0);
  });
});
