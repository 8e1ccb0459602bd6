import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import { canSandbox, type Sandbox, type SandboxProcess } from "../sandbox.ts";
import { createMachineSandbox, operate } from "./support.ts";

const able = canSandbox();
/** The acceptance run is 100 (`WAAGENT_HOSTNAME_CHANGES=100`); a change takes a client from 0.1 to 4 s. */
const CHANGES = process.env["WAAGENT_HOSTNAME_CHANGES"];

interface Client {
  readonly name: string;
  readonly programs: readonly string[];
  /** Starts it; resolves when the interface has an address. */
  readonly start: (sandbox: Sandbox) => Promise<void>;
  readonly kind: string;
  /** Clients that answer before they have asked are given time. */
  readonly pauseMs?: number;
}

async function bus(sandbox: Sandbox): Promise<void> {
  await sandbox.run(["mkdir", "-p", "/run/dbus"]);
  await sandbox.run(["dbus-daemon", "--system", "--fork", "--nopidfile"]);
}

async function hasAddress(sandbox: Sandbox): Promise<boolean> {
  return (await sandbox.run(["ip", "-4", "-o", "address", "show", "dev", "eth0"])).stdout !== "";
}

async function waitFor(what: string, ready: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await ready())) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen within 20 s`);
    await Bun.sleep(50);
  }
}

/** What systemd does for `systemctl restart systemd-networkd`: RestartKillSignal=SIGUSR2, then a new process. */
const SYSTEMCTL = `#!/bin/sh
[ "$1 $2" = "restart systemd-networkd.service" ] || exit 1
kill -USR2 "$(pidof systemd-networkd)"
while pidof systemd-networkd >/dev/null; do sleep 0.02; done
/lib/systemd/systemd-networkd >/dev/null 2>&1 </dev/null &
`;

const DHCLIENT = [
  ...["dhclient", "-4", "-v", "-i", "-pf", "/run/dhclient.eth0.pid"],
  ...[
    "-lf",
    "/var/lib/dhcp/dhclient.eth0.leases",
    "-I",
    "-df",
    "/var/lib/dhcp/dhclient6.eth0.leases",
    "eth0",
  ],
];

const CLIENTS: readonly Client[] = [
  {
    name: "dhclient",
    kind: "dhclient",
    programs: ["dhclient"],
    start: async (sandbox) => void (await sandbox.run(DHCLIENT)),
  },
  {
    name: "dhclient with its own name in its file",
    kind: "dhclient",
    programs: ["dhclient"],
    start: async (sandbox) => {
      sandbox.write(
        "/etc/dhcp/dhclient.conf",
        'send host-name "image";\nrequest subnet-mask, routers;\n',
      );
      await sandbox.run(DHCLIENT);
    },
  },
  {
    name: "ifupdown",
    kind: "dhclient",
    programs: ["ifup", "dhclient"],
    start: async (sandbox) => {
      sandbox.write("/etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n");
      await sandbox.run([
        "sh",
        "-c",
        "rm -rf /etc/network/if-up.d/* /etc/network/if-pre-up.d/*; mkdir -p /run/network; ifup eth0",
      ]);
    },
  },
  {
    name: "dhcpcd",
    kind: "dhcpcd",
    programs: ["dhcpcd"],
    pauseMs: 3500,
    start: async (sandbox) => void (await sandbox.run(["dhcpcd", "-4", "-q", "eth0"])),
  },
  {
    name: "systemd-networkd",
    kind: "networkd",
    programs: ["networkctl", "dbus-daemon"],
    pauseMs: 400,
    start: async (sandbox) => {
      await bus(sandbox);
      sandbox.write(
        "/etc/systemd/network/10-eth0.network",
        "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
      );
      sandbox.write("/usr/bin/systemctl", SYSTEMCTL, 0o755);
      await sandbox.run([
        "sh",
        "-c",
        "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases; chown -R systemd-network: /run/systemd/netif",
      ]);
      sandbox.spawn(["/lib/systemd/systemd-networkd"]);
    },
  },
  {
    name: "NetworkManager",
    kind: "NetworkManager",
    programs: ["NetworkManager", "nmcli", "dbus-daemon"],
    pauseMs: 400,
    start: async (sandbox) => {
      await bus(sandbox);
      sandbox.write(
        "/etc/NetworkManager/NetworkManager.conf",
        "[main]\nplugins=keyfile\nno-auto-default=*\n",
      );
      sandbox.write("/etc/network/interfaces", "");
      sandbox.spawn(["NetworkManager", "--no-daemon"]);
      await waitFor("NetworkManager", async () => {
        const state = await sandbox.run(
          ["nmcli", "-g", "GENERAL.STATE", "device", "show", "eth0"],
          { allowFailure: true },
        );
        return state.stdout.startsWith("30");
      });
      const method = ["ipv4.method", "auto", "ipv6.method", "disabled"];
      await sandbox.run([
        "nmcli",
        "connection",
        "add",
        "type",
        "ethernet",
        "ifname",
        "eth0",
        "con-name",
        "eth0",
        ...method,
      ]);
      await sandbox.run(["nmcli", "connection", "up", "eth0"]);
    },
  },
];

function startServer(sandbox: Sandbox): SandboxProcess {
  return sandbox.platform.spawn([
    ...["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=p0"],
    ...["--bind-interfaces", "--dhcp-range=10.0.0.50,10.0.0.60,255.255.255.0,1h", "--no-ping"],
    ...["--dhcp-authoritative", "--log-dhcp", `--dhcp-leasefile=${sandbox.scratch}/leases`],
  ]);
}

/** Names in the order in which a DHCPREQUEST carried them, without repetitions. */
function requestedNames(log: string): string[] {
  const names: string[] = [];
  let name = "";
  for (const line of log.split("\n")) {
    name = /client provides name: (\S+)/.exec(line)?.[1] ?? name;
    if (line.includes("DHCPREQUEST(") && names.at(-1) !== name) names.push(name);
  }
  return names;
}

for (const client of CLIENTS) {
  const missing = ["dnsmasq", ...client.programs].find(
    (program) => Bun.which(program, { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" }) === null,
  );
  const reason = !able.ok ? able.reason : missing === undefined ? undefined : `no ${missing} here`;
  const slow = (client.pauseMs ?? 0) > 1000;
  const clientTest = testUnless(reason);
  clientTest(
    `system.md BET-10 BET-11 provisioning.md DB-14: ${client.name} announces every new host name; the link never goes down, the address never goes`,
    async () => {
      const changes = Number(CHANGES ?? (slow ? 2 : 5));
      await using sandbox = await createMachineSandbox({
        network: "pair",
        guestAddress: false,
        hostname: "image",
      });
      const server = startServer(sandbox);
      await client.start(sandbox);
      await waitFor("An address", () => hasAddress(sandbox));
      const monitor = sandbox.spawn(["ip", "monitor", "link", "address"]);
      await Bun.sleep(200);
      const outcome = await operate(
        sandbox,
        "announce-names",
        { count: changes, pauseMs: client.pauseMs },
        { timeoutMs: 30_000 + changes * (3000 + (client.pauseMs ?? 0)) },
      );
      expect(outcome.result, outcome.log).toEqual(Array(changes).fill(client.kind));
      const wanted = Array.from({ length: changes }, (_, index) => `name-${index + 1}`);
      await waitFor("The last announcement", async () =>
        requestedNames(server.output()).includes(wanted.at(-1)!),
      );
      const names = requestedNames(server.output());
      expect(names.filter((name) => name.startsWith("name-"))).toEqual(wanted);
      expect(monitor.output()).not.toMatch(/Deleted|state DOWN|NO-CARRIER/);
      expect(await hasAddress(sandbox)).toBe(true);
    },
    30_000 + Number(CHANGES ?? 5) * (4000 + (client.pauseMs ?? 0)),
  );
}
