import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { GUEST_ADDRESS, type RunResult, type Sandbox } from "./sandbox.ts";

/** A key pair of a person, in a folder of its own. */
export interface PersonalKey extends Disposable {
  readonly privateFile: string;
  /** The line for authorized_keys. */
  readonly publicLine: string;
}

export function createKey(): PersonalKey {
  const folder = mkdtempSync(path.join(tmpdir(), "waagent-key-"));
  const privateFile = path.join(folder, "key");
  const made = Bun.spawnSync([
    "ssh-keygen",
    "-q",
    "-t",
    "ed25519",
    "-N",
    "",
    "-C",
    "fabric",
    "-f",
    privateFile,
  ]);
  if (made.exitCode !== 0) throw new Error(`ssh-keygen failed: ${made.stderr.toString()}`);
  return {
    privateFile,
    publicLine: readFileSync(`${privateFile}.pub`, "utf8").trim(),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** Starts the guest's sshd with what provisioning left, unless the agent's restart of the service did so already. */
export async function startSshd(sandbox: Sandbox): Promise<void> {
  const isListening = async () =>
    (await sandbox.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22"], { allowFailure: true }))
      .code === 0;
  if (await isListening()) return;
  const sshd = sandbox.spawn(["/usr/sbin/sshd", "-D", "-e"]);
  const deadline = performance.now() + 5000;
  while (!(await isListening())) {
    if (performance.now() > deadline) throw new Error(`sshd did not start: ${sshd.output()}`);
    await Bun.sleep(20);
  }
}

/** Logs in from the platform's side over the cable, trusting exactly the host key that the guest has. */
export async function ssh(
  sandbox: Pick<Sandbox, "run" | "scratch" | "platform">,
  user: string,
  key: PersonalKey,
  command: string,
): Promise<RunResult> {
  const known = path.join(sandbox.scratch, "known_hosts");
  const keys = await sandbox.run(["sh", "-c", "cat /etc/ssh/ssh_host_*.pub"]);
  await Bun.write(
    known,
    keys.stdout
      .trim()
      .split("\n")
      .map((line) => `${GUEST_ADDRESS} ${line}\n`)
      .join(""),
  );
  return await sandbox.platform.run(
    [
      "ssh",
      "-F",
      "none",
      "-i",
      key.privateFile,
      "-o",
      "BatchMode=yes",
      "-o",
      "StrictHostKeyChecking=yes",
      "-o",
      `UserKnownHostsFile=${known}`,
      "-o",
      "IdentitiesOnly=yes",
      "-o",
      "ConnectTimeout=5",
      `${user}@${GUEST_ADDRESS}`,
      command,
    ],
    { allowFailure: true, timeoutMs: 15_000 },
  );
}
