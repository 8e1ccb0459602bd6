import { describe, expect, test } from "bun:test";
import { rowOf } from "../../../src/distro/rows.ts";
import { setDhcpHostName } from "../../../src/machine/hostname-dhcp.ts";
import {
  editHosts,
  hasHostsEntry,
  removeHostsEntry,
  writeHostsEntry,
} from "../../../src/machine/hostname-hosts.ts";
import { rewriteSetting } from "../../../src/machine/hostname-rewrite.ts";
import { currentHostName, setHostName } from "../../../src/machine/hostname.ts";
import type { SystemPath } from "../../../src/system/root.ts";
import { createFakeSystem, type FakeSystem } from "../../fakes/system.ts";

function machine(files: Readonly<Record<SystemPath, string>> = {}): FakeSystem {
  const system = createFakeSystem();
  system.files.makeDirectory("/etc/sysconfig");
  for (const [file, text] of Object.entries(files) as [SystemPath, string][]) {
    system.files.makeDirectory(file.slice(0, file.lastIndexOf("/")) as SystemPath);
    system.files.write(file, text, { mode: 0o644, durable: false });
  }
  for (const program of ["hostname", "hostnamectl", "uci", "system"])
    system.programs.set(program, () => ({}));
  return system;
}

describe("setting the host name", () => {
  test.each([
    "Default",
    "DebianModern",
    "Ubuntu18",
    "Devuan",
    "Alpine",
    "Arch",
    "CoreOS",
    "Clear",
    "Mariner",
    "Photon",
    "Fedora",
    "Chainguard",
  ])(
    "provisioning.md HOST-01: %s writes /etc/hostname without newline and calls hostname",
    async (adapter) => {
      using system = machine({ "/etc/hostname": "old\n" });
      await setHostName(system, rowOf(adapter), "vm1");
      expect(system.files.readText("/etc/hostname")).toBe("vm1");
      expect(system.files.stat("/etc/hostname")?.mode).toBe(0o644);
      expect(system.commands).toEqual([["hostname", "vm1"]]);
    },
  );

  test("provisioning.md HOST-01: that hostname fails is only a warning", async () => {
    using system = machine();
    system.programs.set("hostname", () => ({ code: 1, stderr: "must be root" }));
    await setHostName(system, rowOf("Default"), "vm1");
    system.programs.delete("hostname");
    await setHostName(system, rowOf("Default"), "vm1");
    expect(system.lines.map((line) => line.split(" ")[0])).toEqual(["WARNING", "WARNING"]);
  });

  test.each(["RedHat7", "RedHatModern", "IosXE"])(
    "provisioning.md HOST-02: %s uses hostnamectl --static, and falls back to the file when that fails or is missing",
    async (adapter) => {
      using system = machine();
      await setHostName(system, rowOf(adapter), "vm1");
      expect(system.commands[0]).toEqual(["hostnamectl", "set-hostname", "vm1", "--static"]);
      expect(system.files.exists("/etc/hostname")).toBe(false);
      system.programs.set("hostnamectl", () => ({ code: 1, stderr: "no bus" }));
      await setHostName(system, rowOf(adapter), "vm2");
      expect(system.files.readText("/etc/hostname")).toBe("vm2");
      expect(system.lines[0]).toStartWith("WARNING");
      system.programs.delete("hostnamectl");
      await setHostName(system, rowOf(adapter), "vm3");
      expect(system.files.readText("/etc/hostname")).toBe("vm3");
    },
  );

  test("provisioning.md HOST-03: RedHat 6 has it in /etc/sysconfig/network", async () => {
    using system = machine({
      "/etc/sysconfig/network": "NETWORKING=yes\n\nHOSTNAME=old\nGATEWAY=1\n",
    });
    await setHostName(system, rowOf("RedHat6"), "vm1");
    expect(system.files.readText("/etc/sysconfig/network")).toBe(
      "NETWORKING=yes\n\nHOSTNAME=vm1\nGATEWAY=1\n",
    );
    expect(system.commands).toEqual([["hostname", "vm1"]]);
  });

  test("provisioning.md HOST-04 HOST-05: SUSE uses hostnamectl without --static, SUSE 11 /etc/HOSTNAME", async () => {
    using system = machine();
    await setHostName(system, rowOf("SUSE"), "vm1");
    expect(system.commands).toEqual([["hostnamectl", "set-hostname", "vm1"]]);
    await setHostName(system, rowOf("SUSE11"), "vm2");
    expect(system.files.readText("/etc/HOSTNAME")).toBe("vm2");
    expect(system.commands.at(-1)).toEqual(["hostname", "vm2"]);
  });

  test("provisioning.md HOST-06 HOST-07 HOST-08 HOST-09: OpenWRT, the BSDs and appliances", async () => {
    using system = machine({ "/etc/rc.conf": 'sshd_enable="YES"\nhostname="old"\n' });
    await setHostName(system, rowOf("OpenWRT"), "vm1");
    expect(system.commands).toEqual([
      ["uci", "set", "system.@system[0].hostname=vm1"],
      ["uci", "commit", "system"],
      ["/etc/init.d/system", "reload"],
    ]);
    await setHostName(system, rowOf("FreeBSD"), "vm2");
    expect(system.files.readText("/etc/rc.conf")).toBe('sshd_enable="YES"\nhostname="vm2"\n');
    await setHostName(system, rowOf("OpenBSD"), "vm3");
    expect(system.files.readText("/etc/myname")).toBe("vm3\n");
    system.commands.length = 0;
    await setHostName(system, rowOf("Gaia"), "vm4");
    expect(system.commands).toEqual([]);
  });

  test("a file that has the name already is not written", async () => {
    using system = machine({ "/etc/hostname": "vm1" });
    const inode = system.files.stat("/etc/hostname")?.inode;
    await setHostName(system, rowOf("Default"), "vm1");
    expect(system.files.stat("/etc/hostname")?.inode).toBe(inode!);
    system.files.makeDirectory("/proc/sys/kernel");
    expect(currentHostName(system)).toBe("vm1");
    system.files.write("/proc/sys/kernel/hostname", "running\n");
    expect(currentHostName(system)).toBe("running");
  });
});

