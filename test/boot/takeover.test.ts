import { expect } from "bun:test";
import { journal } from "../e2e/journal.ts";
import { createKey, ssh } from "../e2e/ssh.ts";
import { firstBoot } from "../fabric/scenarios.ts";
import { debianAgent } from "../packaging/debian.ts";
import { testUnless } from "../support/skip.ts";
import { agentLayer, bootProblem, carry, otherLayer, packageFileOf } from "./image.ts";
import { bootMachine } from "./machine.ts";

const theirs = debianAgent();
const reason =
  bootProblem() ??
  (theirs === undefined ? "Debian's waagent package could not be fetched" : undefined);

testUnless(reason)(
  "provisioning.md ID-04 system.md THR-03: on a running machine that Debian's agent provisioned, ours takes over and hands back: nothing is provisioned or installed again",
  async () => {
    using key = createKey();
    using layer = otherLayer(theirs ?? "");
    await using machine = await bootMachine(firstBoot(key.publicLine), {
      layers: [layer],
      configuration: "Provisioning.Agent=waagent\nProvisioning.RegenerateSshHostKeyPair=y\n",
      // Theirs does not start an sshd that failed for want of keys, so this one never gives up.
      files: { "/etc/systemd/system/ssh.service.d/test.conf": "[Unit]\nStartLimitIntervalSec=0\n" },
    });
    await machine.until("ready", { timeoutMs: 60_000 });
    await machine.until("status:Fabric.Demo=success", { timeoutMs: 60_000 });
    expect(await machine.show("walinuxagent.service", "ActiveState")).toBe("active");
    expect((await ssh(machine, "azureuser", key, "true")).code).toBe(0);
    const reports = machine.fabric.healthReports.length;
    const commands = () => journal(machine).map((one) => `${one.command} ${one.sequence}`);
    const before = commands();

    carry(machine, { "ours.deb": packageFileOf(await agentLayer()), "theirs.deb": theirs ?? "" });
    const configuration = machine.read("/etc/waagent.conf");
    const dpkg = (...words: string[]) =>
      machine.run(["dpkg", "--force-unsafe-io", ...words], { timeoutMs: 90_000 });

    const taken = machine.now();
    await dpkg("-i", "/opt/packages/ours.deb");
    let since = machine.now();
    await machine.until("status:Fabric.Demo=success", { after: since });
    expect(await machine.show("walinuxagent.service", "Id")).toBe("waagent.service");
    expect(await machine.show("waagent.service", "ActiveState")).toBe("active");
    expect((await machine.run(["waagent", "-version"])).stdout).toContain("Bun");
    expect(machine.read("/etc/waagent.conf")).toBe(configuration);
    expect(commands().filter((one) => one.startsWith("install"))).toEqual(["install 0"]);
    expect(machine.fabric.healthReports.length).toBe(reports);
    // Events that the other agent left are sent on as it wrote them, in its order of parameters.
    const broken = machine.fabric.events.flatMap((event) =>
      event.type === "violation" && event.at > taken ? [event.violation.message] : [],
    );
    expect(broken.filter((message) => !/has its parameters in the order/.test(message))).toEqual(
      [],
    );

    await dpkg("-r", "waagent-native");
    expect(machine.exists("/sys/fs/cgroup/azure.slice/waagent.service")).toBe(false);
    await dpkg("-i", "/opt/packages/theirs.deb");
    since = machine.now();
    await machine.until("status:Fabric.Demo=success", { after: since, timeoutMs: 60_000 });
    expect(await machine.show("walinuxagent.service", "ActiveState")).toBe("active");
    expect(await machine.show("walinuxagent.service", "Id")).toBe("walinuxagent.service");
    expect(commands().slice(0, before.length)).toEqual(before);
    expect(commands().filter((one) => one.startsWith("install"))).toEqual(["install 0"]);
    expect(machine.fabric.healthReports.length).toBe(reports);
    expect((await ssh(machine, "azureuser", key, "true")).code).toBe(0);
  },
  150_000,
);
