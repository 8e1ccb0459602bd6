import { afterAll, beforeAll, expect } from "bun:test";
import type { Diagnosis } from "../../src/cli/doctor/diagnose.ts";
import type { Finding, FindingId } from "../../src/cli/doctor/finding.ts";
import { DEMO_PACKAGE, demoExtension, firstBoot } from "../fabric/scenarios.ts";
import { missing, testUnless } from "../support/skip.ts";
import { AGENT_CONF, startGuest, type Guest } from "./guest.ts";
import { canSandbox } from "./sandbox.ts";

/**
 * Each fault is made for real in a VM that was well before, the doctor must name it by what caused it, and must find
 * nothing once it is gone.
 */
const able = canSandbox();
const doctorTest = testUnless(
  able.ok
    ? missing({ programs: ["useradd", "openssl", "ip", "iptables", "getent", "setpriv"] })
    : able.reason,
);

let guest: Guest;
const LIB = "/var/lib/waagent";
const BASE = `${LIB}/Fabric.Demo-1.0.0`;

if (able.ok) {
  beforeAll(async () => {
    guest = await startGuest(firstBoot());
    await guest.until("status:Fabric.Demo=success", { timeoutMs: 40_000 });
  }, 60_000);
  afterAll(async () => {
    await guest[Symbol.asyncDispose]();
  });
}

interface Told extends Diagnosis {
  readonly code: number;
}

async function ask(on: Guest = guest, ...prefix: readonly string[]): Promise<Told> {
  const argv = [...prefix, "/usr/sbin/waagent", "doctor", "--json"];
  const { stdout, stderr, code } = await on.sandbox.run(argv, { allowFailure: true });
  if (stdout === "") throw new Error(`The doctor said nothing, code ${code}: ${stderr}`);
  return { ...(JSON.parse(stdout) as Diagnosis), code };
}

/** What it says of this kind; there must be exactly one, and it must have said that something was found. */
async function finding(id: FindingId, on: Guest = guest): Promise<Finding> {
  const { findings, code } = await ask(on);
  const found = findings.filter((one) => one.id === id);
  expect({ code, found: found.length, all: findings.map((one) => one.id) }).toEqual({
    code: 2,
    found: 1,
    all: expect.anything(),
  });
  expect(found[0]!.next).not.toBe("");
  return found[0]!;
}

const sh = (script: string): Promise<unknown> => guest.sandbox.run(["sh", "-ec", script]);

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let attempt = 0; attempt < 400; attempt += 1) {
    if (condition()) return;
    await Bun.sleep(50);
  }
  throw new Error(`There was not ${what} within 20 s`);
}

async function whole(): Promise<void> {
  const { findings } = await ask();
  expect(findings).toEqual([]);
}

doctorTest(
  "a machine that is well: nothing found, exit 0, at once, and nothing changed",
  async () => {
    const requests = guest.fabric.violations.length;
    const before = guest.sandbox.changes().map((one) => one.path);
    const began = performance.now();
    const { findings, well, unseen, code } = await ask();
    expect(performance.now() - began).toBeLessThan(5000);
    expect({ findings, unseen, code }).toEqual({ findings: [], unseen: [], code: 0 });
    expect(well).toContain("a route leads to the WireServer");
    expect(well).toContain("names are resolved");
    expect(well).toContain("permissions for storage are valid");
    expect(well).toContain("protected settings can be decrypted");
    const made = guest.sandbox.changes().filter((one) => !before.includes(one.path));
    expect(made.filter((one) => !one.path.startsWith(LIB) && one.path !== "/run/waagent")).toEqual(
      [],
    );
    // The only request that the platform does not know is the HEAD for an account.
    const odd = guest.fabric.violations.slice(requests).map((one) => JSON.stringify(one));
    expect(odd.filter((one) => !one.includes("HEAD"))).toEqual([]);
  },
  60_000,
);

