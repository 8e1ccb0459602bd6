import { afterAll, describe, expect, test } from "bun:test";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {
  azureSlice,
  execStartDropIn,
  extensionsSlice,
  FAMILIES,
  type FamilyName,
  serviceUnit,
  UNSET_ENVIRONMENT,
} from "../../packaging/systemd.ts";
import { testWith } from "../support/skip.ts";

const work = fs.mkdtempSync(path.join(os.tmpdir(), "waagent-units-"));
afterAll(() => fs.rmSync(work, { recursive: true, force: true }));

/** Section → key → values in order. */
function parse(unit: string): Record<string, Record<string, string[]>> {
  const sections: Record<string, Record<string, string[]>> = {};
  let section: Record<string, string[]> = {};
  for (const line of unit.split("\n")) {
    const heading = /^\[(\w+)\]$/.exec(line);
    if (heading !== null) section = sections[heading[1] ?? ""] ??= {};
    const entry = /^(\w+)=(.*)$/.exec(line);
    if (entry !== null) (section[entry[1] ?? ""] ??= []).push(entry[2] ?? "");
  }
  return sections;
}

describe("service units", () => {
  test("provisioning.md PKG-20 system.md INIT-08: the generic unit waits for the network and ssh and restarts for ever", () => {
    const unit = parse(serviceUnit("generic"));
    expect(unit["Unit"]).toMatchObject({
      Wants: ["network-online.target sshd.service sshd-keygen.service"],
      After: ["network-online.target"],
      ConditionFileIsExecutable: ["/usr/sbin/waagent"],
      ConditionPathExists: ["/etc/waagent.conf"],
    });
    expect(unit["Service"]).toMatchObject({
      Type: ["simple"],
      ExecStart: ["/usr/sbin/waagent -daemon"],
      Restart: ["always"],
      RestartSec: ["5"],
      Slice: ["azure.slice"],
      CPUAccounting: ["yes"],
      MemoryAccounting: ["yes"],
    });
    expect(unit["Install"]).toMatchObject({ WantedBy: ["multi-user.target"] });
  });

  test("Debian and Ubuntu: after cloud-init, and known by the name that they use", () => {
    const unit = parse(serviceUnit("debian"));
    expect(unit["Unit"]?.["After"]).toEqual(["network-online.target cloud-init.service"]);
    expect(unit["Install"]?.["Alias"]).toEqual(["walinuxagent.service"]);
    expect(unit["Service"]).toMatchObject({ Slice: ["azure.slice"], CPUAccounting: ["yes"] });
  });

  test("provisioning.md PKG-22: Azure Linux waits for networkd and cloud-init, and has the binary in /usr/bin", () => {
    const unit = parse(serviceUnit("azurelinux"));
    expect(unit["Unit"]).toMatchObject({
      Wants: ["systemd-networkd-wait-online.service sshd.service sshd-keygen.service"],
      After: ["systemd-networkd-wait-online.service cloud-init.service"],
      ConditionFileIsExecutable: ["/usr/bin/waagent"],
    });
    expect(unit["Service"]).toMatchObject({
      ExecStart: ["/usr/bin/waagent -daemon"],
      Restart: ["always"],
      RestartSec: ["5"],
    });
  });

  test("provisioning.md PKG-23: Chainguard gets a PATH", () => {
    expect(parse(serviceUnit("chainguard"))["Service"]?.["Environment"]).toEqual([
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]);
  });

  test("provisioning.md PKG-24 PKG-25: the slices come before slices.target, the extensions' one accounts", () => {
    for (const slice of [azureSlice(), extensionsSlice()]) {
      expect(parse(slice)["Unit"]).toMatchObject({
        DefaultDependencies: ["no"],
        Before: ["slices.target"],
      });
    }
    expect(parse(extensionsSlice())["Slice"]).toEqual({
      CPUAccounting: ["yes"],
      MemoryAccounting: ["yes"],
    });
  });

  test("system.md PKG-11: the unit starts under Microsoft's hypervisor only", () => {
    for (const name of Object.keys(FAMILIES) as FamilyName[])
      expect(parse(serviceUnit(name))["Unit"]?.["ConditionVirtualization"]).toEqual(["|microsoft"]);
  });

  test("system.md PKG-10: a read-only system seeds its configuration and starts after the merge", () => {
    const unit = parse(serviceUnit("sysext"));
    expect(unit["Unit"]?.["After"]?.[0]).toContain("systemd-sysext.service");
    expect(unit["Unit"]?.["ConditionPathExists"]).toBeUndefined();
    expect(unit["Service"]?.["ExecStartPre"]?.[0]).toContain("/usr/share/waagent/waagent.conf");
  });

  test("extensions.md UPD-34: no unit and no drop-in leaves an interpreter in front of the executable", () => {
    for (const name of Object.keys(FAMILIES) as FamilyName[]) {
      expect(parse(serviceUnit(name))["Service"]?.["ExecStart"]).toEqual([
        `${FAMILIES[name].binary} -daemon`,
      ]);
    }
    // An empty ExecStart= clears the one of the image's own unit.
    expect(parse(execStartDropIn())["Service"]?.["ExecStart"]).toEqual([
      "",
      "/usr/sbin/waagent -daemon",
    ]);
  });

  test("what could steer the runtime is taken out of the environment", () => {
    for (const name of Object.keys(FAMILIES) as FamilyName[]) {
      const unset = parse(serviceUnit(name))["Service"]?.["UnsetEnvironment"]?.[0]?.split(" ");
      expect(unset).toEqual([...UNSET_ENVIRONMENT]);
    }
    expect(UNSET_ENVIRONMENT).toEqual(
      expect.arrayContaining(["BUN_BE_BUN", "BUN_OPTIONS", "BUN_INSPECT", "HTTPS_PROXY"]),
    );
  });
});

