import { expect } from "bun:test";
import { testUnless } from "../support/skip.ts";
import { existsSync, readFileSync } from "node:fs";
import { canSandbox, createSandbox, isAlive } from "./sandbox.ts";

const able = canSandbox();
const sandboxTest = testUnless(able.ok ? undefined : able.reason);

sandboxTest(
  `a user made in a sandbox exists there and is listed as a change, not on the machine`,
  async () => {
    const before = readFileSync("/etc/passwd", "utf8");
    await using sandbox = await createSandbox();
    await sandbox.run(["useradd", "-m", "sandboxed"]);
    expect((await sandbox.run(["id", "-un", "sandboxed"])).stdout).toBe("sandboxed\n");
    expect(readFileSync("/etc/passwd", "utf8")).toBe(before);
    const changes = new Map(sandbox.changes().map((change) => [change.path, change]));
    expect(changes.get("/etc/shadow")?.mode).toBe(0o640);
    expect(changes.get("/home/sandboxed")?.kind).toBe("directory");
    await sandbox.run(["rm", "/etc/hostname"]);
    expect(sandbox.changes().find((change) => change.path === "/etc/hostname")?.kind).toBe(
      "deleted",
    );
  },
);

sandboxTest(
  `a sandbox hides host keys and the agent's state, has safe devices and no route out`,
  async () => {
    await using sandbox = await createSandbox();
    const devices = await sandbox.run(
      ["sh", "-c", "find /dev -type b; ls /etc/ssh/ssh_host_* /var/lib/waagent/* 2>/dev/null"],
      { allowFailure: true },
    );
    expect(devices.stdout).toBe("");
    expect((await sandbox.run(["sh", "-c", "echo hello > /dev/stdout"])).stdout).toBe("hello\n");
    expect((await sandbox.run(["ip", "route"])).stdout).toBe("");
  },
);

sandboxTest(
  `the cable joins guest and platform; processes are killed by id; nothing stays`,
  async () => {
    let pid: number;
    let scratch: string;
    {
      await using sandbox = await createSandbox({
        network: "pair",
        binds: [{ from: import.meta.dir, to: "/opt/tests" }],
      });
      ({ pid, scratch } = sandbox);
      const server = sandbox.platform.spawn([
        process.execPath,
        "-e",
        'Bun.serve({ hostname: "168.63.129.16", port: 80, fetch: () => new Response("wire") }); console.log("up")',
      ]);
      while (!server.output().includes("up")) await Bun.sleep(10);
      const answer = await sandbox.run([
        "bash",
        "-c",
        "exec 3<>/dev/tcp/168.63.129.16/80; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
      ]);
      expect(answer.stdout).toEndWith("wire");
      expect(sandbox.exists("/opt/tests/sandbox.ts")).toBe(true);
      const readOnly = await sandbox.run(["touch", "/opt/tests/x"], { allowFailure: true });
      expect(readOnly.code).toBe(1);
      const sleeper = sandbox.spawn([
        "sh",
        "-c",
        "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done",
      ]);
      while (!sleeper.output().includes("up")) await Bun.sleep(10);
      sleeper.signal("SIGTERM");
      expect(await sleeper.exited).toBe(3);
      expect(sleeper.output()).toBe("up\ngot\n");
      sandbox.spawn(["sleep", "1000"]);
      sandbox.platform.spawn(["sleep", "1000"]);
    }
    expect(existsSync(scratch)).toBe(false);
    expect(isAlive(Number(pid))).toBe(false);
    expect(readFileSync("/proc/self/mounts", "utf8")).not.toContain("waagent-sandbox-");
  },
);

sandboxTest(`a sandbox ends with the process that made it, also when that is killed`, async () => {
  const script = `import { createSandbox } from ${JSON.stringify(import.meta.dir + "/sandbox.ts")};
    const s = await createSandbox({ network: "pair" }); s.spawn(["sleep", "1000"]); console.log(s.pid, s.scratch); await Bun.sleep(60000);`;
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe" });
  const reader = child.stdout.getReader();
  const line = new TextDecoder().decode((await reader.read()).value);
  const [pid, scratch] = line.trim().split(" ");
  expect(isAlive(Number(pid))).toBe(true);
  child.kill("SIGKILL");
  const deadline = Date.now() + 4000;
  while (isAlive(Number(pid)) && Date.now() < deadline) await Bun.sleep(20);
  expect(isAlive(Number(pid))).toBe(false);
  await Bun.sleep(100);
  expect(existsSync(`${scratch}/fs`)).toBe(false);
  if (existsSync(scratch!)) rmSyncQuietly(scratch!);
});

function rmSyncQuietly(directory: string): void {
  Bun.spawnSync(["rm", "-rf", "--one-file-system", directory]);
}
