import { expect } from "bun:test";
import { firstBoot } from "../fabric/scenarios.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem } from "./image.ts";
import { bootMachine, type Machine } from "./machine.ts";

const bootTest = testUnless(bootProblem());

async function boot(dhcpClient: "networkd" | "dhclient"): Promise<Machine> {
  return await bootMachine(
    { ...firstBoot(), packages: [], goalStates: [{ incarnation: "1" }] },
    {
      layers: [await agentLayer()],
      configuration: "Provisioning.MonitorHostName=y\nProvisioning.MonitorHostNamePeriod=1\n",
      dhcpClient,
    },
  );
}

/** Renames the machine as a person does, and looks at what happens to its network meanwhile. */
async function rename(machine: Machine): Promise<void> {
  const asked = (name: string) =>
    machine.fabric.waitFor(
      (event) => event.type === "dhcp" && event.text.endsWith(`, from ${name}`),
      20_000,
      `a DHCP request of ${name}`,
    );
  await machine.until("ready");
  // The name of provisioning came after the first request.
  await asked("fabricvm");
  const changes = machine.spawn(["ip", "-o", "monitor", "link", "address"]);
  await Bun.sleep(200);
  await machine.run(["hostnamectl", "set-hostname", "renamed"]);
  await asked("renamed");
  await Bun.sleep(1000);
  await changes.kill();
  expect(changes.output()).not.toContain("Deleted");
  expect(changes.output()).not.toMatch(/state DOWN|NO-CARRIER/);
  expect(machine.read("/etc/hostname").trim()).toBe("renamed");
  expect(machine.read("/var/lib/waagent/published_hostname")).toBe("renamed");
  const address = await machine.run(["ip", "-o", "-4", "address", "show", "eth0"]);
  expect(address.stdout).toContain("10.0.0.4/24");
  await machine.until("goal-state", { after: machine.now() });
  expect(machine.fabric.violations).toEqual([]);
}

bootTest(
  "system.md NET-40 provisioning.md HOST-15 DB-14: a name set by hostnamectl is asked for by networkd's DHCP, with the link and the address staying as they are",
  async () => {
    await using machine = await boot("networkd");
    await rename(machine);
  },
  120_000,
);

bootTest(
  "system.md NET-40 BET-11 provisioning.md HOST-15: the same with ifupdown's dhclient, which is no child of the agent afterwards and outlives it",
  async () => {
    await using machine = await boot("dhclient");
    await rename(machine);
    const clients = async () => {
      const listed = await machine.run(["ps", "-C", "dhclient", "-o", "pid=,cgroup="]);
      return listed.stdout.trim().split("\n");
    };
    const before = await clients();
    expect(before.length).toBe(1);
    expect(before[0]).toContain("/system.slice/");
    await machine.run(["systemctl", "stop", "waagent.service"]);
    expect(await clients()).toEqual(before);
  },
  120_000,
);
