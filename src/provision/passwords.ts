import { randomInt } from "node:crypto";
import { crypt, isNativeCryptId, MAX_PASSWORD_BYTES } from "../base/crypt.ts";
import { AgentError, isAgentError } from "../base/error.ts";
import { Secret } from "../base/secret.ts";
import type { Config } from "../config/table.ts";
import type { Distro } from "../distro/distro.ts";
import type { SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { refuseSystemUser, type Account } from "./accounts.ts";
import { systemCrypt } from "./system-crypt.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "clock">;

const LOCK_RETRIES = 5;
const LOCK_RETRY_MS = 1000;

type PasswordConfig = Pick<
  Config,
  | "Provisioning.PasswordCryptId"
  | "Provisioning.PasswordCryptSaltLength"
  | "Provisioning.AllowResetSysUser"
  | "OS.PasswordPath"
>;

/**
 * Sets the password of an account. Neither it nor its hash is ever an argument (DB-07).
 * Errors: AgentError "os-utility"; nothing is changed when the hash cannot be made as configured.
 */
export async function setPassword(
  system: Machine,
  distro: Distro,
  account: Account,
  options: { password: Secret; config: PasswordConfig },
): Promise<void> {
  const { password, config } = options;
  if (!config["Provisioning.AllowResetSysUser"]) await refuseSystemUser(system, distro, account);
  const hash = await hashPassword(system, password, {
    id: config["Provisioning.PasswordCryptId"],
    saltLength: config["Provisioning.PasswordCryptSaltLength"],
  });
  await applyHash(system, distro, account.name, hash);
  if (!hasHash(system, config["OS.PasswordPath"] as SystemPath, account.name, hash))
    throw new AgentError(
      "os-utility",
      `The password of ${account.name} was set, but ${config["OS.PasswordPath"]} does not have it`,
    );
}

/** A crypt(3) hash by the configured method. Errors: AgentError "os-utility" when the system cannot produce it. */
export async function hashPassword(
  system: Pick<System, "exec">,
  password: Secret,
  method: { readonly id: string; readonly saltLength: number },
): Promise<Secret> {
  const bytes = Buffer.byteLength(password.reveal());
  if (bytes > MAX_PASSWORD_BYTES)
    throw new AgentError(
      "os-utility",
      `The password has ${bytes} bytes, but the system accepts at most ${MAX_PASSWORD_BYTES}`,
    );
  if (isNativeCryptId(method.id))
    return new Secret(crypt(method.id, password.reveal(), randomSalt(method.saltLength)));
  return systemCrypt(system, password, method.id);
}

const SALT_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** Characters from `[A-Za-z0-9]` of a cryptographic generator (USER-11, DB-07). */
export function randomSalt(length: number): string {
  return Array.from({ length }, () => SALT_ALPHABET[randomInt(SALT_ALPHABET.length)]).join("");
}

/** Puts a finished hash (or `*`: no password, but not locked) into the password database, by standard input. */
export async function applyHash(
  system: Pick<System, "exec" | "clock">,
  distro: Pick<Distro, "userTool" | "adapter">,
  name: string,
  hash: Secret,
): Promise<void> {
  const bsd = distro.userTool === "pw";
  // OpenBSD takes hashes only as an argument of usermod, where every user of the machine could read them.
  if (distro.userTool === "unsupported" || distro.userTool === "openbsd-useradd")
    throw new AgentError("not-supported", `Passwords cannot be set on ${distro.adapter}`);
  const argv = bsd ? ["pw", "usermod", name, "-H", "0"] : ["chpasswd", "-e"];
  const stdin = new Secret(bsd ? `${hash.reveal()}\n` : `${name}:${hash.reveal()}\n`);
  for (let attempt = 1; ; attempt += 1) {
    try {
      await system.exec.run({ argv, stdin, timeoutMs: 60_000 });
      return;
    } catch (error) {
      // Exit code 1 also means that somebody else has the password file locked.
      if (attempt < LOCK_RETRIES && isAgentError(error, "exec") && error.status === 1) {
        await system.clock.sleep(LOCK_RETRY_MS);
        continue;
      }
      throw new AgentError("os-utility", `Failed to set the password of ${name}`, { cause: error });
    }
  }
}

/** A database that does not list the account (a directory's) has nothing to compare with. */
function hasHash(
  system: Pick<System, "files">,
  database: SystemPath,
  name: string,
  hash: Secret,
): boolean {
  const entry = entryOf(system, database, name);
  return entry === undefined || entry === hash.reveal();
}

function entryOf(
  system: Pick<System, "files">,
  database: SystemPath,
  name: string,
): string | undefined {
  const line = (system.files.readTextIfExists(database) ?? "")
    .split("\n")
    .find((candidate) => candidate.startsWith(`${name}:`));
  return line?.split(":")[1];
}

/**
 * An account without password that keys can open. `!` is what account tools leave, and an sshd without PAM, as
 * BusyBox systems have it, refuses such an account altogether; `*` fits no password either and is no lock.
 */
export async function openForKeys(
  system: Machine,
  distro: Distro,
  account: Account,
  options: { readonly config: Pick<Config, "OS.PasswordPath"> },
): Promise<void> {
  if (distro.adapter !== "Alpine") return;
  const database = options.config["OS.PasswordPath"] as SystemPath;
  if (entryOf(system, database, account.name) === "!")
    await applyHash(system, distro, account.name, new Secret("*"));
}