describe("the line in /etc/hosts", () => {
  const on = { "Provisioning.ManageEtcHosts": true };
  const before = "127.0.0.1 localhost\n\n# mine\n10.0.0.9 db # not ours";

  test("provisioning.md DB-13: only when wanted, marked, and beside the user's lines, which stay", () => {
    using system = machine({ "/etc/hosts": before });
    writeHostsEntry(system, { "Provisioning.ManageEtcHosts": false }, "vm1");
    expect(system.files.readText("/etc/hosts")).toBe(before);
    writeHostsEntry(system, on, "vm1.example.com");
    writeHostsEntry(system, on, "vm2");
    expect(system.files.readText("/etc/hosts")).toBe(`${before}\n127.0.1.1 vm2 # waagent\n`);
    expect(system.files.stat("/etc/hosts")?.mode).toBe(0o644);
    expect(hasHostsEntry(system)).toBe(true);
    removeHostsEntry(system);
    expect(system.files.readText("/etc/hosts")).toBe(`${before}\n`);
    expect(hasHostsEntry(system)).toBe(false);
  });

  test("provisioning.md DB-13: a full name has its short one, and a name that is there needs no line", () => {
    expect(editHosts("", "a.b.c")).toBe("127.0.1.1 a.b.c a # waagent\n");
    expect(editHosts("1.2.3.4 x vm1\n", "vm1")).toBe("1.2.3.4 x vm1\n");
    expect(editHosts("#1.2.3.4 vm1\n", "vm1")).toBe("#1.2.3.4 vm1\n127.0.1.1 vm1 # waagent\n");
  });
});

