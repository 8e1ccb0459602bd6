import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import { firewallRules } from "../../../src/machine/firewall.ts";
import {
  persistFirewall,
  removePersistentFirewall,
  unitText,
  withdrawFirewall,
} from "../../../src/machine/firewall-persist.ts";
import { installFakeIptables } from "../../fakes/iptables.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const ADDRESS = "168.63.129.16";
const rules = firewallRules(defaultConfig(), ADDRESS, 0);
const distro = { serviceName: "waagent", unitDirectory: "/usr/lib/systemd/system" } as const;
const options = { executable: "/usr/sbin/waagent", libDirectory: "/var/lib/waagent" } as const;
const UNIT = "/usr/lib/systemd/system/waagent-network-setup.service";

function withSystemd(system: FakeSystem): Set<string> {
  const enabled = new Set<string>();
  plant(system, { "/run/systemd/system/.keep": "" });
  system.programs.set("systemctl", ([, verb, unit = ""]) => {
    if (verb === "enable") enabled.add(unit);
    if (verb === "disable") enabled.delete(unit);
    if (verb === "is-enabled")
      return enabled.has(unit) ? { stdout: "enabled\n" } : { code: 1, stdout: "disabled\n" };
    if (verb === "is-failed") return { code: 1 };
    return {};
  });
  system.programs.set("journalctl", () => ({ stdout: "Started the firewall\n" }));
  return enabled;
}

/** firewalld's permanent direct rules, in order. */
function withFirewalld(system: FakeSystem, stored: string[] = []): string[] {
  system.programs.set("firewall-cmd", ([, ...words]) => {
    if (words[0] === "--state") return { stdout: "running\n" };
    const [permanent, direct, verb, ...rule] = words;
    expect([permanent, direct]).toEqual(["--permanent", "--direct"]);
    const text = rule.join(" ");
    if (verb === "--query-passthrough") return { code: stored.includes(text) ? 0 : 1 };
    if (verb === "--passthrough") stored.push(text);
    if (verb === "--remove-passthrough") stored.splice(stored.indexOf(text), 1);
    return {};
  });
  return stored;
}

test("extensions.md FW-11 FW-12 system.md FW-04 FW-05 FW-06 BET-28 provisioning.md PKG-40: the boot unit calls the executable, and is written once", async () => {
  using system = createFakeSystem();
  const enabled = withSystemd(system);
  plant(system, { "/var/lib/waagent/waagent-network-setup.py": "import os\n" });
  expect(await persistFirewall(system, distro, rules, options)).toBe("unit");
  const text = system.files.readText(UNIT);
  expect(text).toContain("# This unit file (Version=2.0) was created by the Azure VM Agent.");
  for (const line of [
    "Before=network-pre.target",
    "Wants=network-pre.target",
    "DefaultDependencies=no",
    "ConditionPathExists=/usr/sbin/waagent",
    "Type=oneshot",
    "ExecStart=/usr/sbin/waagent -setup-firewall=168.63.129.16",
    "RemainAfterExit=yes",
    "WantedBy=network.target",
  ])
    expect(text.split("\n")).toContain(line);
  expect(text).toMatch(/^After=local-fs\.target/m);
  expect(system.files.stat(UNIT)?.mode).toBe(0o644);
  expect([...enabled]).toEqual(["waagent-network-setup.service"]);
  expect(system.files.exists("/var/lib/waagent/waagent-network-setup.py")).toBe(false);
  expect(system.commands.flat()).not.toContain("daemon-reload");

  const before = system.files.stat(UNIT)?.inode;
  await persistFirewall(system, distro, rules, options);
  expect(system.files.stat(UNIT)?.inode).toBe(before!);
});

test("extensions.md FW-11 system.md FW-05: a unit of the Python agent, or with another address, is replaced", async () => {
  using system = createFakeSystem();
  const enabled = withSystemd(system);
  enabled.add("waagent-network-setup.service");
  plant(system, {
    [UNIT]: "# This unit file (Version=1.4) was created by the Azure VM Agent.\n[Unit]\n",
  });
  await persistFirewall(system, distro, rules, options);
  expect(system.files.readText(UNIT)).toBe(unitText(ADDRESS, "/usr/sbin/waagent"));
  await persistFirewall(system, distro, { ...rules, address: "10.1.2.3" }, options);
  expect(system.files.readText(UNIT)).toContain("-setup-firewall=10.1.2.3\n");
});

test("extensions.md FW-11 provisioning.md OS-67: where /usr is an image the unit is in /etc, and the old copy goes", async () => {
  using system = createFakeSystem();
  withSystemd(system);
  plant(system, { "/run/ostree-booted": "", [UNIT]: "old" });
  await persistFirewall(system, distro, rules, options);
  expect(system.files.exists(UNIT)).toBe(false);
  expect(system.files.exists("/etc/systemd/system/waagent-network-setup.service")).toBe(true);
  await removePersistentFirewall(system, distro, rules);
  expect(system.files.exists("/etc/systemd/system/waagent-network-setup.service")).toBe(false);
});

