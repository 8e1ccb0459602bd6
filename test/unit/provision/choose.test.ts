import { describe, expect, test } from "bun:test";
import { chooseProvisioner } from "../../../src/provision/choose.ts";
import { detectCloudInit } from "../../../src/provision/cloud-init.ts";
import type { FakeSystem } from "../../fakes/system.ts";
import { configOf, createMachine } from "./machine.ts";

const withUnits = (units: Readonly<Record<string, string>>): FakeSystem => {
  const system = createMachine();
  system.programs.set("systemctl", ([, , unit = ""]) => {
    const state = units[unit];
    if (state === undefined) return { code: 1, stderr: "Failed to get unit file state" };
    return {
      code: ["enabled", "static", "generated"].includes(state) ? 0 : 1,
      stdout: `${state}\n`,
    };
  });
  return system;
};

describe("who provisions", () => {
  test.each([
    ["auto", false, "agent"],
    ["auto", true, "cloud-init"],
    ["waagent", true, "agent-unasked"],
    ["cloud-init", false, "cloud-init"],
    ["disabled", true, "disabled"],
    ["Auto", true, "disabled"],
    ["", true, "disabled"],
  ] as const)(
    "provisioning.md PROV-01 PROV-03: %j with cloud-init %p is %s",
    async (wanted, enabled, expected) => {
      using system = withUnits(enabled ? { "cloud-init-local.service": "enabled" } : {});
      const config = configOf({ "Provisioning.Agent": wanted });
      expect(await chooseProvisioner(system, config)).toBe(expected);
      expect(system.lines).toHaveLength(1);
      expect(system.lines[0]).toStartWith(
        `INFO ExtHandler ExtHandler Using ${expected === "cloud-init" ? "cloud-init" : "waagent"} for provisioning`,
      );
    },
  );

  test("provisioning.md PROV-04: the removed options have no effect: nothing reads them", () => {
    const config = configOf() as Record<string, unknown>;
    expect(config["Provisioning.Enabled"]).toBeUndefined();
    expect(config["Provisioning.UseCloudInit"]).toBeUndefined();
  });
});

describe("whether cloud-init is enabled", () => {
  test("provisioning.md PROV-02: its unit is enabled, or its service answers 0", async () => {
    using enabled = withUnits({ "cloud-init-local.service": "enabled" });
    expect(await detectCloudInit(enabled)).toEqual({
      enabled: true,
      because: "cloud-init-local.service is enabled",
    });
    using disabled = withUnits({ "cloud-init-local.service": "disabled" });
    expect((await detectCloudInit(disabled)).enabled).toBe(false);
    disabled.programs.set("service", () => ({ code: 0, stdout: "active" }));
    expect((await detectCloudInit(disabled)).enabled).toBe(true);
    disabled.programs.set("service", () => ({ code: 4 }));
    expect((await detectCloudInit(disabled)).enabled).toBe(false);
    using none = createMachine();
    expect((await detectCloudInit(none)).enabled).toBe(false);
    expect(none.commands).toEqual([]);
  });

  test("provisioning.md DB-25: the units of newer releases count, and so does what its generator decided", async () => {
    using renamed = withUnits({ "cloud-init-main.service": "enabled" });
    expect((await detectCloudInit(renamed)).enabled).toBe(true);
    using decided = createMachine();
    decided.files.makeDirectory("/run/cloud-init");
    decided.files.write("/run/cloud-init/enabled", "");
    expect((await detectCloudInit(decided)).because).toBe("/run/cloud-init/enabled exists");
    decided.files.write("/run/cloud-init/disabled", "");
    expect((await detectCloudInit(decided)).enabled).toBe(false);
  });

  test("provisioning.md DB-25: its own switches turn it off", async () => {
    using byFile = withUnits({ "cloud-init-local.service": "enabled" });
    byFile.files.makeDirectory("/etc/cloud");
    byFile.files.write("/etc/cloud/cloud-init.disabled", "");
    expect((await detectCloudInit(byFile)).enabled).toBe(false);
    using byKernel = withUnits({ "cloud-init-local.service": "enabled" });
    byKernel.files.write("/proc/cmdline", "root=/dev/sda1 cloud-init=disabled ro\n");
    expect(await detectCloudInit(byKernel)).toEqual({
      enabled: false,
      because: "the kernel command line has cloud-init=disabled",
    });
  });
});
