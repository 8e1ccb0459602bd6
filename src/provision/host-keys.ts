import { AgentError, describe, isAgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { fingerprintOf } from "./public-key.ts";

type Machine = Pick<System, "exec" | "files" | "log">;
type HostKeyConfig = Pick<Config, "OS.SshDir" | "Provisioning.SshHostKeyPairType">;

/** Where new keys wait until all of them are there. */
const WAITING = ".waagent-host-keys";
const ALL_TYPES = ["rsa", "ecdsa", "ed25519"] as const;
const GENERATE_TIMEOUT_MS = 300_000;

/** Name of the key whose fingerprint is told: `auto` counts as `rsa` (SSH-02). */
export function primaryKeyType(config: HostKeyConfig): string {
  const type = config["Provisioning.SshHostKeyPairType"].trim();
  return type === "auto" || type === "" ? "rsa" : type;
}

/** The public half of that key. */
export function primaryPublicKey(config: HostKeyConfig): SystemPath {
  return join(config["OS.SshDir"] as SystemPath, `ssh_host_${primaryKeyType(config)}_key.pub`);
}

/** All types for `auto` and for the default `rsa`, whose machines would otherwise lose the better ones (DB-12). */
function wantedTypes(config: HostKeyConfig): { required: string; also: readonly string[] } {
  const required = primaryKeyType(config);
  return {
    required,
    also: required === "rsa" ? ALL_TYPES.filter((type) => type !== required) : [],
  };
}

/**
 * Makes new host keys in a waiting room. The keys in use are not touched, so it may run beside other steps.
 * Errors: AgentError "provision" when the configured type cannot be made; others are only a WARNING.
 */
export async function generateHostKeys(system: Machine, config: HostKeyConfig): Promise<void> {
  const room = waitingRoom(config);
  system.files.remove(room);
  if (!system.files.exists(config["OS.SshDir"] as SystemPath))
    system.files.makeDirectory(config["OS.SshDir"] as SystemPath);
  system.files.makeDirectory(room, { mode: 0o700 });
  const { required, also } = wantedTypes(config);
  const outcomes = await Promise.all(
    [required, ...also].map(async (type) => {
      try {
        await generate(system, join(room, `ssh_host_${type}_key`), type);
        return undefined;
      } catch (error) {
        return { type, error };
      }
    }),
  );
  for (const outcome of outcomes) {
    if (outcome === undefined) continue;
    if (outcome.type === required) {
      system.files.remove(room);
      throw new AgentError(
        "provision",
        `Could not make an SSH host key of the type ${required}; the old keys are still in place`,
        { cause: outcome.error },
      );
    }
    system.log.warning(
      `Could not make an SSH host key of the type ${outcome.type}: ${describe(outcome.error)}`,
    );
  }
}

async function generate(system: Machine, file: SystemPath, type: string): Promise<void> {
  if (!/^[a-z0-9-]+$/.test(type))
    throw new AgentError("provision", `${JSON.stringify(type)} is not a type of SSH host key`);
  await system.exec.run({
    argv: ["ssh-keygen", "-q", "-N", "", "-C", "", "-t", type, "-f", system.files.realPath(file)],
    timeoutMs: GENERATE_TIMEOUT_MS,
  });
}

/**
 * Puts the waiting keys in the place of all old ones, host certificates included (SSH-01, DB-12). New keys come
 * first, so there is a key at every instant. Safe to repeat: with no keys waiting it does nothing.
 */
export async function swapHostKeys(
  system: Machine,
  config: Pick<Config, "OS.SshDir"> & HostKeyConfig,
): Promise<void> {
  const directory = config["OS.SshDir"] as SystemPath;
  const room = waitingRoom(config);
  const fresh = system.files.list(room);
  if (fresh.length === 0) return;
  // Private halves first: a public half without its private one would announce a key nobody has.
  for (const name of fresh.toSorted(
    (a, b) => Number(a.endsWith(".pub")) - Number(b.endsWith(".pub")),
  ))
    system.files.write(join(directory, name), system.files.read(join(room, name)), {
      mode: name.endsWith(".pub") ? 0o644 : 0o600,
    });
  for (const file of hostKeyFiles(system, config))
    if (!fresh.includes(nameOf(file))) system.files.remove(file);
  system.files.remove(room);
  if (system.exec.find("restorecon") !== undefined) {
    try {
      await system.exec.run({ argv: ["restorecon", "-R", directory] });
    } catch (error) {
      system.log.verbose(`Could not set SELinux labels in ${directory}: ${describe(error)}`);
    }
  }
}

function waitingRoom(config: Pick<Config, "OS.SshDir">): SystemPath {
  return join(config["OS.SshDir"] as SystemPath, WAITING);
}

/** `ssh_host_*key*` of the SSH directory (SSH-01, DEPROV-11). */
export function hostKeyFiles(
  system: Pick<System, "files">,
  config: Pick<Config, "OS.SshDir">,
): SystemPath[] {
  return system.files.glob(join(config["OS.SshDir"] as SystemPath, "ssh_host_*key*"));
}

/** Fingerprints of every public host key: file name and `SHA256:...`. Unreadable ones are left out. */
export function hostKeyFingerprints(
  system: Pick<System, "files">,
  config: Pick<Config, "OS.SshDir">,
): { readonly type: string; readonly fingerprint: string }[] {
  return system.files
    .glob(join(config["OS.SshDir"] as SystemPath, "ssh_host_*_key.pub"))
    .flatMap((file) => {
      const type = /^ssh_host_(.*)_key\.pub$/.exec(nameOf(file))?.[1] ?? "";
      try {
        return [{ type, fingerprint: fingerprintOf(system.files.readText(file)) }];
      } catch {
        return []; // only shown to people; the one that matters is read by primaryFingerprint
      }
    });
}

/**
 * Fingerprint of the configured host key without its colon, `SHA256<base64>` (SSH-05).
 * Errors: AgentError "provision" when there is no such key (ERR-07).
 */
export function primaryFingerprint(system: Pick<System, "files">, config: HostKeyConfig): string {
  const file = primaryPublicKey(config);
  try {
    return fingerprintOf(system.files.readText(file)).replaceAll(":", "");
  } catch (error) {
    throw new AgentError(
      "provision",
      isAgentError(error) && error.errno === "ENOENT"
        ? `There is no SSH host key ${file}`
        : `Could not read the SSH host key ${file}`,
      { cause: error },
    );
  }
}

/** Removes new keys that will not be used. */
export function discardWaitingHostKeys(
  system: Pick<System, "files" | "log">,
  config: Pick<Config, "OS.SshDir">,
): void {
  try {
    system.files.remove(waitingRoom(config));
  } catch (error) {
    system.log.verbose(describe(error));
  }
}