describe("the name for DHCP", () => {
  const none = { interfaceName: undefined };

  test("provisioning.md HOST-11: each dhclient.conf gets its line, in its place, comments and blank lines kept", () => {
    using system = machine({
      "/etc/dhcp/dhclient.conf":
        'timeout 300;\n\n#send host-name "x";\nsend host-name "old";\nretry 60;\n',
      "/etc/dhclient.conf": "",
    });
    setDhcpHostName(system, rowOf("Default"), "vm1", none);
    expect(system.files.readText("/etc/dhcp/dhclient.conf")).toBe(
      'timeout 300;\n\n#send host-name "x";\nsend host-name "vm1";\nretry 60;\n',
    );
    expect(system.files.readText("/etc/dhclient.conf")).toBe('send host-name "vm1";\n');
    expect(system.files.exists("/etc/dhcp3/dhclient.conf")).toBe(false);
  });

  test.each([
    "send host-name = gethostname();",
    'send host-name "<hostname>";',
    "send host-name = pick(gethostname(), x);",
  ])("provisioning.md HOST-11: %s follows the system, so everything stays", (line) => {
    using system = machine({ "/etc/dhcp/dhclient.conf": `${line}\n`, "/etc/dhclient.conf": "x\n" });
    setDhcpHostName(system, rowOf("Default"), "vm1", none);
    expect(system.files.readText("/etc/dhcp/dhclient.conf")).toBe(`${line}\n`);
    expect(system.files.readText("/etc/dhclient.conf")).toBe("x\n");
  });

  test("provisioning.md HOST-12 DB-14: RedHat has it in the interface's file; releases without such files need nothing", () => {
    using system = machine({
      "/etc/sysconfig/network-scripts/ifcfg-eth0": "DEVICE=eth0\nDHCP_HOSTNAME=a\n",
    });
    setDhcpHostName(system, rowOf("RedHat7"), "vm1", { interfaceName: "eth0" });
    expect(system.files.readText("/etc/sysconfig/network-scripts/ifcfg-eth0")).toBe(
      "DEVICE=eth0\nDHCP_HOSTNAME=vm1\n",
    );
    setDhcpHostName(system, rowOf("RedHatModern"), "vm1", { interfaceName: "eth1" });
    setDhcpHostName(system, rowOf("RedHat6"), "vm1", none);
    expect(system.files.list("/etc/sysconfig/network-scripts")).toEqual(["ifcfg-eth0"]);
  });

  test("provisioning.md HOST-13: SUSE replaces or appends its option, and leaves AUTO alone", () => {
    const file = "/etc/sysconfig/network/dhcp";
    for (const [before, after] of [
      ['DHCLIENT_HOSTNAME_OPTION="AUTO"\n', 'DHCLIENT_HOSTNAME_OPTION="AUTO"\n'],
      ["DHCLIENT_HOSTNAME_OPTION='AUTO'\n", "DHCLIENT_HOSTNAME_OPTION='AUTO'\n"],
      ["DHCLIENT_HOSTNAME_OPTION=AUTO\n", "DHCLIENT_HOSTNAME_OPTION=AUTO\n"],
      ['A=1\nDHCLIENT_HOSTNAME_OPTION="x"\nB=2\n', 'A=1\nDHCLIENT_HOSTNAME_OPTION="vm1"\nB=2\n'],
      ["A=1", 'A=1\nDHCLIENT_HOSTNAME_OPTION="vm1"\n'],
    ]) {
      using system = machine({ [file]: before! });
      setDhcpHostName(system, rowOf("SUSE"), "vm1", none);
      expect(system.files.readText(file)).toBe(after!);
    }
    using missing = machine();
    setDhcpHostName(missing, rowOf("SUSE"), "vm1", none);
    expect(missing.files.exists(file)).toBe(false);
  });

  test("provisioning.md HOST-14 DB-13: every line of the key goes, one new line comes, the user's blank lines stay", () => {
    expect(rewriteSetting("A=1\n\nK=1\n\nK=2\nB=2\n", "K=", "K=3")).toBe("A=1\n\n\nK=3\nB=2\n");
    expect(rewriteSetting("A=1", "K=", "K=3")).toBe("A=1\nK=3\n");
    expect(rewriteSetting("", "K=", "K=3")).toBe("K=3\n");
  });
});
