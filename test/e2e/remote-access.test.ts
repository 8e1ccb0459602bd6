import { expect } from "bun:test";
import { testUnless } from "../support/skip.ts";
import path from "node:path";
import type { RemoteAccessStep } from "./drivers/remote-access.ts";
import { canSandbox, createSandbox, type Sandbox } from "./sandbox.ts";

const REPOSITORY = path.resolve(import.meta.dir, "../..");
const able = canSandbox();
const sandboxTest = testUnless(able.ok ? undefined : able.reason);
const KEY = "/var/lib/waagent/TransportPrivate.pem";
const PASSWORD = 'Ünicode pass, 中 "quoted"';

async function machine(): Promise<Sandbox> {
  const box = await createSandbox({
    binds: [
      { from: REPOSITORY, to: "/opt/waagent-source" },
      { from: process.execPath, to: "/opt/bun" },
    ],
  });
  box.write("/run/waagent-sandbox", "");
  await box.run(["mkdir", "-p", "/var/lib/waagent"]);
  await box.run(
    `openssl req -x509 -nodes -newkey rsa:2048 -subj /CN=LinuxTransport -days 1 -keyout ${KEY} -out /run/cert.pem`.split(
      " ",
    ),
  );
  return box;
}

async function user(box: Sandbox, name: string, expires: Date): Promise<string> {
  await box.run(
    "openssl cms -encrypt -binary -aes128 -outform DER -out /run/envelope /run/cert.pem".split(" "),
    { stdin: Buffer.from(PASSWORD, "utf16le") },
  );
  const envelope = (await box.run(["base64", "-w0", "/run/envelope"])).stdout;
  const when = expires.toUTCString().replace("GMT", "UTC");
  return `<User><Name>${name}</Name><Password>${envelope}</Password><Expiration>${when}</Expiration></User>`;
}
const document = (...users: string[]): string =>
  `<RemoteAccess><Version>1</Version><Incarnation>1</Incarnation><Users>${users.join("")}</Users></RemoteAccess>`;

const run = (box: Sandbox, ...steps: RemoteAccessStep[]) =>
  box.run([
    "/opt/bun",
    "/opt/waagent-source/test/e2e/drivers/remote-access.ts",
    JSON.stringify(steps),
  ]);

sandboxTest(
  `wire-protocol.md JIT-03 JIT-07 JIT-08 JIT-09 JIT-10 DB-11: a real account with its real password comes and goes`,
  async () => {
    await using box = await machine();
    const before = { passwd: box.read("/etc/passwd"), shadow: box.read("/etc/shadow") };
    const inAnHour = new Date(Date.now() + 3600_000);
    const wanted = document(await user(box, "jit1", inAnHour), await user(box, "jit12", inAnHour));

    const made = await run(box, { incarnation: "1", document: wanted });
    expect(made.stdout).not.toContain(PASSWORD);
    const entry = box
      .read("/etc/passwd")
      .split("\n")
      .find((line) => line.startsWith("jit1:"));
    expect(entry?.split(":")[4]).toBe("JIT_Account");
    expect((await box.run(["stat", "-c", "%U", "/home/jit1"])).stdout).toBe("jit1\n");
    const [, hash = "", , , , , , expiry = ""] =
      box
        .read("/etc/shadow")
        .split("\n")
        .find((line) => line.startsWith("jit1:"))
        ?.split(":") ?? [];
    const tomorrow = new Date(inAnHour.getTime() + 24 * 3600_000).toISOString().slice(0, 10);
    expect(Number(expiry)).toBe(Date.parse(tomorrow) / (24 * 3600_000));
    // The machine's own crypt(3) must come to the same hash.
    const check = await box.run(
      ["perl", "-e", "my $p = <STDIN>; print crypt($p, $ARGV[0])", hash],
      { stdin: PASSWORD },
    );
    expect(check.stdout).toBe(hash);
    expect(box.read("/etc/sudoers.d/waagent")).toBe("jit1 ALL=(ALL) ALL\njit12 ALL=(ALL) ALL\n");

    // One is dropped; then the other one's hour is over, without a new goal state.
    const rest = document(await user(box, "jit12", inAnHour));
    await run(
      box,
      { incarnation: "2", document: rest },
      { incarnation: "2", document: rest, laterMs: 3600_000 + 1000 },
    );
    expect(box.read("/etc/passwd")).toBe(before.passwd);
    expect(box.read("/etc/shadow")).toBe(before.shadow);
    expect(box.exists("/home/jit1")).toBe(false);
    expect(box.exists("/home/jit12")).toBe(false);
    expect(box.exists("/etc/sudoers.d/waagent")).toBe(false);
  },
  60_000,
);

sandboxTest(
  `wire-protocol.md DB-10 JIT-11 JIT-13: users of the machine are as they were, whatever the platform lists`,
  async () => {
    await using box = await machine();
    await box.run(["useradd", "-m", "-c", "a person", "person"]);
    await box.run(["chpasswd"], { stdin: "person:theirs\n" });
    const before = { passwd: box.read("/etc/passwd"), shadow: box.read("/etc/shadow") };
    const later = new Date(Date.now() + 3600_000);
    const past = new Date(Date.now() - 3600_000);
    const result = await run(
      box,
      {
        incarnation: "1",
        document: document(await user(box, "person", later), await user(box, "root", later)),
      },
      {
        incarnation: "2",
        document: document(await user(box, "person", past), await user(box, "daemon", past)),
      },
      { incarnation: "3", document: null },
    );
    expect(box.read("/etc/passwd")).toBe(before.passwd);
    expect(box.read("/etc/shadow")).toBe(before.shadow);
    expect(box.exists("/home/person")).toBe(true);
    expect(box.exists("/etc/sudoers.d/waagent")).toBe(false);
    expect(result.stdout).toContain("person is skipped: a user of this machine has that name");
    expect(box.read("/run/events")).toContain("RemoteAccessHandling");
  },
  60_000,
);