doctorTest(
  "without root it says what it could not look at, and shows nothing secret",
  async () => {
    const user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    const { findings, unseen, well } = await ask(guest, ...user);
    expect(findings).toEqual([]);
    expect(unseen).toContain(`files of extensions below ${LIB}: they are for root`);
    expect(well).not.toContain("protected settings can be decrypted");
    expect(well).toContain("names are resolved");
  },
  60_000,
);

doctorTest(
  "no route",
  async () => {
    await sh("ip route del default");
    const { object, reason } = await finding("no-route");
    expect({ object, reason }).toEqual({
      object: "168.63.129.16",
      reason: "the route table has only networks of eth0, and no default route",
    });
    await sh("ip route add default via 10.0.0.1");
    await whole();
  },
  60_000,
);

doctorTest(
  "DNS",
  async () => {
    const hosts = guest.sandbox.read("/etc/hosts");
    guest.sandbox.write("/etc/hosts", "127.0.0.1 localhost\n");
    const { findings } = await ask();
    expect(findings.map(({ id, object }) => `${id} ${object}`)).toEqual([
      "dns stor1.blob.fabric.test",
      "dns stor2.blob.fabric.test",
    ]);
    expect(findings[0]!.reason).toContain("asked: 10.0.0.1");
    guest.sandbox.write("/etc/hosts", hosts);
    await whole();
  },
  60_000,
);

doctorTest(
  "proxy 407",
  async () => {
    const proxy = guest.sandbox.platform.spawn([
      process.execPath,
      "-e",
      `require("net").createServer((socket) => socket.on("error", () => 0).once("data", () =>
        socket.end("HTTP/1.1 407 Proxy Authentication Required\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n"),
      )).listen(3128, "10.0.0.1", () => console.log("listening"))`,
    ]);
    await until(() => proxy.output().includes("listening"), "a proxy");
    guest.sandbox.write(
      "/etc/waagent.conf",
      `${AGENT_CONF}HttpProxy.Host=10.0.0.1\nHttpProxy.Port=3128\n`,
    );
    const { object, next } = await finding("proxy-407");
    expect(object).toBe("10.0.0.1:3128");
    expect(next).toContain("HttpProxy.Host");
    guest.sandbox.write("/etc/waagent.conf", AGENT_CONF);
    await proxy.kill();
    await whole();
  },
  60_000,
);

doctorTest(
  "firewall self-block",
  async () => {
    const rule = "OUTPUT -d 168.63.129.16 -p tcp -m conntrack --ctstate INVALID,NEW -j DROP";
    await sh(`iptables -w -t security -A ${rule}`);
    const { object, reason } = await finding("firewall-self-block");
    expect(object).toBe("168.63.129.16");
    expect(reason).toContain("iptables -t security: -A OUTPUT -d 168.63.129.16/32");
    await sh(`iptables -w -t security -D ${rule}`);
    await whole();
  },
  60_000,
);

doctorTest(
  "disk full",
  async () => {
    await sh(`mount -t tmpfs -o size=64k tmpfs /var/log/azure`);
    const { object } = await finding("disk-full");
    expect(object).toBe("/var/log/azure");
    await sh("umount /var/log/azure");
    await whole();
  },
  60_000,
);

doctorTest(
  "noexec",
  async () => {
    await sh(`mount --bind ${LIB} ${LIB}; mount -o remount,bind,noexec ${LIB}`);
    const { object, reason } = await finding("noexec");
    expect(object).toBe(LIB);
    expect(reason).toContain("is mounted with noexec");
    await sh(`umount ${LIB}`);
    await whole();
  },
  60_000,
);

