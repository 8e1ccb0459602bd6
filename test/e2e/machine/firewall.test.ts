import { expect } from "bun:test";
import { testUnless } from "../../support/skip.ts";
import path from "node:path";
import { canSandbox, type Sandbox } from "../sandbox.ts";
import { createMachineSandbox, operate } from "./support.ts";

const able = canSandbox();
const sandboxTest = testUnless(able.ok ? undefined : able.reason);

const WIRESERVER = "168.63.129.16";
const PORTS = [80, 32526, 53] as const;
const TOOLS = ["iptables-nft", "iptables-legacy", "nft"] as const;

/** The guest's iptables is the given one; with "nft" there is none. */
async function chooseTool(sandbox: Sandbox, tool: (typeof TOOLS)[number]): Promise<void> {
  const names = ["iptables", "iptables-save", "iptables-restore"];
  for (const name of names) {
    const link = `/usr/sbin/${name}`;
    if (tool === "nft") await sandbox.run(["rm", "-f", link]);
    else await sandbox.run(["ln", "-sf", name.replace("iptables", tool), link]);
  }
}

async function listen(sandbox: Sandbox): Promise<void> {
  const pairs = PORTS.map((port) => `${WIRESERVER}:${port}`);
  const script = path.join(import.meta.dir, "listen.ts");
  const server = sandbox.platform.spawn([process.execPath, script, ...pairs]);
  const deadline = performance.now() + 10_000;
  while (!server.output().includes("ready")) {
    if (performance.now() > deadline) throw new Error(`No listener: ${server.output()}`);
    await Bun.sleep(20);
  }
}

/** Which ports a user of the guest (or of a namespace behind it) can open; bit by bit "80 32526 53". */
async function reachable(sandbox: Sandbox, user: number, namespace?: string): Promise<string> {
  const attempts = PORTS.map(
    (port) =>
      `(timeout 0.7 bash -c 'exec 3<>/dev/tcp/${WIRESERVER}/${port}' 2>/dev/null && echo ${port}) &`,
  ).join("\n");
  const enter = namespace === undefined ? [] : ["ip", "netns", "exec", namespace];
  const become = ["setpriv", "--reuid", `${user}`, "--regid", `${user}`, "--clear-groups"];
  const script = `${attempts}\nwait`;
  const result = await sandbox.run([...enter, ...become, "bash", "-c", script]);
  const open = result.stdout.split("\n");
  return PORTS.filter((port) => open.includes(`${port}`)).join(" ");
}

