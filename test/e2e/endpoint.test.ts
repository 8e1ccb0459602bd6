import { expect } from "bun:test";
import { firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { startGuest } from "./guest.ts";
import { canSandbox } from "./sandbox.ts";

const able = canSandbox();
const guestTest = testUnless(
  able.ok ? missing({ programs: ["useradd", "chpasswd", "openssl", "ip"] }) : able.reason,
);
const LIB = "/var/lib/waagent";

guestTest(
  "wire-protocol.md DHCP-10 DHCP-12 DHCP-20 DHCP-21 DHCP-22 DHCP-25 FILE-03 system.md NET-20 NET-25 NET-28: a machine without a default route asks by broadcast, gets the endpoint and its routes, and nothing of the asking is left",
  async () => {
    const scenario = {
      ...firstBoot(),
      dhcp: {
        router: "10.0.0.1",
        routes: ["172.31.0.0/16 via 10.0.0.1"],
      },
    };
    await using guest = await startGuest(scenario, {
      prepare: async (sandbox) => void (await sandbox.run(["ip", "route", "del", "default"])),
    });
    const { sandbox, fabric } = guest;
    await guest.until("ready");
    expect(fabric.events.filter(({ type }) => type === "dhcp")).toHaveLength(1);
    expect(sandbox.read(`${LIB}/WireServerEndpoint`)).toBe("168.63.129.16");
    expect(sandbox.read(`${LIB}/Protocol`)).toBe("WireProtocol");
    const routes = (await sandbox.run(["ip", "route"])).stdout;
    expect(routes).toContain("default via 10.0.0.1");
    expect(routes).toContain("172.31.0.0/16 via 10.0.0.1");
    expect(routes).not.toContain("255.255.255.255");
    const rules = (await sandbox.run(["sh", "-c", "iptables -S INPUT 2>/dev/null || true"])).stdout;
    expect(rules).not.toContain("--dport 68");
    expect(fabric.violations).toEqual([]);
  },
  60_000,
);

guestTest(
  "wire-protocol.md DHCP-03 DHCP-30 DHCP-35: where a DHCP client's lease names the endpoint nobody is asked",
  async () => {
    const lease = `lease {
  interface "eth0";
  fixed-address 10.0.0.4;
  option unknown-245 a8:3f:81:10;
  expire never;
}
`;
    await using guest = await startGuest(
      { ...firstBoot(), dhcp: { silent: true } },
      {
        prepare: async (sandbox) => {
          await sandbox.run(["mkdir", "-p", "/var/lib/dhcp"]);
          sandbox.write("/var/lib/dhcp/dhclient.eth0.leases", lease);
        },
      },
    );
    await guest.until("ready");
    expect(guest.fabric.events.filter(({ type }) => type === "dhcp")).toEqual([]);
    expect(guest.fabric.violations).toEqual([]);
  },
  60_000,
);
