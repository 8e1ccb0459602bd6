import { describe, expect, test } from "bun:test";
import { builtInManifest, byPriority, parseManifest } from "../../../src/report/log-manifest.ts";

const paths = {
  libDirectory: "/var/lib/waagent",
  logDirectory: "/var/log/azure",
  agentLog: "/var/log/waagent.log",
} as const;

describe("language", () => {
  test("system.md LOGC-15: verbs, variables, comments, and lines that are none", () => {
    const { commands, errors } = parseManifest(
      "# a comment\n\necho,### Hello ###\nll,$LIB_DIR\ncopy,$LOG_DIR/*/*\ncopy,$AGENT_LOG*\ndiskinfo,\n  copy,/etc/hostname \ncopy,a,b\nnonsense\nmove,/x\ncopy,relative\n",
      paths,
    );
    expect(commands).toEqual([
      { do: "echo", text: "### Hello ###" },
      { do: "list", directory: "/var/lib/waagent" },
      { do: "copy", pattern: "/var/log/azure/*/*" },
      { do: "copy", pattern: "/var/log/waagent.log*" },
      { do: "copy", pattern: "/etc/hostname" },
    ]);
    expect(errors).toEqual([
      '"copy,a,b" is not a command followed by one comma',
      '"nonsense" is not a command followed by one comma',
      '"move,/x" begins with an unknown command',
      '"copy,relative" needs an absolute path',
    ]);
  });
});

describe("content", () => {
  const patterns = (kind: "normal" | "full") =>
    parseManifest(builtInManifest(kind), paths).commands.flatMap((one) =>
      one.do === "copy" ? [one.pattern as string] : [],
    );

  test("system.md LOGC-19: what both runs take", () => {
    const both = [
      "/etc/*-release",
      "/etc/HOSTNAME",
      "/etc/hostname",
      "/etc/waagent.conf",
      "/var/log/waagent.log*",
      "/var/log/dmesg*",
      "/var/log/syslog*",
      "/var/log/auth*",
      "/var/log/azure/*/*",
      "/var/log/azure/*/*/*",
      "/var/log/azure/custom-script/handler.log",
      "/var/lib/waagent/ovf-env.xml",
      "/var/lib/waagent/waagent_status.json",
      "/var/lib/waagent/*/status/*.status",
      "/var/lib/waagent/*/config/*.settings",
      "/var/lib/waagent/*/config/HandlerState",
      "/var/lib/waagent/*/config/HandlerStatus",
      "/var/lib/waagent/history/*.zip",
      "/var/log/azure-proxy-agent/*",
    ];
    for (const kind of ["normal", "full"] as const)
      for (const pattern of both) expect(patterns(kind)).toContain(pattern);
  });

  test("system.md LOGC-19: what only one of them takes", () => {
    const full = [
      "/var/lib/waagent/provisioned",
      "/etc/fstab",
      "/etc/ssh/sshd_config",
      "/boot/grub*/grub.c*",
      "/boot/grub*/menu.lst",
      "/etc/network/interfaces",
      "/etc/network/interfaces.d/*.cfg",
      "/etc/netplan/50-cloud-init.yaml",
      "/etc/nsswitch.conf",
      "/etc/resolv.conf",
      "/run/systemd/resolve/stub-resolv.conf",
      "/run/resolvconf/resolv.conf",
      "/etc/sysconfig/iptables",
      "/etc/sysconfig/network",
      "/etc/sysconfig/network/ifcfg-eth*",
      "/etc/sysconfig/network/routes",
      "/etc/sysconfig/network-scripts/ifcfg-eth*",
      "/etc/sysconfig/network-scripts/route-eth*",
      "/etc/sysconfig/SuSEfirewall2",
      "/etc/ufw/ufw.conf",
      "/var/lib/dhcp/dhclient.eth0.leases",
      "/var/lib/dhclient/dhclient-eth0.leases",
      "/var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
      "/run/systemd/netif/leases/2",
      "/var/log/rsyslog*",
      "/var/log/kern*",
      "/var/log/dpkg*",
      "/var/log/yum*",
      "/var/log/boot*",
      "/var/log/secure*",
      "/var/log/azure/run-command/handler.log",
      "/var/lib/waagent/*/error.json",
      "/var/lib/waagent/SharedConfig.xml",
      "/var/lib/waagent/ManagedIdentity-*.json",
    ];
    for (const pattern of full) {
      expect(patterns("full")).toContain(pattern);
      expect(patterns("normal")).not.toContain(pattern);
    }
    expect(patterns("normal")).toContain("/var/lib/waagent/error.json");
    expect(patterns("full")).not.toContain("/var/lib/waagent/error.json");
  });

  test("system.md LOGC-19 LOGC-20 BET-19: directories, headings, and the logs without which RHEL sends nothing", () => {
    const commands = (kind: "normal" | "full") =>
      parseManifest(builtInManifest(kind), paths).commands;
    const listed = (kind: "normal" | "full") =>
      commands(kind).flatMap((one) => (one.do === "list" ? [one.directory as string] : []));
    expect(listed("normal")).toEqual(["/var/log", "/var/lib/waagent"]);
    expect(listed("full")).toEqual(["/var/log", "/var/lib/waagent", "/etc/udev/rules.d"]);
    expect(commands("full").flatMap((one) => (one.do === "echo" ? [one.text] : []))).toEqual([
      "### Probing Directories ###",
      "### Gathering Configuration Files ###",
      "### Gathering Log Files ###",
      "### Gathering Extension Files ###",
      "### Disk Info ###",
      "### Gathering Guest ProxyAgent Log Files ###",
    ]);
    for (const kind of ["normal", "full"] as const)
      expect(patterns(kind)).toEqual(
        expect.arrayContaining(["/var/log/messages*", "/var/log/cloud-init*"]),
      );
    expect(parseManifest(builtInManifest("full"), paths).errors).toEqual([]);
  });
});

test("system.md LOGC-17 extensions.md LC-04: the most wanted files come first, each once", () => {
  expect(
    byPriority(
      [
        "/etc/hostname",
        "/var/log/waagent.log.1",
        "/var/log/azure/Pub.Ext/1.0/deep.log",
        "/var/log/azure/Pub.Ext/CommandExecution.log",
        "/var/log/azure/Pub.Ext/CommandExecution.log",
        "/var/lib/waagent/history/b.zip",
        "/var/lib/waagent/history/a.zip",
        "/var/lib/waagent/waagent_status.json",
        "/var/log/auth.log",
        "/var/log/waagent.log",
      ],
      paths,
    ),
  ).toEqual([
    "/var/log/waagent.log",
    "/var/lib/waagent/waagent_status.json",
    "/var/lib/waagent/history/a.zip",
    "/var/lib/waagent/history/b.zip",
    "/var/log/azure/Pub.Ext/CommandExecution.log",
    "/var/log/azure/Pub.Ext/1.0/deep.log",
    "/var/log/waagent.log.1",
    "/etc/hostname",
    "/var/log/auth.log",
  ]);
});
