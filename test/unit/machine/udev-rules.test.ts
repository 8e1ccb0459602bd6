import { expect, test } from "bun:test";
import { defaultConfig } from "../../../src/config/table.ts";
import {
  removePersistentNetRules,
  restorePersistentNetRules,
  UDEV_RULES_PERIOD,
} from "../../../src/machine/udev-rules.ts";
import { createFakeSystem } from "../../fakes/system.ts";
import { plant } from "./support.ts";

const config = defaultConfig();
const GENERATOR = "/lib/udev/rules.d/75-persistent-net-generator.rules";
const PERSISTENT = "/etc/udev/rules.d/70-persistent-net.rules";

test("system.md UDEV-01 UDEV-02 ENV-01 provisioning.md OS-61 CONF-41 LOG-11: the rules are moved and stay saved, where the distribution has them", () => {
  using system = createFakeSystem();
  expect(config[UDEV_RULES_PERIOD]).toBe(30);
  plant(system, { [GENERATOR]: "generator", [PERSISTENT]: "rules" });
  removePersistentNetRules(system, config, { removePersistentNetRules: false });
  removePersistentNetRules(
    system,
    { ...config, "Network.Manage": false },
    { removePersistentNetRules: true },
  );
  expect(system.files.exists(GENERATOR)).toBe(true);

  const distro = { removePersistentNetRules: true };
  removePersistentNetRules(system, config, distro);
  removePersistentNetRules(system, config, distro);
  expect(system.files.exists(GENERATOR)).toBe(false);
  expect(system.files.exists(PERSISTENT)).toBe(false);
  expect(system.files.readText("/var/lib/waagent/70-persistent-net.rules")).toBe("rules");
  expect(system.lines).toEqual([
    "WARNING ExtHandler ExtHandler Move rules file 75-persistent-net-generator.rules to /var/lib/waagent/75-persistent-net-generator.rules",
    "WARNING ExtHandler ExtHandler Move rules file 70-persistent-net.rules to /var/lib/waagent/70-persistent-net.rules",
  ]);

  plant(system, { [PERSISTENT]: "newer" });
  restorePersistentNetRules(system, config);
  expect(system.files.readText(PERSISTENT)).toBe("newer");
  expect(system.files.readText(GENERATOR)).toBe("generator");
});