test("extensions.md FW-14 system.md FW-08: an enabled unit's journal of this boot is reported", async () => {
  using system = createFakeSystem();
  withSystemd(system);
  await persistFirewall(system, distro, rules, options);
  expect(system.events).toEqual([]);
  await persistFirewall(system, distro, rules, options);
  const unit = "waagent-network-setup.service";
  expect(system.commands).toContainEqual(["journalctl", "-u", unit, "-b", "--utc", "--no-pager"]);
  expect(system.events).toHaveLength(1);
  expect(system.events[0]).toMatchObject({ operation: "PersistFirewallRules", success: true });
  expect(system.events[0]?.message).toContain("Started the firewall");
});

test("extensions.md FW-11: a unit that cannot be enabled is not left behind", async () => {
  using system = createFakeSystem();
  withSystemd(system);
  const systemctl = system.programs.get("systemctl")!;
  system.programs.set("systemctl", (argv, stdin) =>
    argv[1] === "enable" ? { code: 1, stderr: "Read-only file system" } : systemctl(argv, stdin),
  );
  await expect(persistFirewall(system, distro, rules, options)).rejects.toThrow(/Read-only/);
  expect(system.files.exists(UNIT)).toBe(false);
});

test("extensions.md FW-11: a unit that cannot be enabled because of a read-only /etc says so, whatever systemctl says", async () => {
  using system = createFakeSystem();
  withSystemd(system);
  plant(system, { "/proc/self/mountinfo": "36 1 8:1 /etc /etc ro,relatime - ext4 /dev/sda1 rw\n" });
  const systemctl = system.programs.get("systemctl")!;
  system.programs.set("systemctl", (argv, stdin) =>
    argv[1] === "enable" ? { code: 1, stderr: "does not exist" } : systemctl(argv, stdin),
  );
  await expect(persistFirewall(system, distro, rules, options)).rejects.toThrow(
    "Could not enable waagent-network-setup.service: /etc/systemd/system is read-only (/etc)",
  );
  expect(system.files.exists(UNIT)).toBe(false);
});

test("extensions.md FW-10 system.md FW-04: a running firewalld gets permanent rules in order, legacy ones go, and the unit too", async () => {
  using system = createFakeSystem();
  const enabled = withSystemd(system);
  const legacy = `ipv4 -t security -I OUTPUT -d ${ADDRESS} -p tcp --destination-port 53 -j ACCEPT`;
  const drop = `ipv4 -t security -A OUTPUT -d ${ADDRESS} -p tcp -m conntrack --ctstate INVALID,NEW -j DROP`;
  const foreign = "ipv4 -t filter -A INPUT -j DROP";
  const stored = withFirewalld(system, [legacy, drop, foreign]);
  plant(system, { [UNIT]: unitText(ADDRESS, "/usr/sbin/waagent") });
  enabled.add("waagent-network-setup.service");

  expect(await persistFirewall(system, distro, rules, options)).toBe("firewalld");
  const wanted = [
    `ipv4 -t security -A OUTPUT -d ${ADDRESS} -p tcp --destination-port 53 -j ACCEPT`,
    `ipv4 -t security -A OUTPUT -d ${ADDRESS} -p tcp -m owner --uid-owner 0 -j ACCEPT`,
    drop,
  ];
  expect(stored).toEqual([foreign, ...wanted]);
  expect(system.files.exists(UNIT)).toBe(false);
  expect([...enabled]).toEqual([]);

  await persistFirewall(system, distro, { ...rules, coverForwarded: true }, options);
  expect(stored).toHaveLength(6);
  await persistFirewall(system, distro, rules, options);
  expect(stored).toEqual([foreign, ...wanted]);
  await removePersistentFirewall(system, distro, rules);
  expect(stored).toEqual([foreign]);
});

test("system.md FW-04: without systemd and firewalld nothing is persistent", async () => {
  using system = createFakeSystem();
  expect(await persistFirewall(system, distro, rules, options)).toBe("none");
  expect(system.files.exists(UNIT)).toBe(false);
});

test("turning OS.EnableFirewall off takes away what we set up, and only that", async () => {
  using system = createFakeSystem();
  withSystemd(system);
  const table = installFakeIptables(system);
  const drop = `-d ${ADDRESS}/32 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP`;
  table.chains.set("OUTPUT", [drop, "-j LOG"]);
  // Another agent's rules: there is no note of ours.
  expect(await withdrawFirewall(system, distro, options.libDirectory, 0)).toBe(false);
  expect(system.commands).toEqual([]);

  await persistFirewall(system, distro, rules, options);
  const note = system.files.stat("/var/lib/waagent/waagent-firewall.json");
  expect(note?.mode).toBe(0o600);
  await persistFirewall(system, distro, rules, options);
  expect(system.files.stat("/var/lib/waagent/waagent-firewall.json")?.inode).toBe(note!.inode);

  expect(await withdrawFirewall(system, distro, options.libDirectory, 0)).toBe(true);
  expect(table.chains.get("OUTPUT")).toEqual(["-j LOG"]);
  expect(system.files.exists(UNIT)).toBe(false);
  expect(await withdrawFirewall(system, distro, options.libDirectory, 0)).toBe(false);

  plant(system, { "/var/lib/waagent/waagent-firewall.json": "{" });
  expect(await withdrawFirewall(system, distro, options.libDirectory, 0)).toBe(false);
  expect(system.lines.at(-1)).toContain("Ignoring /var/lib/waagent/waagent-firewall.json");
});