doctorTest(
  "certificate mismatch: a key that is not there, and one of another certificate",
  async () => {
    const settings = guest.sandbox.read(`${BASE}/config/0.settings`);
    const [, thumbprint = ""] = /Thumbprint": "([0-9A-F]{40})"/.exec(settings) ?? [];
    const key = `${LIB}/${thumbprint}.prv`;
    await sh(`mv ${key} /run/key; mv ${LIB}/${thumbprint}.crt /run/crt`);
    expect(await finding("certificate-mismatch")).toMatchObject({
      object: "Fabric.Demo",
      reason: `it is encrypted for the certificate ${thumbprint}, which this machine does not hold`,
    });
    await sh(`mv /run/crt ${LIB}/${thumbprint}.crt; openssl genrsa -out ${key} 2048 2>/dev/null`);
    expect((await finding("certificate-mismatch")).reason).toContain("is not that of");
    await sh(`mv /run/key ${key}`);
    await whole();
  },
  60_000,
);

doctorTest(
  "wrong architecture",
  async () => {
    const file = `${BASE}/bin/enable.sh`;
    // The head of a real program with the number of another machine.
    await sh(
      `mv ${file} /run/enable; cp /bin/true ${file}; printf '\\026\\000' | dd of=${file} bs=1 seek=18 conv=notrunc status=none`,
    );
    expect(await finding("wrong-architecture")).toMatchObject({
      object: "Fabric.Demo",
      reason: "it is a program for s390x, this machine is x86_64",
    });
    await sh(`mv /run/enable ${file}`);
    await whole();
  },
  60_000,
);

doctorTest(
  "missing interpreter: of a script, and behind env",
  async () => {
    const file = `${BASE}/bin/enable.sh`;
    const script = guest.sandbox.read(file);
    for (const [line, missed] of [
      ["#!/usr/bin/python2.7", "its interpreter /usr/bin/python2.7 does not exist"],
      ["#!/usr/bin/env python2.7", "its interpreter python2.7 is not in "],
      ["#!/bin/sh\r", "its first line ends with a carriage return"],
    ] as const) {
      guest.sandbox.write(file, `${line}\n`, 0o755);
      const { object, reason } = await finding("missing-interpreter");
      expect(object).toBe("Fabric.Demo");
      expect(reason).toStartWith(missed);
    }
    guest.sandbox.write(file, script, 0o755);
    await whole();
  },
  60_000,
);

doctorTest(
  "malformed status file",
  async () => {
    const file = `${BASE}/status/0.status`;
    const status = guest.sandbox.read(file);
    guest.sandbox.write(file, '[{"status": {"operation": "enable"}]', 0o600);
    const { object, problem } = await finding("malformed-status");
    expect(object).toBe("Fabric.Demo");
    expect(problem).toContain(file);
    guest.sandbox.write(file, status, 0o600);
    await guest.until("status:Fabric.Demo=success", { after: guest.fabric.events.at(-1)!.at + 1 });
    await whole();
  },
  60_000,
);

doctorTest(
  "stale heartbeat",
  async () => {
    const manifest = guest.sandbox.read(`${BASE}/HandlerManifest.json`);
    const file = `${BASE}/heartbeat.log`;
    guest.sandbox.write(
      `${BASE}/HandlerManifest.json`,
      manifest.replace('"reportHeartbeat": false', '"reportHeartbeat": true'),
    );
    guest.sandbox.write(
      file,
      '[{"version": 1.0, "heartbeat": {"status": "ready", "code": 0, "formattedMessage": {"lang": "en", "message": "up"}}}]',
    );
    await sh(`touch -d '-11 minutes' ${file}`);
    expect(await finding("stale-heartbeat")).toMatchObject({
      object: "Fabric.Demo",
      problem: "its heartbeat is older than 10 min",
    });
    guest.sandbox.write(`${BASE}/HandlerManifest.json`, manifest);
    await sh(`rm ${file}`);
    await Bun.sleep(1500);
    await whole();
  },
  60_000,
);

