import { describe, expect, test } from "bun:test";
import { describe as inWords } from "../../../src/base/error.ts";
import { configureSshd } from "../../../src/provision/sshd-config.ts";
import {
  dropInPattern,
  editSshdConfig,
  opensshVersion,
  sshdSettings,
} from "../../../src/provision/sshd-settings.ts";
import { distroNamed } from "../../fakes/distro.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { configOf, createMachine, distroOf } from "./machine.ts";

const NEW = sshdSettings({
  disablePasswordAuthentication: true,
  clientAliveInterval: "180",
  version: 9.02,
});
const OLD = sshdSettings({
  disablePasswordAuthentication: false,
  clientAliveInterval: "180",
  version: undefined,
});
const OLD_LINES =
  "PasswordAuthentication yes\nChallengeResponseAuthentication yes\nClientAliveInterval 180\n";

describe("the text of sshd_config", () => {
  test("provisioning.md SSH-10: three settings in their order", () => {
    expect(editSshdConfig("", OLD)).toBe(OLD_LINES);
    expect(editSshdConfig("", NEW)).toBe(
      "PasswordAuthentication no\nKbdInteractiveAuthentication no\nClientAliveInterval 180\n",
    );
  });

  test("provisioning.md SSH-11: every line of a setting is replaced, comments and other words that begin alike are not", () => {
    const text = [
      "#PasswordAuthentication yes",
      "PasswordAuthentication no",
      "PasswordAuthenticationX 1",
      "ChallengeResponseAuthentication no",
      "PasswordAuthentication no",
      "ClientAliveInterval 5",
      "",
    ].join("\n");
    expect(editSshdConfig(text, OLD)).toBe(
      [
        "#PasswordAuthentication yes",
        "PasswordAuthentication yes",
        "PasswordAuthenticationX 1",
        "ChallengeResponseAuthentication yes",
        "PasswordAuthentication yes",
        "ClientAliveInterval 180",
        "",
      ].join("\n"),
    );
  });

  test("provisioning.md SSH-13: (a) without Match blocks the missing settings go to the end", () => {
    expect(editSshdConfig("Port 22\n", OLD)).toBe(`Port 22\n${OLD_LINES}`);
  });

  test("provisioning.md SSH-12 SSH-13: (b) a Match block that is open at the end gets them above it", () => {
    const block = "Match user x\n  PasswordAuthentication no\n";
    expect(editSshdConfig(`Port 22\n${block}`, OLD)).toBe(`Port 22\n${OLD_LINES}${block}`);
    expect(editSshdConfig(`Port 22\n${block}${block}`, OLD)).toBe(
      `Port 22\n${OLD_LINES}${block}${block}`,
    );
  });

  test("provisioning.md SSH-12 SSH-13: (c) after `Match all` they go to the end, and the block stays untouched", () => {
    const text = "match user x\nPasswordAuthentication no\nMATCH ALL\n";
    expect(editSshdConfig(text, OLD)).toBe(`${text}${OLD_LINES}`);
    expect(editSshdConfig(`${text}PasswordAuthentication no\n`, OLD)).toStartWith(
      `${text}PasswordAuthentication yes\n`,
    );
  });

  test("provisioning.md SSH-12 DB-09: a file without a last newline is added to at its end", () => {
    expect(editSshdConfig("Port 22\nUsePAM yes", OLD)).toBe(`Port 22\nUsePAM yes\n${OLD_LINES}`);
  });

  test("provisioning.md DB-09: what sshd understands is found: any case, blanks, tabs, =, CRLF", () => {
    for (const line of [
      "passwordauthentication no",
      "  PasswordAuthentication no",
      "\tPasswordAuthentication\tno",
      "PasswordAuthentication=no",
      "PASSWORDAUTHENTICATION = no",
    ]) {
      const keyword = line.trim().split(/[\s=]/)[0];
      expect(editSshdConfig(`${line}\n`, OLD)).toStartWith(`${keyword} yes\nChallenge`);
    }
    expect(editSshdConfig("Port 22\r\nPasswordAuthentication no\r\n", OLD)).toBe(
      "Port 22\r\nPasswordAuthentication yes\r\nChallengeResponseAuthentication yes\r\nClientAliveInterval 180\r\n",
    );
  });

  test("provisioning.md DB-09: the keyboard-interactive setting is found under both of its names", () => {
    expect(editSshdConfig("ChallengeResponseAuthentication yes\n", NEW)).toBe(
      "ChallengeResponseAuthentication no\nPasswordAuthentication no\nClientAliveInterval 180\n",
    );
    expect(opensshVersion("OpenSSH_8.7p1, OpenSSL 3.0")).toBe(8.07);
    expect(opensshVersion("OpenSSH_10.0p2")).toBe(10);
    expect(opensshVersion("dropbear")).toBeUndefined();
    expect(
      sshdSettings({
        disablePasswordAuthentication: true,
        clientAliveInterval: "1",
        version: 7.04,
      })[1]?.keyword,
    ).toBe("ChallengeResponseAuthentication");
  });

  test("provisioning.md DB-09: a drop-in directory decides only when its Include comes first and outside of Match", () => {
    const include = "Include /etc/ssh/sshd_config.d/*.conf\n";
    expect(dropInPattern(`# x\n${include}Port 22\n`, NEW, "/etc/ssh")).toBe(
      "/etc/ssh/sshd_config.d/*.conf",
    );
    expect(dropInPattern("include sshd_config.d/*.conf\n", NEW, "/etc/ssh")).toBe(
      "/etc/ssh/sshd_config.d/*.conf",
    );
    expect(
      dropInPattern(`PasswordAuthentication yes\n${include}`, NEW, "/etc/ssh"),
    ).toBeUndefined();
    expect(dropInPattern(`Match user x\n${include}`, NEW, "/etc/ssh")).toBeUndefined();
    expect(dropInPattern(`#${include}`, NEW, "/etc/ssh")).toBeUndefined();
    expect(dropInPattern("Include /etc/ssh/one.conf\n", NEW, "/etc/ssh")).toBeUndefined();
  });
});

