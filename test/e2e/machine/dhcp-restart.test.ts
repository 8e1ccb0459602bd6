import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import { canSandbox } from "../sandbox.ts";
import { createMachineSandbox, operate } from "./support.ts";

const able = canSandbox();
const missing = ["dhclient", "dnsmasq"].find(
  (program) => Bun.which(program, { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }) === null,
);
const reason = !able.ok ? able.reason : missing === undefined ? undefined : `no ${missing} here`;
const clientTest = testUnless(reason);

clientTest(
  `system.md NET-30 BET-09 wire-protocol.md DHCP-25: routes of our own DHCP answer come back after a real dhclient was restarted`,
  async () => {
    await using sandbox = await createMachineSandbox({ network: "pair", guestAddress: false });
    sandbox.platform.spawn([
      ...["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=p0"],
      ...["--bind-interfaces", "--dhcp-range=10.0.0.50,10.0.0.60,255.255.255.0,1h", "--no-ping"],
      ...["--dhcp-authoritative", `--dhcp-leasefile=${sandbox.scratch}/leases`],
    ]);
    await Bun.sleep(300);
    const client = [
      "dhclient",
      "-pf",
      "/run/dhclient.eth0.pid",
      "-lf",
      "/var/lib/dhcp/x.leases",
      "eth0",
    ];
    await sandbox.run(client);
    const outcome = await operate(sandbox, "dhcp-restart", {
      routes: {
        gateway: "10.0.0.1",
        classless: [
          { network: "168.63.129.16", prefix: 32, gateway: "10.0.0.1" },
          { network: "172.16.9.9", prefix: 12, gateway: "10.0.0.1" },
        ],
        interface: "eth0",
      },
      // The old client releases, and with that its script clears the interface.
      restart: [["dhclient", "-r", ...client.slice(1)], client],
    });
    const { before, between, after } = outcome.result as Record<string, string>;
    for (const route of ["168.63.129.16 via 10.0.0.1", "172.16.0.0/12 via 10.0.0.1"]) {
      expect(before).toContain(route);
      expect(between).not.toContain(route);
      expect(after).toContain(route);
    }
    expect(after!.match(/^default/gm)).toHaveLength(1);
  },
);