doctorTest(
  "policy deny; the policy's own judge says the same",
  async () => {
    const policy = (names: string): string =>
      `{"policyVersion": "0.1.0", "extensionPolicies": {"allowListedExtensionsOnly": true, "extensions": {${names}}}}`;
    guest.sandbox.write("/etc/waagent_policy.json", policy('"Contoso.Other": {}'));
    guest.sandbox.write("/etc/waagent.conf", `${AGENT_CONF}Debug.EnableExtensionPolicy=y\n`);
    expect(await finding("policy-deny")).toMatchObject({
      object: "Fabric.Demo",
      reason: "/etc/waagent_policy.json has allowListedExtensionsOnly and does not list it",
    });
    const judge = () =>
      guest.sandbox.run(["/usr/sbin/waagent", "policy", "check"], { allowFailure: true });
    const judged = await judge();
    expect(judged.code).toBe(0);
    expect(judged.stdout).toStartWith("/etc/waagent_policy.json: no problems\n");
    expect(judged.stdout).toContain("  Fabric.Demo: NOT allowed");
    guest.sandbox.write(
      "/etc/waagent_policy.json",
      policy('"fabric.demo": {"signatureRequired": 1}'),
    );
    expect(await judge()).toMatchObject({
      code: 1,
      stdout:
        "/etc/waagent_policy.json: /extensionPolicies/extensions/fabric.demo/signatureRequired must be true or false, it is the number 1\n",
    });
    expect((await finding("policy-invalid")).object).toBe("/etc/waagent_policy.json");
    guest.sandbox.write("/etc/waagent.conf", AGENT_CONF);
    await sh("rm /etc/waagent_policy.json");
    await whole();
  },
  60_000,
);

doctorTest(
  "expired SAS: the goal state's permission has ended",
  async () => {
    await using other = await startGuest({
      ...firstBoot(),
      goalStates: [
        { incarnation: "1", sasExpiry: "2026-01-02T03:04:05Z", extensions: [demoExtension()] },
      ],
    });
    await other.until("ready");
    await other.until("vm-settings");
    await until(
      () => other.sandbox.read("/run/waagent/status.json").includes("expiresAt"),
      "the daemon's account of storage",
    );
    expect(await finding("sas-expired", other)).toMatchObject({
      object: "https://stor1.blob.fabric.test",
      problem: "the permission for the status blob has ended",
      reason: "the goal state's signature was good until 2026-01-02T03:04:05Z",
    });
  },
  60_000,
);

doctorTest(
  "clock skew: the platform is two hours ahead",
  async () => {
    await using other = await startGuest({ ...firstBoot(), clockOffsetMs: 2 * 3600_000 });
    await other.until("ready");
    expect(await finding("clock-skew", other)).toMatchObject({
      object: "the system clock",
      problem: "it is 120 min behind",
    });
  },
  60_000,
);

doctorTest(
  "extensions.md EXT-71: a command that runs into its time limit",
  async () => {
    await using other = await startGuest({
      ...firstBoot(),
      packages: [{ ...DEMO_PACKAGE, scripts: { enable: "sleep 1000" } }],
    });
    const journal = `${LIB}/extensions/journal/fabric.demo.json`;
    await until(
      () => other.sandbox.exists(journal) && other.sandbox.read(journal).includes('"startedAt"'),
      "the journal of enable",
    );
    await other.sandbox.run([
      "sh",
      "-c",
      "until pgrep -xf 'sleep 1000' >/dev/null; do sleep 0.05; done",
    ]);
    other.agent.signal("SIGKILL");
    await other.agent.exited;
    // As if it had begun 299 s ago: the next agent waits for it for the rest of its 300 s.
    const data = JSON.parse(other.sandbox.read(journal)) as { runs: { startedAt: number }[] };
    for (const run of data.runs) run.startedAt -= 299_000;
    other.sandbox.write(journal, JSON.stringify(data), 0o600);
    other.restart();
    await until(
      () => other.sandbox.read("/run/waagent/status.json").includes("Timeout(300)"),
      "the time-out in the daemon's account",
    );
    expect(await finding("command-timeout", other)).toMatchObject({
      object: "Fabric.Demo",
      problem: "its command did not end in 300 s and was ended",
      reason: `${BASE}/bin/enable.sh`,
    });
  },
  120_000,
);