describe("configuring sshd", () => {
  const config = configOf();
  const off = { disablePasswordAuthentication: true };
  const MAIN = "/etc/ssh/sshd_config";
  const DROP_IN = "/etc/ssh/sshd_config.d/00-waagent.conf";

  function machine(main: string): FakeSystem {
    const system = createMachine();
    system.files.write(MAIN, main, { mode: 0o644 });
    system.programs.set("sshd", (argv) =>
      argv[1] === "-V" ? { code: 1, stderr: "unknown option -- V\nOpenSSH_9.2p1 Debian" } : {},
    );
    return system;
  }

  test("provisioning.md SSH-10 DB-09: the file is edited after sshd has tried a copy of it", async () => {
    using system = machine("Port 22\n");
    system.files.chmod(MAIN, 0o640);
    await configureSshd(system, distroOf("Default"), config, off);
    expect(system.files.readText(MAIN)).toBe(
      "Port 22\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nClientAliveInterval 180\n",
    );
    expect(system.files.stat(MAIN)?.mode).toBe(0o640);
    expect(system.commands.at(-1)).toEqual([
      "sshd",
      "-t",
      "-f",
      system.root.real("/etc/ssh/.sshd_config.waagent"),
    ]);
    expect(system.files.list("/etc/ssh")).toEqual(["sshd_config"]);
    const inode = system.files.stat(MAIN)?.inode;
    await configureSshd(system, distroOf("Default"), config, off);
    expect(system.files.stat(MAIN)?.inode).toBe(inode!);
  });

  test("provisioning.md DB-09: what sshd refuses is taken back", async () => {
    using system = machine("Port 22\n");
    system.programs.set("sshd", (argv) =>
      argv[1] === "-V" ? {} : { code: 255, stderr: "line 2: Bad configuration option: X" },
    );
    const error = await configureSshd(system, distroOf("Default"), config, off).catch(
      (e: unknown) => e,
    );
    expect(inWords(error)).toBe(
      "sshd refuses the new configuration: line 2: Bad configuration option: X",
    );
    expect(system.files.readText(MAIN)).toBe("Port 22\n");
    expect(system.files.list("/etc/ssh")).toEqual(["sshd_config"]);
  });

  test("provisioning.md DB-09: missing host keys and directories of the service are no fault of the file", async () => {
    for (const stderr of [
      "sshd: no hostkeys available -- exiting.",
      "Missing privilege separation directory: /run/sshd",
    ]) {
      using system = machine("Port 22\n");
      system.programs.set("sshd", () => ({ code: 1, stderr }));
      await configureSshd(system, distroOf("Default"), config, off);
      expect(system.files.readText(MAIN)).toContain("PasswordAuthentication no");
    }
  });

  test("provisioning.md DB-09: with an Include the main file stays, and a low drop-in decides", async () => {
    using system = machine("Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n");
    await configureSshd(system, distroOf("Default"), config, off);
    expect(system.files.readText(MAIN)).toStartWith("Include");
    expect(system.files.readText(DROP_IN)).toBe(
      "# Written by waagent when this machine was provisioned.\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nClientAliveInterval 180\n",
    );
    expect(system.files.stat(DROP_IN)?.mode).toBe(0o600);

    system.programs.set("sshd", () => ({ code: 255, stderr: "bad" }));
    const on = { disablePasswordAuthentication: false };
    await expect(configureSshd(system, distroOf("Default"), config, on)).rejects.toThrow("refuses");
    expect(system.files.readText(DROP_IN)).toContain("PasswordAuthentication no");
    system.files.remove(DROP_IN);
    await expect(configureSshd(system, distroOf("Default"), config, on)).rejects.toThrow("refuses");
    expect(system.files.exists(DROP_IN)).toBe(false);
  });

  test("system.md PKG-10: on Flatcar the settings go to a drop-in, or to a copy in the place of the link into /usr", async () => {
    using system = machine("Include /etc/ssh/sshd_config.d/*.conf\n");
    const flatcar = distroNamed("flatcar", "3975.2.1");
    await configureSshd(system, flatcar, config, off);
    expect(system.files.readText(MAIN)).toBe("Include /etc/ssh/sshd_config.d/*.conf\n");
    expect(system.files.readText(DROP_IN)).toContain("PasswordAuthentication no\n");

    const shipped = "/usr/share/ssh/sshd_config";
    system.files.makeDirectory("/usr/share/ssh");
    system.files.write(shipped, "Port 22\n", { mode: 0o644 });
    system.files.remove(MAIN);
    system.files.link("../../usr/share/ssh/sshd_config", MAIN);
    await configureSshd(system, flatcar, config, off);
    expect(system.files.readText(shipped)).toBe("Port 22\n");
    expect(system.files.lstat(MAIN)?.kind).toBe("file");
    expect(system.files.readText(MAIN)).toContain("PasswordAuthentication no\n");
    expect(system.files.readText(MAIN)).toContain("Port 22\n");
  });

  test.each(["Alpine", "Arch", "Clear", "CoreOS", "Fedora", "Mariner", "Photon"])(
    "provisioning.md SSH-15: the file is left alone on %s",
    async (adapter) => {
      using system = machine("Port 22\n");
      await configureSshd(system, distroOf(adapter), config, off);
      expect(system.files.readText(MAIN)).toBe("Port 22\n");
      expect(system.commands).toEqual([]);
    },
  );

  test("provisioning.md DB-36: free text never gets into the file", async () => {
    using system = machine("");
    const hostile = configOf({ "OS.SshClientAliveInterval": "0\nPermitRootLogin yes" });
    await configureSshd(system, distroOf("Default"), hostile, off);
    expect(system.files.readText(MAIN)).toContain("ClientAliveInterval 180\n");
    expect(system.files.readText(MAIN)).not.toContain("PermitRootLogin");
    expect(system.lines.filter((line) => line.startsWith("WARNING"))).toHaveLength(1);
  });

  test("without sshd there is a warning and nothing else; without the program the edit is not tried", async () => {
    using system = machine("");
    system.programs.delete("sshd");
    await configureSshd(system, distroOf("Default"), config, off);
    // Version unknown: the name that every sshd knows.
    expect(system.files.readText(MAIN)).toContain("ChallengeResponseAuthentication no");
    system.files.remove(MAIN);
    await configureSshd(system, distroOf("Default"), config, off);
    expect(system.files.exists(MAIN)).toBe(false);
    expect(system.lines.at(-1)).toContain("/etc/ssh/sshd_config does not exist");
  });
});