/** Everything the kernel's firewall holds, without counters. */
async function rulesets(sandbox: Sandbox): Promise<string> {
  const texts: string[] = [];
  for (const argv of [
    ["iptables-legacy-save"],
    ["iptables-nft-save"],
    ["nft", "list", "ruleset"],
  ]) {
    const listing = await sandbox.run(argv);
    texts.push(
      listing.stdout
        .replace(/^#.*\n/gm, "")
        .replace(/\[\d+:\d+\]|counter packets \d+ bytes \d+/g, ""),
    );
  }
  return texts.join("---\n");
}

async function addForeignRules(sandbox: Sandbox, tool: (typeof TOOLS)[number]): Promise<void> {
  const iptables = tool === "nft" ? "iptables-nft" : tool;
  await sandbox.run([iptables, "-A", "INPUT", "-p", "tcp", "--dport", "9", "-j", "REJECT"]);
  await sandbox.run([iptables, "-t", "security", "-A", "OUTPUT", "-d", "10.9.9.9", "-j", "DROP"]);
  await sandbox.run([iptables, "-t", "security", "-A", "OUTPUT", "-j", "ACCEPT"]);
  await sandbox.run(["nft", "-f", "-"], {
    stdin:
      "add table inet foreign\nadd chain inet foreign out { type filter hook output priority 0; }\nadd rule inet foreign out tcp dport 9 drop\n",
  });
}

for (const tool of TOOLS) {
  sandboxTest(
    `extensions.md FW-01 FW-03 FW-07 DB-38: with real ${tool} only root reaches the WireServer, DNS stays open, foreign rules stay, removal leaves nothing`,
    async () => {
      await using sandbox = await createMachineSandbox({ network: "pair" });
      await listen(sandbox);
      await chooseTool(sandbox, tool);
      expect(await reachable(sandbox, 1000)).toBe("80 32526 53");

      await addForeignRules(sandbox, tool);
      const foreign = await rulesets(sandbox);
      const first = await operate(sandbox, "firewall");
      expect(first.result).toEqual({
        tool: tool === "nft" ? "nft" : "iptables",
        result: "applied",
        before: "absent",
        after: "ok",
      });
      // One of the foreign rules accepts everything, and still nobody but root gets through.
      expect(await reachable(sandbox, 1000)).toBe("53");
      expect(await reachable(sandbox, 0)).toBe("80 32526 53");
      const settled = await rulesets(sandbox);
      expect((await operate(sandbox, "firewall")).result).toMatchObject({ result: "unchanged" });
      expect(await rulesets(sandbox)).toBe(settled);

      await operate(sandbox, "firewall-remove");
      expect(await rulesets(sandbox)).toBe(foreign);
      expect(await reachable(sandbox, 1000)).toBe("80 32526 53");
    },
  );

  sandboxTest(
    `Firewall.CoverForwarded: with real ${tool} a namespace that is routed through the VM is covered with the option only`,
    async () => {
      await using sandbox = await createMachineSandbox({ network: "pair" });
      await listen(sandbox);
      await chooseTool(sandbox, tool);
      await sandbox.run(["ip", "netns", "add", "box"]);
      await sandbox.run(["ip", "-batch", "-"], {
        stdin: [
          "link add c0 type veth peer name c1 netns box",
          "address add 10.7.0.1/24 dev c0",
          "link set c0 up",
        ].join("\n"),
      });
      await sandbox.run(["ip", "-n", "box", "-batch", "-"], {
        stdin: "address add 10.7.0.2/24 dev c1\nlink set c1 up\nroute add default via 10.7.0.1\n",
      });
      await sandbox.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
      await sandbox.platform.run(["ip", "route", "add", "10.7.0.0/24", "via", "10.0.0.4"]);

      await operate(sandbox, "firewall");
      expect(await reachable(sandbox, 1000, "box")).toBe("80 32526 53");
      expect((await operate(sandbox, "firewall", { forward: true })).result).toMatchObject({
        before: "inconsistent",
        after: "ok",
      });
      expect(await reachable(sandbox, 1000, "box")).toBe("53");
      expect(await reachable(sandbox, 0, "box")).toBe("53");
      expect(await reachable(sandbox, 0)).toBe("80 32526 53");
      await operate(sandbox, "firewall");
      expect(await reachable(sandbox, 1000, "box")).toBe("80 32526 53");
      await operate(sandbox, "firewall-remove");
    },
  );
}

for (const tool of ["iptables-nft", "iptables-legacy"] as const) {
  sandboxTest(
    `extensions.md FW-03 FW-04 FW-06: with real ${tool} the Python agent's own check accepts our rules, and its old rule is replaced`,
    async () => {
      await using sandbox = await createMachineSandbox({ network: "pair" });
      await chooseTool(sandbox, tool);
      const address = ["-d", WIRESERVER, "-p", "tcp"];
      const states = [...address, "-m", "conntrack", "--ctstate", "INVALID,NEW", "-j"];
      await sandbox.run(["iptables", "-w", "-t", "security", "-A", "OUTPUT", ...states, "ACCEPT"]);
      const outcome = await operate(sandbox, "firewall");
      expect(outcome.result).toMatchObject({ before: "inconsistent", after: "ok" });
      const check = async (...spec: readonly string[]): Promise<number> => {
        const argv = ["iptables", "-w", "-t", "security", "-C", "OUTPUT", ...spec];
        return (await sandbox.run(argv, { allowFailure: true })).code;
      };
      expect(await check(...address, "--destination-port", "53", "-j", "ACCEPT")).toBe(0);
      expect(await check(...address, "-m", "owner", "--uid-owner", "0", "-j", "ACCEPT")).toBe(0);
      expect(await check(...states, "DROP")).toBe(0);
      expect(await check(...states, "ACCEPT")).toBe(1);
    },
  );
}

sandboxTest(
  `extensions.md DB-39: where the security table cannot be used nft takes over`,
  async () => {
    await using sandbox = await createMachineSandbox({ network: "pair" });
    await listen(sandbox);
    // The kernel here has the table; this iptables says what one says where it has not.
    sandbox.write(
      "/usr/sbin/iptables-broken",
      `#!/bin/sh
[ "$1" = --version ] && exec /usr/sbin/iptables-legacy --version
echo "iptables v1.8.9 (legacy): can't initialize iptables table \\\`security': Table does not exist (do you need to insmod?)" >&2
exit 3
`,
      0o755,
    );
    await sandbox.run(["ln", "-sf", "iptables-broken", "/usr/sbin/iptables"]);
    const outcome = await operate(sandbox, "firewall");
    expect(outcome.result).toMatchObject({ tool: "nft", after: "ok" });
    expect(outcome.log).toContain("WARNING");
    expect(await reachable(sandbox, 1000)).toBe("53");
  },
);

const firewalld =
  Bun.which("firewalld", { PATH: "/usr/sbin:/usr/bin" }) !== null &&
  Bun.which("dbus-daemon") !== null;
const firewalldTest = testUnless(
  !able.ok ? able.reason : firewalld ? undefined : "firewalld or dbus-daemon is missing",
);

firewalldTest(
  `extensions.md FW-10: with real firewalld the rules survive its reload, a legacy rule is replaced, removal leaves nothing of ours`,
  async () => {
    await using sandbox = await createMachineSandbox({ network: "pair" });
    await listen(sandbox);
    await sandbox.run(["mkdir", "-p", "/run/dbus"]);
    await sandbox.run(["dbus-daemon", "--system", "--fork", "--nopidfile"]);
    sandbox.spawn(["firewalld", "--nofork", "--nopid"]);
    const client = async (...words: readonly string[]): Promise<string> =>
      (await sandbox.run(["firewall-cmd", ...words], { allowFailure: true })).stdout.trim();
    const deadline = performance.now() + 30_000;
    while ((await client("--state")) !== "running") {
      if (performance.now() > deadline) throw new Error("firewalld does not start");
      await Bun.sleep(200);
    }
    const direct = ["--permanent", "--direct"];
    const dns = ["-d", WIRESERVER, "-p", "tcp", "--destination-port", "53", "-j", "ACCEPT"];
    const security = ["ipv4", "-t", "security"];
    await client(...direct, "--passthrough", ...security, "-I", "OUTPUT", ...dns);
    const mine = ["ipv4", "-t", "filter", "-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "DROP"];
    await client(...direct, "--passthrough", ...mine);

    await operate(sandbox, "firewall");
    expect((await operate(sandbox, "firewall-persist")).result).toBe("firewalld");
    const stored = await client(...direct, "--get-all-passthroughs");
    expect(stored.split("\n").map((line) => line.replace(/^ipv4 /, ""))).toEqual([
      "-t filter -A INPUT -p udp --dport 9 -j DROP",
      `-t security -A OUTPUT ${dns.join(" ")}`,
      `-t security -A OUTPUT -d ${WIRESERVER} -p tcp -m owner --uid-owner 0 -j ACCEPT`,
      `-t security -A OUTPUT -d ${WIRESERVER} -p tcp -m conntrack --ctstate INVALID,NEW -j DROP`,
    ]);
    await client("--reload");
    expect(await reachable(sandbox, 1000)).toBe("53");
    expect((await operate(sandbox, "firewall")).result).toMatchObject({ after: "ok" });
    expect(await reachable(sandbox, 1000)).toBe("53");

    await operate(sandbox, "firewall-persist", { remove: true });
    await operate(sandbox, "firewall-remove");
    expect(await client(...direct, "--get-all-passthroughs")).toBe(mine.join(" "));
    await client("--reload");
    expect(await reachable(sandbox, 1000)).toBe("80 32526 53");
  },
);
