import { expect, test } from "bun:test";
import { setupFirewall } from "../../../src/cli/firewall.ts";
import { defaultConfig } from "../../../src/config/table.ts";
import { createFakeSystem } from "../../fakes/system.ts";

test("provisioning.md CLI-29 CLI-05; extensions.md FW-13: an address that is none fails with an event, exit 1, nothing run", async () => {
  using system = createFakeSystem();
  expect(await setupFirewall({ system, config: defaultConfig() }, "1.1.1.1.", 0)).toBe(1);
  expect(system.commands).toEqual([]);
  expect(system.events).toHaveLength(1);
  expect(system.events[0]).toMatchObject({ operation: "Firewall", success: false });
  expect(system.events[0]?.message).toContain('"1.1.1.1." is not an IPv4 address');
});