/** What `systemd-analyze verify` says about a tree with these units, and its exit code. */
function verify(folder: string, binary: string, service: string): { said: string[]; code: number } {
  const put = (file: string, text: string, mode = 0o644) => {
    fs.mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    fs.writeFileSync(path.join(folder, file), text, { mode });
  };
  put(binary.slice(1), "#!/bin/sh\n", 0o755);
  put("bin/sh", "#!/bin/sh\n", 0o755);
  put("etc/systemd/system/waagent.service", service);
  put("etc/systemd/system/azure.slice", azureSlice());
  put("etc/systemd/system/azure-vmextensions.slice", extensionsSlice());
  for (const target of ["multi-user", "slices", "network-online", "sysinit", "basic", "shutdown"]) {
    put(`etc/systemd/system/${target}.target`, "[Unit]\n");
  }
  const units = ["waagent.service", "azure.slice", "azure-vmextensions.slice"];
  const checked = Bun.spawnSync(
    ["systemd-analyze", `--root=${folder}`, "verify", "--man=no", ...units],
    { stdout: "pipe", stderr: "pipe" },
  );
  const said = checked.stderr.toString().split("\n");
  return {
    said: said.filter((line) => /waagent\.service|azure|Unknown|Failed to parse/.test(line)),
    code: checked.exitCode,
  };
}

testWith({ programs: ["systemd-analyze"] })(
  "systemd's own score of the unit is the one of the README",
  () => {
    const readme = fs.readFileSync(path.resolve(import.meta.dir, "../../README.md"), "utf8");
    const [, stated = ""] = /`systemd-analyze security` gives the unit ([\d.]+)/.exec(readme) ?? [];
    const unit = path.join(work, "scored.service");
    fs.writeFileSync(unit, serviceUnit("generic"));
    const scored = Bun.spawnSync(["systemd-analyze", "security", "--offline=yes", unit]);
    expect(scored.stdout.toString()).toContain(`scored.service: ${stated} `);
  },
);

testWith({ programs: ["systemd-analyze"] })("systemd itself accepts every unit", () => {
  for (const name of Object.keys(FAMILIES) as FamilyName[]) {
    const result = verify(path.join(work, name), FAMILIES[name].binary, serviceUnit(name));
    expect({ name, ...result }).toEqual({ name, said: [], code: 0 });
  }
  const wrong = serviceUnit("generic").replace("Restart=always", "Restart=allways");
  expect(verify(path.join(work, "wrong"), "/usr/sbin/waagent", wrong).said).not.toEqual([]);
});
